//! An answer to `ModelInferResponse`, always with raw contents, as Triton does.
use xebec_core::{InferError, InferResponse, ModelInfo};
use xebec_net::{
    service::GrpcMessage,
    wire::inference::{ModelInferResponse, model_infer_response::InferOutputTensor},
};

/// Most bytes that one message of gRPC may have by its own length prefix, and clients' 32-bit sizes.
const MOST_BYTES: usize = i32::MAX as usize;

/// Encodes an answer; returns its size as well.
pub(super) fn response(
    info: &ModelInfo,
    id: &str,
    response: &InferResponse,
) -> Result<(GrpcMessage, usize), InferError> {
    let output = |tensor: &xebec_core::Tensor| InferOutputTensor {
        name: tensor.name.to_string(),
        datatype: tensor.datatype.as_str().to_owned(),
        shape: tensor.shape.clone(),
        ..InferOutputTensor::default()
    };
    let message = ModelInferResponse {
        model_name: info.name.to_string(),
        model_version: info.version.to_string(),
        id: id.to_owned(),
        outputs: response.outputs.iter().map(output).collect(),
        raw_output_contents: response.outputs.iter().map(|tensor| tensor.data.clone()).collect(),
        ..ModelInferResponse::default()
    };
    let size = prost::Message::encoded_len(&message);
    if size > MOST_BYTES {
        return Err(InferError::Internal(format!(
            "the answer has {size} bytes, more than gRPC can carry; ask for fewer outputs"
        )));
    }
    Ok((GrpcMessage::encode(&message), size))
}
