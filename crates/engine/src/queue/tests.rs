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
    level: usize,
    late: bool,
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
    fn level(&self) -> usize {
        self.level
    }
    fn is_late(&self) -> bool {
        self.late
    }
    fn go_on_waiting(&mut self) {
        (self.late, self.deadline) = (true, None);
    }
}

const MS: Duration = Duration::from_millis(1);

fn job(number: usize, rows: u32, shape: u8, arrived: Instant) -> Fake {
    Fake { number, rows, shape, gone: false, arrived, deadline: None, level: 0, late: false }
}

fn rules(max_rows: u32, max_delay: Duration, max_queue: usize, instances: u32) -> Rules {
    let levels = [Level { max_queue, waits_on: false }].into();
    Rules { max_rows, max_delay, preferred: [].into(), levels, instances, concurrent: false }
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

#[test]
fn a_request_of_a_higher_level_goes_before_what_came_earlier() {
    let start = Instant::now();
    let levels = [Level { max_queue: 10, waits_on: false }; 3].into();
    let mut queue = Queue::new(Rules { levels, ..rules(2, Duration::ZERO, 10, 1) });
    for (number, level) in [(0, 2), (1, 1), (2, 0), (3, 1), (4, 0)] {
        queue.push(Fake { level, ..job(number, 1, 1, start) }, start).unwrap();
    }
    let runs: Vec<_> = (0..3).map(|_| numbers(queue.next(start, Asker::Idle))).collect();
    assert_eq!(runs, [vec![2, 4], vec![1, 3], vec![0]]);
}

#[test]
fn each_level_has_room_of_its_own() {
    let start = Instant::now();
    let level = |max_queue| Level { max_queue, waits_on: false };
    let levels = [level(1), level(2)].into();
    let mut queue = Queue::new(Rules { levels, ..rules(2, Duration::ZERO, 10, 1) });
    let mut push = |number, level| queue.push(Fake { level, ..job(number, 1, 1, start) }, start).is_ok();
    assert_eq!(
        [push(0, 0), push(1, 0), push(2, 1), push(3, 1), push(4, 1)],
        [true, false, true, true, false]
    );
    assert!(!push(5, 2), "there is no such level");
}

#[test]
fn a_request_that_waited_too_long_goes_on_behind_the_others_where_the_policy_says_so() {
    let start = Instant::now();
    let levels = [Level { max_queue: 10, waits_on: true }; 2].into();
    let mut queue = Queue::new(Rules { levels, ..rules(1, Duration::ZERO, 10, 1) });
    queue.push(Fake { deadline: Some(start + MS), ..job(0, 1, 1, start) }, start).unwrap();
    queue.push(job(1, 1, 1, start), start).unwrap();
    queue.push(Fake { level: 1, ..job(2, 1, 1, start) }, start).unwrap();
    let later = start + 2 * MS;
    assert_eq!(numbers(queue.next(later, Asker::Idle)), [1]);
    queue.push(job(3, 1, 1, later), later).unwrap();
    let rest: Vec<_> = (0..3).flat_map(|_| numbers(queue.next(later, Asker::Idle))).collect();
    assert_eq!((rest, queue.take_left()), (vec![3, 0, 2], Vec::new()));
}

#[test]
fn a_preferred_size_is_run_when_it_is_reached_and_waited_for_after_a_run() {
    let start = Instant::now();
    let mut queue = Queue::new(Rules { preferred: [2, 4].into(), ..rules(8, 5 * MS, 100, 1) });
    let push = |queue: &mut Queue<Fake>, number| queue.push(job(number, 1, 1, start), start).unwrap();
    push(&mut queue, 0);
    assert_eq!(queue.next(start, Asker::Busy), Step::WaitUntil(start + 5 * MS));
    push(&mut queue, 1);
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [0, 1]);
    (2..9).for_each(|number| push(&mut queue, number));
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [2, 3, 4, 5]);
    assert_eq!(numbers(queue.next(start, Asker::Busy)), [6, 7]);
    assert_eq!(queue.next(start, Asker::Busy), Step::WaitUntil(start + 5 * MS));
    // Who is idle, or has waited long enough, takes what there is.
    assert_eq!(numbers(queue.next(start, Asker::Idle)), [8]);
    queue.push(job(9, 3, 1, start), start).unwrap();
    assert_eq!(numbers(queue.next(start + 5 * MS, Asker::Busy)), [9]);
}

#[derive(Clone, Debug)]
enum Event {
    Push { rows: u32, shape: u8, gone: bool, timeout: Option<u64>, level: usize },
    Ask { idle: bool },
    Finish,
    Tick(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..6u32, 0..3u8, prop::bool::weighted(0.1), prop::option::weighted(0.3, 0..20u64), 0..3usize)
            .prop_map(|(rows, shape, gone, timeout, level)| Event::Push { rows, shape, gone, timeout, level }),
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
        waits_on in prop::collection::vec(any::<bool>(), 1..4),
        preferred in prop::collection::btree_set(1..9u32, 0..3),
    ) {
        let mut now = Instant::now();
        let rules = rules(max_rows, MS * u32::try_from(delay).unwrap(), max_queue, instances);
        let levels: Arc<[Level]> = waits_on.iter().map(|waits_on| Level { max_queue, waits_on: *waits_on }).collect();
        let preferred: Arc<[u32]> = preferred.into_iter().filter(|size| *size <= max_rows).collect();
        let mut queue = Queue::new(Rules { concurrent, levels: Arc::clone(&levels), preferred, ..rules });
        let (mut accepted, mut settled) = (HashSet::new(), HashSet::new());
        // The last to run of each level and shape, those apart that went on waiting.
        let mut last = std::collections::HashMap::new();
        let mut running = Vec::new();
        let settle = |number: usize, settled: &mut HashSet<usize>| assert!(settled.insert(number), "{number} twice");
        for (number, event) in events.into_iter().enumerate() {
            match event {
                Event::Push { rows, shape, gone, timeout, level } => {
                    let deadline = timeout.map(|ms| now + MS * u32::try_from(ms).unwrap());
                    let level = level % levels.len();
                    let job = Fake { gone, deadline, level, ..job(number, rows, shape, now) };
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
                                let before = last.insert((job.level, job.shape, job.late), job.number);
                                prop_assert!(job.late || before.is_none_or(|before| before < job.number), "order");
                                prop_assert!(!job.late || levels[job.level].waits_on);
                                // Nobody of a higher level was left behind who could have come along first.
                                let overtaken = queue.waiting.iter().any(|other| other.level < batch[0].level);
                                prop_assert!(!overtaken, "level");
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
            for level in 0..levels.len() {
                prop_assert!(queue.waiting.iter().filter(|job| job.level == level).count() <= max_queue);
            }
            prop_assert!(queue.waiting.iter().is_sorted_by_key(|job| (job.level, job.late)));
            let rows: u64 = queue.waiting.iter().map(|job| u64::from(job.rows)).sum();
            prop_assert_eq!(rows, queue.waiting_rows());
            for (job, left) in queue.take_left() {
                prop_assert_eq!(left == Left::Gone, job.gone);
                prop_assert!(job.gone || !levels[job.level].waits_on);
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
