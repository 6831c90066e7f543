//! One run after another over one stream: requests become a batch, the batch's outputs become answers.
//!
//! Invariants: every request handed in is answered; a batch that fails is run again one request at a time, so that
//! one bad request fails alone; an output whose first axis is not the batch's rows is never cut up.
//!
//! Not here: which requests make a batch (`queue`), when (`instance`, `inline`).
use crate::{
    backend::{BatchInput, LoadError, Model, RunError, Stream},
    edges::Edges,
    queue::Left,
    request::Pending,
};
use bytes::Bytes;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use xebec_core::{
    Datatype, InferError, InferResponse, ModelInfo, Tensor, Timings,
    metrics::ModelMetrics,
    tensor::{bytes_elements, element_count},
};

mod told;

/// Told of every run, so that a test can ask the engine for the same batch.
pub trait Observer: Send + Sync {
    /// These inputs were one run, for the requests of these ids, in this order.
    fn ran(&self, batch: &[BatchInput<'_>], ids: &[&str]);
}

/// What all runners of a model share.
pub(crate) struct Facts {
    pub(crate) info: Arc<ModelInfo>,
    pub(crate) metrics: Arc<ModelMetrics>,
    pub(crate) edges: Option<Arc<Edges>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// A runner has lost its stream, and there is no other.
    pub(crate) broken: AtomicBool,
}

/// Whether a runner's session is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// One that nobody else runs.
    Own,
    /// The model's one.
    Shared,
}

/// A stream with what it takes to make it again.
pub(crate) struct Runner {
    facts: Arc<Facts>,
    model: Arc<dyn Model>,
    session: Session,
    /// `None` when a run has panicked and there is no other.
    stream: Option<Box<dyn Stream>>,
}

/// Why a batch gave no answers.
enum Failure {
    Run(RunError),
    /// Its outputs cannot be told apart.
    Uncuttable,
    /// A tensor has not the shape that the configuration says.
    Misshapen,
    Panic,
    /// There is no stream since a panic.
    Broken,
}

impl Runner {
    pub(crate) fn new(
        facts: Arc<Facts>,
        model: Arc<dyn Model>,
        session: Session,
        stream: Box<dyn Stream>,
    ) -> Self {
        Self { facts, model, session, stream: Some(stream) }
    }

    /// Runs a batch and answers everybody in it; whether the batch ran as a whole.
    pub(crate) fn run(&mut self, batch: Vec<Pending>) -> bool {
        let started = Instant::now();
        let outcome = self.attempt(&batch);
        let went_well = outcome.is_ok();
        match outcome {
            Ok(outcome) => {
                for (pending, mut response) in batch.into_iter().zip(outcome) {
                    response.timings.queue = started.saturating_duration_since(pending.arrived);
                    pending.answer(Ok(response));
                }
            }
            Err(failure) => {
                let error = explain(failure);
                let timings = Timings { compute_infer: started.elapsed(), ..Timings::default() };
                told::tell(&self.facts.info, &batch, started, timings, Some(error.to_string()));
                if batch.len() > 1 {
                    batch.into_iter().for_each(|pending| self.run_again(pending));
                } else {
                    batch.into_iter().for_each(|pending| pending.answer(Err(error.clone())));
                }
            }
        }
        went_well
    }

    /// Runs a request of a batch that failed by itself, if anybody still waits for it.
    fn run_again(&mut self, pending: Pending) {
        if pending.reply.is_gone() {
            return pending.leave(Left::Gone);
        }
        if pending.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return pending.leave(Left::Expired);
        }
        let _ = self.run(vec![pending]);
    }

    fn attempt(&mut self, batch: &[Pending]) -> Result<Vec<InferResponse>, Failure> {
        let rows: u64 = batch.iter().map(|pending| u64::from(pending.rows)).sum();
        let began = Instant::now();
        let gathered = self.run_stream(batch, rows)?;
        let ran = Instant::now();
        self.facts.metrics.executions.add(1);
        let mut responses = self.cut(batch, rows)?;
        let mut timings = Timings {
            queue: Duration::ZERO,
            compute_input: gathered,
            compute_infer: (ran - began).saturating_sub(gathered),
            compute_output: ran.elapsed(),
            cached: false,
            began: Some(began),
            run: None,
        };
        self.facts.metrics.batches.record(rows, &timings);
        timings.run = told::tell(&self.facts.info, batch, began, timings, None);
        responses.iter_mut().for_each(|response| response.timings = timings);
        Ok(responses)
    }

