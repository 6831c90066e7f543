//! The body of an infer request: JSON, and binary tensors behind it.
//!
//! Numbers go from the text straight into the tensor. Data that stands before its datatype is kept as text and parsed
//! when the datatype is known. Invariant: binary tensors stay views on the body.
use crate::{
    parameters::{RequestParameters, TensorParameters, Value},
    tensor::{Binary, intern, json_in},
};
use bytes::Bytes;
use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, fmt, time::Instant};
use xebec_core::{Datatype, InferError, InferRequest, ModelInfo, Tensor, tensor::element_count};

/// A parsed body.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) request: InferRequest,
    pub(super) binary: Binary,
}

/// The JSON as it stands.
struct Head<'a> {
    id: String,
    parameters: RequestParameters,
    inputs: Vec<Input<'a>>,
    outputs: Vec<Output>,
}

struct Input<'a> {
    name: String,
    shape: Option<Vec<i64>>,
    datatype: Option<Datatype>,
    parameters: TensorParameters,
    data: Data<'a>,
}

enum Data<'a> {
    None,
    Parsed(json_in::Elements),
    /// Stood before its datatype.
    Text(&'a RawValue),
}

struct Output {
    name: String,
    parameters: TensorParameters,
}

/// Parses a body whose first `json_length` bytes are JSON.
pub(super) fn parse(
    body: &Bytes,
    json_length: usize,
    info: &ModelInfo,
    depth: usize,
    received: Instant,
    id: &mut String,
) -> Result<Parsed, InferError> {
    let json = body.get(..json_length).unwrap_or_default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let head = HeadSeed { depth, id }
        .deserialize(&mut deserializer)
        .and_then(|head| deserializer.end().map(|()| head))
        .map_err(|error| explain(&error, json))?;
    let mut rest = body.slice(json_length.min(body.len())..);
    let mut inputs = Vec::with_capacity(head.inputs.len());
    for input in head.inputs {
        inputs.push(tensor(input, &mut rest, info, depth)?);
    }
    if !rest.is_empty() {
        return Err(InferError::invalid_hint(
            format!("unexpected additional input data for model '{}'", info.name),
            format!("{} bytes are left after the inputs; check every binary_data_size", rest.len()),
        ));
    }
    let by_output = head.outputs.iter().filter_map(|output| Some((output.name.clone(), output.parameters.binary?)));
    let binary = Binary { default: head.parameters.binary_output, by_output: by_output.collect() };
    let request = InferRequest {
        id: head.id,
        inputs,
        outputs: head.outputs.into_iter().map(|output| output.name).collect(),
        timeout: head.parameters.timeout,
        received,
    };
    Ok(Parsed { request, binary })
}

fn explain(error: &serde_json::Error, json: &[u8]) -> InferError {
    // Text of ours that went through serde comes back as it was, with a place behind it.
    let message = format!("failed to parse the request JSON: {error}");
    let not_json = |word: &[u8]| json.windows(word.len()).any(|window| window == word);
    if error.is_syntax() && (not_json(b"NaN") || not_json(b"Infinity")) {
        return InferError::invalid_hint(message, "JSON has no NaN and no Infinity: send the tensor as binary data");
    }
    InferError::invalid(message)
}

fn tensor(input: Input<'_>, rest: &mut Bytes, info: &ModelInfo, depth: usize) -> Result<Tensor, InferError> {
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
        (None, data) => from_json(&name, datatype, &shape, data, depth)?,
    };
    Ok(Tensor { name: intern(&info.inputs, &name), datatype, shape, data })
}

fn binary(name: &str, size: usize, rest: &mut Bytes) -> Result<Bytes, InferError> {
    if size > rest.len() {
        return Err(InferError::invalid_hint(
            format!("input '{name}' has binary_data_size {size}, but only {} bytes are left in the body", rest.len()),
            "binary tensors follow the JSON in the order of the inputs",
        ));
    }
    Ok(rest.split_to(size))
}

fn from_json(
    name: &str,
    datatype: Datatype,
    shape: &[i64],
    data: Data<'_>,
    depth: usize,
) -> Result<Bytes, InferError> {
    let elements = match data {
        Data::Parsed(elements) => elements,
        Data::Text(text) => {
            let mut deserializer = serde_json::Deserializer::from_str(text.get());
            let seed = json_in::Seed { name, datatype, depth };
            seed.deserialize(&mut deserializer).map_err(|error| explain(&error, text.get().as_bytes()))?
        }
        Data::None => json_in::Elements::default(),
    };
    // A shape that cannot be is refused by the model's own check, in its words.
    if let Some(want) = element_count(shape).filter(|want| *want != elements.count) {
        return Err(InferError::invalid(format!(
            "input '{name}' has {} elements in its data, but shape {} needs {want}",
            elements.count,
            xebec_core::error::dims_text(shape)
        )));
    }
    Ok(elements.bytes.into())
}

