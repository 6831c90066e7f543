//! Instance threads: each takes a batch from the model's queue, runs it over its own stream, and asks again.
//!
//! Dropping the [`Pool`] drains it: what waits is run, then the threads end. Not here: who is next (`queue`).
use crate::{
    queue::{Asker, Queue, Rules, Step},
    request::Pending,
    runner::{Facts, Runner},
};
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Instant,
};

/// The threads of one model.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// Where instances wait that have nothing to do.
    idle: Condvar,
    /// Where instances wait for company for the oldest request.
    holding: Condvar,
    facts: Arc<Facts>,
}

struct State {
    queue: Queue<Pending>,
    idle: usize,
    stopping: bool,
}

impl Pool {
    /// Starts one thread per runner.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(crate) fn start(facts: Arc<Facts>, rules: Rules, runners: Vec<Runner>) -> std::io::Result<Self> {
        let state = Mutex::new(State { queue: Queue::new(rules), idle: 0, stopping: false });
        let shared = Arc::new(Shared { state, idle: Condvar::new(), holding: Condvar::new(), facts });
        let mut pool = Self { shared, threads: Vec::new() };
        for (index, mut runner) in runners.into_iter().enumerate() {
            let shared = Arc::clone(&pool.shared);
            let name = format!("{}-{index}", pool.shared.facts.info.name);
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.serve(&mut runner))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Puts a request into the queue.
    ///
    /// # Errors
    /// The request itself, if the queue is full.
    pub(crate) fn submit(&self, pending: Pending) -> Result<(), Pending> {
        let mut state = self.shared.lock();
        let outcome = state.queue.push(pending, Instant::now());
        if outcome.is_ok() {
            self.shared.facts.metrics.pending.add(1);
            let waiting = if state.idle > 0 { &self.shared.idle } else { &self.shared.holding };
            waiting.notify_one();
        }
        drop(self.shared.answer_left(state));
        outcome
    }

    /// Most requests that may wait.
    pub(crate) fn max_queue(&self) -> usize {
        self.shared.lock().queue.rules().max_queue
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.idle.notify_all();
        self.shared.holding.notify_all();
        for thread in self.threads.drain(..) {
            // A run's panic is caught inside; one here would have been reported by the hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a fault of ours that the hook reports; the queue itself stays whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, runner: &mut Runner) {
        let mut asker = Asker::Idle;
        while let Some(batch) = self.next(asker) {
            let rows = batch.iter().map(|pending| u64::from(pending.rows)).sum();
            runner.run(batch);
            self.lock().queue.finish(rows);
            asker = Asker::Busy;
        }
    }

    /// Waits for a batch; `None` when it is time to end.
    fn next(&self, mut asker: Asker) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            // Who is about to end waits for no company.
            let why = if state.stopping { Asker::Idle } else { asker };
            let step = state.queue.next(now, why);
            state = match step {
                Step::Run(batch) => {
                    self.facts.metrics.pending.add(-i64::try_from(batch.len()).unwrap_or(0));
                    if state.idle > 0 && !state.queue.is_empty() {
                        self.idle.notify_one();
                    }
                    drop(self.answer_left(state));
                    return Some(batch);
                }
                Step::WaitUntil(when) => {
                    let state = self.answer_left(state);
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
                    } else {
                        state.idle += 1;
                        let mut state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
                        state.idle -= 1;
                        state
                    }
                }
            }
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
