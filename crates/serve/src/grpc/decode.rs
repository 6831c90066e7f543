//! `ModelInferRequest` to an [`InferRequest`], in one pass over the message: raw contents stay views on it.
//!
//! Invariant: what is made is bounded by the message's own size and by [`MOST_TENSORS`], whatever it says.
use super::{
    encode::Form,
    fields::{Content, Fields, malformed, varints},
};
use crate::{
    classes::Classes,
    memory::{Slice, tensors::Shared},
    parameters::{MOST_AXES, MOST_TENSORS, RequestParameters, TensorParameters, Value, too_many},
    tensor::{each_once, intern, typed},
};
use bytes::Bytes;
use std::time::{Duration, Instant};
use xebec_core::{Datatype, InferError, InferRequest, ModelInfo, Tensor};

#[cfg(test)]
mod tests;

/// What a message says it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: &'a str,
    pub(super) version: &'a str,
}

/// Reads model and version and skips the rest: nothing of a tensor is looked at.
pub(super) fn peek(message: &[u8]) -> Result<Target<'_>, InferError> {
    let (mut model, mut version, mut repeated) = (None, None, 0usize);
    let mut fields = Fields(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => once(&mut model, content)?,
            2 => once(&mut version, content)?,
            _ => repeated += 1,
        }
        if repeated > 4 * MOST_TENSORS {
            return Err(malformed(format!("it has more than {} fields", 4 * MOST_TENSORS)));
        }
    }
    Ok(Target { model: model.unwrap_or_default(), version: version.unwrap_or_default() })
}

/// Takes what a message may say once. Protobuf has the last of several count, but a reader that has seen the beginning
/// alone, ours or one before us, has judged by another one.
fn once<'a>(place: &mut Option<&'a str>, content: Content<'a>) -> Result<(), InferError> {
    match place.replace(content.text()?) {
        None => Ok(()),
        Some(_) => Err(malformed("it says its model or its version twice")),
    }
}

/// Model and version by the beginning of a message, if the model's name is in it.
pub(super) fn target_of_start(start: &[u8]) -> Option<Target<'_>> {
    let mut target = Target { model: "", version: "" };
    let mut fields = Fields(start);
    while let Ok(Some((number, content))) = fields.next() {
        match number {
            1 => target.model = content.text().ok()?,
            2 => target.version = content.text().ok()?,
            _ => break,
        }
    }
    (!target.model.is_empty()).then_some(target)
}

/// A decoded request.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) request: InferRequest,
    pub(super) classes: Classes,
    pub(super) shared: Shared,
    /// Whether the answer is to say that it is the last.
    pub(super) final_response: bool,
    /// How old it may be when its turn comes.
    pub(super) max_age: Option<Duration>,
}

/// Decodes the whole request. The request's own mark is left in `id` also if the rest is wrong.
pub(super) fn request(
    message: &Bytes,
    info: &ModelInfo,
    received: Instant,
    form: Form,
    id: &mut String,
) -> Result<Decoded, InferError> {
    let mut parameters = RequestParameters::default();
    let (mut classes, mut shared) = (Classes::new(), Shared::default());
    let mut inputs = Vec::with_capacity(info.inputs.len());
    let mut outputs = Vec::new();
    let mut raw: Vec<&[u8]> = Vec::new();
    let mut fields = Fields(message);
    while let Some((number, content)) = fields.next()? {
        match number {
            3 => content.text()?.clone_into(id),
            4 => parameter(content.bytes()?, |name, value| parameters.take(name, value))?,
            5 => bounded(&mut inputs, "inputs", input(content.bytes()?)?)?,
            6 => {
                let (name, wanted, slice) = output(content.bytes()?)?;
                if wanted > 0 {
                    classes.push((name.clone(), wanted));
                }
                shared.outputs.extend(slice.map(|slice| (name.clone(), slice)));
                bounded(&mut outputs, "outputs", name)?;
            }
            7 => bounded(&mut raw, "raw_input_contents", content.bytes()?)?,
            _ => (),
        }
    }
    each_once(&outputs)?;
    let places = inputs.iter_mut().enumerate();
    shared.inputs =
        places.filter_map(|(at, input): (_, &mut Input<'_>)| Some((at, input.slice.take()?))).collect();
    let elsewhere: Vec<usize> = shared.inputs.iter().map(|(at, _)| *at).collect();
    let inputs = tensors(message, inputs, &elsewhere, &raw, info)?;
    let sequence = parameters.sequence();
    if form == Form::Unary {
        parameters.check_alone()?;
    }
    let RequestParameters { timeout, priority, max_age, final_response, .. } = parameters;
    // Whoever is too old when its turn comes is not run.
    let timeout = timeout.into_iter().chain(max_age).min();
    let request = InferRequest {
        id: id.clone(),
        inputs,
        outputs,
        timeout,
        priority,
        sequence,
        streamed: form == Form::Streamed,
        headers: Vec::new(),
        received,
        trace: None,
    };
    Ok(Decoded { request, classes, shared, final_response, max_age })
}

fn bounded<T>(list: &mut Vec<T>, what: &str, item: T) -> Result<(), InferError> {
    if list.len() == MOST_TENSORS {
        return Err(too_many(what));
    }
    list.push(item);
    Ok(())
}

/// An input as it stands in the message.
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: Vec<i64>,
    contents: Option<&'a [u8]>,
    /// Where in shared memory it lies, if it does.
    slice: Option<Slice>,
}

fn input(bytes: &[u8]) -> Result<Input<'_>, InferError> {
    let mut input = Input { name: "", datatype: "", shape: Vec::new(), contents: None, slice: None };
    let mut parameters = TensorParameters::default();
    let mut fields = Fields(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => input.name = content.text()?,
            2 => input.datatype = content.text()?,
            3 => axes(&mut input.shape, content)?,
            // Sizes and forms of binary data mean nothing in gRPC.
            4 => parameter(content.bytes()?, |key, value| parameters.take(key, value))?,
            5 if input.contents.is_some() => return Err(malformed("an input has its contents twice")),
            5 => input.contents = Some(content.bytes()?),
            _ => (),
        }
    }
    input.slice = parameters.slice(input.name)?;
    if input.slice.is_some() && input.contents.is_some() {
        return Err(InferError::invalid_hint(
            format!("input '{}' has both contents and a place in shared memory", input.name),
            "send one of the two",
        ));
    }
    Ok(input)
}

