//! Stopping without losing a request.
//!
//! Draining has two steps: from [`Drain::begin`] on protocols refuse new work, idle connections are closed and busy
//! ones finish; when no connection from before is left on any core, or [`Drain::deadline`] passes, the cores stop. Until
//! then all of them answer, so that probes and metrics are there to the end.
use std::{
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

    /// A core has no connection from before any more; said once by each.
    pub(crate) fn core_is_done(&self) {
        self.0.busy_cores.fetch_sub(1, SeqCst);
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
}
