//! Trial runs on zeros before a model is ready: warm-up, two rows, and what a run costs.
//!
//! Zeros need not fit a model (a length of 0, a division): a run that fails says nothing and is no reason not to
//! serve. Only what a trial shows is used.
use crate::backend::{BatchInput, RunError, Stream};
use std::time::{Duration, Instant};
use xebec_core::{ModelInfo, tensor::element_count};

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
pub(super) fn run(stream: &mut dyn Stream, info: &ModelInfo, max_rows: u32) -> Measured {
    let one = Zeros::new(info, 1);
    if let Err(error) = warm_up(stream, info) {
        tracing::debug!(model = %info.name, %error, "a warm-up on zeros failed");
        // Without one row there is nothing to compare two with: the runner still checks every answer's rows.
        return Measured::FAILED;
    }
    let two_rows = if max_rows > 1 { two(stream, info) } else { Ok(()) };
    let until = Instant::now() + BUDGET;
    let one_row = one.and_then(|zeros| median(stream, &zeros, until));
    let largest = (max_rows > 1 && one_row.is_some_and(|run| run < Duration::from_millis(1)))
        .then(|| Zeros::new(info, max_rows).and_then(|zeros| median(stream, &zeros, until)))
        .flatten();
    Measured { one_row, largest, two_rows }
}

/// Runs one row of zeros.
///
/// # Errors
/// The engine's words, or that the inputs would be too large.
pub(super) fn warm_up(stream: &mut dyn Stream, info: &ModelInfo) -> Result<(), RunError> {
    let too_large = || RunError { message: "zeros of its shapes are too large".into(), callers_fault: false };
    Zeros::new(info, 1).ok_or_else(too_large)?.run(stream)
}

fn two(stream: &mut dyn Stream, info: &ModelInfo) -> Result<(), String> {
    let Some(zeros) = Zeros::new(info, 2) else { return Ok(()) };
    zeros.run(stream).map_err(|error| format!("a trial run of two rows failed: {error}"))?;
    for (index, output) in info.outputs.iter().enumerate() {
        let shape = stream.output(index).shape;
        if shape.first() != Some(&2) {
            let shape = xebec_core::error::dims_text(shape);
            return Err(format!("output '{}' of a trial run of two rows has shape {shape}", output.name));
        }
    }
    Ok(())
}

fn median(stream: &mut dyn Stream, zeros: &Zeros, until: Instant) -> Option<Duration> {
    let mut times = Vec::with_capacity(RUNS);
    while times.len() < RUNS && (times.is_empty() || Instant::now() < until) {
        let started = Instant::now();
        zeros.run(stream).ok()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Inputs of zeros, free extents being 1.
struct Zeros(Vec<(Vec<i64>, Vec<u8>)>);

impl Zeros {
    fn new(info: &ModelInfo, rows: u32) -> Option<Self> {
        let mut total = 0usize;
        let mut inputs = Vec::new();
        for input in &info.inputs {
            let mut shape: Vec<i64> = input.shape.iter().map(|extent| (*extent).max(1)).collect();
            if let (true, Some(first)) = (info.max_batch_size > 0, shape.first_mut()) {
                *first = i64::from(rows);
            }
            // An empty string is its length: four zeros.
            let size = input.datatype.size_bytes().unwrap_or(4);
            let bytes = element_count(&shape)?.checked_mul(size)?;
            total = total.checked_add(bytes).filter(|total| *total <= MOST_BYTES)?;
            inputs.push((shape, vec![0; bytes]));
        }
        Some(Self(inputs))
    }

    fn run(&self, stream: &mut dyn Stream) -> Result<(), RunError> {
        let parts: Vec<[&[u8]; 1]> = self.0.iter().map(|(_, data)| [data.as_slice()]).collect();
        let inputs = self.0.iter().zip(&parts);
        let batch: Vec<BatchInput<'_>> =
            inputs.map(|((shape, _), parts)| BatchInput { shape, parts }).collect();
        stream.run(&batch).map(|_| ())
    }
}
