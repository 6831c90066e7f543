//! Answers in the order in which their requests were accepted, whichever run ends first.
//!
//! Invariants: every answer is given once; none before one that was accepted earlier; an answer that will never come
//! keeps nobody waiting. What is held back is bounded by what waits and runs. Not here: which request runs when (`queue`).
use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, PoisonError},
};
use xebec_core::{
    InferError, InferResponse,
    port::{Answer, Reply},
};

/// Numbers in order, and what was given back for each.
#[derive(Debug)]
struct Sequence<T> {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Place<T>>,
}

#[derive(Debug)]
enum Place<T> {
    Open,
    Given(T),
    /// Nothing will come.
    Closed,
}

impl<T> Sequence<T> {
    fn take(&mut self) -> u64 {
        self.places.push_back(Place::Open);
        self.first + self.places.len() as u64 - 1
    }

    fn put(&mut self, number: u64, place: Place<T>) {
        let index = usize::try_from(number.saturating_sub(self.first)).ok();
        if let Some(known) = index.and_then(|index| self.places.get_mut(index)) {
            *known = place;
        }
    }

    /// The next that is due, if it is there.
    fn next(&mut self) -> Option<T> {
        loop {
            let place = self.places.pop_front()?;
            match place {
                Place::Open => {
                    self.places.push_front(place);
                    return None;
                }
                Place::Given(item) => {
                    self.first += 1;
                    return Some(item);
                }
                Place::Closed => self.first += 1,
            }
        }
    }
}

type Outcome = Result<InferResponse, InferError>;

/// The order of one model's answers.
#[derive(Clone)]
pub(crate) struct Order(Arc<Mutex<Sequence<(Reply, Outcome)>>>);

impl Order {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Sequence { first: 0, places: VecDeque::new() })))
    }

    /// A reply that keeps its place in the order.
    pub(crate) fn keep(&self, reply: Reply) -> Reply {
        let number = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::new(InOrder { order: self.clone(), number, reply: Some(reply) })
    }

    fn put(&self, number: u64, place: Place<(Reply, Outcome)>) {
        let mut sequence = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sequence.put(number, place);
        // Under the lock, so that two threads cannot overtake each other; an answer only hands over.
        while let Some((reply, outcome)) = sequence.next() {
            reply.send(outcome);
        }
    }
}

struct InOrder {
    order: Order,
    number: u64,
    reply: Option<Reply>,
}

impl Answer for InOrder {
    fn is_gone(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| reply.is_gone())
    }

    fn send(mut self: Box<Self>, outcome: Outcome) {
        if let Some(reply) = mem::take(&mut self.reply) {
            self.order.put(self.number, Place::Given((reply, outcome)));
        }
    }
}

impl Drop for InOrder {
    fn drop(&mut self) {
        // Dropped without an answer: its caller is told by the drop of its own reply.
        if mem::take(&mut self.reply).is_some() {
            self.order.put(self.number, Place::Closed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whatever_ends_first_answers_go_out_in_order(events in prop::collection::vec((0..4u8, any::<prop::sample::Index>()), 1..100)) {
            let mut sequence = Sequence { first: 0, places: VecDeque::new() };
            let (mut open, mut closed, mut out, mut taken) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for (kind, index) in events {
                if kind < 2 || open.is_empty() {
                    prop_assert_eq!(sequence.take(), taken);
                    open.push(taken);
                    taken += 1;
                } else {
                    let number = open.swap_remove(index.index(open.len()));
                    if kind == 2 {
                        sequence.put(number, Place::Given(number));
                    } else {
                        closed.push(number);
                        sequence.put(number, Place::Closed);
                    }
                }
                out.extend(std::iter::from_fn(|| sequence.next()));
            }
            for number in open {
                sequence.put(number, Place::Given(number));
            }
            out.extend(std::iter::from_fn(|| sequence.next()));
            let due: Vec<u64> = (0..taken).filter(|number| !closed.contains(number)).collect();
            prop_assert_eq!(out, due);
            prop_assert!(sequence.places.is_empty());
        }
    }
}
