//! The YAML of `xebec up`: every `*.yaml` and `*.yml` of a folder and its direct subfolders.
use crate::config::Faults;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use xebec_core::resource::{API_VERSION, InferenceService, Resource};
use xebec_engine::repository::Candidate;

/// Reads the services of a folder, noting everything that is wrong.
pub fn read(folder: &Path, faults: &mut Faults) -> Vec<Candidate> {
    let files = match yaml_files(folder) {
        Ok(files) => files,
        Err(error) => {
            faults.add(format!("cannot read {}: {error}", folder.display()));
            return Vec::new();
        }
    };
    let mut places: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut candidates = Vec::new();
    for file in &files {
        for service in documents(file, faults) {
            let name = service.metadata.name.clone();
            if let Some(first) = places.insert(name.clone(), file.clone()) {
                faults.add(format!(
                    "two services are called '{name}': in {} and in {}",
                    first.display(),
                    file.display()
                ));
                continue;
            }
            match Candidate::from_service(&service, file.parent().unwrap_or(folder)) {
                Ok(candidate) => candidates.push(candidate),
                Err(error) => faults.add(format!("{}: {}", file.display(), chain(&error))),
            }
        }
    }
    if places.is_empty() && faults.is_empty() {
        faults.add(format!(
            "no InferenceService in {} or its direct subfolders; a file begins with\n      apiVersion: {API_VERSION}\n      kind: InferenceService",
            folder.display()
        ));
    }
    candidates
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn yaml_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && !hidden {
            folders.push(path);
        }
    }
    for folder in folders {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if yaml && path.is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The services of a file. Each document is read by itself, so that a fault in one does not hide those of the next.
fn documents(file: &Path, faults: &mut Faults) -> Vec<InferenceService> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            faults.add(format!("cannot read {}: {error}", file.display()));
            return Vec::new();
        }
    };
    match serde_saphyr::from_multiple::<Resource>(&text) {
        Ok(resources) => {
            resources.into_iter().filter_map(|resource| service(resource, file, faults)).collect()
        }
        Err(error) => {
            faults.add(format!("{}: {error}", file.display()));
            Vec::new()
        }
    }
}

fn service(resource: Resource, file: &Path, faults: &mut Faults) -> Option<InferenceService> {
    let Resource::InferenceService(service) = resource;
    if service.api_version == API_VERSION {
        return Some(service);
    }
    faults.add(format!(
        "{}: '{}' has apiVersion {}, but must have {API_VERSION}",
        file.display(),
        service.metadata.name,
        service.api_version
    ));
    None
}
