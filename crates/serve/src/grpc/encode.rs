//! An answer to `ModelInferResponse`, always with raw contents, as Triton does.
use crate::memory::tensors::Placed;
use bytes::BufMut;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};
use std::{collections::BTreeMap, time::Duration};
use xebec_core::{InferError, InferResponse, ModelInfo, Tensor};
use xebec_net::{
    service::GrpcMessage,
    wire::inference::{
        InferParameter, ModelInferResponse, ModelStreamInferResponse, infer_parameter::ParameterChoice,
    },
};

/// Most bytes that one message of gRPC may have by its own length prefix, and clients' 32-bit sizes.
const MOST_BYTES: usize = i32::MAX as usize;

/// The parameter by which the last answer to a message of a stream says that it is.
const FINAL: &str = "triton_final_response";

/// As what an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Alone.
    Unary,
    /// In a stream.
    Streamed,
}

/// Encodes an answer; returns its size as well. What was `placed` in shared memory has a place in the raw contents, which is
/// empty: clients count. `last` is whether it is to say that it is the last to its request.
///
/// It is written straight from the tensors: a message made only to be encoded costs a tiny model's answer a twentieth of
/// its time. Fields stand in the order of their numbers, and what is empty is left out, as prost has it.
pub(super) fn response(
    info: &ModelInfo,
    id: &str,
    response: &InferResponse,
    placed: &[Placed],
    form: Form,
    last: bool,
) -> Result<(GrpcMessage, usize), InferError> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    text(1, info.name.as_str(), &mut head);
    text(2, itoa::Buffer::new().format(info.version.get()), &mut head);
    text(3, id, &mut head);
    if last {
        parameter(4, FINAL, ParameterChoice::BoolParam(true), &mut head);
    }
    let mut part = Vec::with_capacity(HEAD_BYTES);
    for tensor in &response.outputs {
        part.clear();
        output(tensor, placed, &mut part);
        field(5, &part, &mut head);
    }
    let contents = || response.outputs.iter().map(|tensor| &tensor.data[..]);
    let body = head.len() + contents().map(field_len).sum::<usize>();
    let size = if form == Form::Streamed { 1 + encoded_len_varint(body as u64) + body } else { body };
    if size > MOST_BYTES {
        return Err(InferError::Internal(format!(
            "the answer has {size} bytes, more than gRPC can carry; ask for fewer outputs"
        )));
    }
    let message = GrpcMessage::of(size, |out| {
        if form == Form::Streamed {
            encode_key(2, WireType::LengthDelimited, out);
            encode_varint(body as u64, out);
        }
        out.put_slice(&head);
        contents().for_each(|data| field(6, data, out));
    });
    Ok((message, size))
}

/// What all but the contents of an answer with a few outputs takes.
const HEAD_BYTES: usize = 256;

fn output(tensor: &Tensor, placed: &[Placed], out: &mut Vec<u8>) {
    text(1, &tensor.name, out);
    text(2, tensor.datatype.as_str(), out);
    if !tensor.shape.is_empty() {
        let extents = || tensor.shape.iter().map(|extent| extent.cast_unsigned());
        encode_key(3, WireType::LengthDelimited, out);
        encode_varint(extents().map(encoded_len_varint).sum::<usize>() as u64, out);
        extents().for_each(|extent| encode_varint(extent, out));
    }
    let here = placed.iter().filter(|placed| *placed.output == *tensor.name);
    here.flat_map(place).for_each(|(name, choice)| parameter(4, name, choice, out));
}

fn text(number: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        field(number, text.as_bytes(), out);
    }
}

/// An entry of a map of parameters.
fn parameter(number: u32, name: &str, choice: ParameterChoice, out: &mut Vec<u8>) {
    let mut entry = Vec::new();
    text(1, name, &mut entry);
    field(2, &InferParameter { parameter_choice: Some(choice) }.encode_to_vec(), &mut entry);
    field(number, &entry, out);
}

/// A field of bytes, also if there are none. The number is below 16: its key is one byte.
fn field(number: u32, content: &[u8], out: &mut impl BufMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(content.len() as u64, out);
    out.put_slice(content);
}

fn field_len(content: &[u8]) -> usize {
    1 + encoded_len_varint(content.len() as u64) + content.len()
}

/// Where in shared memory an output lies.
fn place(placed: &Placed) -> impl Iterator<Item = (&'static str, ParameterChoice)> + use<> {
    let whole = |number: u64| ParameterChoice::Int64Param(i64::try_from(number).unwrap_or(i64::MAX));
    let offset = (placed.offset > 0).then(|| ("shared_memory_offset", whole(placed.offset)));
    let all = [
        Some(("shared_memory_region", ParameterChoice::StringParam(placed.region.clone()))),
        Some(("shared_memory_byte_size", whole(placed.byte_size))),
        offset,
    ];
    all.into_iter().flatten()
}

