//! `nearest`: of all items the ones whose vectors go best with a query. `most_similar`: of some items the one that goes best
//! with each of others.
//!
//! Every vector is looked at, with the processor's widest instructions: see ADR 0014 for why that is no index.
use crate::{
    rank::{better, finite},
    settings::Settings,
    table::{Table, Typed},
    values::{elements, extent, info, made},
};
use pulp::{Arch, Simd, WithSimd};
use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// Items whose scores are made before any is looked at.
const BLOCK: usize = 512;

/// Numbers in the vectors of the others.
const MOST_NUMBERS: usize = 16 << 20;

/// Numbers of all that are compared: a second's work.
const MOST_PRODUCTS: usize = 1 << 32;

/// Sums that are kept side by side: as many as the widest register of a processor of today has, twice.
const LANES: usize = 32;

/// Scores of vectors, one after the other in `rows`, with `query`: `out` has room for one each.
struct Scores<'a> {
    query: &'a [f32],
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    // Inlined into code that may use the processor's own instructions, to which the compiler then turns these loops.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Self { query, rows, out } = self;
        for (row, score) in rows.chunks_exact(query.len().max(1)).zip(out) {
            *score = dot(query, row);
        }
    }
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let (wide_a, wide_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (rest_a, rest_b) = (wide_a.remainder(), wide_b.remainder());
    for (a, b) in wide_a.zip(wide_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(rest_a.iter().zip(rest_b)) {
        *sum += a * b;
    }
    // By halves: the compiler may add side by side, and the order is always the same.
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            sums[at] += sums[at + width];
        }
        width /= 2;
    }
    sums[0]
}

/// A score with its item; the better one is the greater.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scored {
    score: f32,
    item: usize,
}

impl Eq for Scored {}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        better(other.score, other.item, self.score, self.item)
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The best `most` items of a table, best first; equal ones in their order.
fn best(arch: Arch, table: &Typed<f32>, query: &[f32], most: usize) -> Vec<Scored> {
    let width = table.width().max(1);
    let (mut heap, mut scores) = (BinaryHeap::with_capacity(most + 1), [0.0; BLOCK]);
    for (block, rows) in table.all().chunks(BLOCK * width).enumerate() {
        let out = &mut scores[..rows.len() / width];
        arch.dispatch(Scores { query, rows, out });
        for (at, score) in scores[..rows.len() / width].iter().enumerate() {
            let is_better = heap.peek().is_none_or(|Reverse(Scored { score: worst, .. })| score > worst);
            // What is no number is never better.
            if (heap.len() < most && !score.is_nan()) || is_better && score.is_finite() {
                heap.push(Reverse(Scored { score: *score, item: block * BLOCK + at }));
                if heap.len() > most {
                    heap.pop();
                }
            }
        }
    }
    heap.into_sorted_vec().into_iter().map(|Reverse(scored)| scored).collect()
}

/// See the module's text.
pub(crate) struct Nearest {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 2],
    table: Typed<f32>,
    most: usize,
    arch: Arch,
}

impl Nearest {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let table = Table::open(settings, "table")?.of("table", Datatype::Fp32, 2)?;
        let width = i64::try_from(table.width()).unwrap_or(i64::MAX);
        if width == 0 {
            return Err("setting 'table': its vectors have no numbers".into());
        }
        Ok(Self {
            inputs: [info("query", Datatype::Fp32, &[1, width])],
            outputs: [info("ids", Datatype::Int64, &[-1]), info("scores", Datatype::Fp32, &[-1])],
            table,
            most: settings.number("k", None, 1..=100_000)?,
            arch: Arch::new(),
        })
    }
}

impl Step for Nearest {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [query] = inputs else { return Err(Unfit("it takes a query".into())) };
        let query = elements::<f32>(query);
        finite("query", &query)?;
        let best = best(self.arch, &self.table, &query, self.most);
        Ok(vec![
            made(
                &[best.len()],
                best.iter().map(|found| i64::try_from(found.item).unwrap_or(i64::MAX)).collect(),
            ),
            made(&[best.len()], best.iter().map(|found| found.score).collect()),
        ])
    }
}

/// See the module's text.
pub(crate) struct MostSimilar {
    inputs: [TensorInfo; 2],
    outputs: [TensorInfo; 2],
    table: Typed<f32>,
    arch: Arch,
}

impl MostSimilar {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let slot = |name| info(name, Datatype::Int64, &[-1]);
        Ok(Self {
            inputs: [slot("ids"), slot("others")],
            outputs: [slot("which"), info("scores", Datatype::Fp32, &[-1])],
            table: Table::open(settings, "table")?.of("table", Datatype::Fp32, 2)?,
            arch: Arch::new(),
        })
    }

    fn row(&self, id: i64) -> Result<&[f32], Unfit> {
        let rows = self.table.all().len() / self.table.width().max(1);
        self.table.row(id).ok_or_else(|| Unfit(format!("id {id} is not in the table, which has {rows} rows")))
    }
}

impl Step for MostSimilar {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids, others] = inputs else { return Err(Unfit("it takes ids and others".into())) };
        let numbers = extent(others, 0).saturating_mul(self.table.width());
        if numbers > MOST_NUMBERS || numbers.saturating_mul(extent(ids, 0)) > MOST_PRODUCTS {
            return Err(Unfit(format!(
                "{} ids beside {} others are too many to compare; ask for fewer",
                extent(ids, 0),
                extent(others, 0)
            )));
        }
        let mut rows = Vec::with_capacity(extent(others, 0) * self.table.width());
        let others = elements::<i64>(others);
        for id in others.iter() {
            rows.extend_from_slice(self.row(*id)?);
        }
        let mut out = vec![0.0; others.len()];
        let (mut which, mut scores) = (Vec::new(), Vec::new());
        for id in elements::<i64>(ids).iter() {
            self.arch.dispatch(Scores { query: self.row(*id)?, rows: &rows, out: &mut out });
            let best = out.iter().enumerate().min_by(|(a, x), (b, y)| better(**x, *a, **y, *b));
            which.push(best.and_then(|(at, _)| others.get(at)).copied().unwrap_or(-1));
            scores.push(best.map_or(0.0, |(_, score)| *score));
        }
        Ok(vec![made(&[which.len()], which), made(&[scores.len()], scores)])
    }
}
