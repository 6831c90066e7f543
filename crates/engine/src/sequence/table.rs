//! Which request of which sequence may run: a state machine without clock, lock or thread.
//!
//! Requests of one sequence run one after the other, in the order in which they came; as many sequences as may be are
//! served at the same time, and the others wait until one ends or was idle for too long. A request that leaves without
//! a run (its caller has gone, it waited too long) changes no state, as if it had never come; what it said of start and
//! end holds all the same.
//!
//! Invariants: no request is lost or given out twice; a sequence has one request in flight at most; its state is what
//! its own last run left; no more sequences have a place than may; no more requests wait than may.
//!
//! Not here: tensors, threads and time (`sequence`).
use crate::queue::Left;
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

/// The rules of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Sequences that are served at the same time.
    pub(crate) places: usize,
    /// A sequence that has asked nothing for so long is over.
    pub(crate) idle: Duration,
    /// Most requests that wait.
    pub(crate) max_waiting: usize,
}

/// What the table has to know of a request.
pub(crate) trait Job {
    /// Why it need not run any more, if so.
    fn left(&self, now: Instant) -> Option<Left>;
    /// When it must have been started.
    fn deadline(&self) -> Option<Instant>;
}

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<K, T, S> {
    /// Run it and then say [`Table::finish`].
    Run { key: K, job: T, start: bool, end: bool, state: S },
    /// Answer it without a run.
    Leave(T, Refusal),
}

/// Why a request is not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// As of any request.
    Left(Left),
    /// There is no such sequence: it never began, is over, or was idle for too long.
    NotStarted,
    /// As many wait as may.
    Full,
}

/// The sequences of a model, by a key; `S` is the state between two runs.
#[derive(Debug)]
pub(crate) struct Table<K, T, S> {
    rules: Rules,
    initial: S,
    sequences: HashMap<K, Sequence<T, S>>,
    /// Sequences without a place, in the order in which they came.
    backlog: VecDeque<K>,
    placed: usize,
    waiting: usize,
}

#[derive(Debug)]
struct Sequence<T, S> {
    waiting: VecDeque<Item<T>>,
    has_place: bool,
    /// What the run in flight said, if there is one.
    running: Option<Flags>,
    /// What the last run left; `None` before the start and after the end.
    state: Option<S>,
    /// Whether what was sent last leaves it open.
    open: bool,
    asked: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags {
    start: bool,
    end: bool,
}

#[derive(Debug)]
struct Item<T> {
    flags: Flags,
    /// `None` once it has left.
    job: Option<T>,
}

impl<K: Clone + Eq + Hash, T: Job, S: Clone> Table<K, T, S> {
    pub(crate) fn new(rules: Rules, initial: S) -> Self {
        let (sequences, backlog) = (HashMap::new(), VecDeque::new());
        Self { rules, initial, sequences, backlog, placed: 0, waiting: 0 }
    }

    /// Whether a sequence is known and open.
    pub(crate) fn knows(&self, key: &K) -> bool {
        self.sequences.get(key).is_some_and(|sequence| sequence.open)
    }

    /// Whether there is no sequence.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// A request of a sequence.
    pub(crate) fn arrive(
        &mut self,
        key: K,
        (start, end): (bool, bool),
        job: T,
        now: Instant,
    ) -> Vec<Step<K, T, S>> {
        if self.waiting >= self.rules.max_waiting {
            return vec![Step::Leave(job, Refusal::Full)];
        }
        if !start && !self.knows(&key) {
            return vec![Step::Leave(job, Refusal::NotStarted)];
        }
        let sequence = match self.sequences.entry(key.clone()) {
            Entry::Occupied(sequence) => sequence.into_mut(),
            Entry::Vacant(place) => {
                let has_place = self.placed < self.rules.places;
                if has_place {
                    self.placed += 1;
                } else {
                    self.backlog.push_back(key.clone());
                }
                place.insert(Sequence {
                    waiting: VecDeque::new(),
                    has_place,
                    running: None,
                    state: None,
                    open: true,
                    asked: now,
                })
            }
        };
        sequence.waiting.push_back(Item { flags: Flags { start, end }, job: Some(job) });
        (sequence.open, sequence.asked) = (!end, now);
        self.waiting += 1;
        let mut steps = Vec::new();
        self.go_on(&key, now, &mut steps);
        steps
    }