/// The answer to a message of a stream that was too old when its turn came: no outputs, and how old it was.
pub(super) fn dropped(info: &ModelInfo, id: &str, age: Duration, last: bool) -> GrpcMessage {
    let choice = |choice| InferParameter { parameter_choice: Some(choice) };
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    let mut parameters = BTreeMap::from([
        ("dropped".to_owned(), choice(ParameterChoice::BoolParam(true))),
        ("age_ms".to_owned(), choice(ParameterChoice::Int64Param(age))),
    ]);
    if last {
        parameters.insert(FINAL.to_owned(), choice(ParameterChoice::BoolParam(true)));
    }
    let response = ModelInferResponse {
        model_name: info.name.to_string(),
        model_version: info.version.to_string(),
        id: id.to_owned(),
        parameters,
        ..ModelInferResponse::default()
    };
    GrpcMessage::encode(&ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    })
}

/// The answer to a message of a stream that failed: its words, and the message's own mark.
pub(super) fn failure(id: &str, error_message: String) -> GrpcMessage {
    let mark = || ModelInferResponse { id: id.to_owned(), ..ModelInferResponse::default() };
    let infer_response = (!id.is_empty()).then(mark);
    GrpcMessage::encode(&ModelStreamInferResponse { error_message, infer_response })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xebec_core::{Datatype, ModelName, Timings, Version};
    use xebec_net::wire::inference::model_infer_response::InferOutputTensor;

    fn tensor() -> impl Strategy<Value = Tensor> {
        let shape = prop::collection::vec(prop_oneof![0..200_i64, Just(i64::MAX)], 0..4);
        let data = prop::collection::vec(any::<u8>(), 0..300);
        ("[a-z]{0,200}", shape, data).prop_map(|(name, shape, data)| Tensor {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape,
            data: data.into(),
        })
    }

    /// The message that prost encodes.
    fn message(
        info: &ModelInfo,
        id: &str,
        outputs: &[Tensor],
        placed: &[Placed],
        last: bool,
    ) -> ModelInferResponse {
        let said = |choice| InferParameter { parameter_choice: Some(choice) };
        let output = |tensor: &Tensor| InferOutputTensor {
            name: tensor.name.to_string(),
            datatype: tensor.datatype.to_string(),
            shape: tensor.shape.clone(),
            parameters: placed
                .iter()
                .filter(|placed| *placed.output == *tensor.name)
                .flat_map(place)
                .map(|(name, choice)| (name.to_owned(), said(choice)))
                .collect(),
            ..InferOutputTensor::default()
        };
        ModelInferResponse {
            model_name: info.name.to_string(),
            model_version: info.version.to_string(),
            id: id.to_owned(),
            parameters: last
                .then(|| (FINAL.to_owned(), said(ParameterChoice::BoolParam(true))))
                .into_iter()
                .collect(),
            outputs: outputs.iter().map(output).collect(),
            raw_output_contents: outputs.iter().map(|tensor| tensor.data.clone()).collect(),
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_the_message_that_prost_would_have_encoded(
            outputs in prop::collection::vec(tensor(), 0..4),
            id in "[a-z]{0,3}",
            version in 1..u64::from(u32::MAX),
            (streamed, last) in any::<(bool, bool)>(),
            offset in 0..3_u64,
        ) {
            let info = ModelInfo {
                name: ModelName::parse("fraud").unwrap(),
                version: Version::parse(&version.to_string()).unwrap(),
                platform: String::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                max_batch_size: 0,
            };
            let placed: Vec<Placed> = outputs.first().into_iter().filter(|_| offset > 0).map(|tensor| Placed {
                output: tensor.name.to_string(),
                region: "r".into(),
                byte_size: 7,
                offset: offset - 1,
            }).collect();
            let form = if streamed { Form::Streamed } else { Form::Unary };
            let wanted = message(&info, &id, &outputs, &placed, last);
            let answer = InferResponse { outputs, timings: Timings::default() };
            let (encoded, size) = response(&info, &id, &answer, &placed, form, last).unwrap();
            let bytes = encoded.as_bytes();
            prop_assert_eq!(size, bytes.len() - 5);
            let body = bytes.slice(5..);
            let got = if streamed {
                ModelStreamInferResponse::decode(body).unwrap().infer_response.unwrap()
            } else {
                ModelInferResponse::decode(body).unwrap()
            };
            prop_assert_eq!(got, wanted);
        }
    }
}
