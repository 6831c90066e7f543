//! How fast a copy runs beside the original: in turn, so that both see the same machine.
use super::pair::{Half, Pair};
use crate::local::data::slice;
use anyhow::Context as _;
use std::{
    fs,
    time::{Duration, Instant},
};
use xebec_core::Tensor;

/// Turns of each model, and the least time of one.
const TURNS: usize = 9;
const TURN: Duration = Duration::from_millis(25);

/// Medians of a run with so many rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Speed {
    pub(super) rows: i64,
    pub(super) original: Cost,
    pub(super) copy: Cost,
}

/// What one run took, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cost {
    pub(super) wall_us: f64,
    /// Processor time of the thread that ran it, on which all of a run happens.
    pub(super) cpu_us: f64,
}

/// Times both models on the first rows of the data.
///
/// # Errors
/// A run fails.
pub(super) fn measure(pair: &mut Pair, requests: &[Vec<Tensor>], rows: i64) -> anyhow::Result<Speed> {
    let inputs = with_rows(requests.first().context("there is no data")?, rows, pair.has_rows)
        .context("the data's rows cannot be taken apart")?;
    let (mut original, mut copy) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        original.push(turn(&mut pair.original, &inputs)?);
        copy.push(turn(&mut pair.copy, &inputs)?);
    }
    Ok(Speed { rows, original: median(&original), copy: median(&copy) })
}

/// A request of so many rows, made of the first row of another.
fn with_rows(request: &[Tensor], rows: i64, has_rows: bool) -> Option<Vec<Tensor>> {
    if !has_rows {
        return Some(request.to_vec());
    }
    let repeat = |tensor: &Tensor| {
        let one = slice(tensor, 0, 1)?;
        let (mut shape, data) = (one.shape.clone(), one.data.repeat(usize::try_from(rows).ok()?));
        *shape.first_mut()? = rows;
        Some(Tensor { shape, data: data.into(), ..one })
    };
    request.iter().map(repeat).collect()
}

fn turn(half: &mut Half, inputs: &[Tensor]) -> anyhow::Result<Cost> {
    // Not measured: brings the model's memory back into the caches.
    half.run(inputs)?;
    let (began, cpu) = (Instant::now(), thread_cpu());
    let mut runs = 0u32;
    while began.elapsed() < TURN {
        half.run(inputs)?;
        runs += 1;
    }
    let us = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(runs.max(1));
    Ok(Cost { wall_us: us(began.elapsed()), cpu_us: us(thread_cpu().saturating_sub(cpu)) })
}

/// Processor time of this thread; 0 where the kernel does not tell.
fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn median(costs: &[Cost]) -> Cost {
    let middle = |pick: fn(&Cost) -> f64| {
        let mut all: Vec<f64> = costs.iter().map(pick).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    Cost { wall_us: middle(|cost| cost.wall_us), cpu_us: middle(|cost| cost.cpu_us) }
}