    /// The run of a sequence's request is over; `state` is what it left, if it went well.
    pub(crate) fn finish(&mut self, key: &K, state: Option<S>, now: Instant) -> Vec<Step<K, T, S>> {
        let mut steps = Vec::new();
        let Some(sequence) = self.sequences.get_mut(key) else { return steps };
        let Some(flags) = sequence.running.take() else { return steps };
        sequence.asked = now;
        match state {
            Some(state) => sequence.state = Some(state),
            // A start that failed has not begun anything; any other run leaves what was.
            None if flags.start => sequence.state = None,
            None => (),
        }
        if flags.end {
            sequence.state = None;
        }
        self.go_on(key, now, &mut steps);
        steps
    }

    /// Ends sequences that were idle for too long and answers who has waited too long.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Step<K, T, S>> {
        let mut steps = Vec::new();
        for item in self.sequences.values_mut().flat_map(|sequence| &mut sequence.waiting) {
            if let Some(left) = item.job.as_ref().and_then(|job| job.left(now))
                && let Some(job) = item.job.take()
            {
                steps.push(Step::Leave(job, Refusal::Left(left)));
            }
        }
        let idle = self.rules.idle;
        let over = self.sequences.iter().filter(|(_, sequence)| {
            sequence.is_idle() && now.saturating_duration_since(sequence.asked) >= idle
        });
        for key in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            if let Some(sequence) = self.sequences.get_mut(&key) {
                (sequence.state, sequence.open) = (None, false);
            }
            self.go_on(&key, now, &mut steps);
        }
        steps
    }

    /// When [`Self::tick`] has something to do, if nothing else happens before.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        let idle = self.sequences.values().filter(|sequence| sequence.is_idle());
        let over = idle.filter_map(|sequence| sequence.asked.checked_add(self.rules.idle));
        let waiting = self.sequences.values().flat_map(|sequence| &sequence.waiting);
        let late = waiting.filter_map(|item| item.job.as_ref()?.deadline());
        over.chain(late).min()
    }

    /// Lets the next request of a sequence run, and gives its place to the next sequence if it is over.
    fn go_on(&mut self, key: &K, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        let mut key = key.clone();
        loop {
            let Some(sequence) = self.sequences.get_mut(&key) else { return };
            if !sequence.has_place {
                return;
            }
            let waited = sequence.waiting.len();
            let run = sequence.next(&self.initial, now, steps);
            self.waiting -= waited - sequence.waiting.len();
            if let Some((job, Flags { start, end }, state)) = run {
                steps.push(Step::Run { key, job, start, end, state });
                return;
            }
            if !sequence.is_over() {
                return;
            }
            self.sequences.remove(&key);
            self.placed -= 1;
            let Some(next) = self.backlog.pop_front() else { return };
            let Some(sequence) = self.sequences.get_mut(&next) else { return };
            sequence.has_place = true;
            self.placed += 1;
            key = next;
        }
    }
}

impl<T: Job, S: Clone> Sequence<T, S> {
    fn is_idle(&self) -> bool {
        self.has_place && self.running.is_none() && self.waiting.is_empty()
    }

    /// Nothing of it is left that anybody could ask for.
    fn is_over(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty() && self.state.is_none()
    }

