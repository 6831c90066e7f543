//! How many rows are worth running together, learned from what runs took.
//!
//! More rows a run share its fixed costs (the call, the weights read from memory), until their intermediate tensors
//! no longer fit the caches: then each row takes longer. Where that is depends on model, row and machine, so it is
//! measured while serving: sizes are powers of two, rows are told apart by their bytes, and of the sizes within
//! [`TOLERANCE`] of the best the middle one is taken: larger ones wake fewer threads, smaller ones answer sooner, and
//! a wrong measure costs least there. All that is there is tried first, then half of it, and so on while that is
//! as good: no size far below a good one is tried. Now and then a size that was run before is run again, because
//! machines change.
//!
//! Not here: clocks, and how many rows there are (`queue`).
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Runs of a size before it is judged.
const TRIES: u32 = 4;
/// Runs that a mean remembers.
const MEMORY: u32 = 16;
/// Runs between two that see whether another size is better by now.
const PATROL: u64 = 32;
/// How much slower than at its fastest a row may be.
const TOLERANCE: f64 = 1.02;
/// Sizes are kept up to 2^15 rows, rows up to 2^31 bytes; what is beyond counts with the last.
const SIZES: usize = 16;
const CLASSES: usize = 32;

/// What runs took, by bytes of a row and rows that a run might have.
#[derive(Debug)]
pub(crate) struct Pace {
    classes: [Option<Box<Class>>; CLASSES],
}

#[derive(Debug, Default)]
struct Class {
    /// By the binary logarithm of the limit.
    sizes: [Cell; SIZES],
    runs: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    runs: u32,
    seconds_per_row: f64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { classes: [const { None }; CLASSES] }
    }

    /// A run that might have had `limit` rows, and had `rows` with `row_bytes` bytes of input each, is over. It counts for the
    /// limit: requests of several rows may leave room in it, also each time.
    pub(crate) fn learn(&mut self, row_bytes: u64, limit: u64, rows: u64, took: Duration) {
        if rows == 0 {
            return;
        }
        let Some(class) = self.classes.get_mut(logarithm(row_bytes, CLASSES)) else { return };
        let class = class.get_or_insert_default();
        class.runs += 1;
        let Some(cell) = class.sizes.get_mut(logarithm(limit, SIZES)) else { return };
        cell.runs = cell.runs.saturating_add(1);
        #[expect(clippy::cast_precision_loss, reason = "rows of a batch")]
        let seconds = took.as_secs_f64() / rows as f64;
        cell.seconds_per_row += (seconds - cell.seconds_per_row) / f64::from(cell.runs.min(MEMORY));
    }

    /// Rows to run next of the `room` there could be: from 1 to `room`.
    pub(crate) fn rows(&self, row_bytes: u64, room: u64) -> u64 {
        let class = self.classes.get(logarithm(row_bytes, CLASSES)).and_then(Option::as_deref);
        let Some(class) = class else { return room };
        let top = logarithm(room, SIZES);
        let size = class.size(top);
        if size == top { room } else { 1 << size }
    }
}

impl Class {
    fn size(&self, top: usize) -> usize {
        let sizes = self.sizes.get(..=top).unwrap_or(&self.sizes);
        let known = |size: usize| sizes.get(size).filter(|cell| cell.runs >= TRIES);
        if known(top).is_none() {
            return top;
        }
        let times = sizes.iter().filter(|cell| cell.runs >= TRIES).map(|cell| cell.seconds_per_row);
        let enough = times.fold(f64::INFINITY, f64::min) * TOLERANCE;
        let is_enough = |size: &usize| known(*size).is_some_and(|cell| cell.seconds_per_row <= enough);
        let mut good = (0..=top).filter(is_enough);
        let (smallest, count) = (good.clone().next().unwrap_or(top), good.clone().count());
        let smaller = smallest.saturating_sub(1);
        if known(smaller).is_none() {
            return smaller;
        }
        let again = usize::try_from(self.runs / PATROL % (top as u64 + 1)).unwrap_or(top);
        if self.runs.is_multiple_of(PATROL) && known(again).is_some() {
            return again;
        }
        good.nth(count / 2).unwrap_or(top)
    }
}

fn logarithm(value: u64, limit: usize) -> usize {
    (value.max(1).ilog2() as usize).min(limit - 1)
}
