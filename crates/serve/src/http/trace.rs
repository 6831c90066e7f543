//! The settings of traces, over REST.
use super::{
    answer::json,
    infer::{Distinct, object},
};
use crate::{Service, trace_settings::Said};
use bytes::Bytes;
use http::{Method, Response, request::Parts};
use serde_json::Value;
use xebec_core::{InferError, Principal, Verb};
use xebec_net::body::Body;

impl Service {
    /// Of a model, or of all if it is empty.
    pub(super) async fn trace_setting(
        &self,
        principal: &Principal,
        model: &str,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        let mut changes = Vec::new();
        if head.method == Method::POST {
            // Nothing of a body is read for a caller who may not change anything.
            self.traced_model(principal, Verb::Admin, model)?;
            Distinct(changes) = object(head, body, "trace settings", r#"{"trace_rate": "100"}"#).await?;
        }
        let mut all = Vec::with_capacity(changes.len());
        for (name, value) in &changes {
            all.push((name.as_str(), said(name, value)?));
        }
        let told = self.trace_settings(principal, model, all)?;
        let one = |(name, values): (&str, Vec<String>)| {
            let value = match values.as_slice() {
                [only] if name != "trace_level" => only.as_str().into(),
                _ => values.into(),
            };
            (name.to_owned(), value)
        };
        Ok(json(200, &Value::Object(told.into_iter().map(one).collect())))
    }
}

/// Texts and numbers alone or in a list, or `null`, as Triton takes them.
fn said<'a>(name: &str, value: &'a Value) -> Result<Said<'a>, InferError> {
    let one = |value: &'a Value| match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    };
    let values = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(values) => values.iter().map(one).collect(),
        value => one(value).map(|only| vec![only]),
    };
    values.ok_or_else(|| {
        let name: String = name.chars().take(64).collect();
        InferError::invalid(format!("trace setting '{name}' must be a text, a list of texts or null"))
    })
}
