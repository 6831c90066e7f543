//! The bytes of a request, made once and sent again and again.
use super::{
    Protocol,
    target::{Metadata, Target, model_path},
};
use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use serde_json::{Value, json};
use std::path::Path;
use xebec_core::{Datatype, tensor::element_count};
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

/// One input.
#[derive(Debug)]
pub(super) struct Input {
    name: String,
    datatype: Datatype,
    shape: Vec<i64>,
    /// Row-major, flat.
    values: Vec<Value>,
}

/// Reads the inputs of a v2 infer request.
pub(super) fn from_file(file: &Path) -> anyhow::Result<Vec<Input>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let body: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
    let inputs = body.get("inputs").and_then(Value::as_array);
    let inputs = inputs.with_context(|| format!("{} has no list 'inputs'", file.display()))?;
    inputs.iter().map(|input| one_of_file(input).with_context(|| format!("in {}", file.display()))).collect()
}

fn one_of_file(input: &Value) -> anyhow::Result<Input> {
    let text = |key: &str| {
        input.get(key).and_then(Value::as_str).with_context(|| format!("an input has no '{key}'"))
    };
    let name = text("name")?.to_owned();
    let datatype = text("datatype")?.parse()?;
    let shape: Vec<i64> = serde_json::from_value(input.get("shape").cloned().unwrap_or_default())
        .with_context(|| format!("input '{name}' has no 'shape'"))?;
    let mut values = Vec::new();
    flatten(input.get("data").with_context(|| format!("input '{name}' has no 'data'"))?, &mut values);
    Ok(Input { name, datatype, shape, values })
}

fn flatten(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| flatten(value, into)),
        other => into.push(other.clone()),
    }
}

/// Makes inputs by a model's metadata: numbers between 0 and 1, whole numbers 0 and 1, short strings.
pub(super) fn random(metadata: &Metadata, rows: i64, free: i64) -> anyhow::Result<Vec<Input>> {
    // A small generator of its own: the values mean nothing, and the same seed makes runs comparable.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut inputs = Vec::new();
    for input in &metadata.inputs {
        let datatype: Datatype = input.datatype.parse()?;
        let place = |(axis, extent): (usize, &i64)| match (*extent, axis) {
            (-1, 0) => rows,
            (-1, _) => free,
            (extent, _) => extent,
        };
        let shape: Vec<i64> = input.shape.iter().enumerate().map(place).collect();
        let count = element_count(&shape)
            .filter(|count| *count <= 64 << 20)
            .context("the model's inputs are too large")?;
        #[expect(clippy::cast_precision_loss, reason = "any number between 0 and 1 will do")]
        let mut value = || match datatype {
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
                json!(((next() >> 40) as f64 / (1u64 << 24) as f64) as f32)
            }
            Datatype::Bool => json!(next() % 2 == 0),
            Datatype::Bytes => json!(format!("text {}", next() % 1000)),
            _ => json!(next() % 2),
        };
        let values = (0..count).map(|_| value()).collect();
        inputs.push(Input { name: input.name.clone(), datatype, shape, values });
    }
    Ok(inputs)
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

impl Input {
    fn bytes(&self) -> anyhow::Result<Vec<u8>> {
        let mut out = Vec::new();
        for value in &self.values {
            self.push(value, &mut out)
                .with_context(|| format!("input '{}': {value} is not {}", self.name, self.datatype))?;
        }
        ensure!(
            element_count(&self.shape) == Some(self.values.len()),
            "input '{}' has {} values where its shape says otherwise",
            self.name,
            self.values.len()
        );
        Ok(out)
    }

    fn push(&self, value: &Value, out: &mut Vec<u8>) -> Option<()> {
        macro_rules! whole {
            ($kind:ty) => {{
                let wide = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))?;
                out.extend_from_slice(&<$kind>::try_from(wide).ok()?.to_le_bytes())
            }};
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
        match self.datatype {
            Datatype::Bool => out.push(u8::from(value.as_bool().or_else(|| value.as_u64().map(|n| n != 0))?)),
            Datatype::Uint8 => whole!(u8),
            Datatype::Uint16 => whole!(u16),
            Datatype::Uint32 => whole!(u32),
            Datatype::Uint64 => whole!(u64),
            Datatype::Int8 => whole!(i8),
            Datatype::Int16 => whole!(i16),
            Datatype::Int32 => whole!(i32),
            Datatype::Int64 => whole!(i64),
            // The upper half of a 32-bit float is a bfloat16, and near enough for a load.
            Datatype::Bf16 => out.extend_from_slice(&(value.as_f64()? as f32).to_le_bytes()[2..]),
            Datatype::Fp16 => out.extend_from_slice(&half(value.as_f64()? as f32).to_le_bytes()),
            Datatype::Fp32 => out.extend_from_slice(&(value.as_f64()? as f32).to_le_bytes()),
            Datatype::Fp64 => out.extend_from_slice(&value.as_f64()?.to_le_bytes()),
            Datatype::Bytes => {
                let text = value.as_str()?;
                out.extend_from_slice(&u32::try_from(text.len()).ok()?.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        Some(())
    }
}

fn half(value: f32) -> u16 {
    ::half::f16::from_f32(value).to_bits()
}
