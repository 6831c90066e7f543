//! The configuration of a model, as `config.pbtxt` and the protocols know it: generated messages.
//!
//! They live in core because the engine reads them and the protocols answer with them, and those two do not
//! know each other. Not here: which fields are honoured (`xebec-engine`, `repository`).

#[allow(missing_docs, clippy::all, reason = "generated: which lints it trips changes with the messages")]
#[rustfmt::skip]
mod generated;

pub use generated::*;

/// The serialised `FileDescriptorSet` of these messages, for text and JSON formats.
pub const DESCRIPTOR: &[u8] = include_bytes!("model_config/descriptor.bin");
