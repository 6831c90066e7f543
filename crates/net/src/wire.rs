//! Generated messages of the wire: the Open Inference Protocol with Triton's additions, and gRPC health v1.
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
