//! `ModelInferRequest` to an [`InferRequest`]: raw contents stay views on the message.
use crate::{
    parameters::{RequestParameters, TensorParameters, Value},
    tensor::{intern, typed},
};
use bytes::Bytes;
use prost::{
    Message as _,
    bytes::Buf as _,
    encoding::{WireType, decode_key, decode_varint},
};
use std::{collections::BTreeMap, time::Instant};
use xebec_core::{Datatype, InferError, InferRequest, ModelInfo, Tensor};
use xebec_net::wire::inference::{InferParameter, ModelInferRequest, infer_parameter::ParameterChoice};

/// What a message says it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) model: &'a str,
    pub(super) version: &'a str,
}

fn malformed(what: impl std::fmt::Display) -> InferError {
    InferError::invalid(format!("the message is not a ModelInferRequest: {what}"))
}

/// Reads model and version, which every known client writes first, and nothing behind the first tensor.
pub(super) fn peek(message: &[u8]) -> Result<Target<'_>, InferError> {
    let (mut model, mut version) = ("", "");
    let mut rest = message;
    while rest.has_remaining() {
        let (number, kind) = decode_key(&mut rest).map_err(malformed)?;
        // Fields 3 to 7 may come first from a client that is not known; then the model has to be looked for behind.
        match (number, kind) {
            (1, WireType::LengthDelimited) => model = text(&mut rest)?,
            (2, WireType::LengthDelimited) => version = text(&mut rest)?,
            (3.., WireType::LengthDelimited) if !model.is_empty() => break,
            (_, WireType::LengthDelimited) => {
                skip(&mut rest)?;
            }
            _ => return Err(malformed("a field has the wrong wire type")),
        }
    }
    Ok(Target { model, version })
}

fn skip<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], InferError> {
    let length = decode_varint(rest).map_err(malformed)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (field, tail) = rest.split_at_checked(length).ok_or_else(|| malformed("a field ends after the message"))?;
    *rest = tail;
    Ok(field)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, InferError> {
    std::str::from_utf8(skip(rest)?).map_err(|_| malformed("a name is not UTF-8"))
}

/// Decodes the whole request. The request's own mark is left in `id` also if the rest is wrong.
pub(super) fn request(
    message: Bytes,
    info: &ModelInfo,
    received: Instant,
    id: &mut String,
) -> Result<InferRequest, InferError> {
    let mut message = ModelInferRequest::decode(message).map_err(malformed)?;
    id.clone_from(&message.id);
    let mut parameters = RequestParameters::default();
    for (name, parameter) in &message.parameters {
        parameters.take(name, &value(parameter))?;
    }
    for output in &message.outputs {
        tensor_parameters(&output.name, &output.parameters)?;
    }
    let inputs = inputs(&mut message, info)?;
    Ok(InferRequest {
        id: message.id,
        inputs,
        outputs: message.outputs.into_iter().map(|output| output.name).collect(),
        timeout: parameters.timeout,
        received,
    })
}

fn value(parameter: &InferParameter) -> Value {
    match &parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Value::Bool(*value),
        Some(ParameterChoice::Int64Param(value)) => Value::Whole(*value),
        Some(ParameterChoice::Uint64Param(value)) => Value::Whole(i64::try_from(*value).unwrap_or(i64::MAX)),
        Some(ParameterChoice::StringParam(value)) => Value::Text(value.clone()),
        Some(ParameterChoice::DoubleParam(_)) | None => Value::Real,
    }
}

fn tensor_parameters(tensor: &str, parameters: &BTreeMap<String, InferParameter>) -> Result<(), InferError> {
    let mut taken = TensorParameters::default();
    parameters.iter().try_for_each(|(name, parameter)| taken.take(tensor, name, &value(parameter)))
}

fn inputs(message: &mut ModelInferRequest, info: &ModelInfo) -> Result<Vec<Tensor>, InferError> {
    let raw = std::mem::take(&mut message.raw_input_contents);
    let given = std::mem::take(&mut message.inputs);
    if !raw.is_empty() && raw.len() != given.len() {
        return Err(InferError::invalid_hint(
            format!("request has {} inputs but {} raw_input_contents", given.len(), raw.len()),
            "give raw_input_contents for every input, or contents for every input",
        ));
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(given.len());
    for input in given {
        tensor_parameters(&input.name, &input.parameters)?;
        let datatype: Datatype = input
            .datatype
            .parse()
            .map_err(|error| InferError::invalid(format!("input '{}': {error}", input.name)))?;
        let data = match (raw.next(), input.contents) {
            (Some(_), Some(_)) => {
                return Err(InferError::invalid_hint(
                    format!("contents field must not be specified when using raw_input_contents for '{}' for model '{}'", input.name, info.name),
                    "use one of the two for all inputs",
                ));
            }
            (Some(raw), None) => raw,
            (None, Some(contents)) => typed::bytes(&input.name, datatype, contents)?,
            (None, None) => Bytes::new(),
        };
        tensors.push(Tensor { name: intern(&info.inputs, &input.name), datatype, shape: input.shape, data });
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_net::wire::inference::model_infer_request::InferInputTensor;

    fn message(model: &str, version: &str) -> ModelInferRequest {
        ModelInferRequest {
            model_name: model.into(),
            model_version: version.into(),
            inputs: vec![InferInputTensor { name: "x".into(), ..InferInputTensor::default() }],
            ..ModelInferRequest::default()
        }
    }

    #[test]
    fn model_and_version_are_found_whatever_comes_first() {
        let bytes = message("fraud", "3").encode_to_vec();
        assert_eq!(peek(&bytes), Ok(Target { model: "fraud", version: "3" }));
        // The version only, then the tensor, then the model: legal in protobuf.
        let mut late = ModelInferRequest { model_name: String::new(), ..message("", "3") }.encode_to_vec();
        late.extend(ModelInferRequest { model_name: "fraud".into(), ..ModelInferRequest::default() }.encode_to_vec());
        assert_eq!(peek(&late), Ok(Target { model: "fraud", version: "3" }));
    }

    #[test]
    fn what_is_no_message_is_refused_without_reading_past_its_end() {
        for bytes in [&[0x0a, 200][..], &[0x0a, 2, 0xff, 0xff], &[0x08, 1], &[0xff; 20]] {
            assert!(peek(bytes).is_err(), "{bytes:?}");
        }
    }
}
