//! What a thread has to do for stateful models, one after the other.
//!
//! A run that is refused at once has its answer before `enqueue` returns, and the answer lets the next request run:
//! each would stand on the stack of the one before. So a thread that is at it only notes what is to be done next.
use super::{Next, Shared};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

thread_local! {
    static TO_DO: RefCell<VecDeque<(Arc<Shared>, Next)>> = const { RefCell::new(VecDeque::new()) };
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Does all of this and what comes of it, or leaves it to the call on this thread that is at it.
pub(super) fn carry_out(steps: impl Iterator<Item = (Arc<Shared>, Next)>) {
    TO_DO.with_borrow_mut(|todo| todo.extend(steps));
    if BUSY.replace(true) {
        return;
    }
    let _rest = Rest;
    while let Some((shared, step)) = TO_DO.with_borrow_mut(VecDeque::pop_front) {
        shared.take(step);
    }
}

/// Dropped when a thread has nothing to do any more, also by a panic: the next call goes on with what it left.
struct Rest;

impl Drop for Rest {
    fn drop(&mut self) {
        BUSY.set(false);
    }
}
