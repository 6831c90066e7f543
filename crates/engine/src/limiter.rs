//! Runs take turns at what the operator says is scarce: the resources of `instance_group.rate_limiter`.
//!
//! An instance has a [`Seat`]. Before it takes a batch it waits there for a [`Turn`], which holds the resources of its
//! group until it is dropped. Not here: who is next (`ledger`), when an instance wants to run (`instance`).
use ledger::{Id, Ledger};
use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

mod ledger;

pub use ledger::Declared;
pub(crate) use ledger::{Limit, Scope, Unfit};

/// What all models of a process share.
#[derive(Debug, Default)]
pub struct Limiter(Mutex<Desk>);

#[derive(Debug, Default)]
struct Desk {
    ledger: Ledger,
    /// Where each instance waits.
    called: HashMap<Id, Arc<Condvar>>,
}

impl Desk {
    fn call(&self, served: &[Id]) {
        served.iter().filter_map(|id| self.called.get(id)).for_each(|called| called.notify_one());
    }
}

impl Limiter {
    /// With these resources; of what is not among them there is as much as the most that an instance needs.
    #[must_use]
    pub fn new(declared: Vec<Declared>) -> Self {
        Self(Mutex::new(Desk { ledger: Ledger::new(declared), called: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one instance.
#[derive(Debug)]
pub(crate) struct Seat {
    limiter: Arc<Limiter>,
    id: Id,
    called: Arc<Condvar>,
}

impl Seat {
    /// Takes a place for an instance of a model.
    ///
    /// # Errors
    /// It could never run.
    pub(crate) fn take(limiter: &Arc<Limiter>, model: &Arc<str>, limit: Limit) -> Result<Self, Unfit> {
        let mut desk = limiter.lock();
        let id = desk.ledger.join(model, limit)?;
        let called = Arc::new(Condvar::new());
        desk.called.insert(id, Arc::clone(&called));
        drop(desk);
        Ok(Self { limiter: Arc::clone(limiter), id, called })
    }

    /// Waits until there is what a run takes. `must_wait` is called before, if there is not.
    pub(crate) fn turn(&self, must_wait: impl FnOnce()) -> Turn<'_> {
        let mut desk = self.limiter.lock();
        let served = desk.ledger.want(self.id);
        desk.call(&served);
        if !desk.ledger.runs(self.id) {
            drop(desk);
            must_wait();
            desk = self.limiter.lock();
            while !desk.ledger.runs(self.id) {
                desk = self.called.wait(desk).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Turn { seat: self, ran: false }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut desk = self.limiter.lock();
        desk.called.remove(&self.id);
        let served = desk.ledger.leave(self.id);
        desk.call(&served);
    }
}

/// Holds what a run takes.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    seat: &'a Seat,
    ran: bool,
}

impl Turn<'_> {
    /// It is used: it counts as one of the instance's.
    pub(crate) fn used(&mut self) {
        self.ran = true;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut desk = self.seat.limiter.lock();
        let served = desk.ledger.give_back(self.seat.id, self.ran);
        desk.call(&served);
    }
}
