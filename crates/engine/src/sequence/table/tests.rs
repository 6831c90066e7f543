use super::*;
use proptest::prelude::*;
use std::{cell::Cell, rc::Rc};

/// Adds what each run adds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    id: u32,
    gone: Rc<Cell<bool>>,
    deadline: Option<Instant>,
}

impl Job for One {
    fn left(&self, now: Instant) -> Option<Left> {
        if self.gone.get() {
            return Some(Left::Gone);
        }
        self.deadline.is_some_and(|deadline| deadline <= now).then_some(Left::Expired)
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

type Sums = Table<u8, One, u64>;
type Steps = Vec<Step<u8, One, u64>>;

const MOST: usize = 8;
const IDLE: Duration = Duration::from_secs(1);

fn table<S: Clone>(places: usize, initial: S) -> Table<u8, One, S> {
    Table::new(Rules { places, idle: IDLE, max_waiting: MOST }, initial)
}

fn one(id: u32) -> One {
    One { id, gone: Rc::default(), deadline: None }
}

fn gone(id: u32) -> One {
    One { gone: Rc::new(Cell::new(true)), ..one(id) }
}

fn within(id: u32, deadline: Instant) -> One {
    One { deadline: Some(deadline), ..one(id) }
}

fn run(key: u8, id: u32, (start, end): (bool, bool), state: u64) -> Step<u8, One, u64> {
    Step::Run { key, job: one(id), start, end, state }
}

impl Sums {
    fn send(&mut self, key: u8, flags: (bool, bool), job: One, now: Instant) -> Steps {
        let mut steps = Vec::new();
        self.arrive(key, flags, job, now, &mut steps);
        steps
    }

    fn end_run(&mut self, key: u8, state: Option<u64>, now: Instant) -> Steps {
        let mut steps = Vec::new();
        self.finish(&key, state, now, &mut steps);
        steps
    }

    fn at(&mut self, now: Instant) -> Steps {
        let mut steps = Vec::new();
        self.tick(now, &mut steps);
        steps
    }
}

const START: (bool, bool) = (true, false);
const GO_ON: (bool, bool) = (false, false);
const END: (bool, bool) = (false, true);

#[test]
fn requests_of_a_sequence_run_one_after_the_other_over_its_own_state() {
    let (mut table, now) = (table(2, 0), Instant::now());
    assert_eq!(table.send(1, START, one(1), now), [run(1, 1, START, 0)]);
    assert_eq!(table.send(1, GO_ON, one(2), now), []);
    assert_eq!(table.send(2, (true, true), one(3), now), [run(2, 3, (true, true), 0)]);
    assert_eq!(table.end_run(1, Some(7), now), [run(1, 2, GO_ON, 7)]);
    assert_eq!(table.end_run(2, Some(9), now), []);
    // A run that failed leaves what was.
    assert_eq!(table.end_run(1, None, now), []);
    assert_eq!(table.send(1, END, one(4), now), [run(1, 4, END, 7)]);
    assert_eq!(table.end_run(1, Some(8), now), []);
    assert!(table.is_empty());
    assert_eq!(table.send(1, GO_ON, one(5), now), [Step::Leave(one(5), Refusal::NotStarted)]);
}

#[test]
fn a_second_start_begins_anew_behind_what_was_sent_before_it() {
    let (mut table, now) = (table(1, 0), Instant::now());
    assert_eq!(table.send(1, START, one(1), now).len(), 1);
    for (id, flags) in [(2, GO_ON), (3, START), (4, GO_ON)] {
        assert_eq!(table.send(1, flags, one(id), now), []);
    }
    let mut states = Vec::new();
    for left in [10, 20, 30, 40] {
        for step in table.end_run(1, Some(left), now) {
            let Step::Run { job, state, .. } = step else { panic!("{step:?}") };
            states.push((job.id, state));
        }
    }
    assert_eq!(states, [(2, 10), (3, 0), (4, 30)]);
}

#[test]
fn an_idle_sequence_is_over_and_its_place_goes_to_who_waits() {
    let (mut table, now) = (table(1, 0), Instant::now());
    assert_eq!(table.send(1, START, one(1), now).len(), 1);
    assert_eq!(table.send(2, START, one(2), now), []);
    assert_eq!(table.end_run(1, Some(5), now), []);
    assert_eq!(table.next_event(), Some(now + IDLE));
    let later = now + IDLE;
    assert_eq!(table.at(later), [run(2, 2, START, 0)]);
    assert_eq!(table.send(1, GO_ON, one(3), later), [Step::Leave(one(3), Refusal::NotStarted)]);
}

#[test]
fn who_has_gone_changes_no_state_and_a_start_that_has_gone_begins_nothing() {
    let (mut table, now) = (table(1, 0), Instant::now());
    assert_eq!(table.send(1, START, one(1), now).len(), 1);
    assert_eq!(table.send(1, GO_ON, gone(2), now), []);
    assert_eq!(table.send(1, GO_ON, one(3), now), []);
    let left = |id| Step::Leave(gone(id), Refusal::Left(Left::Gone));
    assert_eq!(table.end_run(1, Some(5), now), [left(2), run(1, 3, GO_ON, 5)]);
    assert_eq!(table.send(1, START, gone(4), now), []);
    assert_eq!(table.send(1, GO_ON, one(5), now), []);
    let steps = table.end_run(1, Some(6), now);
    assert_eq!(steps, [left(4), Step::Leave(one(5), Refusal::NotStarted)]);
    assert!(table.is_empty());
}

#[test]
fn what_waited_too_long_is_told_when_the_time_has_come_and_its_end_holds_all_the_same() {
    let (mut table, now) = (table(1, 0), Instant::now());
    let ms = Duration::from_millis;
    assert_eq!(table.send(1, START, one(1), now).len(), 1);
    assert_eq!(table.send(1, END, within(2, now + ms(5)), now), []);
    assert_eq!(table.send(1, START, within(3, now + ms(20)), now), []);
    assert_eq!(table.next_event(), Some(now + ms(5)));
    let late = |id, at| Step::Leave(within(id, now + ms(at)), Refusal::Left(Left::Expired));
    assert_eq!(table.at(now + ms(5)), [late(2, 5)]);
    assert_eq!(table.next_event(), Some(now + ms(20)));
    assert_eq!(table.end_run(1, Some(7), now + ms(6)).len(), 1, "the second start runs, from the beginning");
    assert_eq!(table.end_run(1, Some(8), now + ms(7)), []);
    assert_eq!(table.next_event(), Some(now + ms(7) + IDLE));
}

#[test]
fn a_full_backlog_refuses_new_sequences_and_not_those_that_are_served() {
    let (mut table, now) = (table(1, 0), Instant::now());
    assert_eq!(table.send(0, START, one(0), now).len(), 1);
    assert_eq!(table.end_run(0, Some(1), now), []);
    for id in 1..=MOST as u8 {
        assert_eq!(table.send(id, START, one(id.into()), now), []);
    }
    let full = |id, limit| [Step::Leave(one(id), Refusal::Full { limit })];
    assert_eq!(table.send(100, START, one(100), now), full(100, MOST));
    assert_eq!(table.send(1, GO_ON, one(101), now), full(101, MOST));
    // The one that is served goes on, also if it does not wait for its answers.
    assert_eq!(table.send(0, GO_ON, one(200), now), [run(0, 200, GO_ON, 1)]);
    for id in 201..=200 + MOST as u32 {
        assert_eq!(table.send(0, GO_ON, one(id), now), []);
    }
    assert_eq!(table.send(0, GO_ON, one(300), now), full(300, 2 * MOST));
    assert_eq!(table.end_run(0, Some(2), now), [run(0, 201, GO_ON, 2)]);
    assert_eq!(table.send(0, GO_ON, one(301), now), []);
}

#[test]
fn who_has_gone_makes_room_and_leaves_nothing_behind() {
    let (mut table, now) = (table(1, 0), Instant::now());
    assert_eq!(table.send(0, START, one(0), now).len(), 1);
    for id in 1..=MOST as u8 {
        let job = if id == 1 { one(1) } else { gone(id.into()) };
        assert_eq!(table.send(id, START, job, now), []);
    }
    let steps = table.send(100, START, one(100), now);
    assert_eq!(steps.len(), MOST - 1);
    assert!(steps.iter().all(|step| matches!(step, Step::Leave(_, Refusal::Left(Left::Gone)))), "{steps:?}");
    assert_eq!((table.sequences.len(), table.backlog.len(), table.waiting), (3, 2, 2));
    assert_eq!(table.end_run(0, None, now), [run(1, 1, START, 0)]);
}

#[test]
fn what_is_closed_ends_behind_what_it_has_sent() {
    let (mut table, now) = (table(2, 0), Instant::now());
    let close = |table: &mut Sums, key| {
        let mut steps = Vec::new();
        table.close(&key, now, &mut steps);
        steps
    };
    for id in [1, 2] {
        assert_eq!(table.send(id, START, one(id.into()), now).len(), 1);
    }
    assert_eq!(table.send(1, GO_ON, one(3), now), []);
    assert_eq!(table.end_run(2, Some(5), now), []);
    assert_eq!((close(&mut table, 1), close(&mut table, 2)), (vec![], vec![]));
    assert!(!table.knows(&1) && !table.sequences.contains_key(&2));
    assert_eq!(table.send(1, GO_ON, one(4), now), [Step::Leave(one(4), Refusal::NotStarted)]);
    assert_eq!(table.end_run(1, Some(6), now), [run(1, 3, GO_ON, 6)]);
    assert_eq!(table.end_run(1, Some(7), now), []);
    assert!(table.is_empty() && table.next_event().is_none());
}

#[test]
fn who_has_retired_ends_what_it_has_begun_and_begins_nothing() {
    let (mut table, now) = (table(2, 0), Instant::now());
    assert_eq!(table.send(1, START, one(1), now).len(), 1);
    table.retire();
    let elsewhere = |id| [Step::Leave(one(id), Refusal::Retired)];
    assert_eq!(table.send(2, START, one(2), now), elsewhere(2));
    assert_eq!(table.send(2, GO_ON, one(3), now), elsewhere(3));
    assert_eq!(table.send(1, START, one(4), now), elsewhere(4));
    assert_eq!(table.send(1, END, one(5), now), []);
    assert_eq!(table.end_run(1, Some(5), now), [run(1, 5, END, 5)]);
    assert_eq!(table.end_run(1, Some(6), now), []);
    assert!(table.is_empty());
}

#[derive(Clone, Debug)]
enum Event {
    Arrive { key: u8, start: bool, end: bool, within: Option<u64>, refused: bool },
    Finish { which: usize, well: bool },
    Goes(prop::sample::Index),
    Later(u64),
    Close(u8),
    Retire,
}

fn event() -> impl Strategy<Value = Event> {
    let within = prop::option::weighted(0.3, 0..700u64);
    let arrive = (0..12u8, any::<bool>(), prop::bool::weighted(0.2), within, prop::bool::weighted(0.2));
    prop_oneof![
        20 => arrive.prop_map(|(key, start, end, within, refused)| Event::Arrive { key, start, end, within, refused }),
        10 => (0..8usize, prop::bool::weighted(0.8)).prop_map(|(which, well)| Event::Finish { which, well }),
        3 => any::<prop::sample::Index>().prop_map(Event::Goes),
        5 => (0..700u64).prop_map(Event::Later),
        2 => (0..12u8).prop_map(Event::Close),
        1 => Just(Event::Retire),
    ]
}

/// The state of a run: its key, the number of its start, and how many runs there were since.
type Story = (u8, u32, u32);

/// What is kept is what is counted, and nothing is forgotten or kept for nothing.
fn check(table: &Table<u8, One, Story>, now: Instant) {
    let all = || table.sequences.iter();
    let jobs = |sequence: &Sequence<One, Story>| {
        let jobs = sequence.waiting.iter().filter_map(|item| match item {
            Item::Job { ticket, job, .. } => Some((*ticket, job.clone())),
            Item::Ends => None,
        });
        jobs.collect::<Vec<_>>()
    };
    let mut due = BTreeMap::new();
    for (key, sequence) in all() {
        let rests = sequence.place == Place::Has && sequence.running.is_none();
        assert_eq!(rests, sequence.over.is_some(), "{key}");
        assert!(!rests || (sequence.waiting.is_empty() && sequence.state.is_some() && sequence.open));
        let jobs = jobs(sequence);
        assert!(sequence.waiting.len() <= 2 * jobs.len() + 1, "{:?}", sequence.waiting);
        if let Place::Waits(number) = sequence.place {
            assert_eq!(table.backlog.get(&number), Some(key));
            assert!(!jobs.is_empty(), "{key} waits for nobody");
        }
        due.extend(sequence.over.map(|over| (over, *key)));
        due.extend(jobs.iter().filter_map(|(ticket, job)| Some(((job.deadline?, *ticket), *key))));
    }
    assert_eq!(table.due, due);
    assert!(table.next_event().is_none_or(|next| next > now));
    let placed = all().filter(|(_, sequence)| sequence.place == Place::Has).count();
    assert_eq!((table.placed, table.backlog.len()), (placed, table.sequences.len() - placed));
    assert!(placed <= table.rules.places && (table.backlog.is_empty() || placed == table.rules.places));
    assert_eq!(table.waiting, all().map(|(_, sequence)| jobs(sequence).len()).sum::<usize>());
    assert!(table.waiting <= 2 * MOST);
}

proptest! {
    #[test]
    fn whatever_happens_a_sequence_runs_alone_over_its_own_state(events in prop::collection::vec(event(), 1..120)) {
        let (mut table, mut now) = (table(3, (0, 0, 0)), Instant::now());
        let mut running: Vec<(u8, Story)> = Vec::new();
        let mut callers: Vec<Rc<Cell<bool>>> = Vec::new();
        let (mut given, mut answered, mut starts, mut retired) = (0u32, 0u32, 0u32, false);
        for event in events {
            let mut steps = Vec::new();
            // Runs that this event begins are refused at once: their answers come before it is over.
            let mut refuses = false;
            match event {
                Event::Arrive { key, start, end, within, refused } => {
                    given += 1;
                    refuses = refused;
                    let job = One { id: given, gone: Rc::default(), deadline: within.map(|ms| now + Duration::from_millis(ms)) };
                    callers.push(Rc::clone(&job.gone));
                    let rests = table.sequences.get(&key).is_some_and(|sequence| sequence.over.is_some());
                    let taken = table.arrive(key, (start, end), job, now, &mut steps);
                    prop_assert!(!rests || taken || (retired && start), "who is served and waits for nothing is taken");
                    prop_assert!(!(retired && start && taken), "nothing begins here any more");
                }
                Event::Finish { which, well } if !running.is_empty() => {
                    let (key, after) = running.remove(which % running.len());
                    answered += 1;
                    table.finish(&key, well.then_some(after), now, &mut steps);
                }
                Event::Finish { .. } => (),
                Event::Goes(_) if callers.is_empty() => (),
                Event::Goes(which) => callers[which.index(callers.len())].set(true),
                Event::Later(ms) => now += Duration::from_millis(ms),
                Event::Close(key) => {
                    table.close(&key, now, &mut steps);
                    prop_assert!(!table.knows(&key));
                }
                Event::Retire => {
                    table.retire();
                    retired = true;
                }
            }
            table.tick(now, &mut steps);
            let mut todo = VecDeque::from(steps);
            while let Some(step) = todo.pop_front() {
                let Step::Run { key, job, start, state, .. } = step else {
                    answered += 1;
                    continue;
                };
                prop_assert!(running.iter().all(|(other, _)| *other != key));
                prop_assert!(start || state.0 == key, "state of {} given to {}", state.0, key);
                prop_assert!(!start || state == (0, 0, 0));
                prop_assert!(job.left(now).is_none(), "nobody waits for it");
                if refuses {
                    answered += 1;
                    let mut steps = Vec::new();
                    table.finish(&key, None, now, &mut steps);
                    todo.extend(steps);
                    continue;
                }
                starts += u32::from(start);
                running.push((key, if start { (key, starts, 1) } else { (key, state.1, state.2 + 1) }));
            }
            check(&table, now);
            prop_assert_eq!(given as usize, answered as usize + running.len() + table.waiting);
        }
    }
}
