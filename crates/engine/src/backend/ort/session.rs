//! Sessions of ONNX Runtime: the environment, the threads, the settings, the providers.
//!
//! Invariant: a provider that was asked for and cannot be had is an error that says what to install; the CPU never
//! takes its place unasked.
use super::{LoadError, LoadOptions, NAME};
use crate::{
    aside::{aside, ordinary, patience},
    backend::options::{Accelerator, Level, Tuning},
};
use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    ep::{self, ArbitrarilyConfigurableExecutionProvider as Configurable, ExecutionProviderDispatch},
    session::{
        Session,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
};
use std::{path::Path, sync::Arc};
use xebec_core::resource::{Objective, Provider};

pub(super) fn environment(library: &Path) -> Result<Environment, String> {
    let builder = ort::init_from(library).map_err(|error| error.to_string())?;
    // One pool for every latency-class model; throughput sessions have no threads at all.
    let pool = GlobalThreadPoolOptions::default().with_intra_threads(0).map_err(|error| error.to_string())?;
    let pool = pool.with_inter_threads(1).and_then(|pool| pool.with_spin_control(true));
    let pool = pool.map_err(|error| error.to_string())?;
    let builder = builder.with_name("xebec").with_telemetry(false).with_global_thread_pool(pool);
    builder.with_logger(Arc::new(log)).build().map_err(|error| error.to_string())
}

fn log(level: ort::logging::LogLevel, category: &str, _id: &str, place: &str, message: &str) {
    use ort::logging::LogLevel;
    match level {
        LogLevel::Fatal => tracing::error!(category, place, engine_says = message, "engine error"),
        // The caller of the run gets the same words: one bad request after another must not fill the log.
        LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(category, place, engine_says = message, "engine warning")
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(category, place, engine_says = message, "engine note")
        }
    }
}

/// Builds a session over the file at `path`.
pub(super) fn build(
    environment: &Environment,
    path: &Path,
    options: &LoadOptions,
) -> Result<Session, LoadError> {
    // Pools and providers start threads that answer.
    let starts_threads = pool(options).is_some_and(|threads| threads != 1)
        || options.tuning.inter_threads.is_some_and(|threads| threads > 1)
        || !options.accelerators().is_empty();
    let bytes = std::fs::metadata(path).map_or(0, |about| about.len());
    let (environment, path, options) = (environment.clone(), path.to_owned(), options.clone());
    let work = move || build_here(&environment, &path, &options);
    if starts_threads { ordinary(&Arc::new(work)) } else { aside(patience(bytes), work) }
}

fn build_here(environment: &Environment, path: &Path, options: &LoadOptions) -> Result<Session, LoadError> {
    let broken = |message: String| super::explain(path, message);
    let builder = Session::builder(environment).map_err(|error| broken(error.to_string()))?;
    let builder = threads(builder, options).map_err(broken)?;
    let mut builder = settings(builder, &options.tuning).map_err(broken)?;
    for accelerator in options.accelerators() {
        builder = accelerate(builder, &accelerator)?;
    }
    builder.commit_from_file(path).map_err(|error| broken(error.to_string()))
}

fn text(error: ort::Error<SessionBuilder>) -> String {
    error.to_string()
}

/// Threads of a pool of the session's own, 0 for as many as there are cores; `None` if it uses the one of all.
fn pool(options: &LoadOptions) -> Option<usize> {
    match (options.threads, options.objective) {
        (Some(threads), _) => Some(usize::try_from(threads).unwrap_or(1).max(1)),
        (None, Objective::Throughput) => Some(1),
        (None, Objective::Latency) if options.tuning.inter_threads.is_some() => Some(0),
        (None, Objective::Latency) => None,
    }
}

fn threads(builder: SessionBuilder, options: &LoadOptions) -> Result<SessionBuilder, String> {
    let Some(threads) = pool(options) else { return Ok(builder) };
    let inter = options.tuning.inter_threads.map_or(1, |threads| usize::try_from(threads).unwrap_or(1));
    let builder = builder.with_independent_thread_pool().map_err(text)?;
    let builder = builder.with_intra_threads(threads).map_err(text)?;
    builder.with_inter_threads(inter).map_err(text)
}

fn settings(builder: SessionBuilder, tuning: &Tuning) -> Result<SessionBuilder, String> {
    let mut builder = builder
        .with_optimization_level(match tuning.level {
            Level::Disabled => GraphOptimizationLevel::Disable,
            Level::Basic => GraphOptimizationLevel::Level1,
            Level::Extended => GraphOptimizationLevel::Level2,
            Level::All => GraphOptimizationLevel::All,
        })
        .map_err(text)?;
    if let Some(parallel) = tuning.parallel {
        builder = builder.with_parallel_execution(parallel).map_err(text)?;
    }
    if let Some(pattern) = tuning.memory_pattern {
        builder = builder.with_memory_pattern(pattern).map_err(text)?;
    }
    if let Some(arena) = tuning.memory_arena {
        let cpu = ep::CPU::default().with_arena_allocator(arena).build().error_on_failure();
        builder = builder.with_execution_providers([cpu]).map_err(text)?;
    }
    for (key, value) in &tuning.entries {
        builder = builder.with_config_entry(key, value).map_err(|error| format!("{key}: {error}"))?;
    }
    Ok(builder)
}

fn accelerate(builder: SessionBuilder, accelerator: &Accelerator) -> Result<SessionBuilder, LoadError> {
    let (provider, hint) = match accelerator.kind {
        Provider::Cpu => return Ok(builder),
        Provider::Cuda => (with(ep::CUDA::default(), accelerator), CUDA),
        Provider::Tensorrt => (with(ep::TensorRT::default(), accelerator), TENSORRT),
        Provider::Openvino => (with(ep::OpenVINO::default(), accelerator), OPENVINO),
    };
    let refused = |message: String| LoadError::Provider {
        provider: accelerator.kind.name(),
        engine: NAME,
        message,
        hint: hint.to_owned(),
    };
    let provider = provider.ok_or_else(|| refused("a setting holds a NUL byte".into()))?;
    let added = builder.with_execution_providers([provider.error_on_failure()]);
    added.map_err(|error| refused(error.to_string()))
}

const CUDA: &str = "install ONNX Runtime with CUDA (pip install onnxruntime-gpu), CUDA 12 and cuDNN 9, and name that library with --onnxruntime-library FILE; or write kind: KIND_CPU";
const TENSORRT: &str = "install ONNX Runtime with TensorRT (pip install onnxruntime-gpu tensorrt), CUDA 12 and cuDNN 9, and name that library with --onnxruntime-library FILE; or leave the accelerator out";
const OPENVINO: &str = "install ONNX Runtime with OpenVINO (pip install onnxruntime-openvino) and name that library with --onnxruntime-library FILE; or leave the accelerator out";

/// `None` if a setting holds a NUL, which the C API cannot take.
fn with<P: Configurable + Into<ExecutionProviderDispatch>>(
    provider: P,
    accelerator: &Accelerator,
) -> Option<ExecutionProviderDispatch> {
    let mut provider = provider;
    for (key, value) in &accelerator.options {
        if key.contains('\0') || value.contains('\0') {
            return None;
        }
        provider = provider.with_arbitrary_config(key, value);
    }
    Some(provider.into())
}
