//! Orders that wait for a loader: one model's are carried out one after the other, those of different models side by
//! side. An order for a graph waits until those that were given before it for its members have been carried out.
//!
//! Not here: what an order means (`catalog`).
use std::{
    collections::{HashSet, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};
use xebec_core::{ModelName, port::Done};

/// Something to do with a model, and who is told.
pub(super) struct Task<T> {
    pub(super) model: ModelName,
    /// Models whose earlier orders come first.
    pub(super) after: Vec<ModelName>,
    pub(super) order: T,
    pub(super) done: Done,
}

/// Why an order is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// As many wait as may.
    Full,
    /// Nothing is done any more.
    Stopped,
}

/// The orders of all models.
pub(super) struct Work<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<Task<T>>,
    busy: HashSet<ModelName>,
    stopped: bool,
}

impl<T> Work<T> {
    pub(super) fn new() -> Self {
        let state = State { waiting: VecDeque::new(), busy: HashSet::new(), stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Puts an order behind the others, of which at most `most` may wait.
    ///
    /// # Errors
    /// The order itself, and why nobody will do it.
    pub(super) fn put(&self, task: Task<T>, most: usize) -> Result<(), (Task<T>, Refusal)> {
        let mut state = self.lock();
        if state.stopped {
            return Err((task, Refusal::Stopped));
        }
        if state.waiting.len() >= most {
            return Err((task, Refusal::Full));
        }
        state.waiting.push_back(task);
        self.changed.notify_one();
        Ok(())
    }

    /// Puts the orders that one has become before all others; those that nobody will do come back.
    pub(super) fn put_first(&self, tasks: Vec<Task<T>>) -> Vec<Task<T>> {
        let mut state = self.lock();
        if state.stopped {
            return tasks;
        }
        tasks.into_iter().rev().for_each(|task| state.waiting.push_front(task));
        self.changed.notify_all();
        Vec::new()
    }

    /// Waits for the oldest order whose model is not worked on; `None` when it is time to end.
    pub(super) fn take(&self) -> Option<Task<T>> {
        let mut state = self.lock();
        while !state.stopped {
            if let Some(task) = state.next() {
                state.busy.insert(task.model.clone());
                return Some(task);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// A model whose order was taken is done.
    pub(super) fn finish(&self, model: &ModelName) {
        self.lock().busy.remove(model);
        // Two may wait for this model's next orders and another's: all look.
        self.changed.notify_all();
    }

    /// Ends the waiting of the loaders; returns what nobody will do.
    pub(super) fn stop(&self) -> VecDeque<Task<T>> {
        let mut state = self.lock();
        state.stopped = true;
        self.changed.notify_all();
        std::mem::take(&mut state.waiting)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn next(&mut self) -> Option<Task<T>> {
        // Models with an order that comes before the one that is looked at.
        let mut earlier: HashSet<&ModelName> = self.busy.iter().collect();
        let at = self.waiting.iter().position(|Task { model, after, .. }| {
            let waits = earlier.contains(model) || after.iter().any(|model| earlier.contains(model));
            earlier.insert(model);
            !waits
        })?;
        self.waiting.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(model: &str) -> ModelName {
        ModelName::parse(model).unwrap()
    }

    fn task(model: &str, order: u32) -> Task<u32> {
        Task { model: name(model), after: Vec::new(), order, done: Box::new(|_| ()) }
    }

    #[test]
    fn orders_of_one_model_wait_for_each_other_and_those_of_others_do_not() {
        let work = Work::new();
        for (model, order) in [("a", 1), ("a", 2), ("b", 3)] {
            assert!(work.put(task(model, order), 3).is_ok());
        }
        assert_eq!(
            work.put(task("c", 4), 3).map_err(|(task, why)| (task.order, why)),
            Err((4, Refusal::Full))
        );
        let taken = [(); 2].map(|()| work.take().unwrap());
        assert_eq!(taken.map(|task| task.order), [1, 3]);
        work.finish(&ModelName::parse("a").unwrap());
        assert_eq!(work.take().unwrap().order, 2);
        assert!(work.put(task("d", 5), 3).is_ok());
        assert_eq!(work.stop().into_iter().map(|task| task.order).collect::<Vec<_>>(), [5]);
        assert!(work.take().is_none());
        assert_eq!(work.put(task("e", 6), 3).map_err(|(_, why)| why), Err(Refusal::Stopped));
    }

    #[test]
    fn an_order_for_a_graph_waits_for_earlier_ones_of_its_members_and_its_own_for_it() {
        let work = Work::new();
        let graph = |order| Task { after: vec![name("a"), name("b")], ..task("g", order) };
        for task in [task("a", 1), task("b", 2), graph(3), task("g", 4), task("a", 5), task("c", 6)] {
            assert!(work.put(task, 9).is_ok());
        }
        let take = || work.take().unwrap().order;
        assert_eq!([take(), take(), take()], [1, 2, 6]);
        work.finish(&name("a"));
        assert_eq!(take(), 5, "it was given behind the graph's, and does not wait for it");
        work.finish(&name("a"));
        work.finish(&name("b"));
        assert_eq!(take(), 3);
        work.finish(&name("g"));
        assert!(
            work.put_first(vec![task("d", 7), Task { after: vec![name("d")], ..task("g", 8) }]).is_empty()
        );
        assert_eq!(take(), 7);
        work.finish(&name("d"));
        assert_eq!([take()], [8]);
        work.finish(&name("g"));
        assert_eq!(take(), 4);
    }
}
