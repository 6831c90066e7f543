//! The body of an infer request: JSON, and binary tensors behind it.
//!
//! Numbers go from the text straight into the tensor. Data that stands before its datatype or shape is kept as text and
//! parsed when both are known. Invariants: binary tensors stay views on the body; no more elements are made than the
//! shape says.
use crate::{
    classes::Classes,
    tensor::{Binary, each_once, intern, json_in},
};
use bytes::Bytes;
use head::{Data, HeadSeed, Input};
use reading::Reading;
use serde::de::DeserializeSeed;
use std::time::Instant;
use xebec_core::{Datatype, InferError, InferRequest, ModelInfo, Tensor};

mod head;
mod parameter;
pub(crate) mod reading;
#[cfg(test)]
mod tests;

/// A parsed body.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) request: InferRequest,
    pub(super) binary: Binary,
    pub(super) classes: Classes,
}

/// Parses a body whose first `json_length` bytes are JSON. The request's own mark is left in `id` also if what
/// stands behind it is wrong.
pub(super) fn parse(
    body: &Bytes,
    json_length: usize,
    info: &ModelInfo,
    depth: usize,
    received: Instant,
    id: &mut String,
) -> Result<Parsed, InferError> {
    let json = body.get(..json_length).unwrap_or_default();
    let reading = Reading::new(depth);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let head = HeadSeed { reading: &reading, id }
        .deserialize(&mut deserializer)
        .and_then(|head| deserializer.end().map(|()| head))
        .map_err(|error| reading.explain(&error, json))?;
    let mut rest = body.slice(json_length.min(body.len())..);
    let mut inputs = Vec::with_capacity(head.inputs.len());
    for input in head.inputs {
        inputs.push(tensor(input, &mut rest, info, &reading)?);
    }
    if !rest.is_empty() {
        return Err(InferError::invalid_hint(
            format!("unexpected additional input data for model '{}'", info.name),
            format!("{} bytes are left after the inputs; check every binary_data_size", rest.len()),
        ));
    }
    let by_output =
        head.outputs.iter().filter_map(|output| Some((output.name.clone(), output.parameters.binary?)));
    let binary = Binary { default: head.parameters.binary_output, by_output: by_output.collect() };
    let classes = head.outputs.iter().filter(|output| output.parameters.classes > 0);
    let classes = classes.map(|output| (output.name.clone(), output.parameters.classes)).collect();
    let outputs: Vec<String> = head.outputs.into_iter().map(|output| output.name).collect();
    each_once(&outputs)?;
    let request =
        InferRequest { id: id.clone(), inputs, outputs, timeout: head.parameters.timeout, received };
    Ok(Parsed { request, binary, classes })
}

fn tensor(
    input: Input<'_>,
    rest: &mut Bytes,
    info: &ModelInfo,
    reading: &Reading,
) -> Result<Tensor, InferError> {
    let Input { name, shape, datatype, parameters, data } = input;
    let lacks = |what: &str| InferError::invalid(format!("input '{name}' has no '{what}'"));
    let datatype = datatype.ok_or_else(|| lacks("datatype"))?;
    let shape = shape.ok_or_else(|| lacks("shape"))?;
    let data = match (parameters.binary_size, data) {
        (Some(_), Data::Parsed(_) | Data::Text(_)) => {
            return Err(InferError::invalid_hint(
                format!("input '{name}' has both data and binary_data_size"),
                "send one of the two",
            ));
        }
        (None, Data::None) => return Err(lacks("data")),
        (Some(size), Data::None) => binary(&name, size, rest)?,
        (None, Data::Parsed(bytes)) => bytes.into(),
        (None, Data::Text(text)) => late(&name, datatype, &shape, text.get(), reading)?,
    };
    Ok(Tensor { name: intern(&info.inputs, &name), datatype, shape, data })
}

fn binary(name: &str, size: usize, rest: &mut Bytes) -> Result<Bytes, InferError> {
    if size > rest.len() {
        return Err(InferError::invalid_hint(
            format!(
                "input '{name}' has binary_data_size {size}, but only {} bytes are left in the body",
                rest.len()
            ),
            "binary tensors follow the JSON in the order of the inputs",
        ));
    }
    Ok(rest.split_to(size))
}

/// Reads data that stood before its datatype or shape.
fn late(
    name: &str,
    datatype: Datatype,
    shape: &[i64],
    text: &str,
    reading: &Reading,
) -> Result<Bytes, InferError> {
    let seed = json_in::Seed { name, datatype, shape, reading, text_bytes: text.len() };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let bytes =
        seed.deserialize(&mut deserializer).map_err(|error| reading.explain(&error, text.as_bytes()))?;
    Ok(bytes.into())
}
