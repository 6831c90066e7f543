//! System shared memory: regions of POSIX shared memory that callers have registered, as sources of inputs and as places
//! for outputs.
//!
//! A region is the opened file behind a name of shared memory. It is read and written by position and never mapped, so
//! that a caller who cuts it short gets an error and the server no signal. Invariants: only names that the operator
//! allowed are opened, only regular files with one name of their own, no link followed; every access is checked against
//! the region's bounds and the file's size at that moment; no error has a region's name, a key or a path in it.
//!
//! # Source
//! Triton Inference Server, "Shared-Memory Extension".
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use xebec_core::InferError;

mod allowed;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;

pub use allowed::Allowed;

/// Where the system keeps POSIX shared memory.
pub const FOLDER: &str = "/dev/shm";

/// The flag that allows names.
pub(crate) const FLAG: &str = "--allow-shared-memory";

/// Most regions at a time: each holds a file open.
const MOST_REGIONS: usize = 256;

/// Longest name of a region.
const NAME_BYTES: usize = 255;

/// A region as its status tells it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Status {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
}

/// A registered region.
#[derive(Debug)]
pub(crate) struct Region {
    status: Status,
    file: File,
}

/// A part of a region, as a request names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) region: String,
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
}

/// The regions that callers have registered.
#[derive(Debug)]
pub struct SharedMemory {
    allowed: Allowed,
    folder: PathBuf,
    regions: Mutex<BTreeMap<String, Arc<Region>>>,
}

impl SharedMemory {
    /// No regions yet; only what is `allowed` of `folder`, which is [`FOLDER`] but in tests, can become one.
    pub fn new(allowed: Allowed, folder: PathBuf) -> Self {
        Self { allowed, folder, regions: Mutex::default() }
    }

    fn regions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens shared memory and makes `byte_size` bytes of it from `offset` on a region.
    pub(crate) fn register(&self, status: Status) -> Result<(), InferError> {
        let Status { name, key, offset, byte_size } = &status;
        if name.is_empty() || name.len() > NAME_BYTES || name.contains(char::is_control) {
            return Err(InferError::invalid(format!(
                "the name of a shared memory region has 1 to {NAME_BYTES} bytes and no control characters"
            )));
        }
        if *byte_size == 0 {
            return Err(InferError::invalid("a shared memory region has a byte_size of at least 1"));
        }
        let file = self.open(key)?;
        let end = offset.checked_add(*byte_size);
        let size = file.metadata().map_err(|_| unusable())?.len();
        if end.is_none_or(|end| end > size) {
            return Err(InferError::invalid_hint(
                "the region ends behind the end of its shared memory",
                "make the shared memory larger, or give a smaller offset or byte_size",
            ));
        }
        let mut regions = self.regions();
        if regions.contains_key(name) {
            return Err(InferError::invalid_hint(
                "a shared memory region of this name is registered already",
                "unregister it first, or choose another name",
            ));
        }
        if regions.len() >= MOST_REGIONS {
            return Err(InferError::invalid_hint(
                format!("there are {MOST_REGIONS} shared memory regions already"),
                "unregister those that are not needed",
            ));
        }
        regions.insert(name.clone(), Arc::new(Region { status, file }));
        Ok(())
    }

    fn open(&self, key: &str) -> Result<File, InferError> {
        let name = self.allowed.file_name(key).ok_or_else(|| {
            InferError::invalid_hint(
                "this key of shared memory is not allowed",
                format!("the operator allows keys with {FLAG}"),
            )
        })?;
        let mut options = OpenOptions::new();
        // Whatever else may lie there must not hold up the thread.
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(self.folder.join(name)).map_err(|_| unusable())?;
        let known = file.metadata().map_err(|_| unusable())?;
        // A second name could be one of something that the operator did not allow.
        if known.is_file() && known.nlink() == 1 { Ok(file) } else { Err(unusable()) }
    }

    /// Forgets a region, or all if the name is empty. Requests that use it go on; a name that is not known is no fault.
    pub(crate) fn unregister(&self, name: &str) {
        let mut regions = self.regions();
        if name.is_empty() { regions.clear() } else { drop(regions.remove(name)) }
    }

    /// The region of that name, or all if it is empty.
    pub(crate) fn status(&self, name: &str) -> Result<Vec<Status>, InferError> {
        let regions = self.regions();
        let found = regions.values().filter(|region| name.is_empty() || region.status.name == name);
        let found: Vec<Status> = found.map(|region| region.status.clone()).collect();
        if found.is_empty() && !name.is_empty() { Err(unknown("the request")) } else { Ok(found) }
    }

    /// The region of a slice that `whose` names, if the slice lies inside it.
    fn find(&self, slice: &Slice, whose: &str) -> Result<Arc<Region>, InferError> {
        let region = self.regions().get(&slice.region).cloned().ok_or_else(|| unknown(whose))?;
        let end = slice.offset.checked_add(slice.byte_size);
        if end.is_none_or(|end| end > region.status.byte_size) {
            return Err(InferError::invalid_hint(
                format!(
                    "Invalid offset + byte size for shared memory region: {whose} passes the end of its region"
                ),
                "register a larger region, or give a smaller shared_memory_offset or shared_memory_byte_size",
            ));
        }
        Ok(region)
    }
}

impl Region {
    /// Where a slice begins in the file. A slice lies inside its region, and a region inside `u64`.
    fn start(&self, slice: &Slice) -> u64 {
        self.status.offset.saturating_add(slice.offset)
    }

    /// The file may have been cut since it was registered.
    fn reaches(&self, slice: &Slice) -> Result<(), InferError> {
        let end = self.start(slice).saturating_add(slice.byte_size);
        let size = self.file.metadata().map_or(0, |known| known.len());
        if end <= size { Ok(()) } else { Err(cut()) }
    }

    fn read(&self, slice: &Slice) -> Result<Bytes, InferError> {
        self.reaches(slice)?;
        let mut bytes = vec![0; usize::try_from(slice.byte_size).map_err(|_| cut())?];
        self.file.read_exact_at(&mut bytes, self.start(slice)).map_err(|_| cut())?;
        Ok(bytes.into())
    }

    fn write(&self, slice: &Slice, bytes: &[u8]) -> Result<(), InferError> {
        // Written past its end, the file would grow.
        self.reaches(slice)?;
        self.file.write_all_at(bytes, self.start(slice)).map_err(|_| cut())
    }
}

/// What is said where no shared memory is allowed: the same for every path of it.
pub(crate) fn not_allowed() -> InferError {
    InferError::Missing {
        what: "system shared memory is not allowed on this server".into(),
        hint: format!("the operator can allow it with {FLAG}"),
    }
}

/// The status of a region of CUDA's memory: there is none, and none can be registered.
pub(crate) fn no_cuda_region(name: &str) -> Result<(), InferError> {
    if name.is_empty() { Ok(()) } else { Err(unknown("the request")) }
}

fn unusable() -> InferError {
    InferError::invalid_hint(
        "there is no shared memory of this key that the server can use",
        "create it before it is registered, as plain shared memory that the server's user may read and write",
    )
}

fn unknown(whose: &str) -> InferError {
    InferError::Missing {
        what: format!("unable to find the shared memory region that {whose} names"),
        hint: "register it first".into(),
    }
}

fn cut() -> InferError {
    InferError::invalid_hint(
        "shared memory is smaller than it was when it was registered",
        "unregister the region, and register it anew",
    )
}
