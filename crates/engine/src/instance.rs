//! Instance threads: each takes a batch from the model's queue, runs it over its own stream, and asks again.
//!
//! Dropping the [`Pool`] drains it: what waits is run, then the threads end, and who drops it does not wait for that: it
//! may be an I/O core that held the last request of a model that was unloaded. An instance with a seat at the limiter takes its
//! turn there before it takes a batch, so that what comes while it waits is in the batch.
//!
//! A thread that is there for work, and has nothing else to do than what comes of its request, runs it itself in the place of an
//! instance that has nothing to do: its tensors stay where they are, and nobody is woken. Not here: who is next (`queue`).
use crate::{
    aside::spawn,
    later::{Tiny, nothing_waits, settled},
    limiter::{Seat, Turn},
    queue::{Asker, Batch, Job, Queue, Rules, Step},
    request::Pending,
    runner::{Facts, Runner},
    served::Guard,
    workers::{away, may_work},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The threads of one model.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Started with the first request that has a deadline: most models never see one.
    timekeeper: OnceLock<Option<JoinHandle<()>>>,
    /// Dropped when the threads have ended.
    guard: Option<Guard>,
}

struct Shared {
    state: Mutex<State>,
    /// Where instances wait that have nothing to do.
    idle: Condvar,
    /// Where instances wait for company for the oldest request.
    holding: Condvar,
    /// Where the timekeeper waits for the next deadline.
    due: Condvar,
    facts: Arc<Facts>,
    /// Whether instances leave what they run on to others while they have nothing to do. Where one has a seat none does: they
    /// wait at one place, and who is woken must be able to run.
    lends: bool,
}

struct State {
    queue: Queue<Pending>,
    /// Instances that could run something now.
    idle: usize,
    /// What those of them run on, the last one last, where that is lent.
    resting: Vec<Runner>,
    /// A run in an instance's place has ended, and something waits.
    ran_here: bool,
    stopping: bool,
    /// What the timekeeper waits for.
    next_deadline: Option<Instant>,
}

