//! A model's configuration as JSON, by the field names of `config.pbtxt`.
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use xebec_core::{
    InferError,
    model_config::{DESCRIPTOR, ModelConfig},
};

/// Writes the configuration; every field of the first level is there, also one with its default.
pub(crate) fn json(config: &ModelConfig) -> Result<Vec<u8>, InferError> {
    let broken = |what: String| InferError::Internal(what);
    let pool = DescriptorPool::decode(DESCRIPTOR).map_err(|error| broken(error.to_string()))?;
    let schema = pool.get_message_by_name("inference.ModelConfig").ok_or_else(|| broken("no schema".into()))?;
    let bytes = config.encode_to_vec();
    let message = DynamicMessage::decode(schema, bytes.as_slice()).map_err(|error| broken(error.to_string()))?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false).skip_default_fields(false);
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::new(&mut out);
    message.serialize_with_options(&mut serializer, &options).map_err(|error| broken(error.to_string()))?;
    Ok(out)
}