fn axes(shape: &mut Vec<i64>, content: Content<'_>) -> Result<(), InferError> {
    let mut push = |extent: u64| {
        if shape.len() == MOST_AXES {
            return Err(InferError::invalid(format!("a shape has more than {MOST_AXES} extents")));
        }
        shape.push(extent.cast_signed());
        Ok(())
    };
    match content {
        Content::Varint(extent) => push(extent),
        packed => varints(packed.bytes()?, push),
    }
}

/// Name, as how many classes it is wanted, and where in shared memory.
fn output(bytes: &[u8]) -> Result<(String, usize, Option<Slice>), InferError> {
    let (mut name, mut parameters) = ("", TensorParameters::default());
    let mut fields = Fields(bytes);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => name = content.text()?,
            2 => parameter(content.bytes()?, |key, value| parameters.take(key, value))?,
            _ => (),
        }
    }
    Ok((name.to_owned(), parameters.classes, parameters.slice(name)?))
}

/// Reads one entry of a map of parameters.
fn parameter(
    entry: &[u8],
    mut take: impl FnMut(&str, &Value<'_>) -> Result<(), InferError>,
) -> Result<(), InferError> {
    let (mut name, mut value) = ("", Value::Real);
    let mut fields = Fields(entry);
    while let Some((number, content)) = fields.next()? {
        match number {
            1 => name = content.text()?,
            2 => value = choice(content.bytes()?)?,
            _ => (),
        }
    }
    take(name, &value)
}

fn choice(bytes: &[u8]) -> Result<Value<'_>, InferError> {
    let mut value = Value::Real;
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        value = match field {
            (1, Content::Varint(flag)) => Value::Bool(flag != 0),
            (2, Content::Varint(number)) => Value::Whole(number.cast_signed()),
            (3, content) => Value::Text(content.text()?.into()),
            (4, Content::Fixed64(_)) => Value::Real,
            // An id of a sequence may have all 64 bits; every other number that has them is too large for what it means.
            (5, Content::Varint(number)) => Value::Whole(number.cast_signed()),
            (1..=5, _) => return Err(malformed("a parameter has the wrong wire type")),
            _ => continue,
        };
    }
    Ok(value)
}

/// Makes tensors of inputs; those that lie `elsewhere`, by their place, have no data yet and no part in `raw`.
fn tensors(
    message: &Bytes,
    inputs: Vec<Input<'_>>,
    elsewhere: &[usize],
    raw: &[&[u8]],
    info: &ModelInfo,
) -> Result<Vec<Tensor>, InferError> {
    if let Some(mixed) = inputs.iter().find(|input| !raw.is_empty() && input.contents.is_some()) {
        let Input { name, .. } = mixed;
        return Err(InferError::invalid_hint(
            format!(
                "contents field must not be specified when using raw_input_contents for '{name}' for model '{}'",
                info.name
            ),
            "use one of the two for all inputs",
        ));
    }
    let with_data = inputs.len() - elsewhere.len();
    if !raw.is_empty() && raw.len() != with_data {
        let apart = if elsewhere.is_empty() { "" } else { " outside shared memory" };
        return Err(InferError::invalid_hint(
            format!("request has {with_data} inputs{apart} but {} raw_input_contents", raw.len()),
            "give raw_input_contents for every input, or contents for every input",
        ));
    }
    let mut raw = raw.iter();
    let one = |(at, input): (usize, Input<'_>)| {
        let Input { name, datatype, shape, contents, .. } = input;
        let datatype: Datatype =
            datatype.parse().map_err(|error| InferError::invalid(format!("input '{name}': {error}")))?;
        let raw = if elsewhere.binary_search(&at).is_ok() { None } else { raw.next() };
        let data = match (raw, contents) {
            (Some(raw), _) => message.slice_ref(raw),
            (None, Some(contents)) => {
                typed::bytes(&typed::Wanted { name, datatype, shape: &shape }, contents, message)?
            }
            (None, None) => Bytes::new(),
        };
        Ok(Tensor { name: intern(&info.inputs, name), datatype, shape, data })
    };
    inputs.into_iter().enumerate().map(one).collect()
}
