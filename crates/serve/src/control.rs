//! Orders of callers: load and unload a model.
//!
//! # Source
//! Triton Inference Server, "Model Repository Extension", Load and Unload.
use crate::{Service, call::wait};
use bytes::Bytes;
use std::collections::BTreeMap;
use xebec_core::{Code, InferError, ModelName, Permit, Principal, Verb, port::Overrides};
use xebec_net::wire::inference::{
    ModelRepositoryParameter, model_repository_parameter::ParameterChoice as Choice,
};

/// Longest part of what a caller wrote that stands in an error.
const SHOWN: usize = 255;

/// What an order may say; over REST values come from JSON.
pub(crate) enum Parameter {
    Text(String),
    File(Bytes),
    Flag,
    Other,
}

impl From<ModelRepositoryParameter> for Parameter {
    fn from(parameter: ModelRepositoryParameter) -> Self {
        match parameter.parameter_choice {
            Some(Choice::StringParam(text)) => Self::Text(text),
            Some(Choice::BytesParam(bytes)) => Self::File(bytes),
            Some(Choice::BoolParam(_)) => Self::Flag,
            Some(Choice::Int64Param(_)) | None => Self::Other,
        }
    }
}

/// Reads the parameters of a load.
///
/// # Errors
/// One is not known, or not of its kind.
pub(crate) fn overrides(
    parameters: impl IntoIterator<Item = (String, Parameter)>,
) -> Result<Overrides, InferError> {
    let mut overrides = Overrides::default();
    for (name, parameter) in parameters {
        match (name.as_str(), parameter) {
            ("config", Parameter::Text(text)) => overrides.config = Some(text),
            ("config", _) => return Err(wrong("config", "a text: the configuration as JSON")),
            (_, Parameter::File(bytes)) if name.starts_with("file:") => {
                overrides.files.push((name["file:".len()..].to_owned(), bytes));
            }
            (name, _) if name.starts_with("file:") => {
                return Err(wrong(name, "the file's bytes; in base64 over REST"));
            }
            (name, _) => return Err(unknown(name, "'config' and 'file:<version>/<name>'")),
        }
    }
    Ok(overrides)
}

/// Checks the parameters of an unload. Nothing depends on another model here, so that there is nothing to follow.
///
/// # Errors
/// One is not known, or not of its kind.
pub(crate) fn only_dependents(
    parameters: impl IntoIterator<Item = (String, Parameter)>,
) -> Result<(), InferError> {
    parameters.into_iter().try_for_each(|(name, parameter)| match (name.as_str(), parameter) {
        ("unload_dependents", Parameter::Flag) => Ok(()),
        ("unload_dependents", _) => Err(wrong("unload_dependents", "true or false")),
        (name, _) => Err(unknown(name, "'unload_dependents'")),
    })
}

/// The parameters of a gRPC message.
pub(crate) fn of_message(
    parameters: BTreeMap<String, ModelRepositoryParameter>,
) -> impl Iterator<Item = (String, Parameter)> {
    parameters.into_iter().map(|(name, parameter)| (name, parameter.into()))
}

fn wrong(name: &str, wants: &str) -> InferError {
    InferError::invalid(format!("parameter '{}' must be {wants}", shown(name)))
}

fn unknown(name: &str, known: &str) -> InferError {
    InferError::invalid_hint(format!("unknown parameter '{}'", shown(name)), format!("known are {known}"))
}

fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect()
}

impl Service {
    /// Loads or reloads a model and waits for it.
    ///
    /// # Errors
    /// The caller may not, or it cannot be loaded.
    pub(crate) async fn load_model(
        &self,
        principal: &Principal,
        repository: &str,
        model: &str,
        overrides: Overrides,
    ) -> Result<(), InferError> {
        let permit = self.permit_order(principal, repository, model, "load")?;
        wait(|done| self.0.control.load(&permit, overrides, done)).await
    }

    /// Unloads a model; requests that it has are still answered.
    ///
    /// # Errors
    /// The caller may not, or there is no such model.
    pub(crate) async fn unload_model(
        &self,
        principal: &Principal,
        repository: &str,
        model: &str,
    ) -> Result<(), InferError> {
        let permit = self.permit_order(principal, repository, model, "unload")?;
        wait(|done| self.0.control.unload(&permit, done)).await
    }

    /// Whether a caller may give orders at all, before what they say is read.
    ///
    /// # Errors
    /// The policy's.
    pub(crate) fn may_order(&self, principal: &Principal) -> Result<(), InferError> {
        self.admit(principal, Verb::Admin, None).map(drop)
    }

    fn permit_order(
        &self,
        principal: &Principal,
        repository: &str,
        model: &str,
        verb: &str,
    ) -> Result<Permit, InferError> {
        self.may_order(principal)?;
        if !repository.is_empty() {
            return Err(InferError::Unsupported {
                what: "'repository_name' specification is not supported".into(),
                hint: Some("leave it out: a model's name is enough".into()),
            });
        }
        let name = ModelName::parse(model).map_err(|rule| InferError::LoadFailed {
            model: shown(model),
            reason: format!("which cannot be {verb}ed: {rule}"),
            code: Code::InvalidArgument,
        })?;
        let permit = self.admit(principal, Verb::Admin, Some(&name))?;
        if self.0.drain.is_draining() {
            return Err(InferError::Draining);
        }
        Ok(permit)
    }
}
