//! End to end: the real binary, real sockets, stock clients.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_input;
mod bad_models;
mod configured;
mod conformance;
mod doctor;
mod drain;
mod engine;
mod equality;
mod example;
mod frames;
mod generated;
mod grpc_bad_input;
mod hostile_http1;
mod hostile_http2;
mod hostile_models;
mod hostile_requests;
mod hostile_settings;
mod import_guide;
mod labels;
mod lifecycle;
mod limits;
mod metrics;
mod operation;
mod protocol_client;
mod quantize;
mod response_cache;
mod rpc;
mod security_page;
mod sequences;
mod stream;
mod threads;
mod trace;
mod triton_client;
mod tune;
mod wire;
