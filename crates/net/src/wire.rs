//! Generated messages of the wire: the Open Inference Protocol with Triton's additions, gRPC health v1,
//! reflection, and traces of OTLP.
//!
//! Made from `proto/` by `make generate`; the configuration's messages are [`xebec_core::model_config`].

/// Package `inference`.
#[allow(missing_docs, clippy::all, reason = "generated: which lints it trips changes with the messages")]
#[rustfmt::skip]
pub mod inference;

/// Package `grpc.health.v1`.
#[allow(missing_docs, clippy::all, reason = "generated: which lints it trips changes with the messages")]
#[rustfmt::skip]
pub mod health;

/// Package `grpc.reflection.v1`; the messages of `v1alpha` are the same.
#[allow(missing_docs, clippy::all, reason = "generated: which lints it trips changes with the messages")]
#[rustfmt::skip]
pub mod reflection;

/// Traces of OTLP.
#[allow(missing_docs, clippy::all, reason = "generated: which lints it trips changes with the messages")]
#[rustfmt::skip]
pub mod otlp;

/// The schema of every service, a `FileDescriptorSet`.
pub const DESCRIPTOR: &[u8] = include_bytes!("wire/descriptor.bin");
