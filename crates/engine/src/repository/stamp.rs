//! What tells one state of a file from another without reading it.
//!
//! A file that is written while it is read, or replaced while a model is loaded from it, has another stamp afterwards; so
//! has one that was not there and is.
//! Not here: whether its content is what its owner meant ([`sums`](super::sums)).
use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The state of several files; `None` of one that cannot be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp(BTreeMap<PathBuf, Option<State>>);

/// Of one file. The time of the last change of the inode cannot be set by a program, as that of the content can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Stamp {
    /// Adds the state that a file has now.
    pub(crate) fn add(&mut self, path: &Path) {
        self.0.insert(path.to_owned(), State::of(path));
    }

    /// Adds those of `other`.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Whether every file is as it was.
    pub(crate) fn is_current(&self) -> bool {
        self.0.iter().all(|(path, state)| State::of(path) == *state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_that_was_replaced_by_one_of_the_same_size_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, "one").unwrap();
        let mut stamp = Stamp::default();
        stamp.add(&path);
        assert!(stamp.is_current());
        let other = folder.path().join("new");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(!stamp.is_current());
        fs::remove_file(&path).unwrap();
        assert!(!stamp.is_current());
        stamp.add(&path);
        assert!(stamp.is_current(), "it was not there and is not");
        fs::write(&path, "one").unwrap();
        assert!(!stamp.is_current());
    }
}
