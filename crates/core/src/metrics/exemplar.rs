//! Examples of what is in the buckets of a histogram: the newest traced request of each.
//!
//! Room is made with the first one, so that a server without traces has none of it. Keeping one never waits: where another
//! is being kept or read, it is left out.
use crate::trace::SpanContext;
use std::{
    sync::{Mutex, OnceLock},
    time::{Duration, SystemTime},
};

/// A traced request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exemplar {
    /// Its span.
    pub span: SpanContext,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub at: SystemTime,
}

/// One for each bucket.
#[derive(Debug, Default)]
pub(super) struct Exemplars(OnceLock<Box<[Mutex<Option<Exemplar>>]>>);

impl Exemplars {
    /// Keeps one for a bucket of so many.
    pub(super) fn keep(&self, bucket: usize, buckets: usize, exemplar: Exemplar) {
        let all = self.0.get_or_init(|| (0..buckets).map(|_| Mutex::default()).collect());
        if let Some(Ok(mut kept)) = all.get(bucket).map(Mutex::try_lock) {
            *kept = Some(exemplar);
        }
    }

    pub(super) fn get(&self, bucket: usize) -> Option<Exemplar> {
        *self.0.get()?.get(bucket)?.try_lock().ok()?
    }
}
