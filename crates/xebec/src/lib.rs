//! The `xebec` command: flags, configuration, and the wiring of the parts into one process.
//!
//! One file per subcommand. Not here: anything that a part does itself.
#![forbid(unsafe_code)]

mod access_log;
mod admission;
pub mod bench;
pub mod cli;
pub mod config;
pub mod doctor;
mod ending;
pub mod files;
pub mod infer;
mod inputs;
pub mod inspect;
mod interrupt;
mod lines;
mod local;
mod logging;
mod metrics_page;
pub mod quantize;
mod replaced;
mod run;
pub mod telemetry;
pub mod tune;
