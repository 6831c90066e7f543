//! Why a version is not served, in two texts: the operator reads every cause, and whoever asks for inference nothing of
//! the server's folders.
use super::{CatalogError, chain};

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// For callers of inference.
    pub(super) public: String,
    /// For the list of models and the log.
    pub(super) full: String,
}

impl Reason {
    /// One that says the same to everybody.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        let full = text.into();
        Self { public: full.clone(), full }
    }

    pub(super) fn of(error: &CatalogError) -> Self {
        let full = chain(error);
        let public = match error {
            // What is wrong with a file names places inside of it.
            CatalogError::Onnx { source, .. } => return Self { public: chain(source), full },
            CatalogError::Read { .. } => "a file of it cannot be read",
            CatalogError::Sums(_) => "a file of it is not what its SHA256SUMS says",
            CatalogError::Replaced { .. } => "its file was replaced each time it was read",
            CatalogError::Load(_) => "the engine refused it",
            CatalogError::Repository(_) => FOLDER,
            CatalogError::Misfit(_)
            | CatalogError::TooLarge { .. }
            | CatalogError::NoMemory
            | CatalogError::Panic => return Self::plain(full),
        };
        Self::detailed(public, full)
    }

    /// Why a model cannot even be tried.
    pub(super) fn of_folder(full: String) -> Self {
        Self::detailed(FOLDER, full)
    }

    fn detailed(public: &str, full: String) -> Self {
        let public = format!("{public}; the server's log and POST /v2/repository/index have the details");
        Self { public, full }
    }
}

const FOLDER: &str = "its folder or its configuration has a fault";
