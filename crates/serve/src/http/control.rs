//! Load and unload over REST: the body's JSON to an order.
use super::{answer, infer};
use crate::{
    Service,
    control::{self, Parameter},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Response, request::Parts};
use serde_json::{Value, json};
use xebec_core::{InferError, Principal};
use xebec_net::body::Body;

/// A body of either verb; an empty one has no parameters.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    parameters: infer::Distinct,
}

impl Service {
    pub(super) async fn load(
        &self,
        principal: &Principal,
        repository: &str,
        model: &str,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        self.may_order(principal)?;
        let overrides = control::overrides(self.order(head, body).await?)?;
        self.load_model(principal, repository, model, overrides).await?;
        Ok(answer::json(200, &json!({"name": model, "load": true})))
    }

    pub(super) async fn unload(
        &self,
        principal: &Principal,
        repository: &str,
        model: &str,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        self.may_order(principal)?;
        control::only_dependents(self.order(head, body).await?)?;
        self.unload_model(principal, repository, model).await?;
        Ok(answer::json(200, &json!({"name": model, "unload": true})))
    }

    async fn order(&self, head: &Parts, body: Body) -> Result<Vec<(String, Parameter)>, InferError> {
        let limit = self.0.settings.max_body_bytes;
        let example = r#"{}, {"parameters": {...}} or no body"#;
        let order: Order = infer::object_within(head, body, limit, "an order", example).await?;
        order.parameters.0.into_iter().map(|(name, value)| parameter(name, value)).collect()
    }
}

fn parameter(name: String, value: Value) -> Result<(String, Parameter), InferError> {
    let parameter = match value {
        Value::String(text) if name.starts_with("file:") => {
            let bytes = STANDARD.decode(text).map_err(|error| {
                let name: String = name.chars().filter(|letter| !letter.is_control()).take(200).collect();
                InferError::invalid(format!("parameter '{name}' is not base64: {error}"))
            })?;
            Parameter::File(bytes.into())
        }
        Value::String(text) => Parameter::Text(text),
        Value::Bool(_) => Parameter::Flag,
        _ => Parameter::Other,
    };
    Ok((name, parameter))
}
