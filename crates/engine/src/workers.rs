//! Threads for what is done between models, shared by all graphs of the process: built-in steps, and what an answer brings
//! about where the thread that gave it must not.
//!
//! As many threads as cores, each started when there is work and none is free. Not here: what is done.
use crate::{
    aside::spawn,
    later::{Tiny, settled},
};
use std::{
    cell::Cell,
    collections::VecDeque,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Something to do.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// The most that waits.
const MOST_WAITING: usize = 16_384;

static WORKERS: Workers = Workers {
    state: Mutex::new(State { waiting: VecDeque::new(), threads: 0, idle: 0 }),
    woken: Condvar::new(),
};

thread_local! {
    static MAY_WORK: Cell<bool> = const { Cell::new(false) };
}

struct Workers {
    state: Mutex<State>,
    woken: Condvar,
}

struct State {
    waiting: VecDeque<Work>,
    threads: usize,
    idle: usize,
}

/// Notes that this thread is there for work, and that nobody waits for it to read a socket.
pub(crate) fn join_in() {
    MAY_WORK.set(true);
}

/// Whether this thread may do such work itself.
pub(crate) fn may_work() -> bool {
    MAY_WORK.get()
}

/// Has one of the threads do it.
///
/// # Errors
/// The work itself: too much waits, or the system has no room for a thread.
pub(crate) fn give(work: Work) -> Result<(), Work> {
    let mut state = WORKERS.lock();
    if state.waiting.len() >= MOST_WAITING {
        return Err(work);
    }
    if state.idle == 0 && state.threads < most_threads() {
        let name = format!("graph-{}", state.threads);
        match spawn(name, || WORKERS.work()) {
            Ok(_) => state.threads += 1,
            Err(_) if state.threads == 0 => return Err(work),
            Err(_) => (),
        }
    }
    state.waiting.push_back(work);
    drop(state);
    WORKERS.woken.notify_one();
    Ok(())
}

fn most_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        join_in();
        loop {
            let work = self.next();
            // A panic was reported by the hook; what it concerns answers when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| settled(Tiny::Now, work)));
        }
    }

    fn next(&self) -> Work {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.waiting.pop_front() {
                return work;
            }
            state.idle += 1;
            state = self.woken.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}
