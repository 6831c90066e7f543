//! The memory that models may take together.
//!
//! A [`Lease`] lives as long as a model's memory: it counts until the last of it has gone, so that what is being
//! unloaded is not given out twice. Never is more taken than may be. Not here: which model goes (`order`), what one needs
//! (`build`).
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

/// What is in memory around a version that is to be loaded.
pub(super) trait Neighbours {
    /// Bytes of its model's other versions, those on their way out left aside.
    fn beside(&self) -> u64;

    /// Sends versions of its own model out of memory; whether there were any that could go.
    fn send_siblings(&self) -> bool;

    /// Sends another model out of memory; whether there was one that could go.
    fn send_other(&self) -> bool;
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLease {
    /// More than the whole budget, beside so many bytes of its model's other versions, which cannot go.
    TooLarge { beside: u64, limit: u64 },
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

    /// A lease of nothing yet.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        Lease { budget: Arc::clone(self), bytes: AtomicU64::new(0), leaving: AtomicBool::new(false) }
    }

    fn take(&self, bytes: u64, around: &dyn Neighbours) -> Result<(), NoLease> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut ledger = self.lock();
            if ledger.used + bytes <= self.limit {
                ledger.used += bytes;
                return Ok(());
            }
            if ledger.used - ledger.leaving + bytes > self.limit {
                drop(ledger);
                if !around.send_other() && !around.send_siblings() {
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

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Takes as much more as it needs to be of so many bytes in all, sending others out of memory until they fit. Of
    /// its own model only where it would not fit beside it, or nobody else can go.
    ///
    /// # Errors
    /// [`NoLease`].
    pub(super) fn raise(&self, bytes: u64, around: &dyn Neighbours) -> Result<(), NoLease> {
        let limit = self.budget.limit;
        if bytes > limit {
            return Err(NoLease::TooLarge { beside: 0, limit });
        }
        while bytes + around.beside() > limit {
            if !around.send_siblings() {
                return Err(NoLease::TooLarge { beside: around.beside(), limit });
            }
        }
        let more = bytes.saturating_sub(self.bytes.load(SeqCst));
        self.budget.take(more, around)?;
        self.bytes.fetch_add(more, SeqCst);
        Ok(())
    }

    /// What it stands for; nothing once it is on its way out.
    pub(super) fn staying(&self) -> u64 {
        if self.leaving.load(SeqCst) { 0 } else { self.bytes.load(SeqCst) }
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
    use std::cell::RefCell;

    /// Leases of others and of siblings, each of which can go, and who went.
    #[derive(Default)]
    struct Around {
        others: RefCell<Vec<Lease>>,
        siblings: RefCell<Vec<Lease>>,
        gone: RefCell<Vec<&'static str>>,
    }

    impl Around {
        fn send(&self, from: &RefCell<Vec<Lease>>, who: &'static str) -> bool {
            let Some(lease) = from.borrow_mut().pop() else { return false };
            self.gone.borrow_mut().push(who);
            lease.leave();
            // Its memory is back at once, here.
            true
        }
    }

    impl Neighbours for Around {
        fn beside(&self) -> u64 {
            self.siblings.borrow().iter().map(Lease::staying).sum()
        }
        fn send_siblings(&self) -> bool {
            self.send(&self.siblings, "sibling")
        }
        fn send_other(&self) -> bool {
            self.send(&self.others, "other")
        }
    }

    fn reserve(budget: &Arc<Budget>, bytes: u64, around: &Around) -> Result<Lease, NoLease> {
        let lease = budget.lease();
        lease.raise(bytes, around).map(|()| lease)
    }

    fn alone(budget: &Arc<Budget>, bytes: u64) -> Result<Lease, NoLease> {
        reserve(budget, bytes, &Around::default())
    }

    #[test]
    fn as_many_go_as_must_and_a_share_counts_until_its_memory_is_back() {
        let budget = Budget::new(100);
        let others = RefCell::new([40, 40].map(|bytes| alone(&budget, bytes).unwrap()).into());
        let around = Around { others, ..Around::default() };
        let third = reserve(&budget, 30, &around).unwrap();
        assert_eq!((around.gone.take(), budget.usage()), (vec!["other"], (100, 70)));
        third.raise(60, &around).unwrap();
        assert_eq!((around.gone.take(), budget.usage()), (vec![], (100, 100)));
        third.raise(61, &around).unwrap();
        assert_eq!((around.gone.take(), budget.usage()), (vec!["other"], (100, 61)));
    }

    #[test]
    fn who_waits_for_memory_on_its_way_sends_nobody_else() {
        let budget = Budget::new(100);
        let first = alone(&budget, 80).unwrap();
        first.leave();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| alone(&budget, 60).map(drop));
            drop(first);
            assert_eq!(waiting.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn what_can_never_fit_and_what_does_not_fit_now_are_told_apart() {
        let budget = Budget::new(100);
        assert_eq!(alone(&budget, 101).err(), Some(NoLease::TooLarge { beside: 0, limit: 100 }));
        let lease = alone(&budget, 100).unwrap();
        assert_eq!(alone(&budget, 1).err(), Some(NoLease::Busy));
        assert_eq!(budget.usage(), (100, 100));
        lease.leave();
        drop(lease);
        assert_eq!(budget.usage(), (100, 0));
    }

    #[test]
    fn siblings_go_first_where_both_never_fit_and_last_where_they_do() {
        let budget = Budget::new(100);
        let around = |other, sibling| Around {
            others: RefCell::new(vec![alone(&budget, other).unwrap()]),
            siblings: RefCell::new(vec![alone(&budget, sibling).unwrap()]),
            ..Around::default()
        };
        let crowded = around(30, 60);
        assert!(reserve(&budget, 50, &crowded).is_ok());
        assert_eq!(crowded.gone.take(), ["sibling"]);
        drop(crowded);
        let roomy = around(50, 50);
        assert!(reserve(&budget, 50, &roomy).is_ok());
        assert_eq!(roomy.gone.take(), ["other"]);
    }
}
