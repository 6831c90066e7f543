//! The protocol over REST.
//!
//! # Source
//! Open Inference Protocol, "HTTP/REST"; Triton's "Binary tensor data extension" and its table of paths.
use crate::{Service, call::Routed, memory, statistics};
use answer::{error, json};
use bytes::Bytes;
use http::{Method, Response, request::Parts};
use path::{Region, Target, Verb as Wanted};
use serde_json::{Value, json};
use xebec_core::{InferError, Principal, Verb, model::TensorInfo};
use xebec_net::{body::Body, service::HttpService};

mod answer;
mod control;
mod infer;
mod path;
mod request;
mod settings;
mod trace;

pub(crate) use request::reading::Reading;

impl HttpService for Service {
    async fn call(&self, principal: &Principal, head: Parts, body: Body) -> Response<Bytes> {
        let described = match self.read(&head) {
            Ok(Target::Model { verb: Wanted::Infer, model, version }) => {
                Ok(self.infer(principal, &model, &version, &head, body).await)
            }
            Ok(target) => self.describe(principal, &target, &head, body).await,
            Err(fault) => Err(fault),
        };
        let response = described.unwrap_or_else(|fault| {
            self.0.unrouted.add(fault.code());
            error(&fault, "")
        });
        if response.status().is_success() || infer::content_encoding(&head.headers).is_ok() {
            return response;
        }
        answer::with_accepted_encodings(response)
    }
}

/// What a body asks of the index; an empty one asks for all.
#[derive(Default, serde::Deserialize)]
struct Filter {
    #[serde(default)]
    ready: bool,
}

/// Checks the method. What is not offered is refused by name whatever the method.
fn allow(target: &Target, method: &Method) -> Result<(), InferError> {
    let (fits, allow) = match target {
        Target::NotOffered(_) => (true, ""),
        Target::SharedMemory(Some(Region::Register(_) | Region::Unregister(_))) | Target::CudaUnregister => {
            (method == Method::POST, "POST")
        }
        Target::Logging | Target::Trace { .. } => {
            ([Method::GET, Method::HEAD, Method::POST].contains(method), "GET, POST")
        }
        Target::Index { .. }
        | Target::Load { .. }
        | Target::Unload { .. }
        | Target::Model { verb: Wanted::Infer, .. } => (method == Method::POST, "POST"),
        _ => (method == Method::GET || method == Method::HEAD, "GET"),
    };
    if fits { Ok(()) } else { Err(InferError::WrongMethod { allow }) }
}

impl Service {
    /// What a head asks for, if it may be asked with its method.
    fn read(&self, head: &Parts) -> Result<Target, InferError> {
        let target = path::parse(head.uri.path())?;
        match &target {
            // Whatever is below these paths, it is not there, and nothing of it is repeated.
            Target::SharedMemory(_) if self.0.shared_memory.is_none() => Err(memory::not_allowed()),
            Target::SharedMemory(None) => Err(InferError::Missing {
                what: "Not Found".into(),
                hint: "paths of shared memory end in status, register or unregister".into(),
            }),
            _ => allow(&target, &head.method),
        }?;
        Ok(target)
    }

    async fn describe(
        &self,
        principal: &Principal,
        target: &Target,
        head: &Parts,
        body: Body,
    ) -> Result<Response<Bytes>, InferError> {
        match target {
            Target::Server => {
                self.admit(principal, Verb::ReadServer, None)?;
                Ok(json(200, &self.rest_server_metadata()))
            }
            Target::Live => {
                self.admit(principal, Verb::Probe, None)?;
                Ok(json(200, &json!({"live": true})))
            }
            Target::Ready => {
                self.admit(principal, Verb::Probe, None)?;
                let ready = self.is_ready();
                let status = if ready { 200 } else { self.0.dialect.not_ready() };
                Ok(json(status, &json!({"ready": ready})))
            }
            Target::Models => Ok(json(200, &json!({"models": self.index(principal, "", false)?}))),
            Target::Index { repository } => {
                self.admit(principal, Verb::ReadServer, None)?;
                let example = r#"{}, {"ready": true} or no body"#;
                let Filter { ready } = infer::object(head, body, "a repository index", example).await?;
                Ok(json(200, &json!(self.index(principal, repository, ready)?)))
            }
            Target::Statistics => {
                Ok(json(200, &statistics::json(&self.statistics(principal, "", "").await?)))
            }
            Target::Load { repository, model } => self.load(principal, repository, model, head, body).await,
            Target::Unload { repository, model } => {
                self.unload(principal, repository, model, head, body).await
            }
            Target::Model { verb, model, version } => {
                self.describe_model(principal, *verb, model, version).await
            }
            Target::SharedMemory(None) => Err(memory::not_allowed()),
            Target::SharedMemory(Some(region)) => self.shared_memory(principal, region, head, body).await,
            Target::CudaStatus(name) => {
                self.admit(principal, Verb::ReadServer, None)?;
                memory::no_cuda_region(name).map(|()| json(200, &json!([])))
            }
            // Triton's examples begin by forgetting regions of every kind: that is no fault where there are none.
            Target::CudaUnregister => {
                self.admit(principal, Verb::ReadServer, None)?;
                Ok(json(200, &json!({})))
            }
            Target::Logging => self.logging(principal, head, body).await,
            Target::Trace { model } => self.trace_setting(principal, model, head, body).await,
            Target::NotOffered(what) => {
                self.admit(principal, Verb::ReadServer, None)?;
                Err(InferError::Unsupported {
                    what: format!("{what} is not offered by this version of xebec"),
                    hint: Some("GET /v2 lists the extensions that are".into()),
                })
            }
        }
    }

    async fn describe_model(
        &self,
        principal: &Principal,
        verb: Wanted,
        model: &str,
        version: &str,
    ) -> Result<Response<Bytes>, InferError> {
        match verb {
            Wanted::Ready => {
                if self.probe(principal, model, version)? {
                    return Ok(json(200, &json!({"name": model, "ready": true})));
                }
                let error = json!({"error": "Model version not ready", "ready": false});
                Ok(json(self.0.dialect.not_ready(), &error))
            }
            Wanted::Config => {
                let routed = self.read_about(principal, model, version).await?;
                Ok(answer::bytes(200, crate::model_config::json(routed.upstream.config())?.into()))
            }
            Wanted::Statistics => {
                let statistics = self.statistics(principal, model, version).await?;
                Ok(json(200, &statistics::json(&statistics)))
            }
            Wanted::Metadata | Wanted::Infer => {
                let routed = self.read_about(principal, model, version).await?;
                Ok(json(200, &self.rest_metadata(&routed)))
            }
        }
    }

    fn rest_server_metadata(&self) -> Value {
        let engine = self.0.router.engine();
        json!({
            "name": self.0.settings.server_name,
            "version": self.0.settings.server_version,
            "extensions": self.extensions(),
            "engine": {"name": engine.name, "version": engine.version, "reason": engine.reason},
        })
    }

    fn rest_metadata(&self, routed: &Routed<'_>) -> Value {
        let info = routed.upstream.info();
        let tensor = |tensor: &TensorInfo| json!({"name": &*tensor.name, "datatype": tensor.datatype.as_str(), "shape": tensor.shape});
        let versions = self.0.router.versions(&routed.permit);
        json!({
            "name": info.name.as_str(),
            "versions": versions.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "platform": info.platform,
            "inputs": info.inputs.iter().map(tensor).collect::<Vec<_>>(),
            "outputs": info.outputs.iter().map(tensor).collect::<Vec<_>>(),
        })
    }
}
