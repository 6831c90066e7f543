//! Memory that one I/O core may spend on bodies that are read or wait, and on answers that wait to be read.
//!
//! A limit for each body alone is not enough: thousands of connections may each be halfway through a large one.
use std::{cell::Cell, rc::Rc};

/// A core's share.
///
/// A request is refused for those beside it, never for its own size, which has limits of its own: alone it always fits.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    used: Cell<usize>,
}

/// The share is used up.
#[derive(Debug)]
pub(crate) struct Spent;

impl Budget {
    pub(crate) fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self { limit: bytes, used: Cell::new(0) })
    }
}

/// What one request holds of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Rc<Budget>,
    bytes: usize,
}

impl Hold {
    pub(crate) fn new(budget: Rc<Budget>) -> Self {
        Self { budget, bytes: 0 }
    }

    /// Takes `bytes` more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Spent> {
        let used = self.budget.used.get();
        let alone = used == self.bytes;
        // Who needs nothing is not in anybody's way, also where one that is alone has passed the limit.
        if used.saturating_add(bytes) > self.budget.limit && !alone && bytes > 0 {
            return Err(Spent);
        }
        self.budget.used.set(used.saturating_add(bytes));
        self.bytes += bytes;
        Ok(())
    }

    /// Holds `bytes` from here on, more or less than before.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Spent> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.give_back(self.bytes - bytes);
                Ok(())
            }
        }
    }

    /// Takes over what `other` holds.
    pub(crate) fn take_over(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives everything back before the end.
    pub(crate) fn release(&mut self) {
        self.give_back(self.bytes);
    }

    /// Gives `bytes` back before the end.
    pub(crate) fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.used.set(self.budget.used.get() - bytes);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dropped_body_held_can_be_held_again() {
        let budget = Budget::new(10);
        let mut first = Hold::new(Rc::clone(&budget));
        first.grow(6).unwrap();
        let mut second = Hold::new(Rc::clone(&budget));
        assert!(second.grow(5).is_err());
        second.grow(4).unwrap();
        first.give_back(1);
        second.grow(1).unwrap();
        drop(first);
        second.grow(5).unwrap();
        assert!(Hold::new(budget).grow(1).is_err());
    }

    #[test]
    fn what_is_held_changes_hands_and_size_and_is_counted_once() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (Hold::new(Rc::clone(&budget)), Hold::new(Rc::clone(&budget)));
        first.grow(4).unwrap();
        second.grow(6).unwrap();
        first.take_over(second);
        let mut beside = Hold::new(Rc::clone(&budget));
        assert!(beside.set(1).is_err());
        beside.set(0).unwrap();
        first.set(9).unwrap();
        beside.set(1).unwrap();
        assert!(first.set(10).is_err());
        first.release();
        beside.set(10).unwrap();
    }

    #[test]
    fn one_that_is_alone_always_fits_and_the_next_waits_for_its_end() {
        let budget = Budget::new(10);
        let mut large = Hold::new(Rc::clone(&budget));
        large.grow(8).unwrap();
        large.grow(100).unwrap();
        let mut next = Hold::new(Rc::clone(&budget));
        next.grow(0).unwrap();
        assert!(next.grow(1).is_err());
        drop(large);
        next.grow(11).unwrap();
    }
}
