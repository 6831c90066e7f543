//! Threads for what is done between models, shared by all graphs of the process: built-in steps, runs of a model that has
//! nothing else to do, and what an answer brings about where the thread that gave it must not.
//!
//! As many are at work as there are cores; one that runs a model is [`away`], and another takes its place. The one that had
//! work last is the next to get some: what it worked on is still in its core's cache. Not here: what is done.
use crate::{
    aside::spawn,
    later::{Tiny, settled},
};
use std::{
    cell::Cell,
    collections::VecDeque,
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        LazyLock, Mutex, MutexGuard, Once, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
};

/// Something to do.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// The most that waits.
const MOST_WAITING: usize = 16_384;

static WORKERS: Workers =
    Workers(Mutex::new(State { waiting: VecDeque::new(), idle: Vec::new(), threads: 0, at_work: 0 }));

thread_local! {
    static MAY_WORK: Cell<bool> = const { Cell::new(false) };
}

struct Workers(Mutex<State>);

/// Whatever waits does so because as many are at work as may be.
struct State {
    waiting: VecDeque<Work>,
    /// Where those are told of work that have none, the last one last.
    idle: Vec<SyncSender<Work>>,
    threads: usize,
    /// Threads that have work, without those that are away.
    at_work: usize,
}

/// Whether this thread is there for work, and may do it itself: nobody waits for it to read a socket.
pub(crate) fn may_work() -> bool {
    MAY_WORK.get()
}

/// Does `work` here, which is not to do more than it must: others wait behind it.
pub(crate) fn in_passing<T>(work: impl FnOnce() -> T) -> T {
    let _before = Before(MAY_WORK.replace(false));
    work()
}

/// What [`may_work`] said before.
struct Before(bool);

impl Drop for Before {
    fn drop(&mut self) {
        MAY_WORK.set(self.0);
    }
}

/// Does `work` here, which may take long and is not what the threads are for: another has this one's place meanwhile.
pub(crate) fn away<T>(work: impl FnOnce() -> T) -> T {
    if !may_work() {
        return work();
    }
    let mut state = WORKERS.lock();
    state.at_work -= 1;
    state.hand_out();
    drop(state);
    let _back = Back;
    in_passing(work)
}

struct Back;

impl Drop for Back {
    fn drop(&mut self) {
        // There may be more than cores then, until the work of some ends.
        WORKERS.lock().at_work += 1;
    }
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
    state.waiting.push_back(work);
    state.hand_out();
    if state.threads > 0 {
        return Ok(());
    }
    state.waiting.pop_back().map_or(Ok(()), Err)
}

/// As many as there are cores. To ask the system reads files.
fn most_at_work() -> usize {
    static CORES: LazyLock<usize> =
        LazyLock::new(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    *CORES
}

impl State {
    /// Gives what waits to threads, as far as they may work.
    fn hand_out(&mut self) {
        static TOLD: Once = Once::new();
        let mut started = 0;
        // A new thread takes what waits by itself.
        while self.waiting.len() > started && self.at_work < most_at_work() {
            let Some(thread) = self.idle.pop() else {
                match spawn(format!("graph-{}", self.threads), || WORKERS.work()) {
                    Ok(_) => (self.threads, self.at_work) = (self.threads + 1, self.at_work + 1),
                    Err(error) => {
                        let tell = || tracing::warn!(error = %error, "no thread for graphs: what they do waits for others");
                        return TOLD.call_once(tell);
                    }
                }
                started += 1;
                continue;
            };
            let Some(work) = self.waiting.pop_front() else { return };
            match thread.send(work) {
                Ok(()) => self.at_work += 1,
                // It has ended, which none does.
                Err(unsent) => self.waiting.push_front(unsent.0),
            }
        }
    }
}

impl Workers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        MAY_WORK.set(true);
        let (to, from) = sync_channel(1);
        while let Some(work) = self.next(&to).or_else(|| from.recv().ok()) {
            // A panic was reported by the hook; what it concerns answers when it is dropped.
            let _ = catch_unwind(AssertUnwindSafe(|| settled(Tiny::Now, work)));
        }
    }

    /// What the thread is to do now; if nothing, it is told of the next.
    fn next(&self, to: &SyncSender<Work>) -> Option<Work> {
        let mut state = self.lock();
        if state.at_work <= most_at_work()
            && let Some(work) = state.waiting.pop_front()
        {
            return Some(work);
        }
        state.at_work -= 1;
        state.idle.push(to.clone());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier};

    #[test]
    fn while_one_is_away_as_many_as_there_are_cores_are_at_work() {
        let barrier = Arc::new(Barrier::new(most_at_work() + 1));
        let (tell, told) = sync_channel(most_at_work() + 1);
        for _ in 0..=most_at_work() {
            let (barrier, tell) = (Arc::clone(&barrier), tell.clone());
            // All meet, which they could not if one of them had no thread.
            let work = move || {
                assert!(may_work() && !in_passing(may_work) && may_work());
                away(|| barrier.wait());
                tell.send(()).unwrap();
            };
            assert!(give(Box::new(work)).is_ok());
        }
        drop(tell);
        assert_eq!(told.iter().count(), most_at_work() + 1);
    }

    #[test]
    fn a_thread_whose_work_panicked_goes_on() {
        for _ in 0..2 * most_at_work() {
            assert!(give(Box::new(|| panic!("asked to"))).is_ok());
        }
        let (tell, told) = sync_channel(most_at_work() + 1);
        assert!(give(Box::new(move || tell.send(()).unwrap())).is_ok());
        told.recv().unwrap();
    }
}
