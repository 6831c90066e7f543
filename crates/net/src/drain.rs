//! Stopping without losing a request.
//!
//! Draining has two steps: from [`Drain::begin`] on protocols refuse new work, idle connections are closed and busy
//! ones finish; when no connection from before is left on any core, or [`Drain::deadline`] passes, the cores stop. Until
//! then all of them answer, so that probes and metrics are there to the end.
use std::{
    cell::Cell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// A handle shared by everything that must know whether the server is stopping.
#[derive(Clone, Debug)]
pub struct Drain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bound: Duration,
    begun: OnceLock<Instant>,
    /// Cores that have connections from before.
    busy_cores: AtomicUsize,
}

impl Drain {
    /// A server that serves; once begun, draining takes at most `bound`.
    pub fn new(bound: Duration) -> Self {
        Self(Arc::new(Inner { bound, begun: OnceLock::new(), busy_cores: AtomicUsize::new(0) }))
    }

    /// So many cores have to be done before any of them stops.
    pub(crate) fn expect(&self, cores: usize) {
        self.0.busy_cores.fetch_add(cores, SeqCst);
    }

    /// One core's word that it has no connection from before any more.
    pub(crate) fn place(&self) -> Place {
        Place { drain: self.clone(), done: Cell::new(false) }
    }

    /// Whether every core is done.
    pub(crate) fn all_done(&self) -> bool {
        self.0.busy_cores.load(SeqCst) == 0
    }

    /// Starts draining; later calls change nothing.
    pub fn begin(&self, now: Instant) {
        let _ = self.0.begun.set(now);
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.0.begun.get().is_some()
    }

    /// When everything left is cut off; `None` while serving.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.begun.get().map(|begun| *begun + self.0.bound)
    }
}

/// A core's place among those that have to be done. A core that breaks is done as well: the others must not wait for it.
#[derive(Debug)]
pub(crate) struct Place {
    drain: Drain,
    done: Cell<bool>,
}

impl Place {
    /// Says so; once is enough.
    pub(crate) fn is_done(&self) {
        if !self.done.replace(true) {
            self.drain.0.busy_cores.fetch_sub(1, SeqCst);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_done();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_sets_the_deadline_and_a_second_does_not_move_it() {
        let drain = Drain::new(Duration::from_secs(30));
        assert_eq!((drain.is_draining(), drain.deadline()), (false, None));
        let now = Instant::now();
        drain.begin(now);
        drain.begin(now + Duration::from_secs(10));
        assert_eq!((drain.is_draining(), drain.deadline()), (true, Some(now + Duration::from_secs(30))));
    }

    #[test]
    fn every_core_is_done_once_also_one_that_breaks() {
        let drain = Drain::new(Duration::from_secs(30));
        drain.expect(2);
        let (first, second) = (drain.place(), drain.place());
        first.is_done();
        first.is_done();
        drop(first);
        assert!(!drain.all_done());
        drop(second);
        assert!(drain.all_done());
    }
}
