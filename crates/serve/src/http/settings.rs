//! Regions of shared memory and the log's settings, over REST.
use super::{
    answer::json,
    infer::{Distinct, object},
    path::Region,
};
use crate::{
    Service,
    log_settings::{FORMAT, Said},
    memory::{SharedMemory, Status, not_allowed},
};
use bytes::Bytes;
use http::{Method, Response, request::Parts};
use serde_json::{Value, json};
use xebec_core::{InferError, Principal, Verb, log::LogSettings};
use xebec_net::body::Body;

/// The body of a registration.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Registration {
    key: String,
    offset: u64,
    byte_size: u64,
}

impl Service {
    /// The regions, for a caller who may ask.
    ///
    /// # Errors
    /// Shared memory is not allowed here, or not to this caller.
    pub(crate) fn regions(&self, principal: &Principal) -> Result<&SharedMemory, InferError> {
        let memory = self.0.shared_memory.as_ref().ok_or_else(not_allowed)?;
        self.admit(principal, Verb::ShareMemory, None)?;
        Ok(memory)
    }

    /// What a path below those of shared memory asks for.
    pub(super) async fn shared_memory(
        &self,
        principal: &Principal,
        wanted: &Region,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        let memory = self.regions(principal)?;
        match wanted {
            Region::Status(name) => Ok(json(200, &json!(memory.status(name)?))),
            Region::Unregister(name) => {
                memory.unregister(name);
                Ok(json(200, &json!({})))
            }
            Region::Register(name) => {
                let example = r#"{"key": "/name", "byte_size": 64}"#;
                let Registration { key, offset, byte_size } =
                    object(head, body, "a region of shared memory", example).await?;
                memory.register(Status { name: name.clone(), key, offset, byte_size })?;
                Ok(json(200, &json!({})))
            }
        }
    }

    pub(super) async fn logging(
        &self,
        principal: &Principal,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        if head.method != Method::POST {
            return Ok(json(200, &told(self.log_settings(principal, [])?)));
        }
        self.admit(principal, Verb::Admin, None)?;
        let Distinct(changes) = object(head, body, "log settings", r#"{"log_verbose_level": 1}"#).await?;
        let changes = changes.iter().map(|(name, value)| (name.as_str(), said(value)));
        Ok(json(200, &told(self.log_settings(principal, changes)?)))
    }
}

fn said(value: &Value) -> Said<'_> {
    match value {
        Value::Bool(flag) => Said::Bool(*flag),
        Value::Number(number) => number.as_u64().map_or(Said::Other, Said::Whole),
        Value::String(text) => Said::Text(text.into()),
        Value::Null | Value::Array(_) | Value::Object(_) => Said::Other,
    }
}

fn told(settings: LogSettings) -> Value {
    let LogSettings { error, warning, info, verbose_level } = settings;
    json!({
        "log_file": "",
        "log_info": info,
        "log_warning": warning,
        "log_error": error,
        "log_verbose_level": verbose_level,
        "log_format": FORMAT,
    })
}
