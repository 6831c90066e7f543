//! A built-in step behind a name, like a model.
//!
//! Who asks for it from an I/O core waits for one of the [`workers`]; a thread that is there for work does it itself, so that
//! a picture that was decoded is scaled while it is warm. Invariants: what waits is bounded by the model's queue; whoever has
//! gone or whose time is up costs no work; a panic of a step is an error of its request alone.
//!
//! Not here: what a step does (`xebec-steps`).
use crate::{
    check::{check, of_no_sequence},
    later::nothing_waits,
    repository::complete::Labels,
    workers,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use xebec_core::{
    InferError, InferRequest, InferResponse, ModelInfo, Permit, Tensor, Timings,
    error::dims_text,
    metrics::ModelMetrics,
    model_config::ModelConfig,
    port::{Reply, Upstream},
    step::{Made, Step, Unfit},
    trace::RunTrace,
};

/// The backend of `config.pbtxt` that makes a model a built-in step.
pub(crate) const BACKEND: &str = "xebec";

/// Its platform, as callers are told it.
pub(crate) const PLATFORM: &str = "xebec_step";

/// A step that is served.
pub(crate) struct Builtin(Arc<Parts>);

/// What it takes to serve a step.
pub(crate) struct Parts {
    pub(crate) info: ModelInfo,
    pub(crate) config: ModelConfig,
    pub(crate) labels: Labels,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) step: Arc<dyn Step>,
    /// Most requests that wait.
    pub(crate) max_queue: usize,
    pub(crate) waiting: AtomicUsize,
}

impl Builtin {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Upstream for Builtin {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    fn config(&self) -> &ModelConfig {
        &self.0.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.0.labels.get(output).map(|labels| &**labels).unwrap_or_default()
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.0.metrics
    }

    fn works_here(&self) -> bool {
        true
    }

    fn submit(&self, _: &Permit, mut request: InferRequest, reply: Reply) {
        let Parts { info, waiting, max_queue, metrics, .. } = &*self.0;
        let checked = of_no_sequence(info, &request).and_then(|()| check(info, None, &mut request));
        if let Err(error) = checked.and_then(|_| check_extents(&request)) {
            return reply.send(Err(error));
        }
        let job = Job { parts: Arc::clone(&self.0), request, reply: Some(reply), arrived: Instant::now() };
        if workers::may_work() && nothing_waits() {
            return job.run();
        }
        if waiting.fetch_add(1, Relaxed) >= *max_queue {
            waiting.fetch_sub(1, Relaxed);
            return job.refuse();
        }
        metrics.pending.add(1);
        let queued = Queued(Some(job));
        // What cannot be given away is dropped, and says so.
        let _ = workers::give(Box::new(move || queued.run()));
    }
}

/// Most elements that the extents of a tensor without elements may stand for.
const MOST_OF_NOTHING: i64 = 1 << 20;

/// Refuses a tensor whose extents are large and which has no elements because one of them is 0: what a step makes of the others
/// would have cost its caller nothing.
fn check_extents(request: &InferRequest) -> Result<(), InferError> {
    for tensor in &request.inputs {
        let extents = tensor.shape.iter().filter(|extent| **extent > 0);
        let product = extents.copied().try_fold(1_i64, i64::checked_mul);
        if tensor.data.is_empty() && product.is_none_or(|product| product > MOST_OF_NOTHING) {
            return Err(InferError::invalid(format!(
                "input '{}' has shape {} and so no elements; its other extents may stand for {MOST_OF_NOTHING}",
                tensor.name,
                dims_text(&tensor.shape)
            )));
        }
    }
    Ok(())
}

/// A request that waits. Dropped, it was one too many.
struct Queued(Option<Job>);

impl Queued {
    fn run(mut self) {
        if let Some(job) = self.take() {
            job.run();
        }
    }

    fn take(&mut self) -> Option<Job> {
        let job = self.0.take()?;
        job.parts.waiting.fetch_sub(1, Relaxed);
        job.parts.metrics.pending.add(-1);
        Some(job)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(job) = self.take() {
            job.refuse();
        }
    }
}

/// A request to a step.
struct Job {
    parts: Arc<Parts>,
    request: InferRequest,
    reply: Option<Reply>,
    arrived: Instant,
}

impl Job {
    fn refuse(self) {
        let (model, limit) = (self.parts.info.name.to_string(), self.parts.max_queue);
        self.end(Err(InferError::QueueFull { model, limit }));
    }

    fn end(mut self, outcome: Result<InferResponse, InferError>) {
        if let Some(reply) = self.reply.take() {
            reply.send(outcome);
        }
    }

    fn run(self) {
        if self.reply.as_ref().is_none_or(|reply| reply.is_gone()) {
            return self.end(Err(InferError::Cancelled));
        }
        let queue = self.arrived.elapsed();
        if self.request.timeout.is_some_and(|timeout| timeout < queue) {
            return self.end(Err(InferError::Timeout));
        }
        let Parts { step, metrics, .. } = &*self.parts;
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| step.run(&self.request.inputs)));
        let mut timings =
            Timings { queue, compute_infer: began.elapsed(), began: Some(began), ..Timings::default() };
        let outcome =
            outcome.map_err(|_| InferError::Internal("a step of a graph panicked over this request".into()));
        let outcome = outcome.and_then(|made| {
            made.map_err(|Unfit(message)| InferError::Engine { message, callers_fault: true })
        });
        let outcome = outcome.and_then(|made| self.outputs(made));
        if outcome.is_ok() {
            metrics.executions.add(1);
            metrics.batches.record(1, &timings);
        }
        timings.run = self.tell(began, timings, outcome.as_ref().err());
        self.end(outcome.map(|outputs| InferResponse { outputs, timings }));
    }

    /// What is wanted of what was made, in the order asked for.
    fn outputs(&self, made: Vec<Made>) -> Result<Vec<Tensor>, InferError> {
        let infos = &self.parts.info.outputs;
        if made.len() != infos.len() {
            return Err(InferError::Internal("a step has made fewer outputs than it has".into()));
        }
        let tensor = |(info, made): (&xebec_core::model::TensorInfo, Made)| Tensor {
            name: Arc::clone(&info.name),
            datatype: info.datatype,
            shape: made.shape,
            data: made.data,
        };
        let mut all: Vec<Tensor> = infos.iter().zip(made).map(tensor).collect();
        let wanted = &self.request.outputs;
        if !wanted.is_empty() {
            all.retain(|tensor| wanted.iter().any(|name| **name == *tensor.name));
            all.sort_by_key(|tensor| wanted.iter().position(|name| **name == *tensor.name));
        }
        Ok(all)
    }

    fn tell(
        &self,
        began: Instant,
        timings: Timings,
        error: Option<&InferError>,
    ) -> Option<xebec_core::trace::SpanContext> {
        let traced = self.request.trace.as_ref()?;
        Some(traced.tracer.run(RunTrace {
            model: self.parts.info.name.clone(),
            version: self.parts.info.version,
            rows: 1,
            requests: 1,
            calls: vec![traced.span],
            began,
            timings,
            failure: error.map(ToString::to_string),
        }))
    }
}
