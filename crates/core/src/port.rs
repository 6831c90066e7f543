//! The ports through which protocols, network and engine meet without knowing each other.
//!
//! A protocol asks a [`Router`] for an [`Upstream`], submits a request with a [`Reply`], and the network's
//! loop calls [`Turn::flush`] when one turn of an I/O core is over: what the turn has read is one batch.
//!
//! Invariant: whatever takes a model's data takes a `&Permit`.
use crate::{
    InferError, InferRequest, InferResponse, ModelInfo, ModelName, Permit, SequenceMark, Version,
    VersionLabel, VersionRef, metrics::ModelMetrics, model_config::ModelConfig,
};
use bytes::Bytes;
use std::sync::Arc;

/// Where the answer of one request goes. Called exactly once; dropped uncalled it means the upstream broke.
pub trait Answer: Send {
    /// Whether nobody waits any more, so that the request need not run.
    fn is_gone(&self) -> bool;

    /// Hands over the outcome. Must not block and must not run the caller's code in place.
    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>);
}

/// Boxed [`Answer`].
pub type Reply = Box<dyn Answer>;

/// How large a graph is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Graphs within each other; 0 of a model.
    pub depth: u32,
    /// Runs of models for one request, 1 of a model.
    pub runs: u32,
}

/// One revision of one model, here or elsewhere.
pub trait Upstream: Send + Sync {
    /// Inputs, outputs and name.
    fn info(&self) -> &ModelInfo;

    /// The full configuration, completed from the model's file.
    fn config(&self) -> &ModelConfig;

    /// Labels of an output's classes, by index; none if it has none.
    fn labels(&self, _output: &str) -> &[Box<str>] {
        &[]
    }

    /// Counters and histograms of this model and version.
    fn metrics(&self) -> &ModelMetrics;

    /// Headers of a request that it looks at, in lower case.
    fn headers(&self) -> &[Box<str>] {
        &[]
    }

    /// How large it is, as a graph.
    fn extent(&self) -> Extent {
        Extent { depth: 0, runs: 1 }
    }

    /// The older revision that has begun a request's sequence and is to answer it, if that is another than this one.
    fn revision_of(&self, _permit: &Permit, _mark: &SequenceMark) -> Option<Arc<dyn Upstream>> {
        None
    }

    /// Whether [`Self::submit`] may do the work itself, on a thread that is there for work.
    fn works_here(&self) -> bool {
        false
    }

    /// Takes a request. Checks it against the model and answers a wrong one at once. A request of a sequence is for
    /// what [`Self::revision_of`] says; where it is [`InferError::NotResident`], the revision went meanwhile: ask the
    /// router again.
    ///
    /// Returns at once: the answer comes through `reply`, for a tiny model only after the calling thread's
    /// [`Turn::flush`].
    fn submit(&self, permit: &Permit, request: InferRequest, reply: Reply);
}

/// The end of one turn of an I/O core: everything that was ready to be read has been read.
pub trait Turn: Send + Sync {
    /// Runs what the calling thread's turn has submitted to inline models. Cheap if there is nothing.
    fn flush(&self);
}

/// State of a model in the repository's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Being read and warmed up.
    Loading,
    /// Answers requests. The note says what else there is to know: that a reload failed, that it is not in memory.
    Ready {
        /** Empty if there is nothing. */
        note: String,
    },
    /// Takes nothing new and finishes what it has.
    Unloading,
    /// Not served, with the reason.
    Unavailable(String),
}

impl ModelState {
    /// Whether it answers requests.
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

/// One row of the list of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRow {
    /// Name.
    pub name: ModelName,
    /// Which version; `None` if none could be named.
    pub version: Option<Version>,
    /// What its owner calls that version.
    pub labels: Vec<VersionLabel>,
    /// Its state.
    pub state: ModelState,
}

/// Which engine runs models here, and why that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// `onnxruntime` or `rten`.
    pub name: &'static str,
    /// Its version.
    pub version: String,
    /// Why it was chosen, in a sentence.
    pub reason: String,
}

/// Finds the revision that a request goes to.
pub trait Router: Send + Sync {
    /// The revision of the permit's model that is asked for.
    ///
    /// # Errors
    /// The model or version is unknown, loading or not available.
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError>;

    /// As [`Self::route`], for whoever only reads about the revision: one that is not in memory is described by what
    /// was kept of it, and takes no requests.
    ///
    /// # Errors
    /// As there; [`InferError::NotResident`] if it was never in memory.
    fn describe(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        self.route(permit, version)
    }

    /// Whether a request to the revision would find everything that it needs, if only after some of it was brought back
    /// into memory.
    ///
    /// # Errors
    /// As of [`Self::route`]; what a graph is of is not served.
    fn probe(&self, permit: &Permit, version: VersionRef<'_>) -> Result<(), InferError> {
        match self.route(permit, version) {
            Ok(_) | Err(InferError::NotResident { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Brings the permit's model back into memory, after [`Self::route`] said [`InferError::NotResident`].
    fn wake(&self, permit: &Permit, done: Done);

    /// All ready versions of the permit's model, oldest first.
    fn versions(&self, permit: &Permit) -> Vec<Version>;

    /// Every model and version known.
    fn models(&self) -> Vec<ModelRow>;

    /// Every served revision that was loaded, also one that is not in memory now: for the metrics page and for nothing
    /// that a caller sees.
    fn upstreams(&self) -> Vec<Arc<dyn Upstream>>;

    /// Whether everything that should serve does.
    fn ready(&self) -> bool;

    /// The engine behind.
    fn engine(&self) -> EngineReport;
}

/// Told once when an order has been carried out, or why it could not be. Must not block.
pub type Done = Box<dyn FnOnce(Result<(), InferError>) + Send>;

/// What a load has to say beside a model's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// A configuration in the JSON form of Protocol Buffers, in place of `config.pbtxt`.
    pub config: Option<String>,
    /// Files by their path below the model's folder, in place of the folder.
    pub files: Vec<(String, Bytes)>,
}

/// Changes what is served. Orders for one model are carried out one after the other, in the order given.
pub trait Control: Send + Sync {
    /// Brings the permit's model to what its files say: what is new is loaded before what is old goes.
    fn load(&self, permit: &Permit, overrides: Overrides, done: Done);

    /// Takes the permit's model out of service; requests that it has are still answered.
    fn unload(&self, permit: &Permit, done: Done);
}
