//! An answer to `ModelInferResponse`, always with raw contents, as Triton does.
use crate::memory::tensors::Placed;
use prost::Message;
use xebec_core::{InferError, InferResponse, ModelInfo};
use xebec_net::{
    service::GrpcMessage,
    wire::inference::{
        InferParameter, ModelInferResponse, ModelStreamInferResponse, infer_parameter::ParameterChoice,
        model_infer_response::InferOutputTensor,
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
pub(super) fn response(
    info: &ModelInfo,
    id: &str,
    response: &InferResponse,
    placed: &[Placed],
    form: Form,
    last: bool,
) -> Result<(GrpcMessage, usize), InferError> {
    let output = |tensor: &xebec_core::Tensor| InferOutputTensor {
        name: tensor.name.to_string(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.clone(),
        parameters: placed
            .iter()
            .find(|placed| *placed.output == *tensor.name)
            .map(place)
            .into_iter()
            .flatten()
            .collect(),
        ..InferOutputTensor::default()
    };
    let parameters = if last {
        [(FINAL.to_owned(), said(ParameterChoice::BoolParam(true)))].into()
    } else {
        Default::default()
    };
    let response = ModelInferResponse {
        model_name: info.name.to_string(),
        model_version: info.version.to_string(),
        id: id.to_owned(),
        parameters,
        outputs: response.outputs.iter().map(output).collect(),
        raw_output_contents: response.outputs.iter().map(|tensor| tensor.data.clone()).collect(),
    };
    match form {
        Form::Unary => encode(&response),
        Form::Streamed => encode(&ModelStreamInferResponse {
            infer_response: Some(response),
            ..ModelStreamInferResponse::default()
        }),
    }
}

fn said(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// Where in shared memory an output lies.
fn place(placed: &Placed) -> impl Iterator<Item = (String, InferParameter)> + use<> {
    let whole = |number: u64| said(ParameterChoice::Int64Param(i64::try_from(number).unwrap_or(i64::MAX)));
    let offset = (placed.offset > 0).then(|| ("shared_memory_offset", whole(placed.offset)));
    let all = [
        Some(("shared_memory_region", said(ParameterChoice::StringParam(placed.region.clone())))),
        Some(("shared_memory_byte_size", whole(placed.byte_size))),
        offset,
    ];
    all.into_iter().flatten().map(|(name, value)| (name.to_owned(), value))
}

fn encode(message: &impl Message) -> Result<(GrpcMessage, usize), InferError> {
    let size = message.encoded_len();
    if size > MOST_BYTES {
        return Err(InferError::Internal(format!(
            "the answer has {size} bytes, more than gRPC can carry; ask for fewer outputs"
        )));
    }
    Ok((GrpcMessage::encode(message), size))
}

/// The answer to a message of a stream that failed: its words, and the message's own mark.
pub(super) fn failure(id: &str, error_message: String) -> GrpcMessage {
    let mark = || ModelInferResponse { id: id.to_owned(), ..ModelInferResponse::default() };
    let infer_response = (!id.is_empty()).then(mark);
    GrpcMessage::encode(&ModelStreamInferResponse { error_message, infer_response })
}
