use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fake {
    number: usize,
    rows: u32,
    shape: u8,
    gone: bool,
    arrived: Instant,
    deadline: Option<Instant>,
}

impl Job for Fake {
    fn rows(&self) -> u32 {
        self.rows
    }
    fn row_bytes(&self) -> u64 {
        u64::from(self.shape)
    }
    fn mixes_with(&self, other: &Self) -> bool {
        self.shape == other.shape && self.shape != 0
    }
    fn is_gone(&self) -> bool {
        self.gone
    }
    fn arrived(&self) -> Instant {
        self.arrived
    }
    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

const MS: Duration = Duration::from_millis(1);

fn job(number: usize, rows: u32, shape: u8, arrived: Instant) -> Fake {
    Fake { number, rows, shape, gone: false, arrived, deadline: None }
}

fn rules(max_rows: u32, max_delay: Duration, max_queue: usize, instances: u32) -> Rules {
    Rules { max_rows, max_delay, max_queue, instances, concurrent: false }
}

fn numbers(step: Step<Fake>) -> Vec<usize> {
    match step {
        Step::Run(batch) => batch.jobs.iter().map(|job| job.number).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_idle_instance_never_waits_and_a_busy_one_waits_for_company() {
    let start = Instant::now();
    let mut queue = Queue::new(rules(4, 5 * MS, 10, 1));
    queue.push(job(0, 1, 1, start), start).unwrap();
    assert_eq!(queue.next(start, Asker::Busy), Step::WaitUntil(start + 5 * MS));
    assert_eq!(numbers(queue.next(start, Asker::Idle)), [0]);
    queue.push(job(1, 1, 1, start), start).unwrap();
    assert_eq!(numbers(queue.next(start + 5 * MS, Asker::Busy)), [1]);
    assert_eq!(queue.next(start, Asker::Busy), Step::Empty);
}

#[test]
fn a_full_batch_is_run_without_waiting() {
    let start = Instant::now();
    let mut queue = Queue::new(rules(4, 5 * MS, 10, 1));
    for number in 0..5 {
        queue.push(job(number, 1, 1, start), start).unwrap();
    }
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [0, 1, 2, 3]);
    assert_eq!(queue.next(start, Asker::Busy), Step::WaitUntil(start + 5 * MS));
}

#[test]
fn a_request_that_mixes_with_nothing_runs_alone_and_is_not_held() {
    let start = Instant::now();
    let mut queue = Queue::new(rules(4, 5 * MS, 10, 1));
    queue.push(job(0, 1, 0, start), start).unwrap();
    queue.push(job(1, 1, 0, start), start).unwrap();
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [0]);
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [1]);
}

#[test]
fn two_instances_share_what_is_there() {
    let start = Instant::now();
    let mut queue = Queue::new(rules(64, Duration::ZERO, 100, 2));
    for number in 0..8 {
        queue.push(job(number, 1, 1, start), start).unwrap();
    }
    assert_eq!(numbers(queue.next(start, Asker::Idle)), [0, 1, 2, 3]);
    assert_eq!(numbers(queue.next(start, Asker::Idle)), [4, 5, 6, 7]);
    queue.finish(4);
    queue.finish(4);
    queue.push(job(8, 1, 1, start), start).unwrap();
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [8]);
}

#[test]
fn a_full_queue_refuses_unless_somebody_has_gone() {
    let start = Instant::now();
    let mut queue = Queue::new(rules(1, MS, 2, 1));
    queue.push(job(0, 1, 1, start), start).unwrap();
    queue.push(Fake { gone: true, ..job(1, 1, 1, start) }, start).unwrap();
    queue.push(job(2, 1, 1, start), start).unwrap();
    assert_eq!(queue.take_left().len(), 1);
    assert_eq!(queue.push(job(3, 1, 1, start), start).unwrap_err().number, 3);
}

