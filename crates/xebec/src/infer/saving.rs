//! Pictures that a model gives back, and where they are saved.
use super::{
    answer::Answer,
    found::{PICTURE, is_picture, picture},
    out::whole,
};
use anyhow::{Context as _, bail, ensure};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// What a saved picture is called behind the name of what was sent.
const MARKED: &str = "boxes";

/// Where pictures are saved.
#[derive(Clone, Debug)]
pub(super) enum Saving {
    /// Beside what was sent.
    Beside,
    /// In this folder.
    Folder(PathBuf),
    /// As this file.
    File(PathBuf),
}

impl Saving {
    /// By the flag, for so many pictures.
    ///
    /// # Errors
    /// A file that may not be replaced, or one for several pictures.
    pub(super) fn new(save: Option<&Path>, sent: &[PathBuf], overwrite: bool) -> anyhow::Result<Self> {
        let Some(save) = save else { return Ok(Self::Beside) };
        if save.is_dir() {
            return Ok(Self::Folder(save.to_owned()));
        }
        if sent.len() != 1 {
            ensure!(
                save.extension().is_none() && !save.exists(),
                "--save {}: {} pictures are sent; name a folder",
                save.display(),
                sent.len()
            );
            std::fs::create_dir_all(save).with_context(|| format!("cannot make {}", save.display()))?;
            return Ok(Self::Folder(save.to_owned()));
        }
        let is_sent = sent.iter().any(|sent| same(sent, save));
        ensure!(!is_sent, "--save {}: that is the picture that is sent", save.display());
        ensure!(
            overwrite || !save.exists(),
            "--save {} is there already; --overwrite replaces it",
            save.display()
        );
        Ok(Self::File(save.to_owned()))
    }

    /// Where the picture of a file that was sent goes. Names made here are this command's own, and replaced.
    fn path(&self, sent: &Path, format: &str) -> PathBuf {
        let mut name = sent.file_stem().unwrap_or_default().to_owned();
        name.push(format!(".{MARKED}.{format}"));
        match self {
            Self::Beside => sent.with_file_name(name),
            Self::Folder(folder) => folder.join(name),
            Self::File(file) => file.clone(),
        }
    }

    /// Refuses pictures of which two would be saved under one name.
    ///
    /// # Errors
    /// Which they are.
    pub(super) fn check(&self, sent: &[PathBuf]) -> anyhow::Result<()> {
        let mut seen = HashMap::new();
        for file in sent {
            if let Some(other) = seen.insert(self.path(file, ""), file) {
                bail!(
                    "{} and {} would be saved under one name; send them one after the other with --save FILE",
                    other.display(),
                    file.display()
                );
            }
        }
        Ok(())
    }

    /// Saves the picture of an answer, if it has one, and returns where.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&self, answer: &Answer, sent: &Path) -> anyhow::Result<Option<PathBuf>> {
        let found = answer.output(PICTURE).filter(|output| is_picture(output)).and_then(picture);
        let Some((format, bytes)) = found else { return Ok(None) };
        let path = self.path(sent, format);
        whole(&path, bytes)?;
        Ok(Some(path))
    }
}

/// Whether a file is one that this command made.
pub(super) fn is_own(file: &Path) -> bool {
    let stem = file.file_stem().map(Path::new);
    stem.and_then(Path::extension).is_some_and(|extension| extension == MARKED)
}

fn same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::{
        super::answer::tests::{answer, words},
        *,
    };
    use std::fs;

    #[test]
    fn a_picture_is_saved_beside_what_was_sent_or_where_somebody_says() {
        let folder = tempfile::tempdir().unwrap();
        let sent = folder.path().join("dog.png");
        fs::write(&sent, "sent").unwrap();
        let all = std::slice::from_ref(&sent);
        let given = answer(vec![words("image", &[1], &[&[0xff, 0xd8, 0xff, 1]])]);
        let saved = |save: Option<&Path>, overwrite| {
            Saving::new(save, all, overwrite).and_then(|saving| saving.save(&given, &sent))
        };
        let beside = saved(None, false).unwrap().unwrap();
        assert_eq!(
            (beside.file_name().unwrap(), fs::read(&beside).unwrap().len()),
            ("dog.boxes.jpg".as_ref(), 4)
        );
        assert!(is_own(&beside) && !is_own(&sent));
        let other = folder.path().join("out.jpg");
        assert_eq!(saved(Some(&other), false).unwrap().unwrap(), other);
        let said = |save: &Path| saved(Some(save), false).unwrap_err().to_string();
        assert!(said(&other).contains("--overwrite replaces it"));
        assert!(said(&sent).contains("that is the picture that is sent"));
        assert_eq!(saved(Some(&other), true).unwrap().unwrap(), other);
        let inside = saved(Some(folder.path()), false).unwrap().unwrap();
        assert_eq!(inside, beside);
        assert!(Saving::new(Some(&other), &[], false).unwrap_err().to_string().contains("name a folder"));
        let twice = ["a/x.jpg", "b/x.png"].map(PathBuf::from);
        assert!(Saving::Beside.check(&twice).is_ok());
        let error = Saving::Folder("out".into()).check(&twice).unwrap_err().to_string();
        assert!(error.contains("a/x.jpg and b/x.png would be saved under one name"), "{error}");
        // An output of another kind is no picture.
        let text = answer(vec![words("image", &[1], &[b"none"])]);
        assert_eq!(Saving::Beside.save(&text, &sent).unwrap(), None);
    }
}
