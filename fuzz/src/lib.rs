//! Targets of fuzzing: one function for each kind of outside bytes, which panics where a property does not hold.
//!
//! `make fuzz` searches for such bytes, guided by coverage; the tests replay those that are kept in `corpus/`. A target
//! drives public entry points of the other crates, or the doors that their feature `fuzzing` opens, and never a copy of
//! their code. Invariants: a target depends on its bytes alone, so that a finding can be replayed; no I/O, no waiting.
//!
//! Not here: how inputs are found (libFuzzer), the properties of single parts (their own tests).
#![deny(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a panic is how a target tells what it found")]

mod binary;
mod config;
mod graph;
mod grpc;
mod http1;
mod http2;
mod image;
mod json;
pub mod memory;
mod model;
mod rest;
mod service;
mod stream;

pub use http1::{Read, hypers, ours};
pub use http2::{apart, compact_apart, input::item};

/// Tries one input; whether it was taken for what it should be, and not refused.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("json", json::target),
    ("binary", binary::target),
    ("grpc", grpc::target),
    ("stream", stream::target),
    ("config", config::target),
    ("http1", http1::target),
    ("http2", http2::target),
    ("graph", graph::target),
    ("image", image::target),
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
