//! Every model and version known, as `GET /v2/models` and the repository index tell them.
//!
//! # Source
//! Triton Inference Server, "Model Repository Extension", Index.
use crate::Service;
use xebec_core::{
    InferError, Principal, Verb,
    port::{ModelRow, ModelState},
};

/// A model version as the index tells it.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Empty if none could be named.
    pub(crate) version: String,
    /// What its owner calls that version: xebec's own, and so only there where it says something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) labels: Vec<String>,
    pub(crate) state: &'static str,
    /// Why it is not served; empty if it is.
    pub(crate) reason: String,
}

impl From<ModelRow> for Entry {
    fn from(row: ModelRow) -> Self {
        let (state, reason) = match row.state {
            ModelState::Loading => ("LOADING", String::new()),
            ModelState::Ready { note } => ("READY", note),
            ModelState::Unloading => ("UNLOADING", String::new()),
            ModelState::Unavailable(reason) => ("UNAVAILABLE", reason),
        };
        let version = row.version.map(|version| version.to_string()).unwrap_or_default();
        let labels = row.labels.iter().map(ToString::to_string).collect();
        Self { name: row.name.to_string(), version, labels, state, reason }
    }
}

impl Service {
    /// All models that the caller may read, or the ready ones of them.
    ///
    /// # Errors
    /// The caller may not, or names a repository: there is one, and it has no name.
    pub(crate) fn index(
        &self,
        principal: &Principal,
        repository: &str,
        ready: bool,
    ) -> Result<Vec<Entry>, InferError> {
        self.admit(principal, Verb::ReadServer, None)?;
        if !repository.is_empty() {
            return Err(InferError::Unsupported {
                what: "'repository_name' specification is not supported".into(),
                hint: Some("ask for the index without a name: all models are in one repository".into()),
            });
        }
        let rows = self.0.router.models().into_iter().filter(|row| !ready || row.state.is_ready());
        let mine = |row: &ModelRow| self.admit(principal, Verb::ReadModel, Some(&row.name)).is_ok();
        Ok(rows.filter(mine).map(Entry::from).collect())
    }
}
