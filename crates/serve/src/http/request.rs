//! The body of an infer request: JSON, and binary tensors behind it.
//!
//! Numbers go from the text straight into the tensor. Data that stands before its datatype or shape is kept as text and
//! parsed when both are known. Invariants: binary tensors stay views on the body; no more elements are made than the
//! shape says.
use crate::{
    classes::Classes,
    memory::tensors::Shared,
    tensor::{Binary, each_once, intern, json_in},
};
use bytes::Bytes;
use head::{Data, HeadSeed, Input};
use reading::Reading;
use serde::de::DeserializeSeed;
use std::{sync::Arc, time::Instant};
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
    pub(super) shared: Shared,
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
    let mut shared = Shared::default();
    for mut input in head.inputs {
        let slice = input.parameters.slice(&input.name)?;
        let elsewhere = slice.is_some();
        shared.inputs.extend(slice.map(|slice| (inputs.len(), slice)));
        inputs.push(tensor(input, elsewhere, &mut rest, info, &reading)?);
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
    let mut outputs: Vec<String> = Vec::with_capacity(head.outputs.len());
    for mut output in head.outputs {
        let slice = output.parameters.slice(&output.name)?;
        shared.outputs.extend(slice.map(|slice| (output.name.clone(), slice)));
        outputs.push(output.name);
    }
    each_once(&outputs)?;
    head.parameters.check_alone()?;
    let (timeout, priority) = (head.parameters.timeout, head.parameters.priority);
    let sequence = head.parameters.sequence();
    let request = InferRequest {
        id: id.clone(),
        inputs,
        outputs,
        timeout,
        priority,
        sequence,
        streamed: false,
        headers: Vec::new(),
        received,
        trace: None,
    };
    Ok(Parsed { request, binary, classes, shared })
}

/// Takes a body as the only input of a model: one row of it, with as many elements along a free axis as there are.
/// For BYTES the body is the one element. All outputs are wanted, as binary tensors.
///
/// # Source
/// Triton Inference Server, "Binary Tensor Data Extension", raw binary request.
pub(super) fn raw(body: &Bytes, info: &ModelInfo, received: Instant) -> Result<Parsed, InferError> {
    let [input] = info.inputs.as_slice() else {
        let (inputs, model) = (info.inputs.len(), &info.name);
        return Err(InferError::invalid_hint(
            format!(
                "Raw request must only have 1 input (found 1) to be deduced but got {inputs} inputs in '{model}' model configuration"
            ),
            "send a JSON header that names the inputs",
        ));
    };
    let name = &input.name;
    let mut shape = input.shape.clone();
    if let (Some(rows), true) = (shape.first_mut(), info.max_batch_size > 0) {
        *rows = 1;
    }
    let data = match input.datatype.size_bytes() {
        None => {
            shape.iter_mut().filter(|extent| **extent == -1).for_each(|extent| *extent = 1);
            let length = u32::try_from(body.len()).ok().filter(|_| shape.iter().all(|extent| *extent == 1));
            let Some(length) = length else {
                return Err(InferError::invalid_hint(
                    format!("For BYTES datatype raw input '{name}', the model must have input shape [1]"),
                    "send a JSON header that names the shape",
                ));
            };
            [&length.to_le_bytes(), body.as_ref()].concat().into()
        }
        Some(size) => {
            stretch(name, &mut shape, size, body.len())?;
            body.clone()
        }
    };
    let inputs = vec![Tensor { name: Arc::clone(name), datatype: input.datatype, shape, data }];
    let (id, outputs, timeout, priority) = (String::new(), Vec::new(), None, 0);
    let request = InferRequest {
        id,
        inputs,
        outputs,
        timeout,
        priority,
        sequence: None,
        streamed: false,
        headers: Vec::new(),
        received,
        trace: None,
    };
    let binary = Binary { default: true, by_output: Vec::new() };
    Ok(Parsed { request, binary, classes: Classes::new(), shared: Shared::default() })
}

/// Gives the free axis of `shape`, if there is one, the extent at which the tensor has `bytes` bytes.
fn stretch(name: &str, shape: &mut [i64], size: usize, bytes: usize) -> Result<(), InferError> {
    let known = shape.iter().filter(|extent| **extent != -1);
    let known = known.filter_map(|extent| usize::try_from(*extent).ok()).try_fold(size, usize::checked_mul);
    let mut free = shape.iter_mut().filter(|extent| **extent == -1);
    let Some(axis) = free.next() else { return Ok(()) };
    if free.next().is_some() {
        return Err(InferError::invalid_hint(
            format!(
                "The shape of Raw input '{name}' can not be deduced because there are more than one variable-sized dimension"
            ),
            "send a JSON header that names the shape",
        ));
    }
    let extent = known.filter(|known| *known > 0 && bytes.is_multiple_of(*known)).map(|known| bytes / known);
    *axis = extent.and_then(|extent| i64::try_from(extent).ok()).ok_or_else(|| {
        let step = known.unwrap_or(usize::MAX);
        InferError::invalid(format!("raw input '{name}' has {bytes} bytes, which is no multiple of {step}"))
    })?;
    Ok(())
}

/// Makes a tensor of an input; one that lies `elsewhere` has no data yet.
fn tensor(
    input: Input<'_>,
    elsewhere: bool,
    rest: &mut Bytes,
    info: &ModelInfo,
    reading: &Reading,
) -> Result<Tensor, InferError> {
    let Input { name, shape, datatype, parameters, data } = input;
    let lacks = |what: &str| InferError::invalid(format!("input '{name}' has no '{what}'"));
    let datatype = datatype.ok_or_else(|| lacks("datatype"))?;
    let shape = shape.ok_or_else(|| lacks("shape"))?;
    let data = match (parameters.binary_size, data) {
        (None, Data::None) if elsewhere => Bytes::new(),
        _ if elsewhere => {
            return Err(InferError::invalid_hint(
                format!("input '{name}' has both data and a place in shared memory"),
                "send one of the two",
            ));
        }
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
