//! What every protocol works with, wired by the binary.
use crate::{
    EXTENSIONS,
    fresh::Fresh,
    memory::SharedMemory,
    record::{AccessLog, Unrouted},
};
use std::sync::Arc;
use tokio::sync::watch;
use xebec_core::{
    Gate,
    log::LogControl,
    port::{Control, Router},
    trace::Tracer,
};
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
    /// Largest message of gRPC, in bytes; what it brings from shared memory is no larger.
    pub max_message_bytes: usize,
    /// Deepest nesting of JSON.
    pub max_json_depth: usize,
}

/// Everything a [`Service`] needs.
pub struct Parts {
    /// Admission.
    pub gate: Gate,
    /// Routing.
    pub router: Arc<dyn Router>,
    /// Loading and unloading.
    pub control: Arc<dyn Control>,
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
    /// Traces of calls, if they are made.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// Failures before a model was found.
    pub unrouted: Arc<Unrouted>,
    /// Regions of shared memory, if the operator allows any.
    pub shared_memory: Option<SharedMemory>,
    /// The log's settings.
    pub log: Arc<dyn LogControl>,
}

/// The protocols of one listener; cheap to clone, one clone per I/O core.
#[derive(Clone)]
pub struct Service(pub(crate) Arc<Parts>, pub(crate) Arc<Fresh>);

impl Service {
    /// Protocols over `parts`.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts), Fresh::new())
    }

    /// Extensions of the protocol that work here, in the order of their names.
    pub(crate) fn extensions(&self) -> Vec<&'static str> {
        let shared = self.0.shared_memory.as_ref().map(|_| "system_shared_memory");
        EXTENSIONS.into_iter().chain(shared).collect()
    }

    /// Whether requests are wanted: every model that should serve does, and the server is not stopping.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.router.ready() && !self.0.drain.is_draining()
    }
}
