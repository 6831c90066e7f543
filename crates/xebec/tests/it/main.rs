//! The client subcommands against servers that do as a test says.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
mod infer;
mod server;
