//! Calls something at a time that changes.
//!
//! One thread for each stateful model; it holds nothing of the model while it waits.
use crate::aside::spawn;
use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

pub(super) struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: Option<Instant>,
    stopped: bool,
}

impl Clock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Condvar::new() })
    }

    /// Starts the thread, which calls `due` when the time has come, until [`Self::stop`].
    ///
    /// # Errors
    /// The system has no room for it.
    pub(super) fn start(
        self: &Arc<Self>,
        model: &str,
        due: impl Fn() + Send + 'static,
    ) -> std::io::Result<()> {
        let clock = Arc::clone(self);
        let run = move || {
            while clock.wait() {
                due();
            }
        };
        spawn(format!("{model}-idle"), run).map(drop)
    }

    /// When it is to be called next; never if `None`. Sooner than that is fine: who is called looks for itself.
    pub(super) fn set(&self, next: Option<Instant>) {
        let mut state = self.lock();
        let sooner = match (next, state.next) {
            (Some(next), Some(before)) => next < before,
            (next, before) => next.is_some() && before.is_none(),
        };
        state.next = next;
        if sooner {
            self.changed.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_one();
    }

    /// Waits for the time; false when it is to end.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return false;
            }
            let now = Instant::now();
            state = match state.next {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(next) if next <= now => {
                    state.next = None;
                    return true;
                }
                Some(next) => {
                    self.changed.wait_timeout(state, next - now).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
