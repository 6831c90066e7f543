//! What an answer brings about, done as soon as the thread that gave the answer holds nothing any more.
//!
//! An answer is given in the middle of things: under the lane of a tiny model, between two answers of a batch. What
//! submits the next request of a graph must not run there. [`later`] puts it down, and the [`settled`] around it does it.
//! Invariants: nothing that was put down is lost; it is done by the thread that put it down if that is within a
//! [`settled`], else by one of the [`workers`].
use crate::{
    inline,
    workers::{self, Work},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

thread_local! {
    static WITHIN: Cell<bool> = const { Cell::new(false) };
    static PUT_DOWN: RefCell<VecDeque<Work>> = const { RefCell::new(VecDeque::new()) };
}

/// When tiny models run what is submitted to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tiny {
    /// Before [`settled`] returns: nobody else would do it on this thread.
    Now,
    /// At the end of this thread's turn, with what else comes in it.
    AtTurn,
}

/// Does `work`, then what was put down meanwhile, and what was put down by that.
pub(crate) fn settled<T>(tiny: Tiny, work: impl FnOnce() -> T) -> T {
    if WITHIN.replace(true) {
        // The outer one does it.
        return work();
    }
    let _within = Within;
    let result = work();
    loop {
        while let Some(next) = PUT_DOWN.with_borrow_mut(VecDeque::pop_front) {
            next();
        }
        if tiny == Tiny::AtTurn || !inline::run_touched() {
            return result;
        }
    }
}

/// Ends with the outermost [`settled`], also when that panics.
struct Within;

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.set(false);
        // Only after a panic is there anything left.
        let left = PUT_DOWN.take();
        left.into_iter().for_each(hand_over);
    }
}

/// Puts `work` down.
pub(crate) fn later(work: impl FnOnce() + Send + 'static) {
    let work = Box::new(work);
    if WITHIN.get() {
        PUT_DOWN.with_borrow_mut(|all| all.push_back(work));
    } else {
        hand_over(work);
    }
}

/// Whether this thread has nothing else to do: nothing was put down, and no tiny model is to be run. Else whatever takes long would
/// hold that up, as no other thread does it.
pub(crate) fn nothing_waits() -> bool {
    !inline::any_touched() && PUT_DOWN.with_borrow(VecDeque::is_empty)
}

/// Has a thread do it that holds nothing. What is too much for those is dropped, and so answered.
fn hand_over(work: Work) {
    let _ = workers::give(work);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn what_is_put_down_is_done_when_the_outermost_is_over_and_in_its_order() {
        let (tell, told) = mpsc::sync_channel(8);
        settled(Tiny::Now, || {
            let (first, second, third) = (tell.clone(), tell.clone(), tell.clone());
            settled(Tiny::Now, || {
                later(move || {
                    let _ = first.send(1);
                    later(move || third.send(3).unwrap());
                });
            });
            later(move || second.send(2).unwrap());
            tell.send(0).unwrap();
        });
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn what_is_put_down_by_a_thread_that_is_in_the_middle_of_things_is_done_by_another() {
        let (tell, told) = mpsc::sync_channel(8);
        let here = std::thread::current().id();
        later(move || tell.send(std::thread::current().id()).unwrap());
        assert_ne!(told.recv().unwrap(), here);
    }

    #[test]
    fn a_panic_leaves_nothing_undone() {
        let (tell, told) = mpsc::sync_channel(8);
        let panics = || {
            settled(Tiny::Now, || {
                later(move || tell.send(()).unwrap());
                panic!("asked to");
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        told.recv().unwrap();
        assert!(!WITHIN.get());
    }
}
