//! A model's `config.pbtxt` that is replaced: whole or not at all, and what was there before stays beside it.
use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Puts a text in the place of a file, which is kept under a name of its own; returns that name if there was one.
///
/// # Errors
/// One of the files cannot be read or written.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<Option<PathBuf>> {
    let kept = match fs::read(path) {
        Ok(old) => Some(keep(path, &old)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let new = path.with_extension("pbtxt.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    Ok(kept)
}

/// Writes `.bak`, or `.bak.1` and so on: no earlier copy is lost.
fn keep(path: &Path, old: &[u8]) -> io::Result<PathBuf> {
    const MOST: u32 = 1000;
    let names =
        std::iter::once("pbtxt.bak".to_owned()).chain((1..MOST).map(|number| format!("pbtxt.bak.{number}")));
    for name in names {
        let path = path.with_extension(name);
        match fs::File::create_new(&path) {
            Ok(mut backup) => {
                backup.write_all(old)?;
                backup.sync_all()?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there are too many old copies beside it; remove some"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_that_was_there_stays_beside_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.pbtxt");
        assert_eq!(replace(&path, "one").unwrap(), None);
        let kept = |text| replace(&path, text).unwrap().unwrap();
        let kept = [kept("two"), kept("three")];
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&path), kept.map(|path| read(&path))),
            ("three".into(), ["one".into(), "two".into()])
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing else stays behind");
    }
}
