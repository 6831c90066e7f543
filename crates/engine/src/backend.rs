//! An inference engine, as the rest of xebec sees it: load a graph, open streams on it, run batches.
//!
//! [`mod@ort`] is ONNX Runtime, the engine for production; [`mod@rten`] is built in, so that a bare
//! `cargo run` serves with nothing installed. [`choose`] decides which, and says why.
//!
//! Not here: which requests make a batch (`queue`), what a file says before it is loaded (`onnx`).
use crate::onnx;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use xebec_core::{Datatype, port::EngineReport};

pub mod library;
pub mod options;
pub mod ort;
#[cfg(feature = "engine-rten")]
pub mod rten;

pub use options::LoadOptions;

/// One engine in this process.
pub trait Backend: Send + Sync {
    /// Which engine it is and why it was chosen.
    fn report(&self) -> EngineReport;

    /// Loads the graph at `path`, whose parsed form is `graph`. External data beside the file has been checked by the
    /// caller.
    ///
    /// # Errors
    /// The engine cannot run it; the text says the way out.
    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError>;

    /// Whether a loader may give way to others: every thread that answers is then started by `aside`'s nursery.
    fn leaves_threads_to_the_nursery(&self) -> bool {
        false
    }
}

/// A loaded graph.
pub trait Model: Send + Sync {
    /// Its inputs and outputs.
    fn signature(&self) -> &Signature;

    /// A stream over the one session that all shared streams use: for models whose run takes long beside a lock.
    ///
    /// # Errors
    /// The engine has no room for it.
    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError>;

    /// A stream with a session of its own: a tiny model loses more to a shared one than its own costs.
    ///
    /// # Errors
    /// The engine has no room for it.
    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError>;
}

/// One run at a time.
pub trait Stream: Send {
    /// Runs a batch: one entry per input, in the signature's order. The outputs can be read until the next run.
    ///
    /// Returns how long bringing the inputs together took, which is part of the call.
    ///
    /// # Errors
    /// The engine's words, and whether the inputs were at fault.
    fn run(&mut self, batch: &[BatchInput<'_>]) -> Result<Duration, RunError>;

    /// Output `index` of the last run that went well; empty if there is none.
    fn output(&self, index: usize) -> OutputView<'_>;
}

/// Inputs and outputs of a graph, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Inputs without initialisers, then those of [`LoadOptions::optional`].
    pub inputs: Vec<Slot>,
    /// Outputs.
    pub outputs: Vec<Slot>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Name.
    pub name: Arc<str>,
    /// Element type.
    pub datatype: Datatype,
    /// Extents, -1 where free; `None` if not even the rank is known.
    pub dims: Option<Vec<i64>>,
}

/// One input of a batch: `parts`, concatenated along axis 0, have `shape`. Without parts the input is left to its default,
/// which one of [`LoadOptions::optional`] has.
#[derive(Clone, Copy, Debug)]
pub struct BatchInput<'a> {
    /// Of the whole.
    pub shape: &'a [i64],
    /// Bytes of each request, little-endian and row-major; `BYTES` as on the wire.
    pub parts: &'a [&'a [u8]],
}

/// One output of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputView<'a> {
    /// Of the whole batch.
    pub shape: &'a [i64],
    /// Little-endian and row-major; `BYTES` as on the wire.
    pub data: &'a [u8],
}

