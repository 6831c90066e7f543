//! A model's configuration as JSON, by the field names of `config.pbtxt`.
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use std::sync::OnceLock;
use xebec_core::{
    InferError,
    model_config::{DESCRIPTOR, ModelConfig},
};

/// The schema, read once: that takes a millisecond.
fn schema() -> Result<MessageDescriptor, InferError> {
    static SCHEMA: OnceLock<Result<MessageDescriptor, String>> = OnceLock::new();
    let read = || {
        let pool = DescriptorPool::decode(DESCRIPTOR).map_err(|error| error.to_string())?;
        pool.get_message_by_name("inference.ModelConfig")
            .ok_or_else(|| "no schema of the configuration".to_owned())
    };
    SCHEMA.get_or_init(read).clone().map_err(InferError::Internal)
}

/// Writes the configuration; every field of the first level is there, also one with its default.
pub(crate) fn json(config: &ModelConfig) -> Result<Vec<u8>, InferError> {
    let broken = |error: &dyn std::fmt::Display| InferError::Internal(error.to_string());
    let bytes = config.encode_to_vec();
    let message = DynamicMessage::decode(schema()?, bytes.as_slice()).map_err(|error| broken(&error))?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, &options).map_err(|error| broken(&error))?;
    Ok(out)
}