impl Pool {
    /// Starts one thread per runner.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(crate) fn start(
        facts: Arc<Facts>,
        rules: Rules,
        runners: Vec<(Runner, Option<Seat>)>,
        guard: Option<Guard>,
    ) -> std::io::Result<Self> {
        let queue = Queue::new(rules);
        let lends = runners.iter().all(|(_, seat)| seat.is_none());
        let resting = Vec::with_capacity(runners.len());
        let state = State { queue, idle: 0, resting, ran_here: false, stopping: false, next_deadline: None };
        let (idle, holding, due) = (Condvar::new(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state: Mutex::new(state), idle, holding, due, facts, lends });
        let mut pool = Self { shared, threads: Vec::new(), timekeeper: OnceLock::new(), guard };
        for (index, (runner, seat)) in runners.into_iter().enumerate() {
            let shared = Arc::clone(&pool.shared);
            let name = format!("{}-{index}", pool.shared.facts.info.name);
            let thread = spawn(name, move || shared.serve(runner, seat.as_ref()))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Puts a request into the queue, or runs it.
    ///
    /// # Errors
    /// The request itself, if the queue is full.
    #[expect(clippy::result_large_err, reason = "the request itself comes back, once and only when refused")]
    pub(crate) fn submit(&self, pending: Pending) -> Result<(), Pending> {
        let deadline = pending.deadline;
        if deadline.is_some() {
            self.timekeeper.get_or_init(|| self.start_timekeeper());
        }
        let mut state = self.shared.lock();
        let now = pending.arrived;
        let here = may_work() && nothing_waits() && state.queue.is_empty() && !state.resting.is_empty();
        let outcome = state.queue.push(pending, now);
        if outcome.is_ok() && here {
            self.shared.facts.metrics.pending.add(1);
            self.shared.run_here(state, now);
            return outcome;
        }
        if outcome.is_ok() {
            if deadline.is_some_and(|deadline| state.next_deadline.is_none_or(|next| deadline < next)) {
                state.next_deadline = deadline;
                self.shared.due.notify_one();
            }
            self.shared.facts.metrics.pending.add(1);
            let waiting = if state.idle > 0 { &self.shared.idle } else { &self.shared.holding };
            waiting.notify_one();
        }
        drop(self.shared.answer_left(state));
        outcome
    }

    /// Instances that have nothing to do.
    #[cfg(test)]
    pub(crate) fn resting(&self) -> usize {
        self.shared.lock().resting.len()
    }

    fn start_timekeeper(&self) -> Option<JoinHandle<()>> {
        let shared = Arc::clone(&self.shared);
        let name = format!("{}-time", shared.facts.info.name);
        let thread = spawn(name, move || shared.keep_time());
        let late = |error| {
            tracing::warn!(error = %error, "no thread for deadlines: they are noticed when a run ends");
        };
        thread.map_err(late).ok()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.idle.notify_all();
        self.shared.holding.notify_all();
        self.shared.due.notify_all();
        let threads: Vec<_> = self.threads.drain(..).chain(self.timekeeper.take().flatten()).collect();
        let guard = self.guard.take();
        let name = format!("{}-end", self.shared.facts.info.name);
        let wait = move || {
            // A run's panic is caught inside; one here would have been reported by the hook already.
            threads.into_iter().for_each(|thread| drop(thread.join()));
            drop(guard);
        };
        // Without this thread the others end by themselves all the same.
        let _ = spawn(name, wait);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a fault of ours that the hook reports; the queue itself stays whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, runner: Runner, seat: Option<&Seat>) {
        let (mut asker, mut runner) = (Asker::Idle, Some(runner));
        while let Some((batch, turn)) = self.next(asker, seat, &mut runner) {
            // What answers bring about is done when the run is over for the queue.
            let run = || {
                let ran = runner.as_mut().map(|runner| Ran::of(runner, batch));
                drop(turn);
                ran.map(|ran| drop(self.over(ran)))
            };
            let _ = catch_unwind(AssertUnwindSafe(|| settled(Tiny::Now, run)));
            asker = Asker::Busy;
        }
    }

    /// Tells the queue of a run, and is under the lock then.
    fn over(&self, ran: Ran) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.queue.finish(ran.rows);
        if let Some(took) = ran.took {
            state.queue.learn(ran.row_bytes, ran.limit, ran.rows, took);
        }
        state
    }

    /// Runs the only request that waits on this thread, in the place of an instance that rests.
    fn run_here<'a>(&'a self, mut state: MutexGuard<'a, State>, now: Instant) {
        if let Step::Run(batch) = state.queue.next(now, Asker::Idle)
            && let Some(mut runner) = state.resting.pop()
        {
            self.facts.metrics.pending.add(-i64::try_from(batch.jobs.len()).unwrap_or(0));
            state.idle -= 1;
            drop(state);
            let ran = away(|| Ran::of(&mut runner, batch));
            state = self.over(ran);
            state.resting.push(runner);
            state.idle += 1;
            state.ran_here = !state.queue.is_empty();
            if state.ran_here || state.stopping {
                self.idle.notify_one();
            }
        }
        drop(self.answer_left(state));
    }

    /// Answers requests at their deadline, also while every instance is in a long run.
    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.stopping {
            state.next_deadline = state.queue.next_deadline();
            let now = Instant::now();
            state = match state.next_deadline {
                None => self.due.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(when) if when <= now => {
                    state.queue.sweep(now);
                    self.answer_left(state)
                }
                Some(when) => {
                    self.due.wait_timeout(state, when - now).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits for a batch, and for a turn if there is a seat to wait at; `None` when it is time to end.
    fn next<'a>(
        &self,
        mut asker: Asker,
        seat: Option<&'a Seat>,
        runner: &mut Option<Runner>,
    ) -> Option<(Batch<Pending>, Option<Turn<'a>>)> {
        let mut turn = None;
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            // Who is about to end waits for no company.
            let why = if state.stopping { Asker::Idle } else { asker };
            if let (Some(seat), None) = (seat, &turn)
                && state.queue.is_due(now, why)
            {
                drop(self.answer_left(state));
                turn = Some(seat.turn(|| self.let_another_try()));
                state = self.lock();
                continue;
            }
            let step = state.queue.next(now, why);
            if !matches!(step, Step::Run(_)) {
                // Another instance took what was there.
                turn = None;
            }
            state = match step {
                Step::Run(batch) => {
                    turn.iter_mut().for_each(Turn::used);
                    self.facts.metrics.pending.add(-i64::try_from(batch.jobs.len()).unwrap_or(0));
                    if state.idle > 0 && !state.queue.is_empty() {
                        self.idle.notify_one();
                    }
                    drop(self.answer_left(state));
                    return Some((batch, turn));
                }
                // Answering lets go of the lock, and what came meanwhile would be missed: look again first.
                Step::WaitUntil(_) if state.queue.has_left() => self.answer_left(state),
                Step::WaitUntil(when) => {
                    let wait = when.saturating_duration_since(now);
                    self.holding.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
                }
                Step::Empty if state.stopping => {
                    drop(self.answer_left(state));
                    return None;
                }
                Step::Empty => {
                    asker = Asker::Idle;
                    let mut state = self.answer_left(state);
                    if !state.queue.is_empty() || state.stopping {
                        state
                    } else if !self.lends {
                        state.idle += 1;
                        let mut state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
                        state.idle -= 1;
                        state
                    } else {
                        let mut state = self.rest(state, runner);
                        // Who takes over after a run asks as the one that ran would have.
                        if std::mem::take(&mut state.ran_here) {
                            asker = Asker::Busy;
                        }
                        state
                    }
                }
            }
        }
    }

    /// Waits until there is something to do, and something to run it on.
    fn rest<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        runner: &mut Option<Runner>,
    ) -> MutexGuard<'a, State> {
        state.resting.extend(runner.take());
        state.idle += 1;
        loop {
            state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
            if state.queue.is_empty() && !state.stopping {
                continue;
            }
            // If there is none, whoever has it wakes somebody when it is back.
            *runner = state.resting.pop();
            if runner.is_some() {
                state.idle -= 1;
                return state;
            }
        }
    }

    /// An instance of another group may need nothing that is taken.
    fn let_another_try(&self) {
        if self.lock().idle > 0 {
            self.idle.notify_one();
        }
    }

    /// Answers those who left without a run, outside of the lock, and takes the lock again.
    fn answer_left<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let left = state.queue.take_left();
        if left.is_empty() {
            return state;
        }
        drop(state);
        for (pending, why) in left {
            self.facts.metrics.pending.add(-1);
            pending.leave(why);
        }
        self.lock()
    }
}

/// A run that is over.
struct Ran {
    row_bytes: u64,
    limit: u64,
    rows: u64,
    /// If it went well.
    took: Option<Duration>,
}

impl Ran {
    /// Runs a batch.
    fn of(runner: &mut Runner, batch: Batch<Pending>) -> Self {
        let (rows, limit) = (batch.rows(), batch.limit);
        let row_bytes = batch.jobs.first().map_or(0, Job::row_bytes);
        let began = Instant::now();
        // The engine's own panics are caught inside and answered. One of ours drops the batch, whose callers are
        // told, and the instance goes on: without it the model would wait for ever.
        let went_well = catch_unwind(AssertUnwindSafe(|| runner.run(batch.jobs))).unwrap_or(false);
        Self { row_bytes, limit, rows, took: went_well.then(|| began.elapsed()) }
    }
}
