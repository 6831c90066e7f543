//! Trial runs on zeros before a model is ready: warm-up, two rows, and what a run costs.
//!
//! Zeros need not fit a model (a length of 0, a division): a run that fails says nothing and is no reason not to
//! serve. Only what a trial shows is used.
use crate::{
    aside::Watch,
    backend::{BatchInput, LoadError, RunError, Stream},
    edges::Edges,
    runner::Facts,
    served::Warmup,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use xebec_core::{ModelInfo, Tensor, tensor::element_count};

/// Trial runs of one model take no longer than this together, once the first is over.
const BUDGET: Duration = Duration::from_millis(60);
/// Most runs that one figure is taken from.
const RUNS: usize = 9;
/// A model with inputs larger than this is not tried on zeros.
const MOST_BYTES: usize = 256 << 20;

/// What trial runs showed.
#[derive(Debug)]
pub(super) struct Measured {
    /// A run of one row; `None` if it failed.
    pub(super) one_row: Option<Duration>,
    /// A run of as many rows as may be; `None` if that was not tried or failed.
    pub(super) largest: Option<Duration>,
    /// Whether two rows gave two; else why requests must not share a run.
    pub(super) two_rows: Result<(), String>,
}

impl Measured {
    /// Nothing is known.
    pub(super) const FAILED: Self = Self { one_row: None, largest: None, two_rows: Ok(()) };
}

/// Tries a stream.
pub(super) fn run(stream: &mut dyn Stream, facts: &Facts, max_rows: u32) -> Measured {
    let (info, edges) = (&*facts.info, facts.edges.as_deref());
    let one = Zeros::new(info, edges, 1);
    if let Err(error) = warm_up(stream, facts) {
        tracing::debug!(model = %info.name, %error, "a warm-up on zeros failed");
        // Without one row there is nothing to compare two with: the runner still checks every answer's rows.
        return Measured::FAILED;
    }
    let two_rows = if max_rows > 1 { two(stream, info, edges) } else { Ok(()) };
    let until = Instant::now() + BUDGET;
    let one_row = one.and_then(|zeros| median(stream, &zeros, until));
    let largest = (max_rows > 1 && one_row.is_some_and(|run| run < Duration::from_millis(1)))
        .then(|| Zeros::new(info, edges, max_rows).and_then(|zeros| median(stream, &zeros, until)))
        .flatten();
    Measured { one_row, largest, two_rows }
}

/// The median time of a run of so many rows, after one that is not counted.
pub(super) fn cost(stream: &mut dyn Stream, facts: &Facts, rows: u32) -> Result<Duration, String> {
    let zeros = Zeros::new(&facts.info, facts.edges.as_deref(), rows);
    let zeros = zeros.ok_or("zeros of its shapes are too large")?;
    zeros.run(stream).map_err(|error| error.message)?;
    let until = Instant::now() + Duration::from_millis(500);
    median(stream, &zeros, until).ok_or_else(|| "a run failed".to_owned())
}

/// Runs one row of zeros.
///
/// # Errors
/// The engine's words, or that the inputs would be too large.
pub(super) fn warm_up(stream: &mut dyn Stream, facts: &Facts) -> Result<(), RunError> {
    let too_large = || RunError { message: "zeros of its shapes are too large".into(), callers_fault: false };
    Zeros::new(&facts.info, facts.edges.as_deref(), 1).ok_or_else(too_large)?.run(stream)
}

/// Runs what the owner wants to have run before the model is ready.
///
/// # Errors
/// The first that fails: its owner knows what fits the model.
pub(super) fn warm_up_as_told(
    stream: &mut dyn Stream,
    facts: &Facts,
    warmups: &[Warmup],
) -> Result<(), LoadError> {
    for warmup in warmups {
        let failed = |message: String| LoadError::Warmup { name: warmup.name.clone(), message };
        for _ in 0..warmup.count {
            let run = || run_requests(stream, facts.edges.as_deref(), &[&warmup.inputs]);
            let outcome = catch_unwind(AssertUnwindSafe(run));
            let outcome = outcome.map_err(|_| failed("the engine panicked".into()))?;
            outcome.map_err(|error| failed(error.message))?;
        }
    }
    Ok(())
}

fn two(stream: &mut dyn Stream, info: &ModelInfo, edges: Option<&Edges>) -> Result<(), String> {
    let Some(zeros) = Zeros::new(info, edges, 2) else { return Ok(()) };
    zeros.run(stream).map_err(|error| format!("a trial run of two rows failed: {error}"))?;
    for (index, output) in info.outputs.iter().enumerate() {
        let shape = stream.output(index).shape;
        let scattered = edges.is_some_and(|edges| edges.scattered(index, &[]).is_some());
        if !scattered && shape.first() != Some(&2) {
            let shape = xebec_core::error::dims_text(shape);
            return Err(format!("output '{}' of a trial run of two rows has shape {shape}", output.name));
        }
    }
    Ok(())
}

fn median(stream: &mut dyn Stream, zeros: &Zeros<'_>, until: Instant) -> Option<Duration> {
    let mut times = Vec::with_capacity(RUNS);
    while times.len() < RUNS && (times.is_empty() || Instant::now() < until) {
        let watch = Watch::start();
        zeros.run(stream).ok()?;
        times.push(watch.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Inputs of zeros, free extents being 1; optional ones are left out.
struct Zeros<'a> {
    edges: Option<&'a Edges>,
    /// One, or one for each row where it matters how many there are.
    requests: Vec<Vec<Tensor>>,
}

impl<'a> Zeros<'a> {
    fn new(info: &ModelInfo, edges: Option<&'a Edges>, rows: u32) -> Option<Self> {
        let (requests, rows) =
            if edges.is_some_and(Edges::is_ragged) { (rows as usize, 1) } else { (1, i64::from(rows)) };
        let mut total = 0usize;
        let mut inputs = Vec::new();
        for input in &info.inputs {
            if edges.is_some_and(|edges| edges.is_optional(&input.name)) {
                continue;
            }
            let mut shape: Vec<i64> = input.shape.iter().map(|extent| (*extent).max(1)).collect();
            if let (true, Some(first)) = (info.max_batch_size > 0, shape.first_mut()) {
                *first = rows;
            }
            // An empty string is its length: four zeros.
            let size = input.datatype.size_bytes().unwrap_or(4);
            let bytes = element_count(&shape)?.checked_mul(size)?;
            total = total.checked_add(bytes.checked_mul(requests)?).filter(|total| *total <= MOST_BYTES)?;
            let (name, datatype) = (Arc::clone(&input.name), input.datatype);
            inputs.push(Tensor { name, datatype, shape, data: vec![0; bytes].into() });
        }
        Some(Self { edges, requests: vec![inputs; requests] })
    }

    fn run(&self, stream: &mut dyn Stream) -> Result<(), RunError> {
        run_requests(stream, self.edges, &self.requests.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

/// Runs requests of one batch, given by their inputs; without edges there is only one.
pub(super) fn run_requests(
    stream: &mut dyn Stream,
    edges: Option<&Edges>,
    requests: &[&[Tensor]],
) -> Result<(), RunError> {
    if let Some(edges) = edges {
        let made = edges.make(requests);
        let misshapen =
            || RunError { message: "a shape is not what the reshape says".into(), callers_fault: false };
        let gathered = edges.gather(requests, &made).ok_or_else(misshapen)?;
        return stream.run(&gathered.inputs()).map(|_| ());
    }
    let inputs = requests.iter().flat_map(|inputs| inputs.iter());
    let parts: Vec<(&Tensor, [&[u8]; 1])> = inputs.map(|tensor| (tensor, [&*tensor.data])).collect();
    let batch: Vec<BatchInput<'_>> =
        parts.iter().map(|(tensor, parts)| BatchInput { shape: &tensor.shape, parts }).collect();
    stream.run(&batch).map(|_| ())
}