    fn run_stream(&mut self, batch: &[Pending], rows: u64) -> Result<Duration, Failure> {
        if let Some(edges) = self.facts.edges.clone() {
            let requests = requests(batch);
            let made = edges.make(&requests);
            let gathered = edges.gather(&requests, &made).ok_or(Failure::Misshapen)?;
            return self.run_whole(batch, &gathered.inputs());
        }
        let inputs = self.facts.info.inputs.len();
        let parts: Vec<Vec<&[u8]>> = (0..inputs).map(|input| parts(batch, input)).collect();
        let shapes: Vec<Vec<i64>> = (0..inputs).map(|input| shape(batch, input, rows)).collect();
        let whole: Vec<BatchInput<'_>> =
            shapes.iter().zip(&parts).map(|(shape, parts)| BatchInput { shape, parts }).collect();
        self.run_whole(batch, &whole)
    }

    fn run_whole(&mut self, batch: &[Pending], whole: &[BatchInput<'_>]) -> Result<Duration, Failure> {
        let stream = self.stream.as_mut().ok_or(Failure::Broken)?;
        let outcome = catch_unwind(AssertUnwindSafe(|| stream.run(whole)));
        match outcome {
            Ok(Ok(gathered)) => {
                if let Some(observer) = &self.facts.observer {
                    observer.ran(whole, &batch.iter().map(|pending| pending.id.as_str()).collect::<Vec<_>>());
                }
                Ok(gathered)
            }
            Ok(Err(error)) => Err(Failure::Run(error)),
            Err(_) => Err(self.replace_stream()),
        }
    }

    /// A stream that panicked may be in any state: the next run has a new one.
    fn replace_stream(&mut self) -> Failure {
        let fresh = match self.session {
            Session::Own => self.model.own_stream(),
            Session::Shared => self.model.shared_stream(),
        };
        let lost = |error: &LoadError| {
            tracing::error!(model = %self.facts.info.name, %error, "no new stream after a panic in a run: the model is not served");
            self.facts.broken.store(true, Relaxed);
        };
        self.stream = fresh.inspect_err(lost).ok();
        Failure::Panic
    }

    /// Cuts every output into the requests' rows.
    fn cut(&self, batch: &[Pending], rows: u64) -> Result<Vec<InferResponse>, Failure> {
        let outputs = &self.facts.info.outputs;
        let empty = |pending: &Pending| InferResponse {
            outputs: Vec::with_capacity(if pending.outputs.is_empty() {
                outputs.len()
            } else {
                pending.outputs.len()
            }),
            timings: Timings::default(),
        };
        let mut responses: Vec<InferResponse> = batch.iter().map(empty).collect();
        for (index, output) in outputs.iter().enumerate() {
            let wanted = |pending: &Pending| wants(pending, &output.name);
            if !batch.iter().any(wanted) {
                continue;
            }
            let view = self.stream.as_ref().ok_or(Failure::Broken)?.output(index);
            let edges = self.facts.edges.as_deref();
            let scattered = edges.and_then(|edges| edges.scattered(index, &requests(batch)));
            let ends = match &scattered {
                Some(shapes) => scattered_ends(shapes, view.data, output.datatype)?,
                None => ends(batch, rows, view.shape, view.data, output.datatype)?,
            };
            let mut scattered = scattered.map(Vec::into_iter);
            // One copy for the batch, shared by its answers: cheaper than one for each.
            let all = Bytes::copy_from_slice(view.data);
            let mut from = 0;
            for ((pending, response), to) in batch.iter().zip(&mut responses).zip(ends) {
                let own = scattered.as_mut().and_then(Iterator::next);
                if wanted(pending) {
                    let mut shape = own.unwrap_or_else(|| {
                        let mut shape = view.shape.to_vec();
                        if let (true, Some(first)) = (batch.len() > 1, shape.first_mut()) {
                            *first = i64::from(pending.rows);
                        }
                        shape
                    });
                    if let Some(edges) = edges {
                        shape = edges.outward(index, shape).ok_or(Failure::Misshapen)?;
                    }
                    let data = all.slice(from..to);
                    let name = Arc::clone(&output.name);
                    response.outputs.push(Tensor { name, datatype: output.datatype, shape, data });
                }
                from = to;
            }
        }
        for (pending, response) in batch.iter().zip(&mut responses) {
            in_wanted_order(&pending.outputs, &mut response.outputs);
        }
        Ok(responses)
    }
}

/// Why a model is not served of which a runner has lost its stream.
pub(crate) const BROKEN: &str =
    "the engine panicked over it, and its files were replaced since; load it again";

fn explain(failure: Failure) -> InferError {
    match failure {
        Failure::Run(RunError { message, callers_fault }) => InferError::Engine { message, callers_fault },
        Failure::Uncuttable => InferError::Internal("an output's size is not what its shape says".into()),
        Failure::Misshapen => InferError::Internal(
            "an output's shape is not the reshape that config.pbtxt says; doctor shows the model's shapes"
                .into(),
        ),
        Failure::Panic => InferError::Internal("the engine panicked in this run".into()),
        Failure::Broken => InferError::Internal(BROKEN.into()),
    }
}

/// The inputs of each request.
fn requests(batch: &[Pending]) -> Vec<&[Tensor]> {
    batch.iter().map(|pending| pending.inputs.as_slice()).collect()
}

/// Where each request's part ends in an output that is cut by the shapes of an input.
fn scattered_ends(shapes: &[Vec<i64>], data: &[u8], datatype: Datatype) -> Result<Vec<usize>, Failure> {
    let size = datatype.size_bytes().ok_or(Failure::Uncuttable)?;
    let mut end = 0usize;
    let mut ends = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let bytes = element_count(shape).and_then(|count| count.checked_mul(size));
        end = bytes.and_then(|bytes| end.checked_add(bytes)).ok_or(Failure::Uncuttable)?;
        ends.push(end);
    }
    if end == data.len() { Ok(ends) } else { Err(Failure::Uncuttable) }
}

