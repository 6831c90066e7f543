//! End to end: the real binary, real sockets, stock clients.
#![expect(clippy::unwrap_used, reason = "tests")]

mod generated;
mod triton_client;