/// A graph could not be made ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A file of it is not what it was when the model was loaded.
    #[error("{} or a file beside it was replaced since the model was loaded", path.display())]
    Replaced {
        /** The model's file. */
        path: PathBuf,
    },
    /// The graph uses an operator that the engine does not have.
    #[error("{engine} has no operator {operator}; {hint}")]
    UnsupportedOperator {
        /** With its domain if that is not ONNX's own. */
        operator: String,
        /** Name of the engine. */
        engine: &'static str,
        /** The way out. */
        hint: String,
    },
    /// An input or output is not a tensor of the protocol, or not of this engine.
    #[error("'{slot}' is {what}, which {engine} cannot serve; {hint}")]
    UnsupportedType {
        /** Name of the input or output. */
        slot: String,
        /** What it is. */
        what: String,
        /** Name of the engine. */
        engine: &'static str,
        /** The way out. */
        hint: String,
    },
    /// The engine refused the file.
    #[error("{engine} cannot load {}: {message}", path.display())]
    Engine {
        /** File. */
        path: PathBuf,
        /** Name of the engine. */
        engine: &'static str,
        /** Its words. */
        message: String,
    },
    /// What was to run it cannot be had.
    #[error("{provider} cannot be had from {engine}: {message}; {hint}")]
    Provider {
        /** Which. */
        provider: &'static str,
        /** Name of the engine. */
        engine: &'static str,
        /** Its words. */
        message: String,
        /** What to install. */
        hint: String,
    },
    /// A setting that the engine does not have.
    #[error("{engine} has no setting for {what}; {hint}")]
    Setting {
        /** What was asked for. */
        what: String,
        /** Name of the engine. */
        engine: &'static str,
        /** The way out. */
        hint: String,
    },
    /// What its runs take cannot be had.
    #[error("{message}")]
    Resources {
        /** What, and the way out. */
        message: String,
    },
    /// A warm-up of the owner's failed.
    #[error("model_warmup '{name}' failed: {message}; correct its inputs in config.pbtxt, or leave it out")]
    Warmup {
        /** Which. */
        name: String,
        /** The engine's words. */
        message: String,
    },
    /// The system gave no thread.
    #[error("cannot start a thread for the model: {message}")]
    Threads {
        /** The system's words. */
        message: String,
    },
}

/// A run went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RunError {
    /// The engine's words.
    pub message: String,
    /// Whether the inputs' values or shapes were at fault, so that the same request will always fail.
    pub callers_fault: bool,
}

/// No engine could be had.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A library was named, so nothing else will do.
    #[error("cannot load ONNX Runtime from {}, which {named_by} names: {message}", path.display())]
    NamedLibrary {
        /** File. */
        path: PathBuf,
        /** The flag or variable. */
        named_by: &'static str,
        /** The loader's words. */
        message: String,
    },
    /// Nothing was found and nothing is built in.
    #[error(
        "no ONNX Runtime library was found and no engine is built in: name one with --onnxruntime-library FILE or run `make engine`"
    )]
    None,
}

/// Chooses the engine: ONNX Runtime where its library is found, else the built-in one, with a loud line.
///
/// # Errors
/// A library that was named does not load, or there is no engine at all.
pub fn choose(search: &library::Search) -> Result<Arc<dyn Backend>, EngineError> {
    let mut refused = Vec::new();
    for candidate in search.candidates() {
        let found_by = candidate.found_by;
        let how = if candidate.named { format!("named by {found_by}") } else { found_by.to_owned() };
        match ort::OrtBackend::start(&candidate.path, how) {
            Ok(backend) => return Ok(Arc::new(backend)),
            Err(message) if candidate.named => {
                return Err(EngineError::NamedLibrary {
                    path: candidate.path,
                    named_by: candidate.found_by,
                    message,
                });
            }
            Err(message) => {
                tracing::warn!(path = %candidate.path.display(), error = %message, "found a library that does not load");
                refused.push(candidate.path.display().to_string());
            }
        }
    }
    let reason = if refused.is_empty() {
        "no ONNX Runtime library was found; name one with --onnxruntime-library FILE or run `make engine`"
            .to_owned()
    } else {
        format!("no ONNX Runtime library could be loaded of {}", refused.join(", "))
    };
    fallback(reason)
}

#[cfg(feature = "engine-rten")]
fn fallback(reason: String) -> Result<Arc<dyn Backend>, EngineError> {
    tracing::warn!(%reason, "models run on the built-in engine, which is slower and knows fewer operators");
    Ok(Arc::new(rten::RtenBackend::new(reason)))
}

#[cfg(not(feature = "engine-rten"))]
fn fallback(_: String) -> Result<Arc<dyn Backend>, EngineError> {
    Err(EngineError::None)
}