fn parts(batch: &[Pending], input: usize) -> Vec<&[u8]> {
    batch.iter().filter_map(|pending| pending.inputs.get(input)).map(|tensor| &*tensor.data).collect()
}

fn shape(batch: &[Pending], input: usize, rows: u64) -> Vec<i64> {
    let first = batch.first().and_then(|pending| pending.inputs.get(input));
    let mut shape = first.map(|tensor| tensor.shape.clone()).unwrap_or_default();
    if let (true, Some(extent)) = (batch.len() > 1, shape.first_mut()) {
        *extent = i64::try_from(rows).unwrap_or(i64::MAX);
    }
    shape
}

fn wants(pending: &Pending, name: &str) -> bool {
    pending.outputs.is_empty() || pending.outputs.iter().any(|wanted| wanted == name)
}

/// Brings outputs into the order in which they were asked for.
fn in_wanted_order(wanted: &[String], outputs: &mut [Tensor]) {
    if outputs.len() > 1 && !wanted.is_empty() {
        outputs.sort_by_key(|tensor| wanted.iter().position(|name| **name == *tensor.name));
    }
}

/// Where each request's rows end in an output's data.
fn ends(
    batch: &[Pending],
    rows: u64,
    shape: &[i64],
    data: &[u8],
    datatype: Datatype,
) -> Result<Vec<usize>, Failure> {
    if batch.len() == 1 {
        return Ok(vec![data.len()]);
    }
    let leading = shape.first().and_then(|extent| u64::try_from(*extent).ok());
    if leading != Some(rows) || rows == 0 {
        return Err(Failure::Uncuttable);
    }
    let rows = usize::try_from(rows).map_err(|_| Failure::Uncuttable)?;
    let mut seen = 0;
    let row_ends = batch.iter().map(|pending| {
        seen += pending.rows as usize;
        seen
    });
    match datatype.size_bytes() {
        Some(_) if data.len().is_multiple_of(rows) => {
            Ok(row_ends.map(|row| row * (data.len() / rows)).collect())
        }
        Some(_) => Err(Failure::Uncuttable),
        None => string_ends(data, rows, row_ends),
    }
}

fn string_ends(
    data: &[u8],
    rows: usize,
    row_ends: impl Iterator<Item = usize>,
) -> Result<Vec<usize>, Failure> {
    let mut at = 0;
    let mut offsets = vec![0];
    for element in bytes_elements(data) {
        at += 4 + element.map_err(|_| Failure::Uncuttable)?.len();
        offsets.push(at);
    }
    let elements = offsets.len() - 1;
    if !elements.is_multiple_of(rows) {
        return Err(Failure::Uncuttable);
    }
    row_ends.map(|row| offsets.get(row * (elements / rows)).copied().ok_or(Failure::Uncuttable)).collect()
}
