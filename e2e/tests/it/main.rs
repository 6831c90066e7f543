//! End to end: the real binary, real sockets, stock clients.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod bad_input;
mod engine;
mod equality;
mod example;
mod generated;
mod metrics;
mod operation;
mod triton_client;
mod wire;
