//! Where ONNX Runtime's library may be.
//!
//! In this order: the flag, `ORT_DYLIB_PATH`, beside the executable, the cache of `make engine`, an installed
//! `onnxruntime` wheel. Python is never started: a wheel is a folder. Not here: loading it (`ort`).
use std::path::{Path, PathBuf};

/// The variable that ONNX Runtime's own tools use.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";
/// Our flag.
pub const FLAG: &str = "--onnxruntime-library";

/// What is known of the machine when looking.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Value of the flag.
    pub flag: Option<PathBuf>,
    /// Value of [`VARIABLE`].
    pub variable: Option<PathBuf>,
    /// Folder of the executable.
    pub executable_folder: Option<PathBuf>,
    /// Folder that `make engine` fills.
    pub cache: Option<PathBuf>,
    /// Roots of Python environments: `$VIRTUAL_ENV`, `$CONDA_PREFIX`, `~/.local`, `/usr/local`, `/usr`.
    pub python_roots: Vec<PathBuf>,
}

/// A file that may be the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// File.
    pub path: PathBuf,
    /// How it was found.
    pub found_by: &'static str,
    /// Whether the user named it, so that failing to load it is an error.
    pub named: bool,
}

impl Search {
    /// Candidates, best first. A named file is a candidate even if it does not exist, and then the only one.
    pub fn candidates(&self) -> Vec<Candidate> {
        let named = self
            .flag
            .as_ref()
            .map(|path| (path, FLAG))
            .or(self.variable.as_ref().map(|path| (path, VARIABLE)));
        if let Some((path, found_by)) = named {
            return vec![Candidate { path: path.clone(), found_by, named: true }];
        }
        let beside = self.executable_folder.iter().flat_map(|folder| libraries(folder));
        let beside =
            beside.map(|path| Candidate { path, found_by: "found beside the executable", named: false });
        let cached = self.cache.iter().flat_map(|folder| folders(folder, "onnxruntime-"));
        let cached = cached.flat_map(|folder| libraries(&folder));
        let cached = cached.map(|path| Candidate { path, found_by: "brought by make engine", named: false });
        let wheels =
            self.python_roots.iter().flat_map(|root| wheels(root)).flat_map(|folder| libraries(&folder));
        let wheels = wheels.map(|path| Candidate {
            path,
            found_by: "found in an installed onnxruntime wheel",
            named: false,
        });
        beside.chain(cached).chain(wheels).collect()
    }
}

/// The library files of a folder, newest version first.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let is_library = |name: &str| {
        name.starts_with("libonnxruntime.so")
            || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
    };
    let mut found = entries(folder);
    found.retain(|path| path.is_file() && name_of(path).is_some_and(is_library));
    found.sort_by_key(|path| std::cmp::Reverse(version_of(path)));
    found
}

/// The numbers in a file's name: `libonnxruntime.so.1.31.1` is newer than `.1.9.0`.
fn version_of(path: &Path) -> Vec<u64> {
    let name = name_of(path).unwrap_or_default();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn wheels(root: &Path) -> Vec<PathBuf> {
    let mut lib = folders(&root.join("lib"), "python3");
    lib.extend(folders(&root.join("lib64"), "python3"));
    let packages =
        lib.iter().flat_map(|python| ["site-packages", "dist-packages"].map(|name| python.join(name)));
    packages.map(|packages| packages.join("onnxruntime/capi")).filter(|capi| capi.is_dir()).collect()
}

fn folders(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found = entries(folder);
    found.retain(|path| path.is_dir() && name_of(path).is_some_and(|name| name.starts_with(prefix)));
    found.sort_by_key(|path| std::cmp::Reverse(version_of(path)));
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten().flatten();
    read.map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn a_named_library_is_the_only_candidate_even_if_it_is_not_there() {
        let search = Search {
            flag: Some("/nowhere/a.so".into()),
            variable: Some("/nowhere/b.so".into()),
            ..Search::default()
        };
        let candidates = search.candidates();
        assert_eq!(candidates.len(), 1);
        assert_eq!((candidates[0].path.to_str(), candidates[0].found_by), (Some("/nowhere/a.so"), FLAG));
        let by_variable = Search { flag: None, ..search }.candidates();
        assert_eq!((by_variable[0].found_by, by_variable[0].named), (VARIABLE, true));
    }

    #[test]
    fn beside_the_executable_comes_before_a_wheel_and_newer_before_older() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let old = touch(root, "bin/libonnxruntime.so.1.9.0");
        let new = touch(root, "bin/libonnxruntime.so.1.31.1");
        touch(root, "bin/libonnxruntime_providers_shared.so");
        let wheel =
            touch(root, "venv/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so.1.40.0");
        let cached = touch(root, "cache/onnxruntime-1.31.1/libonnxruntime.so.1.31.1");
        let search = Search {
            executable_folder: Some(root.join("bin")),
            cache: Some(root.join("cache")),
            python_roots: vec![root.join("none"), root.join("venv")],
            ..Search::default()
        };
        let paths: Vec<_> = search.candidates().into_iter().map(|candidate| candidate.path).collect();
        assert_eq!(paths, [new, old, cached, wheel]);
    }
}
