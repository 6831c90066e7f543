//! The memory that models may take together.
//!
//! A [`Lease`] lives as long as a model's memory: it counts until the last of it has gone, so that what is being
//! unloaded is not given out twice. Not here: which model goes (`catalog`), what one needs (`build`).
use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// How long a load waits for the memory of models that are on their way out.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes that may be taken, and that are.
pub(super) struct Budget {
    limit: u64,
    ledger: Mutex<Ledger>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ledger {
    used: u64,
    /// Of those, bytes of models that are on their way out.
    leaving: u64,
}

/// A share of the budget, given back when it is dropped.
pub(super) struct Lease {
    budget: Arc<Budget>,
    bytes: AtomicU64,
    leaving: AtomicBool,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLease {
    /// More than the whole budget.
    TooLarge { limit: u64 },
    /// What is in memory is in use.
    Busy,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, ledger: Mutex::default(), freed: Condvar::new() })
    }

    /// Most bytes, and those that are taken.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.limit, self.lock().used)
    }

    /// Takes `bytes`, sending others out of memory until they fit. `evict` sends one and tells whether there was one
    /// that could go.
    ///
    /// # Errors
    /// [`NoLease`].
    pub(super) fn reserve(
        self: &Arc<Self>,
        bytes: u64,
        evict: impl FnMut() -> bool,
    ) -> Result<Lease, NoLease> {
        let lease =
            Lease { budget: Arc::clone(self), bytes: AtomicU64::new(0), leaving: AtomicBool::new(false) };
        lease.raise(bytes, evict)?;
        Ok(lease)
    }

    fn take(&self, bytes: u64, mut evict: impl FnMut() -> bool) -> Result<(), NoLease> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut ledger = self.lock();
            if ledger.used + bytes <= self.limit {
                ledger.used += bytes;
                return Ok(());
            }
            if ledger.used - ledger.leaving + bytes > self.limit {
                drop(ledger);
                if !evict() {
                    return Err(NoLease::Busy);
                }
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NoLease::Busy);
            }
            drop(self.freed.wait_timeout(ledger, left).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Whether more is taken than may be, those on their way out left aside.
    pub(super) fn is_over(&self) -> bool {
        let ledger = self.lock();
        ledger.used - ledger.leaving > self.limit
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes as much more as it needs to be of so many bytes in all, as [`Budget::reserve`] does.
    ///
    /// # Errors
    /// [`NoLease`].
    pub(super) fn raise(&self, bytes: u64, evict: impl FnMut() -> bool) -> Result<(), NoLease> {
        if bytes > self.budget.limit {
            return Err(NoLease::TooLarge { limit: self.budget.limit });
        }
        let more = bytes.saturating_sub(self.bytes.load(SeqCst));
        self.budget.take(more, evict)?;
        self.bytes.fetch_add(more, SeqCst);
        Ok(())
    }

    /// Corrects what was only estimated.
    pub(super) fn set(&self, bytes: u64) {
        let mut ledger = self.budget.lock();
        let before = self.bytes.swap(bytes, SeqCst);
        ledger.used = ledger.used - before + bytes;
        if self.leaving.load(SeqCst) {
            ledger.leaving = ledger.leaving - before + bytes;
        }
        self.budget.freed.notify_all();
    }

    /// The model is on its way out: its memory will come back.
    pub(super) fn leave(&self) {
        let mut ledger = self.budget.lock();
        if !self.leaving.swap(true, SeqCst) {
            ledger.leaving += self.bytes.load(SeqCst);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut ledger = self.budget.lock();
        let bytes = self.bytes.load(SeqCst);
        ledger.used -= bytes;
        if self.leaving.load(SeqCst) {
            ledger.leaving -= bytes;
        }
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_go_as_must_and_a_share_counts_until_its_memory_is_back() {
        let budget = Budget::new(100);
        let mut held: Vec<Lease> =
            [40, 40].map(|bytes| budget.reserve(bytes, || false).unwrap()).into_iter().collect();
        let mut sent = 0;
        let third = budget.reserve(30, || {
            sent += 1;
            let lease = held.remove(0);
            lease.leave();
            // Its memory is back at once, here.
            drop(lease);
            true
        });
        assert!(third.is_ok());
        assert_eq!((sent, budget.usage()), (1, (100, 70)));
    }

    #[test]
    fn who_waits_for_memory_on_its_way_sends_nobody_else() {
        let budget = Budget::new(100);
        let first = budget.reserve(80, || false).unwrap();
        first.leave();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(60, || panic!("nobody is to go")).map(drop));
            drop(first);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn what_can_never_fit_and_what_does_not_fit_now_are_told_apart() {
        let budget = Budget::new(100);
        assert_eq!(budget.reserve(101, || true).err(), Some(NoLease::TooLarge { limit: 100 }));
        let lease = budget.reserve(100, || true).unwrap();
        assert_eq!(budget.reserve(1, || false).err(), Some(NoLease::Busy));
        lease.set(120);
        assert!(budget.is_over());
        assert_eq!(lease.raise(101, || true), Err(NoLease::TooLarge { limit: 100 }));
        lease.leave();
        assert!(!budget.is_over());
        drop(lease);
        assert_eq!(budget.usage(), (100, 0));
    }
}