struct HeadSeed<'i> {
    depth: usize,
    /// Set as soon as it is read, so that an error behind it can be echoed with it.
    id: &'i mut String,
}

impl<'de> DeserializeSeed<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Head<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for HeadSeed<'_> {
    type Value = Head<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with 'inputs'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
        let mut head =
            Head { id: String::new(), parameters: RequestParameters::default(), inputs: Vec::new(), outputs: Vec::new() };
        let mut given = false;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "id" => {
                    head.id = map.next_value()?;
                    self.id.clone_from(&head.id);
                }
                "parameters" => map.next_value_seed(ParametersSeed(|name: &str, value: &Value| {
                    head.parameters.take(name, value)
                }))?,
                "inputs" => {
                    head.inputs = map.next_value_seed(List(|| InputSeed { depth: self.depth }))?;
                    given = true;
                }
                "outputs" => head.outputs = map.next_value_seed(List(|| OutputSeed))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if given { Ok(head) } else { Err(serde::de::Error::custom("there is no 'inputs'")) }
    }
}

/// A list of what a seed reads.
struct List<F>(F);

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> DeserializeSeed<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn() -> S> Visitor<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = seq.next_element_seed((self.0)())? {
            all.push(one);
        }
        Ok(all)
    }
}

struct InputSeed {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for InputSeed {
    type Value = Input<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InputSeed {
    type Value = Input<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input with 'name', 'shape', 'datatype' and 'data'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut input = Input {
            name: String::new(),
            shape: None,
            datatype: None,
            parameters: TensorParameters::default(),
            data: Data::None,
        };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "name" => input.name = map.next_value()?,
                "shape" => input.shape = Some(map.next_value()?),
                "datatype" => {
                    let text: Cow<'de, str> = map.next_value()?;
                    input.datatype = Some(text.parse().map_err(serde::de::Error::custom)?);
                }
                "parameters" => {
                    let name = input.name.clone();
                    map.next_value_seed(ParametersSeed(|key: &str, value: &Value| {
                        input.parameters.take(&name, key, value)
                    }))?;
                }
                "data" => {
                    input.data = match input.datatype {
                        Some(datatype) => Data::Parsed(map.next_value_seed(json_in::Seed {
                            name: &input.name,
                            datatype,
                            depth: self.depth,
                        })?),
                        None => Data::Text(map.next_value()?),
                    };
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if input.name.is_empty() { Err(serde::de::Error::custom("an input has no 'name'")) } else { Ok(input) }
    }
}

struct OutputSeed;

impl<'de> DeserializeSeed<'de> for OutputSeed {
    type Value = Output;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Output, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OutputSeed {
    type Value = Output;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a requested output with 'name'")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Output, A::Error> {
        let mut output = Output { name: String::new(), parameters: TensorParameters::default() };
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "name" => output.name = map.next_value()?,
                "parameters" => {
                    let name = output.name.clone();
                    map.next_value_seed(ParametersSeed(|key: &str, value: &Value| {
                        output.parameters.take(&name, key, value)
                    }))?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        if output.name.is_empty() { Err(serde::de::Error::custom("a requested output has no 'name'")) } else { Ok(output) }
    }
}

/// An object of parameters, each given to a function that may refuse it.
struct ParametersSeed<F>(F);

impl<'de, F: FnMut(&str, &Value) -> Result<(), InferError>> DeserializeSeed<'de> for ParametersSeed<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, &Value) -> Result<(), InferError>> Visitor<'de> for ParametersSeed<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Bool(bool),
            Whole(i64),
            Real(#[expect(dead_code, reason = "only its kind counts")] f64),
            Text(String),
            Other(IgnoredAny),
        }
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = match map.next_value()? {
                Raw::Bool(value) => Value::Bool(value),
                Raw::Whole(value) => Value::Whole(value),
                Raw::Text(value) => Value::Text(value),
                Raw::Real(_) | Raw::Other(_) => Value::Real,
            };
            (self.0)(&name, &value).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}
