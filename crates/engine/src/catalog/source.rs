//! Where the models of a catalog come from.
use super::{CatalogError, entry::Wanted, reason::Reason};
use crate::repository::{self, Candidate, RepositoryError, Scan, config};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use xebec_core::{Code, InferError, ModelName, Version, model_config::ModelConfig, port::Overrides};

/// Where models come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Folders of models.
    Repositories(Vec<PathBuf>),
    /// What documents say; it stays as it is for the life of the process.
    Given(Vec<Candidate>),
}

impl Source {
    /// All models.
    ///
    /// # Errors
    /// A repository cannot be read.
    pub fn scan(&self) -> Result<Scan, RepositoryError> {
        match self {
            Self::Repositories(repositories) => repository::scan(repositories),
            Self::Given(candidates) => Ok(Scan { candidates: candidates.clone(), faults: Vec::new() }),
        }
    }

    /// One model as its files are now, with what an order says beside them.
    pub(super) fn find(
        &self,
        name: &ModelName,
        overrides: &Overrides,
        uploads: bool,
    ) -> Result<Wanted, InferError> {
        let failed = |code, reason| InferError::LoadFailed { model: name.to_string(), reason, code };
        let config = overrides.config.as_deref().map(|text| read_config(name, text)).transpose();
        let config = config.map_err(|reason| failed(Code::InvalidArgument, reason))?;
        if !overrides.files.is_empty() {
            if !uploads {
                return Err(failed(
                    Code::PermissionDenied,
                    "this server takes no files with an order: it runs without --allow-model-upload".into(),
                ));
            }
            return uploaded(name, config.as_ref(), &overrides.files);
        }
        let found = match self {
            Self::Repositories(repositories) => repository::find_with(repositories, name, config.as_ref()),
            Self::Given(candidates) => {
                let found = candidates.iter().find(|candidate| candidate.name == *name).cloned();
                found
                    .map(|found| match config {
                        Some(config) => found.configured(config),
                        None => Ok(found),
                    })
                    .transpose()
            }
        };
        match found {
            Ok(Some(candidate)) => Ok(Wanted::new(candidate)),
            Ok(None) => Err(failed(Code::NotFound, "failed to poll from model repository".into())),
            Err(error) => Err(failed(Code::InvalidArgument, super::chain(&error))),
        }
    }
}

fn read_config(name: &ModelName, text: &str) -> Result<ModelConfig, String> {
    let config = config::parse_json(text).map_err(|error| format!("parameter 'config' is wrong: {error}"))?;
    if !config.name.is_empty() && config.name != name.as_str() {
        return Err(format!("parameter 'config' is of model '{}'", config.name));
    }
    Ok(config)
}

/// A model whose files came with the order. They lie in a folder that nobody else may read, and go with the model.
fn uploaded(
    name: &ModelName,
    config: Option<&ModelConfig>,
    files: &[(String, bytes::Bytes)],
) -> Result<Wanted, InferError> {
    let failed = |code, reason| InferError::LoadFailed { model: name.to_string(), reason, code };
    if config.is_none() {
        return Err(failed(
            Code::InvalidArgument,
            "parameter 'config' is missing: files take the place of the whole folder, also of its config.pbtxt".into(),
        ));
    }
    let unwritable = |error: std::io::Error| {
        failed(
            Code::Internal,
            format!("failed to poll from model repository: its files cannot be written: {error}"),
        )
    };
    let folder = TempDir::with_prefix("xebec-model-").map_err(unwritable)?;
    let root = folder.path().canonicalize().map_err(unwritable)?;
    let model = root.join("model");
    for (path, content) in files {
        let place = path.split_once('/').and_then(|(version, file)| {
            let plain = !file.is_empty() && !file.contains(['/', '\\', '\0']) && file != "." && file != "..";
            Version::parse(version).ok().filter(|_| plain).map(|version| (version, file))
        });
        let Some((version, file)) = place else {
            let path: String = path.chars().filter(|letter| !letter.is_control()).take(200).collect();
            return Err(failed(
                Code::InvalidArgument,
                format!("parameter 'file:{path}' is not file:<version>/<name>, as in file:1/model.onnx"),
            ));
        };
        let folder = model.join(version.to_string());
        fs::create_dir_all(&folder).map_err(unwritable)?;
        fs::write(folder.join(file), content).map_err(unwritable)?;
    }
    let candidate = repository::folder(&root, &model, name.clone(), config)
        .map_err(|error| failed(Code::InvalidArgument, super::chain(&error)))?;
    Ok(Wanted { candidate, _files: Some(folder) })
}

/// A model that could not be loaded when it was asked for, as the answer to a request for inference.
pub(super) fn not_woken(name: &ModelName, error: &CatalogError) -> InferError {
    let model = name.to_string();
    match error {
        CatalogError::NoMemory => InferError::NoModelMemory { model },
        _ => InferError::NoVersions { model, reason: Reason::of(error).public },
    }
}

/// A failed build as the answer to an order.
pub(super) fn refused(name: &ModelName, version: Version, error: &CatalogError) -> InferError {
    let model = name.to_string();
    match error {
        CatalogError::NoMemory => InferError::NoModelMemory { model },
        _ => {
            let reason = format!("version {version} is not served: {}", super::chain(error));
            InferError::LoadFailed { model, reason, code: Code::InvalidArgument }
        }
    }
}
