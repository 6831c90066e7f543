//! Models: what a file says, which engine runs it, how requests become batches, where models live.
//!
//! Invariants: an answer is the engine's own to the batch it was in; rows of different callers share a run only where
//! no operator mixes them; unsafe code is in one module, [`backend::ort`]'s `raw`.
//!
//! Not here: sockets and protocols. This crate never sees `xebec-net`.
#![deny(unsafe_code)]

mod aside;
pub mod backend;
mod builtin;
mod cache;
pub mod catalog;
mod check;
pub mod doctor;
mod edges;
pub mod formats;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod graph;
mod inline;
pub mod inspect;
mod instance;
mod later;
pub mod limiter;
mod mapped;
pub mod onnx;
mod order;
mod pace;
mod queue;
pub mod repository;
mod request;
mod runner;
mod sequence;
pub mod served;
mod workers;

pub use inline::TurnEnd;
pub use runner::Observer;
