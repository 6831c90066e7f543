//! Which request of which sequence may run: a state machine without clock, lock or thread.
//!
//! Requests of one sequence run one after the other, in the order in which they came; as many sequences as may be are
//! served at the same time, and the others wait until one ends or was idle for too long. A request that leaves without
//! a run (its caller has gone, it waited too long) changes no state, as if it had never come; what it said of start and
//! end holds all the same.
//!
//! Invariants: no request is lost or given out twice; a sequence has one request in flight at most; its state is what
//! its own last run left; no more sequences have a place than may. As many requests as may wait for a place, and those
//! of sequences that have one find as much room again: who is being served is not refused for who is not. What is
//! kept is bounded by the places and by the requests that wait. Every change costs the logarithm of what is kept.
//!
//! Not here: tensors, threads and time (`sequence`).
use crate::queue::Left;
use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
    time::{Duration, Instant},
};

/// How often a full table looks who of those that wait has gone.
const SWEEP: Duration = Duration::from_millis(10);

/// The rules of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Sequences that are served at the same time.
    pub(crate) places: usize,
    /// A sequence that has asked nothing for so long is over.
    pub(crate) idle: Duration,
    /// Most requests that wait for a place.
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
    Full {
        /// How many.
        limit: usize,
    },
    /// Another table has taken over, and this one ends what it has begun.
    Retired,
}

/// The sequences of a model, by a key; `S` is the state between two runs.
#[derive(Debug)]
pub(crate) struct Table<K, T, S> {
    rules: Rules,
    initial: S,
    sequences: HashMap<K, Sequence<T, S>>,
    /// Sequences without a place, in the order in which they came.
    backlog: BTreeMap<u64, K>,
    /// When which sequence was idle for too long, or has a request that waited too long.
    due: BTreeMap<Due, K>,
    placed: usize,
    /// Requests that wait.
    waiting: usize,
    tickets: u64,
    swept: Option<Instant>,
    retired: bool,
}

/// A time, and a number that nothing else has.
type Due = (Instant, u64);

#[derive(Debug)]
struct Sequence<T, S> {
    waiting: VecDeque<Item<T>>,
    place: Place,
    /// What the run in flight said, if there is one.
    running: Option<Flags>,
    /// What the last run left; `None` before the start and after the end.
    state: Option<S>,
    /// Whether what was sent last leaves it open.
    open: bool,
    /// When it will have been idle for too long, while it is idle.
    over: Option<Due>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Has,
    /// Its number in the backlog.
    Waits(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags {
    start: bool,
    end: bool,
}

#[derive(Debug)]
enum Item<T> {
    Job {
        ticket: u64,
        flags: Flags,
        job: T,
    },
    /// The state ends here: what is left of a request with a flag that has left, and of two of them.
    Ends,
}

impl<K: Clone + Eq + Hash, T: Job, S: Clone> Table<K, T, S> {
    pub(crate) fn new(rules: Rules, initial: S) -> Self {
        let (sequences, backlog, due) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        let (placed, waiting, tickets) = (0, 0, 0);
        Self {
            rules,
            initial,
            sequences,
            backlog,
            due,
            placed,
            waiting,
            tickets,
            swept: None,
            retired: false,
        }
    }

    /// Whether a sequence is known and open.
    pub(crate) fn knows(&self, key: &K) -> bool {
        self.sequences.get(key).is_some_and(|sequence| sequence.open)
    }

    /// Whether there is no sequence.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// From now on no sequence begins here.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
    }

    /// A request of a sequence; whether it was taken.
    pub(crate) fn arrive(
        &mut self,
        key: K,
        (start, end): (bool, bool),
        job: T,
        now: Instant,
        steps: &mut Vec<Step<K, T, S>>,
    ) -> bool {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.waiting >= self.rules.max_waiting && is_due {
            self.sweep(now, steps);
        }
        if let Some(refusal) = self.refusal(&key, start) {
            steps.push(Step::Leave(job, refusal));
            return false;
        }
        let ticket = self.ticket();
        if let Some(deadline) = job.deadline() {
            self.due.insert((deadline, ticket), key.clone());
        }
        let sequence = match self.sequences.entry(key.clone()) {
            Entry::Occupied(sequence) => sequence.into_mut(),
            Entry::Vacant(vacant) => {
                let place = if self.placed < self.rules.places {
                    self.placed += 1;
                    Place::Has
                } else {
                    self.backlog.insert(ticket, key.clone());
                    Place::Waits(ticket)
                };
                let (waiting, running, state) = (VecDeque::new(), None, None);
                vacant.insert(Sequence { waiting, place, running, state, open: true, over: None })
            }
        };
        sequence.waiting.push_back(Item::Job { ticket, flags: Flags { start, end }, job });
        sequence.open = !end;
        self.waiting += 1;
        self.go_on(key, now, steps);
        true
    }

    /// Why a request is not taken, if so.
    fn refusal(&self, key: &K, start: bool) -> Option<Refusal> {
        let known = self.sequences.get(key);
        let goes_on = !start && known.is_some_and(|sequence| sequence.open);
        if self.retired && !goes_on {
            return Some(Refusal::Retired);
        }
        if !start && !goes_on {
            return Some(Refusal::NotStarted);
        }
        let is_served = known.is_some_and(|sequence| sequence.place == Place::Has);
        let runs_at_once = match known {
            Some(sequence) => is_served && sequence.running.is_none(),
            None => self.placed < self.rules.places,
        };
        let limit = self.rules.max_waiting.saturating_mul(if is_served { 2 } else { 1 });
        (!runs_at_once && self.waiting >= limit).then_some(Refusal::Full { limit })
    }

    /// The run of a sequence's request is over; `state` is what it left, if it went well.
    pub(crate) fn finish(&mut self, key: &K, state: Option<S>, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        let Some(sequence) = self.sequences.get_mut(key) else { return };
        let Some(flags) = sequence.running.take() else { return };
        match state {
            Some(state) => sequence.state = Some(state),
            // A start that failed has not begun anything; any other run leaves what was.
            None if flags.start => sequence.state = None,
            None => (),
        }
        if flags.end {
            sequence.state = None;
        }
        self.go_on(key.clone(), now, steps);
    }

    /// Ends a sequence behind what it has sent already: another table goes on with it.
    pub(crate) fn close(&mut self, key: &K, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        let Some(sequence) = self.sequences.get_mut(key) else { return };
        sequence.open = false;
        sequence.end();
        self.go_on(key.clone(), now, steps);
    }

    /// Ends sequences that were idle for too long and answers who has waited too long.
    pub(crate) fn tick(&mut self, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now) {
            let (due, key) = first.remove_entry();
            if self.sequences.get(&key).is_some_and(|sequence| sequence.over == Some(due)) {
                self.close(&key, now, steps);
            } else {
                self.leave(&key, now, steps);
            }
        }
    }

