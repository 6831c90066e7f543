//! Tiny models run on the thread that reads their requests: what one turn of an I/O core has read is one batch.
//!
//! Each thread uses a lane of its own, a queue and a session, so that no lock is ever waited for and no thread is
//! woken. [`TurnEnd`] runs what the calling thread has submitted. A lane runs early when it has a full batch.
//!
//! Not here: whether a model is tiny (`served`).
use crate::{
    later::{Tiny, settled},
    queue::{Asker, Queue, Rules, Step},
    request::Pending,
    runner::{Facts, Runner},
    served::Guard,
};
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use xebec_core::port::Turn;

/// A tiny model, ready on every I/O core.
pub(crate) struct Inline {
    lanes: Vec<Mutex<Lane>>,
    facts: Arc<Facts>,
    /// Dropped after the lanes.
    _guard: Option<Guard>,
}

struct Lane {
    queue: Queue<Pending>,
    runner: Runner,
}

static THREADS_SEEN: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which lane this thread takes, of any model.
    static ORDINAL: usize = THREADS_SEEN.fetch_add(1, Relaxed);
    /// Models that have something to run for this thread.
    static TOUCHED: RefCell<Vec<Arc<Inline>>> = const { RefCell::new(Vec::new()) };
    static ANY_TOUCHED: Cell<bool> = const { Cell::new(false) };
}

impl Inline {
    /// One lane per runner.
    pub(crate) fn new(facts: Arc<Facts>, rules: Rules, runners: Vec<Runner>, guard: Option<Guard>) -> Self {
        let rules = Rules { instances: 1, concurrent: false, ..rules };
        let lane = |runner| Mutex::new(Lane { queue: Queue::new(rules.clone()), runner });
        Self { lanes: runners.into_iter().map(lane).collect(), facts, _guard: guard }
    }

    /// How many threads it runs on, each with a session.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Takes a request for the end of this thread's turn.
    ///
    /// # Errors
    /// The request itself, if the lane is full.
    #[expect(clippy::result_large_err, reason = "the request itself comes back, once and only when refused")]
    pub(crate) fn submit(self: &Arc<Self>, pending: Pending) -> Result<(), Pending> {
        let Some(mut lane) = self.lane() else { return Err(pending) };
        let now = pending.arrived;
        lane.queue.push(pending, now)?;
        self.facts.metrics.pending.add(1);
        if lane.queue.waiting_rows() >= u64::from(lane.queue.rules().max_rows) {
            settled(Tiny::AtTurn, move || self.run(&mut lane));
        } else {
            drop(lane);
            self.touch();
        }
        Ok(())
    }

    fn lane(&self) -> Option<MutexGuard<'_, Lane>> {
        let ordinal = ORDINAL.with(|ordinal| *ordinal);
        let lane = self.lanes.get(ordinal.checked_rem(self.lanes.len())?)?;
        Some(lane.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn touch(self: &Arc<Self>) {
        ANY_TOUCHED.set(true);
        TOUCHED.with_borrow_mut(|touched| {
            if !touched.iter().any(|model| Arc::ptr_eq(model, self)) {
                touched.push(Arc::clone(self));
            }
        });
    }

    fn run(&self, lane: &mut Lane) {
        loop {
            // Taking an empty list out costs nothing; answering under the lane's lock is fine: it is this thread's own.
            let step = lane.queue.next(Instant::now(), Asker::Idle);
            for (pending, why) in lane.queue.take_left() {
                self.facts.metrics.pending.add(-1);
                pending.leave(why);
            }
            let Step::Run(batch) = step else { return };
            let rows = batch.rows();
            self.facts.metrics.pending.add(-i64::try_from(batch.jobs.len()).unwrap_or(0));
            // A panic of ours drops the batch, whose callers are told; the lane goes on.
            let _ = catch_unwind(AssertUnwindSafe(|| lane.runner.run(batch.jobs)));
            lane.queue.finish(rows);
        }
    }
}

/// Runs, at the end of a turn of an I/O core, what that turn has submitted to tiny models.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnEnd;

impl Turn for TurnEnd {
    fn flush(&self) {
        if ANY_TOUCHED.get() {
            settled(Tiny::Now, run_touched);
        }
    }
}

/// Whether this thread has submitted something that was not run yet.
pub(crate) fn any_touched() -> bool {
    ANY_TOUCHED.get()
}

/// Runs what this thread has submitted; whether there was anything.
pub(crate) fn run_touched() -> bool {
    if !ANY_TOUCHED.replace(false) {
        return false;
    }
    let mut touched = TOUCHED.take();
    for model in touched.drain(..) {
        if let Some(mut lane) = model.lane() {
            model.run(&mut lane);
        }
    }
    // The list keeps its room for the next turn.
    TOUCHED.with_borrow_mut(|now| {
        if now.is_empty() {
            *now = touched;
        }
    });
    true
}
