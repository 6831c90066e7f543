//! The bytes of a request, made once and sent again and again.
use super::{
    Protocol,
    target::{Target, model_path},
};
use crate::inputs::Input;
use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use serde_json::{Value, json};
use xebec_core::Datatype;
use xebec_net::wire::inference::{ModelInferRequest, model_infer_request::InferInputTensor};

/// The method that runs a model.
pub(super) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Prefix of a message of gRPC: a flag and a length.
pub(super) const PREFIX_BYTES: usize = 5;

/// A request on the wire: for REST head and body, for gRPC a message with its prefix.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) bytes: Bytes,
    /// Length of the head of HTTP.
    pub(super) head: usize,
    /// Path of REST.
    pub(super) path: String,
    /// Length of the JSON before binary tensors.
    pub(super) json_length: Option<usize>,
}

impl Payload {
    pub(super) fn new(target: &Target, model: &str, version: &str, inputs: &[Input]) -> anyhow::Result<Self> {
        match target.protocol {
            Protocol::Grpc => grpc(model, version, inputs),
            Protocol::Json => Ok(rest(target, model, version, &json_body(inputs)?, None)),
            Protocol::Binary => {
                let (body, json_length) = binary_body(inputs)?;
                Ok(rest(target, model, version, &body, Some(json_length)))
            }
        }
    }
}

fn rest(target: &Target, model: &str, version: &str, body: &[u8], json_length: Option<usize>) -> Payload {
    let path = format!("{}/infer", model_path(model, version));
    let kind = match json_length {
        Some(length) => format!("application/octet-stream\r\nInference-Header-Content-Length: {length}"),
        None => "application/json".to_owned(),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        target.authority,
        body.len()
    );
    let mut bytes = BytesMut::from(head.as_bytes());
    bytes.extend_from_slice(body);
    Payload { bytes: bytes.freeze(), head: head.len(), path, json_length }
}

fn json_body(inputs: &[Input]) -> anyhow::Result<Vec<u8>> {
    let mut all = Vec::new();
    for input in inputs {
        if matches!(input.datatype, Datatype::Fp16 | Datatype::Bf16) {
            bail!(
                "input '{}' is {}, which has no form in JSON: use --protocol binary or grpc",
                input.name,
                input.datatype
            );
        }
        all.push(json!({
            "name": input.name,
            "shape": input.shape,
            "datatype": input.datatype.as_str(),
            "data": input.values,
        }));
    }
    Ok(in_order(&json!({"inputs": all})))
}

/// Datatype before data, as every client writes it: a map sorted by name would put data first.
fn in_order(body: &Value) -> Vec<u8> {
    let mut out = String::from("{\"inputs\":[");
    for (index, input) in body["inputs"].as_array().into_iter().flatten().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        out.push_str(&format!(
            "{comma}{{\"name\":{},\"shape\":{},\"datatype\":{},\"data\":{}}}",
            input["name"], input["shape"], input["datatype"], input["data"]
        ));
    }
    out.push_str("]}");
    out.into_bytes()
}

fn binary_body(inputs: &[Input]) -> anyhow::Result<(Vec<u8>, usize)> {
    let (mut heads, mut blobs) = (Vec::new(), Vec::new());
    for input in inputs {
        let bytes = input.bytes()?;
        heads.push(json!({
            "name": input.name,
            "shape": input.shape,
            "datatype": input.datatype.as_str(),
            "parameters": {"binary_data_size": bytes.len()},
        }));
        blobs.extend_from_slice(&bytes);
    }
    let mut body =
        json!({"parameters": {"binary_data_output": true}, "inputs": heads}).to_string().into_bytes();
    let json_length = body.len();
    body.append(&mut blobs);
    Ok((body, json_length))
}

fn grpc(model: &str, version: &str, inputs: &[Input]) -> anyhow::Result<Payload> {
    let mut message = ModelInferRequest {
        model_name: model.into(),
        model_version: version.into(),
        ..ModelInferRequest::default()
    };
    for input in inputs {
        message.inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.to_string(),
            shape: input.shape.clone(),
            ..InferInputTensor::default()
        });
        message.raw_input_contents.push(input.bytes()?.into());
    }
    let bytes = framed(&message.encode_to_vec())?;
    Ok(Payload { bytes, head: 0, path: INFER.into(), json_length: None })
}

/// A message of gRPC with its prefix.
pub(super) fn framed(message: &[u8]) -> anyhow::Result<Bytes> {
    let length = u32::try_from(message.len()).context("the request is larger than gRPC can carry")?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.extend_from_slice(message);
    Ok(bytes.freeze())
}
