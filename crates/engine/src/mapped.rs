//! Files of built-in steps, mapped into memory rather than read.
//!
//! A table that is larger than memory is read where it is looked at. Invariants: a file is named below its folder and lies
//! below its root, links included; only regular files are mapped. Whoever changes a file must put another in its place
//! (`rename`), as with every mapped file: one that is cut while it is mapped ends the process.
#![allow(unsafe_code, reason = "a mapping is memory that others could write; see the proof")]
use crate::repository::{read, stamp::Stamp};
use bytes::Bytes;
use std::{
    cell::RefCell,
    path::{Component, Path, PathBuf},
};
use xebec_core::step::Files;

/// Files of a folder, with what was opened of them.
pub(crate) struct Folder<'a> {
    root: &'a Path,
    at: &'a Path,
    opened: RefCell<Stamp>,
}

impl<'a> Folder<'a> {
    /// Those below `at`, which must lie below `root`.
    pub(crate) fn new(root: &'a Path, at: &'a Path) -> Self {
        Self { root, at, opened: RefCell::default() }
    }

    /// The state of the files when they were opened.
    pub(crate) fn opened(self) -> Stamp {
        self.opened.into_inner()
    }

    fn find(&self, name: &str) -> Result<PathBuf, String> {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if name.is_empty() || !plain {
            return Err(format!("'{name}' is not the name of a file below its folder"));
        }
        let path = self.at.join(name);
        self.opened.borrow_mut().add(&path);
        let target = path.canonicalize().map_err(|error| format!("cannot read '{name}': {error}"))?;
        if !target.starts_with(self.root) {
            return Err(format!("'{name}' leads out of its folder; copy the file into it"));
        }
        Ok(target)
    }
}

impl Files for Folder<'_> {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        let unreadable = |error: std::io::Error| format!("cannot read '{name}': {error}");
        let file = read::open(&self.find(name)?).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.len() == 0 {
            return Ok(Bytes::new());
        }
        // SAFETY: the mapping is read-only and private, and whoever owns the repository puts another file in the place of a served
        // one instead of writing into it, as the guide asks: its bytes stay what they were. Who breaks that may see answers of
        // mixed bytes; a file that is cut raises SIGBUS, which ends the process. Callers of the server cannot reach the file.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
        Ok(Bytes::from_owner(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_are_mapped_from_below_the_folder_and_nowhere_else() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        let inner = root.join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("table"), b"12345678").unwrap();
        fs::write(inner.join("empty"), b"").unwrap();
        fs::write(root.join("secret"), b"secret").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), inner.join("link")).unwrap();
        let folder = Folder::new(&inner, &inner);
        assert_eq!(folder.map("table").unwrap().as_ref(), b"12345678");
        assert_eq!(folder.map("empty").unwrap().as_ref(), b"");
        for (name, word) in [
            ("../secret", "below its folder"),
            ("/etc/passwd", "below its folder"),
            ("", "below its folder"),
            ("link", "leads out"),
            ("none", "cannot read 'none'"),
            (".", "below its folder"),
        ] {
            let told = folder.map(name).unwrap_err();
            assert!(told.contains(word), "{told}");
        }
        let opened = folder.opened();
        assert!(opened.is_current());
        fs::write(inner.join("new"), b"other").unwrap();
        fs::rename(inner.join("new"), inner.join("table")).unwrap();
        assert!(!opened.is_current());
    }

    #[test]
    fn a_folder_or_pipe_is_no_file() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        fs::create_dir(root.join("folder")).unwrap();
        assert!(Folder::new(&root, &root).map("folder").unwrap_err().contains("regular file"));
    }
}
