//! Reading the files of a repository.
//!
//! Its owner may have put anything there, and a pipe would hold whoever opens it as a file for ever. Invariant: only
//! regular files are read, and that is asked of what was opened and not of the name. Not here: which files may be read.
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Opens a file, if it is a regular one.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // Without waiting for whoever writes into a pipe; for regular files that means nothing.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

/// A whole file.
pub(crate) fn whole(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A whole file; `None` if it has more than so many bytes.
pub(crate) fn at_most(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    // One byte more than may be, so that a file that grows meanwhile is noticed.
    open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= most))
}
