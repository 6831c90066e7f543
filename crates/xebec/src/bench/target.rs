//! The server under load: where it is, and what its models take.
use super::{Protocol, grpc, payload::Payload};
use anyhow::{Context as _, bail};
use prost::Message as _;
use serde::Deserialize;
use std::net::{SocketAddr, ToSocketAddrs as _};
use xebec_net::wire::inference::{ModelMetadataRequest, ModelMetadataResponse};

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

impl Target {
    pub(super) fn parse(url: Option<&str>, protocol: Option<Protocol>) -> anyhow::Result<Self> {
        let default = if protocol == Some(Protocol::Grpc) { "127.0.0.1:8001" } else { "http://127.0.0.1:8000" };
        let url = url.unwrap_or(default);
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let protocol = match (scheme, protocol) {
            ("https" | "grpcs", _) => bail!("{url}: TLS is not offered by this version; use http:// or host:port"),
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
            let request = ModelMetadataRequest { name: model.into(), version: version.unwrap_or_default().into() };
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
        let version = version.map(|version| format!("/versions/{version}")).unwrap_or_default();
        let url = format!("http://{}/v2/models/{model}{version}", self.authority);
        let mut answer = ureq::get(&url).call().with_context(unreachable)?;
        answer.body_mut().read_json().with_context(unreachable)
    }

    /// Sends one request and expects an answer, so that a wrong one is told before the load begins.
    pub(super) fn send_once(&self, payload: &Payload) -> anyhow::Result<()> {
        if self.protocol == Protocol::Grpc {
            return grpc::unary(self, super::payload::INFER, &payload.bytes[5..]).map(drop);
        }
        let body = payload.bytes.get(payload.head..).unwrap_or_default();
        let mut request = ureq::post(format!("http://{}{}", self.authority, payload.path))
            .config()
            .http_status_as_error(false)
            .build();
        if let Some(length) = payload.json_length {
            request = request.header("Inference-Header-Content-Length", length.to_string());
        }
        let mut answer = request.send(body).with_context(|| format!("no answer from {}", self.authority))?;
        if answer.status() != 200 {
            bail!("status {}: {}", answer.status().as_u16(), answer.body_mut().read_to_string().unwrap_or_default());
        }
        Ok(())
    }
}
