//! Answers in the order in which their requests were accepted, whichever run ends first.
//!
//! Invariants: every answer is given once; none before one that was accepted earlier; a place whose answer will never
//! come keeps nobody waiting; no answer is handed over under the lock, because an answer may accept the next request.
//! What is held is bounded by what waits and runs: a request that leaves without a run gives its place back and is told
//! at once. Not here: which request runs when (`queue`).
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use xebec_core::{InferError, InferResponse, port::Reply};

type Outcome = Result<InferResponse, InferError>;

/// The order of one model's answers.
pub(crate) struct Order(Mutex<Places<(Reply, Outcome)>>);

/// Places that are taken, and what was given for each.
struct Places<T> {
    next: u64,
    taken: BTreeMap<u64, Option<T>>,
    /// Whether a thread hands answers over: it goes on until none is due, so that no other overtakes it.
    handing_over: bool,
}

impl<T> Places<T> {
    const fn new() -> Self {
        Self { next: 0, taken: BTreeMap::new(), handing_over: false }
    }

    fn take(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, None);
        number
    }

    /// The next that is due, if it is there.
    fn due(&mut self) -> Option<T> {
        let first = self.taken.first_entry().filter(|first| first.get().is_some())?;
        first.remove()
    }
}

impl Order {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Places::new())))
    }

    /// The place behind all that were taken before.
    pub(crate) fn take(self: &Arc<Self>) -> Place {
        let number = self.lock().take();
        Place { order: Arc::clone(self), number }
    }

    fn lock(&self) -> MutexGuard<'_, Places<(Reply, Outcome)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what is due, outside of the lock, unless somebody is at it.
    fn hand_over<'a>(&'a self, mut places: MutexGuard<'a, Places<(Reply, Outcome)>>) {
        if std::mem::replace(&mut places.handing_over, true) {
            return;
        }
        let broken = Broken(self);
        while let Some((reply, outcome)) = places.due() {
            drop(places);
            reply.send(outcome);
            places = self.lock();
        }
        places.handing_over = false;
        std::mem::forget(broken);
    }
}

/// Dropped only if an answer panicked: whoever comes next hands over what is due.
struct Broken<'a>(&'a Order);

impl Drop for Broken<'_> {
    fn drop(&mut self) {
        self.0.lock().handing_over = false;
    }
}

/// A place in the order; dropped, it keeps nobody waiting any more.
pub(crate) struct Place {
    order: Arc<Order>,
    number: u64,
}

impl Place {
    /// Hands an answer over when all before it have gone.
    pub(crate) fn give(self, reply: Reply, outcome: Outcome) {
        let mut places = self.order.lock();
        if let Some(place) = places.taken.get_mut(&self.number) {
            *place = Some((reply, outcome));
        }
        self.order.hand_over(places);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.order.lock();
        // What was given stays.
        if places.taken.get(&self.number).is_some_and(Option::is_none) {
            places.taken.remove(&self.number);
            self.order.hand_over(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::{
        Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    use xebec_core::{Timings, port::Answer};

    /// Who has been answered, in which order, and who is still to be.
    #[derive(Default)]
    struct House {
        open: Mutex<Vec<(u64, Place)>>,
        out: Mutex<Vec<u64>>,
        depth: AtomicUsize,
        deepest: AtomicUsize,
    }

    /// Its answer does as a sequence's: it accepts the next request, which may be refused or answered at once.
    struct Told {
        house: Weak<House>,
        order: Arc<Order>,
        number: u64,
        next: u8,
    }

    impl Answer for Told {
        fn is_gone(&self) -> bool {
            false
        }

        fn send(self: Box<Self>, _: Outcome) {
            let house = self.house.upgrade().unwrap();
            let depth = house.depth.fetch_add(1, SeqCst) + 1;
            house.deepest.fetch_max(depth, SeqCst);
            house.out.lock().unwrap().push(self.number);
            if self.next > 0 {
                let place = self.order.take();
                if self.next.is_multiple_of(2) {
                    drop(place);
                } else {
                    give(&house, place, self.next - 1);
                }
            }
            house.depth.fetch_sub(1, SeqCst);
        }
    }

    fn answer() -> Outcome {
        Ok(InferResponse { outputs: Vec::new(), timings: Timings::default() })
    }

    fn give(house: &Arc<House>, place: Place, next: u8) {
        let (order, number) = (Arc::clone(&place.order), place.number);
        place.give(Box::new(Told { house: Arc::downgrade(house), order, number, next }), answer());
    }

    proptest! {
        #[test]
        fn whatever_ends_first_answers_go_out_in_order(
            events in prop::collection::vec((0..5u8, any::<prop::sample::Index>(), 0..4u8), 1..100)
        ) {
            let (order, house) = (Order::new(), Arc::new(House::default()));
            for (kind, index, next) in events {
                let open = house.open.lock().unwrap().len();
                if kind < 2 || open == 0 {
                    let place = order.take();
                    house.open.lock().unwrap().push((place.number, place));
                    continue;
                }
                let (_, place) = house.open.lock().unwrap().swap_remove(index.index(open));
                if kind < 4 { give(&house, place, next) } else { drop(place) }
                // Nobody waits who could go, and nobody has gone who should wait.
                let first = house.open.lock().unwrap().iter().map(|(number, _)| *number).min();
                prop_assert_eq!(order.lock().taken.keys().next().copied(), first);
                prop_assert!(house.out.lock().unwrap().iter().all(|out| first.is_none_or(|first| *out < first)));
            }
            for (_, place) in std::mem::take(&mut *house.open.lock().unwrap()) {
                give(&house, place, 0);
            }
            let out = house.out.lock().unwrap();
            prop_assert!(out.is_sorted(), "{out:?}");
            prop_assert!(order.lock().taken.is_empty());
            prop_assert!(house.deepest.load(SeqCst) <= 1, "an answer was handed over within another");
        }
    }

    #[test]
    fn answers_of_many_threads_go_out_in_order() {
        let (order, house) = (Order::new(), Arc::new(House::default()));
        let mut hands: Vec<Vec<Place>> = (0..4).map(|_| Vec::new()).collect();
        (0..4000).for_each(|number: usize| hands[number * 7 % 4].push(order.take()));
        std::thread::scope(|scope| {
            for hand in hands {
                let house = &house;
                scope.spawn(move || hand.into_iter().for_each(|place| give(house, place, 0)));
            }
        });
        let out = house.out.lock().unwrap();
        assert!(out.len() == 4000 && out.is_sorted());
    }
}
