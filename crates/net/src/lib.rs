//! Listeners, limits, drain and telemetry: everything between a socket and a protocol.
//!
//! A protocol implements [`service::HttpService`] or [`service::GrpcService`]; this crate accepts, reads with
//! limits, calls it, writes, and ends each turn of an I/O core with [`xebec_core::port::Turn::flush`].
//!
//! Invariants: one thread per I/O core, nothing shared between them on the way of a request; no byte of a body is
//! kept past its limit. Not here: protocols (`xebec-serve`), models (`xebec-engine`), configuration (`xebec`).
#![forbid(unsafe_code)]

pub mod body;
mod budget;
mod caught;
mod conn;
pub mod drain;
pub mod exposition;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gather;
mod grpc;
pub mod hosts;
mod http1;
mod http2;
pub mod limits;
pub mod listener;
mod outbox;
pub mod process;
pub mod reactor;
pub mod service;
pub mod wire;
