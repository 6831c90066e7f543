//! `SHA256SUMS` beside a model file: what its owner says that the files are.
//!
//! Where the file is there, the model and every file of external data must be in it and be as it says; without it
//! nothing is checked. A flipped bit often leaves a file that an engine loads. Not here: who wrote the sums.
//!
//! # Source
//! `sha256sum` of GNU coreutils, whose output it is.
use super::read;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fmt::Write as _,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Name of the file.
pub(crate) const FILE: &str = "SHA256SUMS";

/// A larger one is refused unread, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// A file is not what the sums say.
#[derive(Debug, thiserror::Error)]
pub enum SumError {
    /// The sums or a file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /** Which. */
        path: PathBuf,
        /** Why. */
        source: io::Error,
    },
    /// The sums are not as `sha256sum` writes them.
    #[error("{}: line {line} is not 64 hexadecimal digits, two blanks and a file's name, as sha256sum writes it", path.display())]
    Line {
        /** The sums. */
        path: PathBuf,
        /** Counted from 1. */
        line: usize,
    },
    /// The sums are too large to be that.
    #[error("{} has more than {MOST_BYTES} bytes", path.display())]
    TooLarge {
        /** The sums. */
        path: PathBuf,
    },
    /// A file of the model is not in them.
    #[error("{} does not name {file}, which belongs to the model; run sha256sum again over all files", path.display())]
    Missing {
        /** The sums. */
        path: PathBuf,
        /** Relative to them. */
        file: String,
    },
    /// A file has another sum.
    #[error("{file} has SHA-256 {found}, but {} says {wanted}: copy it again", path.display())]
    Differs {
        /** The sums. */
        path: PathBuf,
        /** Relative to them. */
        file: String,
        /** Of the file. */
        found: String,
        /** By the sums. */
        wanted: String,
    },
}

/// What a `SHA256SUMS` says.
#[derive(Debug)]
pub(crate) struct Sums {
    path: PathBuf,
    by_name: HashMap<String, String>,
}

impl Sums {
    /// Reads the sums of a folder; `None` if it has none.
    ///
    /// # Errors
    /// They cannot be read or are not in their form.
    pub(crate) fn of(folder: &Path) -> Result<Option<Self>, SumError> {
        let path = folder.join(FILE);
        let unreadable = |source| SumError::Read { path: path.clone(), source };
        let file = match read::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(unreadable)?,
        };
        let mut text = String::new();
        file.take(MOST_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MOST_BYTES {
            return Err(SumError::TooLarge { path });
        }
        let mut by_name = HashMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (sum, name) =
                entry(line).ok_or_else(|| SumError::Line { path: path.clone(), line: index + 1 })?;
            by_name.insert(name.to_owned(), sum);
        }
        Ok(Some(Self { path, by_name }))
    }

    /// Checks a file of this folder whose content is at hand.
    ///
    /// # Errors
    /// It is not named, or is another.
    pub(crate) fn check(&self, file: &Path, content: &[u8]) -> Result<(), SumError> {
        self.compare(file, hex(&Sha256::digest(content)))
    }

    /// Checks a file of this folder.
    ///
    /// # Errors
    /// It cannot be read, is not named, or is another.
    pub(crate) fn check_file(&self, path: &Path) -> Result<(), SumError> {
        let unreadable = |source| SumError::Read { path: path.to_owned(), source };
        let mut file = read::open(path).map_err(unreadable)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut chunk).map_err(unreadable)?;
            if read == 0 {
                return self.compare(path, hex(&hash.finalize()));
            }
            hash.update(chunk.get(..read).unwrap_or_default());
        }
    }

    fn compare(&self, file: &Path, found: String) -> Result<(), SumError> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let file = file.strip_prefix(folder).unwrap_or(file).display().to_string();
        match self.by_name.get(&file) {
            None => Err(SumError::Missing { path: self.path.clone(), file }),
            Some(wanted) if *wanted == found => Ok(()),
            Some(wanted) => {
                Err(SumError::Differs { path: self.path.clone(), file, found, wanted: wanted.clone() })
            }
        }
    }
}

/// Sum, in small letters, and name of a line.
fn entry(line: &str) -> Option<(String, &str)> {
    let (sum, rest) = line.split_at_checked(64)?;
    // A blank, and then one for text or a star for binary.
    let name = rest.strip_prefix("  ").or_else(|| rest.strip_prefix(" *"))?;
    let name = name.strip_prefix("./").unwrap_or(name);
    let good = sum.bytes().all(|byte| byte.is_ascii_hexdigit()) && !name.is_empty();
    good.then(|| (sum.to_ascii_lowercase(), name))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Of `abc`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_what_its_sum_says_or_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.onnx");
        fs::write(&model, "abc").unwrap();
        assert!(Sums::of(folder.path()).unwrap().is_none());
        fs::write(folder.path().join(FILE), format!("{ABC}  ./model.onnx\n\n{ABC} *weights\n")).unwrap();
        let sums = Sums::of(folder.path()).unwrap().unwrap();
        sums.check(&model, b"abc").unwrap();
        sums.check_file(&model).unwrap();
        fs::write(&model, "abd").unwrap();
        let differs = sums.check_file(&model).unwrap_err().to_string();
        assert!(differs.contains("model.onnx has SHA-256") && differs.contains(ABC), "{differs}");
        let missing = sums.check(&folder.path().join("other"), b"").unwrap_err().to_string();
        assert!(missing.contains("does not name other"), "{missing}");
    }

    #[test]
    fn a_line_that_is_not_of_sha256sum_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for wrong in ["abc  model.onnx", &format!("{ABC}model"), &format!("{ABC}  "), &"é".repeat(64)] {
            fs::write(folder.path().join(FILE), format!("{ABC}  a\n{wrong}\n")).unwrap();
            let error = Sums::of(folder.path()).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{wrong}: {error}");
        }
    }
}
