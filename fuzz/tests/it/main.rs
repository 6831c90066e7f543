//! The kept corpora, replayed, and what the targets themselves promise.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod bad_steps;
mod beside_h2;
mod framing;
mod replay;