    /// The next request that is to run, with its state; those before it that are not are answered by `steps`.
    fn next<K>(
        &mut self,
        initial: &S,
        now: Instant,
        steps: &mut Vec<Step<K, T, S>>,
    ) -> Option<(T, Flags, S)> {
        if self.running.is_some() {
            return None;
        }
        while let Some(Item { flags, job }) = self.waiting.pop_front() {
            let left = job.as_ref().map(|job| job.left(now));
            match (job, left.flatten()) {
                (Some(job), None) if flags.start || self.state.is_some() => {
                    let state = self.state.clone().filter(|_| !flags.start);
                    self.running = Some(flags);
                    return Some((job, flags, state.unwrap_or_else(|| initial.clone())));
                }
                (Some(job), None) => steps.push(Step::Leave(job, Refusal::NotStarted)),
                (Some(job), Some(left)) => steps.push(Step::Leave(job, Refusal::Left(left))),
                (None, _) => (),
            }
            // It has not run: a start that did not has begun nothing, an end ends all the same.
            if flags.start || flags.end {
                self.state = None;
            }
        }
        // What waits no more can leave a sequence open that has no state: its next request needs a start.
        self.open = self.open && self.state.is_some();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Adds what each run adds.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct One {
        id: u32,
        gone: bool,
    }

    impl Job for One {
        fn left(&self, _: Instant) -> Option<Left> {
            self.gone.then_some(Left::Gone)
        }
        fn deadline(&self) -> Option<Instant> {
            None
        }
    }

    type Sums = Table<u8, One, u64>;

    fn table(places: usize) -> Sums {
        Table::new(Rules { places, idle: Duration::from_secs(1), max_waiting: 8 }, 0)
    }

    fn one(id: u32) -> One {
        One { id, gone: false }
    }

    #[test]
    fn requests_of_a_sequence_run_one_after_the_other_over_its_own_state() {
        let (mut table, now) = (table(2), Instant::now());
        let run = |key, id, start, end, state| Step::Run { key, job: one(id), start, end, state };
        assert_eq!(table.arrive(1, (true, false), one(1), now), [run(1, 1, true, false, 0)]);
        assert_eq!(table.arrive(1, (false, false), one(2), now), []);
        assert_eq!(table.arrive(2, (true, true), one(3), now), [run(2, 3, true, true, 0)]);
        assert_eq!(table.finish(&1, Some(7), now), [run(1, 2, false, false, 7)]);
        assert_eq!(table.finish(&2, Some(9), now), []);
        // A run that failed leaves what was.
        assert_eq!(table.finish(&1, None, now), []);
        assert_eq!(table.arrive(1, (false, true), one(4), now), [run(1, 4, false, true, 7)]);
        assert_eq!(table.finish(&1, Some(8), now), []);
        assert!(table.is_empty());
        assert_eq!(table.arrive(1, (false, false), one(5), now), [Step::Leave(one(5), Refusal::NotStarted)]);
    }

    #[test]
    fn a_second_start_begins_anew_behind_what_was_sent_before_it() {
        let (mut table, now) = (table(1), Instant::now());
        assert_eq!(table.arrive(1, (true, false), one(1), now).len(), 1);
        for (id, flags) in [(2, (false, false)), (3, (true, false)), (4, (false, false))] {
            assert_eq!(table.arrive(1, flags, one(id), now), []);
        }
        let mut states = Vec::new();
        for left in [10, 20, 30, 40] {
            for step in table.finish(&1, Some(left), now) {
                let Step::Run { job, state, .. } = step else { panic!("{step:?}") };
                states.push((job.id, state));
            }
        }
        assert_eq!(states, [(2, 10), (3, 0), (4, 30)]);
    }

    #[test]
    fn an_idle_sequence_is_over_and_its_place_goes_to_who_waits() {
        let (mut table, now) = (table(1), Instant::now());
        assert_eq!(table.arrive(1, (true, false), one(1), now).len(), 1);
        assert_eq!(table.arrive(2, (true, false), one(2), now), []);
        assert_eq!(table.finish(&1, Some(5), now), []);
        assert_eq!(table.next_event(), Some(now + Duration::from_secs(1)));
        let later = now + Duration::from_secs(1);
        let steps = table.tick(later);
        assert!(matches!(&steps[..], [Step::Run { key: 2, state: 0, .. }]), "{steps:?}");
        assert_eq!(
            table.arrive(1, (false, false), one(3), later),
            [Step::Leave(one(3), Refusal::NotStarted)]
        );
    }

    #[test]
    fn who_has_gone_changes_no_state_and_a_start_that_has_gone_begins_nothing() {
        let (mut table, now) = (table(1), Instant::now());
        let gone = |id| One { id, gone: true };
        assert_eq!(table.arrive(1, (true, false), one(1), now).len(), 1);
        assert_eq!(table.arrive(1, (false, false), gone(2), now), []);
        assert_eq!(table.arrive(1, (false, false), one(3), now), []);
        let steps = table.finish(&1, Some(5), now);
        let left = Step::Leave(gone(2), Refusal::Left(Left::Gone));
        assert_eq!(steps[0], left);
        assert!(matches!(&steps[1], Step::Run { job: One { id: 3, .. }, state: 5, .. }), "{steps:?}");
        assert_eq!(table.arrive(1, (true, false), gone(4), now), []);
        assert_eq!(table.arrive(1, (false, false), one(5), now), []);
        let steps = table.finish(&1, Some(6), now);
        assert_eq!(steps[1], Step::Leave(one(5), Refusal::NotStarted));
        assert!(table.is_empty());
    }

    #[test]
    fn no_more_wait_than_may() {
        let (mut table, now) = (table(1), Instant::now());
        (0..9).for_each(|id| drop(table.arrive(1, (id == 0, false), one(id), now)));
        assert_eq!(table.arrive(1, (false, false), one(9), now), [Step::Leave(one(9), Refusal::Full)]);
        table.finish(&1, Some(1), now);
        assert_eq!(table.arrive(1, (false, false), one(10), now), []);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Arrive { key: u8, start: bool, end: bool, gone: bool },
        Finish { which: usize, well: bool },
        Later(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..5u8, any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.1))
                .prop_map(|(key, start, end, gone)| Event::Arrive { key, start, end, gone }),
            (0..8usize, prop::bool::weighted(0.8)).prop_map(|(which, well)| Event::Finish { which, well }),
            (0..700u64).prop_map(Event::Later),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_sequence_runs_alone_over_its_own_state(events in prop::collection::vec(event(), 1..80)) {
            // The state of a run is its key, the number of its start, and how many runs there were since.
            let (mut table, mut now) = (Table::new(table(2).rules, (0u8, 0u32, 0u32)), Instant::now());
            let mut running: Vec<(u8, (u8, u32, u32))> = Vec::new();
            let (mut given, mut answered, mut starts) = (0u32, 0u32, 0u32);
            for event in events {
                let steps = match event {
                    Event::Arrive { key, start, end, gone } => {
                        given += 1;
                        table.arrive(key, (start, end), One { id: given, gone }, now)
                    }
                    Event::Finish { which, well } if !running.is_empty() => {
                        let (key, after) = running.remove(which % running.len());
                        answered += 1;
                        table.finish(&key, well.then_some(after), now)
                    }
                    Event::Finish { .. } => Vec::new(),
                    Event::Later(ms) => {
                        now += Duration::from_millis(ms);
                        table.tick(now)
                    }
                };
                for step in steps {
                    match step {
                        Step::Run { key, start, state, .. } => {
                            prop_assert!(running.iter().all(|(other, _)| *other != key));
                            prop_assert!(start || state.0 == key, "state of {} given to {key}", state.0);
                            prop_assert!(!start || state == (0, 0, 0));
                            starts += u32::from(start);
                            let next = if start { (key, starts, 1) } else { (key, state.1, state.2 + 1) };
                            running.push((key, next));
                        }
                        Step::Leave(..) => answered += 1,
                    }
                }
                prop_assert!(running.len() <= 2, "more run than have a place");
                prop_assert!(table.placed <= 2 && table.waiting <= 8);
                let waiting: usize = table.sequences.values().map(|sequence| sequence.waiting.len()).sum();
                prop_assert_eq!(waiting, table.waiting);
                let left: usize = table.sequences.values().flat_map(|s| &s.waiting).filter(|item| item.job.is_some()).count();
                prop_assert_eq!(given as usize, answered as usize + running.len() + left);
            }
        }
    }
}
