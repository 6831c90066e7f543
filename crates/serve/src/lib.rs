//! The inference protocols on top of core's ports: the Open Inference Protocol over REST and gRPC.
//!
//! A protocol turns bytes into an [`InferRequest`](xebec_core::InferRequest) and an answer into bytes; between the two
//! every call goes one way: peek, admit, route, decode, submit, encode, record ([`call`]). Invariants: nothing of a
//! tensor is decoded before its caller is admitted; every error goes through [`InferError`](xebec_core::InferError) to
//! its status; a call whose caller goes away is cancelled upstream.
//!
//! Not here: sockets and limits (`xebec-net`), models (`xebec-engine`).
#![forbid(unsafe_code)]

mod call;
mod classes;
mod control;
mod fresh;
mod grpc;
mod http;
mod index;
mod log_settings;
pub mod memory;
mod model_config;
mod parameters;
mod record;
mod service;
mod statistics;
mod tensor;
mod trace_settings;
mod traced;

pub use record::{AccessEntry, AccessLog, Protocol, Unrouted};
pub use service::{Dialect, Parts, Service, Settings};

/// Extensions of the protocol that are always offered, as `/v2` lists them.
const EXTENSIONS: [&str; 10] = [
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "parameters",
    "sequence",
    "sequence(string_id)",
    "statistics",
    "trace",
];
