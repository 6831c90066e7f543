//! What every protocol works with, wired by the binary.
use crate::record::{AccessLog, Unrouted};
use std::sync::Arc;
use tokio::sync::watch;
use xebec_core::{Gate, port::Router};
use xebec_net::drain::Drain;

/// Which server a listener behaves as where servers of the protocol truly differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// NVIDIA Triton.
    #[default]
    Triton,
    /// KServe's own server.
    KServe,
}

impl Dialect {
    /// Status of HTTP for "not ready".
    pub(crate) const fn not_ready(self) -> u16 {
        match self {
            Self::Triton => 400,
            Self::KServe => 503,
        }
    }
}

/// Settings of the protocols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Answered as the server's name: clients ask for `triton`.
    pub server_name: String,
    /// Answered as the server's version.
    pub server_version: String,
    /// Largest body of HTTP, in bytes, compressed and decompressed.
    pub max_body_bytes: usize,
    /// Deepest nesting of JSON.
    pub max_json_depth: usize,
}

/// Everything a [`Service`] needs.
pub struct Parts {
    /// Admission.
    pub gate: Gate,
    /// Routing.
    pub router: Arc<dyn Router>,
    /// How the listener behaves.
    pub dialect: Dialect,
    /// Settings.
    pub settings: Settings,
    /// Whether the server is stopping.
    pub drain: Drain,
    /// Readiness, for those who watch it.
    pub readiness: watch::Receiver<bool>,
    /// Where calls are written down, if anywhere.
    pub access_log: Option<Arc<dyn AccessLog>>,
    /// Failures before a model was found.
    pub unrouted: Arc<Unrouted>,
}

/// The protocols of one listener; cheap to clone, one clone per I/O core.
#[derive(Clone)]
pub struct Service(pub(crate) Arc<Parts>);

impl Service {
    /// Protocols over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Whether requests are wanted: every model that should serve does, and the server is not stopping.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.router.ready() && !self.0.drain.is_draining()
    }
}
