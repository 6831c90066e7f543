//! The network side over real sockets, with a protocol that echoes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod foreign;
mod framing;
mod grpc;
mod grpc_stream;
mod http;
mod server;
