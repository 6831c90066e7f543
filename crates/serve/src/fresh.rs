//! Turns of requests that are worth nothing when they are old: the newest that waits is next.
//!
//! A camera that sends more frames than can be looked at would, in a queue, have each looked at when it is just too old. Here as
//! many are in work as the machine has cores; the others wait where it costs nothing, and who is too old goes without having
//! cost anything. Invariants: no more are in work than may be; a turn that was given back is given on.
use std::{
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tokio::{sync::oneshot, time::timeout_at};
use xebec_core::InferError;

/// See the module's text.
pub(crate) struct Fresh(Mutex<State>);

struct State {
    /// Turns that are free.
    free: usize,
    /// Who waits, the newest last.
    waiting: Vec<oneshot::Sender<Turn>>,
}

/// Leave to be in work; given back when it is dropped.
pub(crate) struct Turn(Option<Arc<Fresh>>);

impl Fresh {
    /// As many turns as there are cores.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    fn with(free: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { free, waiting: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn until then.
    ///
    /// # Errors
    /// The time is up.
    ///
    /// # Cancel safety
    /// A turn that comes to nobody goes to the next.
    pub(crate) async fn turn(self: &Arc<Self>, until: Instant) -> Result<Turn, InferError> {
        if Instant::now() >= until {
            return Err(InferError::Timeout);
        }
        let given = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Ok(Turn(Some(Arc::clone(self))));
            }
            // Who has gone or was too old would be in the way for as long as nobody else comes.
            state.waiting.retain(|waiting| !waiting.is_closed());
            let (give, given) = oneshot::channel();
            state.waiting.push(give);
            given
        };
        match timeout_at(until.into(), given).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(InferError::Timeout),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(fresh) = self.0.take() else { return };
        loop {
            let mut state = fresh.lock();
            let Some(next) = state.waiting.pop() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Self(Some(Arc::clone(&fresh)))) {
                Ok(()) => return,
                // It is given on here, not by its own end.
                Err(mut turn) => drop(turn.0.take()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn the_newest_is_next_and_whoever_has_gone_is_passed_over() {
        let fresh = Fresh::with(1);
        let first = fresh.turn(soon()).await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(fresh.turn(soon()))).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        // The newest goes away; the one before it is next.
        waiting.pop();
        drop(first);
        let second = waiting[1].as_mut().await.unwrap();
        assert!(waiting[0].as_mut().now_or_never().is_none());
        drop(second);
        let last = waiting[0].as_mut().await.unwrap();
        drop(last);
        assert_eq!(fresh.lock().free, 1);
    }

    #[tokio::test]
    async fn who_is_too_old_is_told_so_and_a_turn_that_nobody_took_is_free() {
        let fresh = Fresh::with(1);
        assert!(matches!(fresh.turn(Instant::now()).await, Err(InferError::Timeout)));
        let held = fresh.turn(soon()).await.unwrap();
        let short = Instant::now() + Duration::from_millis(1);
        assert!(matches!(fresh.turn(short).await, Err(InferError::Timeout)));
        // Given to somebody who goes before it is taken.
        let mut gone = Box::pin(fresh.turn(soon()));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(held);
        drop(gone);
        assert_eq!(fresh.lock().free, 1);
    }
}
