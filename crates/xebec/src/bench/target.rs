//! The server under load: where it is, and what its models take.
use super::{
    Protocol, grpc,
    payload::{PREFIX_BYTES, Payload},
};
use crate::inputs::Slot;
use anyhow::{Context as _, anyhow, bail};
use prost::Message as _;
use serde::Deserialize;
use std::{
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};
use xebec_net::wire::inference::{ModelMetadataRequest, ModelMetadataResponse};

/// How long one answer outside of any load is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) protocol: Protocol,
    /// `host:port`, as it was written.
    pub(super) authority: String,
    pub(super) address: SocketAddr,
}

/// What a model takes.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) inputs: Vec<Input>,
}

/// One input of a model.
#[derive(Debug, Deserialize)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
}

impl Metadata {
    /// The inputs, with datatypes that are known.
    pub(super) fn slots(self) -> anyhow::Result<Vec<Slot>> {
        let slot = |input: Input| {
            Ok(Slot { datatype: input.datatype.parse()?, name: input.name, shape: input.shape })
        };
        self.inputs.into_iter().map(slot).collect()
    }
}

impl Target {
    pub(super) fn parse(url: Option<&str>, protocol: Option<Protocol>) -> anyhow::Result<Self> {
        let default =
            if protocol == Some(Protocol::Grpc) { "127.0.0.1:8001" } else { "http://127.0.0.1:8000" };
        let url = url.unwrap_or(default);
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let protocol = match (scheme, protocol) {
            ("https" | "grpcs", _) => {
                bail!("{url}: TLS is not offered by this version; use http:// or host:port")
            }
            ("http", Some(Protocol::Grpc)) => bail!("{url}: gRPC takes host:port"),
            ("http", protocol) => protocol.unwrap_or(Protocol::Binary),
            ("" | "grpc", None | Some(Protocol::Grpc)) => Protocol::Grpc,
            ("", Some(protocol)) => protocol,
            _ => bail!("{url}: write http://host:port for REST, or host:port for gRPC"),
        };
        let authority = rest.trim_end_matches('/').to_owned();
        let found = authority.to_socket_addrs().with_context(|| format!("'{authority}' is not host:port"))?;
        let address = { found }.next().with_context(|| format!("'{authority}' has no address"))?;
        Ok(Self { protocol, authority, address })
    }

    /// Asks what a model takes.
    pub(super) fn metadata(&self, model: &str, version: Option<&str>) -> anyhow::Result<Metadata> {
        let unreachable = || format!("no metadata of '{model}' from {}", self.authority);
        if self.protocol == Protocol::Grpc {
            let request =
                ModelMetadataRequest { name: model.into(), version: version.unwrap_or_default().into() };
            let path = "/inference.GRPCInferenceService/ModelMetadata";
            let answer = grpc::unary(self, path, &request.encode_to_vec()).with_context(unreachable)?;
            let metadata = ModelMetadataResponse::decode(answer).with_context(unreachable)?;
            let input = |input: xebec_net::wire::inference::model_metadata_response::TensorMetadata| Input {
                name: input.name,
                datatype: input.datatype,
                shape: input.shape,
            };
            return Ok(Metadata { inputs: metadata.inputs.into_iter().map(input).collect() });
        }
        let url = format!("http://{}{}", self.authority, model_path(model, version.unwrap_or_default()));
        let request = ureq::get(&url).config().timeout_global(Some(PATIENCE)).http_status_as_error(false);
        let mut answer = request.build().call().with_context(unreachable)?;
        if answer.status() != 200 {
            return Err(said(&mut answer)).with_context(unreachable);
        }
        answer.body_mut().read_json().with_context(unreachable)
    }

    /// Sends one request and expects an answer, so that a wrong one is told before the load begins.
    pub(super) fn send_once(&self, payload: &Payload) -> anyhow::Result<()> {
        if self.protocol == Protocol::Grpc {
            return grpc::unary(self, super::payload::INFER, &payload.bytes[PREFIX_BYTES..]).map(drop);
        }
        let body = payload.bytes.get(payload.head..).unwrap_or_default();
        let mut request = ureq::post(format!("http://{}{}", self.authority, payload.path))
            .config()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .build()
            .content_type(if payload.json_length.is_some() {
                "application/octet-stream"
            } else {
                "application/json"
            });
        if let Some(length) = payload.json_length {
            request = request.header("Inference-Header-Content-Length", length.to_string());
        }
        let mut answer = request.send(body).with_context(|| format!("no answer from {}", self.authority))?;
        if answer.status() == 200 { Ok(()) } else { Err(said(&mut answer)) }
    }
}

/// Path of a model, or of one of its versions.
pub(super) fn model_path(model: &str, version: &str) -> String {
    let model = crate::infer::segment(model);
    if version.is_empty() {
        format!("/v2/models/{model}")
    } else {
        format!("/v2/models/{model}/versions/{}", crate::infer::segment(version))
    }
}

/// What a server said about a fault.
fn said(answer: &mut http::Response<ureq::Body>) -> anyhow::Error {
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let body: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let error = body.as_ref().and_then(|body| body.get("error")?.as_str()).unwrap_or(&text);
    anyhow!("status {status}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_follows_the_urls_scheme_unless_it_is_named() {
        let protocol = |url, named| Target::parse(Some(url), named).unwrap().protocol;
        assert_eq!(protocol("http://127.0.0.1:1", None), Protocol::Binary);
        assert_eq!(protocol("http://127.0.0.1:1/", Some(Protocol::Json)), Protocol::Json);
        assert_eq!(protocol("127.0.0.1:1", None), Protocol::Grpc);
        assert_eq!(protocol("grpc://127.0.0.1:1", None), Protocol::Grpc);
        assert_eq!(protocol("127.0.0.1:1", Some(Protocol::Json)), Protocol::Json);
        assert_eq!(Target::parse(None, Some(Protocol::Grpc)).unwrap().address.port(), 8001);
        assert_eq!(Target::parse(None, None).unwrap().address.port(), 8000);
    }

    #[test]
    fn a_url_that_cannot_be_meant_is_refused_with_what_to_write() {
        let said = |url, named| format!("{:#}", Target::parse(Some(url), named).unwrap_err());
        assert!(said("https://127.0.0.1:1", None).contains("TLS is not offered"));
        assert!(said("http://127.0.0.1:1", Some(Protocol::Grpc)).contains("gRPC takes host:port"));
        assert!(said("ftp://127.0.0.1:1", None).contains("write http://host:port"));
        assert!(said("127.0.0.1", None).contains("is not host:port"));
    }

    #[test]
    fn names_are_one_segment_of_a_path() {
        assert_eq!(model_path("a/b", ""), "/v2/models/a%2Fb");
        assert_eq!(model_path("a", "1"), "/v2/models/a/versions/1");
    }
}