#[derive(Clone, Debug)]
enum Event {
    Push { rows: u32, shape: u8, gone: bool, timeout: Option<u64> },
    Ask { idle: bool },
    Finish,
    Tick(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..6u32, 0..3u8, prop::bool::weighted(0.1), prop::option::weighted(0.3, 0..20u64))
            .prop_map(|(rows, shape, gone, timeout)| Event::Push { rows, shape, gone, timeout }),
        3 => any::<bool>().prop_map(|idle| Event::Ask { idle }),
        2 => Just(Event::Finish),
        2 => (0..8u64).prop_map(Event::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold(
        events in prop::collection::vec(event(), 1..120),
        max_rows in 1..9u32,
        delay in 0..6u64,
        max_queue in 1..12usize,
        instances in 1..4u32,
        concurrent in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let rules = rules(max_rows, MS * u32::try_from(delay).unwrap(), max_queue, instances);
        let mut queue = Queue::new(Rules { concurrent, ..rules });
        let (mut accepted, mut settled) = (HashSet::new(), HashSet::new());
        let mut last_of_shape = [None::<usize>; 3];
        let mut running = Vec::new();
        let settle = |number: usize, settled: &mut HashSet<usize>| assert!(settled.insert(number), "{number} twice");
        for (number, event) in events.into_iter().enumerate() {
            match event {
                Event::Push { rows, shape, gone, timeout } => {
                    let deadline = timeout.map(|ms| now + MS * u32::try_from(ms).unwrap());
                    let job = Fake { gone, deadline, ..job(number, rows, shape, now) };
                    if queue.push(job, now).is_ok() {
                        accepted.insert(number);
                    }
                }
                Event::Ask { idle } => {
                    let asker = if idle { Asker::Idle } else { Asker::Busy };
                    match queue.next(now, asker) {
                        Step::Run(Batch { jobs: batch, limit }) => {
                            let rows: u32 = batch.iter().map(|job| job.rows).sum();
                            prop_assert!(batch.len() == 1 || u64::from(rows) <= limit);
                            prop_assert!(!batch.is_empty() && (batch.len() == 1 || rows <= max_rows));
                            running.push((limit, u64::from(rows)));
                            for job in &batch {
                                prop_assert!(batch.len() == 1 || job.mixes_with(&batch[0]));
                                prop_assert!(!job.gone && job.deadline.is_none_or(|deadline| deadline > now));
                                let last = &mut last_of_shape[usize::from(job.shape)];
                                prop_assert!(last.is_none_or(|last| last < job.number), "order");
                                *last = Some(job.number);
                                settle(job.number, &mut settled);
                            }
                        }
                        Step::WaitUntil(when) => prop_assert!(!idle && when > now),
                        Step::Empty => prop_assert!(queue.is_empty()),
                    }
                }
                Event::Finish => {
                    if let Some((limit, rows)) = running.pop() {
                        queue.finish(rows);
                        queue.learn(rows % 3, limit, rows, MS * u32::try_from(number % 7).unwrap());
                    }
                }
                Event::Tick(ms) => now += MS * u32::try_from(ms).unwrap(),
            }
            prop_assert!(queue.waiting.len() <= max_queue);
            let rows: u64 = queue.waiting.iter().map(|job| u64::from(job.rows)).sum();
            prop_assert_eq!(rows, queue.waiting_rows());
            for (job, left) in queue.take_left() {
                prop_assert_eq!(left == Left::Gone, job.gone);
                settle(job.number, &mut settled);
            }
        }
        while let Step::Run(batch) = queue.next(now, Asker::Idle) {
            batch.jobs.iter().for_each(|job| settle(job.number, &mut settled));
        }
        queue.take_left().iter().for_each(|(job, _)| settle(job.number, &mut settled));
        prop_assert_eq!(accepted, settled, "lost or invented");
    }
}

#[test]
fn a_run_leaves_a_batch_for_the_next_one_where_both_are_worth_having() {
    let start = Instant::now();
    let first = |jobs: usize, concurrent: bool| {
        let mut queue = Queue::new(Rules { concurrent, ..rules(64, Duration::ZERO, 100, 2) });
        (0..jobs).for_each(|number| queue.push(job(number, 1, 1, start), start).unwrap());
        numbers(queue.next(start, Asker::Idle)).len()
    };
    assert_eq!((first(64, true), first(64, false)), (16, 32));
    // Half of it would be too little to run well.
    assert_eq!((first(20, true), first(28, true), first(30, true)), (10, 14, 8));
}
