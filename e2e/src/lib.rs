//! The real binary over real sockets: what the end-to-end tests share, and the generator of wire types.
#![forbid(unsafe_code)]

pub mod generate;
pub mod pipeline;
pub mod server;
