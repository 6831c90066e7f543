//! Traces of calls: what a call and a run of the engine leave behind, and the port through which both are told.
//!
//! A call is traced if [`Tracer::sample`] says so when its model is found. From then on its [`Traced`] goes along with the
//! request, so that who runs it can tell of the run; nothing of it is looked at in a call that is not traced. Invariants:
//! what is told holds instants that were taken anyway, and no tensor; telling never waits.
//!
//! Not here: spans and where they go (`xebec`), headers of a protocol (`xebec-serve`).
use crate::{Code, ModelName, Principal, TenantId, Timings, Version};
use std::{fmt, sync::Arc, time::Instant};

mod context;
mod settings;

pub use context::{Parent, SpanContext, SpanId, TraceId};
pub use settings::{Change, TraceChanges, TraceSettings};

/// A call that is traced.
pub struct Traced {
    /// Its span.
    pub span: SpanContext,
    /// The span that it belongs under, as the caller said.
    pub parent: Option<Parent>,
    /// When its model was found.
    pub at: Instant,
    /// Whom to tell.
    pub tracer: Arc<dyn Tracer>,
}

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traced")
            .field("span", &self.span)
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}

/// How a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// REST.
    Http,
    /// Alone over gRPC.
    Unary,
    /// In a stream of gRPC.
    Streamed,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Its kind.
    pub code: Code,
    /// For people; shortened.
    pub message: String,
}

/// What a traced call leaves behind.
#[derive(Debug)]
pub struct CallTrace {
    /// Whose it is.
    pub traced: Arc<Traced>,
    /// How it came in.
    pub entry: Entry,
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// On whose behalf.
    pub tenant: TenantId,
    /// Who called.
    pub principal: Principal,
    /// The caller's own mark; shortened.
    pub request_id: String,
    /// Rows of the request, if it came so far.
    pub rows: Option<u64>,
    /// Bytes of the request.
    pub bytes_in: usize,
    /// Bytes of the answer.
    pub bytes_out: usize,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
    /// When it was there.
    pub moments: Moments,
}

/// The moments of a call, in their order; those that it did not come to are missing.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// The head was read.
    pub started: Instant,
    /// The last byte was read.
    pub received: Option<Instant>,
    /// Its bytes had become tensors.
    pub decoded: Option<Instant>,
    /// Where the time went upstream.
    pub timings: Option<Timings>,
    /// The answer was back at the protocol.
    pub answered: Option<Instant>,
    /// The answer's bytes were made, or the call had failed.
    pub done: Instant,
}

/// What a run of the engine leaves behind in which a traced request was.
#[derive(Debug)]
pub struct RunTrace {
    /// The model.
    pub model: ModelName,
    /// Its version.
    pub version: Version,
    /// Rows of the run.
    pub rows: u64,
    /// Requests in it, traced or not.
    pub requests: usize,
    /// Spans of the traced ones.
    pub calls: Vec<SpanContext>,
    /// When it began.
    pub began: Instant,
    /// Where its time went; a run that failed has all of it in `compute_infer`.
    pub timings: Timings,
    /// How it failed, if it did.
    pub failure: Option<String>,
}

/// Decides which calls are traced, takes what they leave behind, and keeps the settings of both. Must not block: it is
/// asked and told on the I/O cores and between runs.
pub trait Tracer: Send + Sync {
    /// The span of a call to `model`, if it is to be traced.
    fn sample(&self, model: &ModelName, parent: Option<&Parent>) -> Option<SpanContext>;

    /// Takes a call that has ended.
    fn call(&self, call: CallTrace);

    /// Takes a run that has ended, and gives the span that it has now.
    fn run(&self, run: RunTrace) -> SpanContext;

    /// What is in force for a model, or for all that have no settings of their own.
    fn settings(&self, model: Option<&ModelName>) -> TraceSettings;

    /// Changes settings and gives those in force then.
    ///
    /// # Errors
    /// Too many models have settings of their own.
    fn apply(&self, model: Option<&ModelName>, changes: TraceChanges) -> Result<TraceSettings, String>;
}
