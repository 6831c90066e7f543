//! The protocols over real sockets, with models that are made up.
#![expect(clippy::unwrap_used, reason = "tests")]

mod drain;
mod fake;
mod grpc;
mod http;
mod infer;
mod record;
mod server;
mod settings;
mod stream;
