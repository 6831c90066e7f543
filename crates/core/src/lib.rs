//! What every part of xebec speaks of: names, tensors, requests, errors, permits, resources, metrics
//! and the ports through which the parts meet.
//!
//! Invariants:
//! 1. nothing here does I/O, spawns, locks across a call or knows a clock other than its arguments;
//! 2. a value of a type here is already checked: holding a [`ModelName`] or a [`Permit`] is a proof.
//!
//! Not here: sockets (`xebec-net`), models (`xebec-engine`), protocols (`xebec-serve`).
#![forbid(unsafe_code)]

pub mod error;
pub mod infer;
pub mod log;
pub mod metrics;
pub mod model;
pub mod model_config;
pub mod name;
pub mod permit;
pub mod port;
pub mod resource;
pub mod step;
pub mod tensor;
pub mod trace;

pub use error::{Code, InferError};
pub use infer::{CorrelationId, InferRequest, InferResponse, SequenceMark, Timings};
pub use model::ModelInfo;
pub use name::{ModelName, TenantId, Version, VersionLabel, VersionLabels, VersionRef};
pub use permit::{Gate, Permit, Principal, Verb};
pub use tensor::{Datatype, Tensor};
