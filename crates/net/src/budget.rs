//! Memory that one I/O core may spend on bodies that are still being read.
//!
//! A limit for each body alone is not enough: thousands of connections may each be halfway through a large one.
use std::{cell::Cell, rc::Rc};

/// What is left of a core's share.
#[derive(Debug)]
pub(crate) struct Budget(Cell<usize>);

/// The share is used up.
#[derive(Debug)]
pub(crate) struct Spent;

impl Budget {
    pub(crate) fn new(bytes: usize) -> Rc<Self> {
        Rc::new(Self(Cell::new(bytes)))
    }
}

/// What one body holds of it, given back when dropped.
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
        let left = self.budget.0.get().checked_sub(bytes).ok_or(Spent)?;
        self.budget.0.set(left);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.0.set(self.budget.0.get() + self.bytes);
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
        drop(first);
        second.grow(6).unwrap();
        assert!(second.grow(1).is_err());
    }
}