    /// When [`Self::tick`] has something to do, if nothing else happens before.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((when, _), _)| *when)
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Answers everybody who need not run any more.
    fn sweep(&mut self, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        self.swept = Some(now);
        let keys: Vec<K> = self.sequences.keys().cloned().collect();
        keys.iter().for_each(|key| self.leave(key, now, steps));
    }

    /// Answers those of a sequence that need not run any more. One without a place for which nobody waits is forgotten.
    fn leave(&mut self, key: &K, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        let Some(sequence) = self.sequences.get_mut(key) else { return };
        let mut waits = false;
        for item in std::mem::take(&mut sequence.waiting) {
            match item {
                Item::Job { ticket, flags, job } => match job.left(now) {
                    Some(left) => {
                        self.waiting -= 1;
                        if let Some(deadline) = job.deadline() {
                            self.due.remove(&(deadline, ticket));
                        }
                        steps.push(Step::Leave(job, Refusal::Left(left)));
                        if flags.start || flags.end {
                            sequence.end();
                        }
                    }
                    None => {
                        waits = true;
                        sequence.waiting.push_back(Item::Job { ticket, flags, job });
                    }
                },
                Item::Ends => sequence.end(),
            }
        }
        if let (Place::Waits(number), false) = (sequence.place, waits) {
            self.backlog.remove(&number);
            self.sequences.remove(key);
        }
    }

    /// Lets the next request of a sequence run, and gives its place to the next sequence if it is over.
    fn go_on(&mut self, mut key: K, now: Instant, steps: &mut Vec<Step<K, T, S>>) {
        while let Some(sequence) = self.sequences.get_mut(&key) {
            if let Some(over) = sequence.over.take() {
                self.due.remove(&over);
            }
            if sequence.place != Place::Has || sequence.running.is_some() {
                return;
            }
            while let Some(item) = sequence.waiting.pop_front() {
                let Item::Job { ticket, flags, job } = item else {
                    sequence.state = None;
                    continue;
                };
                self.waiting -= 1;
                if let Some(deadline) = job.deadline() {
                    self.due.remove(&(deadline, ticket));
                }
                let refusal = match job.left(now) {
                    Some(left) => Refusal::Left(left),
                    None if flags.start || sequence.state.is_some() => {
                        sequence.running = Some(flags);
                        let state = sequence.state.clone().filter(|_| !flags.start);
                        let state = state.unwrap_or_else(|| self.initial.clone());
                        let Flags { start, end } = flags;
                        return steps.push(Step::Run { key, job, start, end, state });
                    }
                    None => Refusal::NotStarted,
                };
                steps.push(Step::Leave(job, refusal));
                // It has not run: a start that did not has begun nothing, an end ends all the same.
                if flags.start || flags.end {
                    sequence.state = None;
                }
            }
            if sequence.state.is_some() {
                self.tickets += 1;
                sequence.over = now.checked_add(self.rules.idle).map(|when| (when, self.tickets));
                if let Some(over) = sequence.over {
                    self.due.insert(over, key);
                }
                return;
            }
            // What waits no more can leave a sequence that has no state: its next request needs a start.
            self.sequences.remove(&key);
            self.placed -= 1;
            let Some((_, next)) = self.backlog.pop_first() else { return };
            if let Some(sequence) = self.sequences.get_mut(&next) {
                sequence.place = Place::Has;
                self.placed += 1;
            }
            key = next;
        }
    }
}

impl<T, S> Sequence<T, S> {
    /// Ends its state behind what waits.
    fn end(&mut self) {
        if !matches!(self.waiting.back(), Some(Item::Ends)) {
            self.waiting.push_back(Item::Ends);
        }
    }
}

#[cfg(test)]
mod tests;
