//! The real binary: the client subcommands against servers that do as a test says, and `serve` as a process.
#![expect(clippy::unwrap_used, reason = "tests")]

mod bench;
mod infer;
mod serve;
mod server;
