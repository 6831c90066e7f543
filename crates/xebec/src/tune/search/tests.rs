use super::{
    super::{
        record::histogram,
        space::{Arrangement, Class, tests::space},
    },
    *,
};
use std::time::Duration;

/// A model of a model: 2 cores, a run costs a fixed part and a part for each row, which threads divide badly.
struct Fake {
    slices: usize,
    most: usize,
    noise: u64,
}

impl Fake {
    fn new(most: usize) -> Self {
        Self { slices: 0, most, noise: 0x9e37_79b9 }
    }

    /// Throughput and p99 in microseconds.
    fn truth(point: Point) -> (f64, f64) {
        let Point { arrangement: Arrangement { class, batch, delay_us }, load } = point;
        let (side_by_side, speed, wake) = match class {
            Class::Inline => (1.5, 1.0, 0.0),
            Class::Queued { instances, threads } => {
                let busy = f64::from((instances * threads).min(2));
                let crowd = f64::from((instances * threads).max(2)) / 2.0;
                (busy / f64::from(threads), f64::from(threads).powf(0.6) / crowd, 30.0)
            }
        };
        let rows = f64::from(batch.max(1)).min((f64::from(load) / side_by_side).max(1.0));
        let run = (80.0 + rows * (10.0 + rows / 8.0)) / speed + wake;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let waits = if f64::from(batch) > rows { delay_us as f64 } else { 0.0 };
        let per_second =
            (1e6 * side_by_side * rows / (run + waits)).min(1e6 * f64::from(load) / (run + waits));
        (per_second, f64::from(load) * 1e6 / per_second * 1.3)
    }
}

impl Measure for Fake {
    fn slice(&mut self, point: Point) -> anyhow::Result<Option<Slice>> {
        if self.slices == self.most {
            return Ok(None);
        }
        self.slices += 1;
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let (noise, drift) = ((self.noise % 1000) as f64 / 1000.0, (self.slices as f64 / 40.0).sin());
        // 6 % from slice to slice, and 10 % over the minutes.
        let factor = (1.0 - 0.06 * noise) * (1.0 + 0.1 * drift);
        let (per_second, p99) = Self::truth(point);
        let mut latencies = histogram();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
        latencies.record((p99 * 1000.0 / factor) as u64)?;
        let per_second = per_second * factor;
        Ok(Some(Slice { per_second, latencies, cpu_us: 1.0, failed: 0, failure: None }))
    }

    fn left(&self) -> f64 {
        1.0 - self.slices as f64 / self.most as f64
    }

    fn doing(&mut self, _: &str) {}
}

fn bad() -> Point {
    let class = Class::Queued { instances: 1, threads: 1 };
    Point { arrangement: Arrangement { class, batch: 64, delay_us: 5000 }, load: 1 }
}

fn search(fake: &mut Fake, goal: Goal) -> Option<Point> {
    let space = space();
    let mut search = Search { space: &space, goal, measure: fake, ledger: Ledger::new(), over: false };
    search.run(&[bad()]).unwrap()
}

/// The score of a point without noise.
fn score(goal: Goal, point: Point) -> f64 {
    let (per_second, p99) = Fake::truth(point);
    match goal.slo {
        Some(slo) if p99 > slo.as_secs_f64() * 1e6 => 0.0,
        _ => per_second,
    }
}

fn best(goal: Goal) -> f64 {
    space().all().into_iter().map(|point| score(goal, point)).fold(0.0, f64::max)
}

#[test]
fn from_a_bad_arrangement_the_best_is_nearly_reached_with_fewer_slices_than_the_grid_has_points() {
    let all = space().all().len();
    for slo in [None, Some(20_000), Some(3000)] {
        let goal = Goal { slo: slo.map(Duration::from_micros), rate: None };
        let mut fake = Fake::new(10_000);
        let found = search(&mut fake, goal).unwrap();
        // What the noise may hide stays within it.
        let tight = Goal { slo: slo.map(|slo| Duration::from_micros(slo * 11 / 10)), rate: None };
        assert!(score(tight, found) >= 0.9 * best(goal), "{slo:?}: {found:?}");
        assert!(fake.slices < all * 2, "{slo:?}: {} slices for {all} points", fake.slices);
    }
}

#[test]
fn when_time_is_up_what_is_known_is_the_answer() {
    for most in [2, 7, 30] {
        let mut fake = Fake::new(most);
        assert!(search(&mut fake, Goal::default()).is_some(), "{most}");
        assert_eq!(fake.slices, most);
    }
    assert_eq!(search(&mut Fake::new(0), Goal::default()), None);
}

#[test]
fn of_two_that_are_as_good_the_one_that_answers_sooner_is_taken() {
    let record = |per_second, nanoseconds| {
        let mut latencies = histogram();
        latencies.record(nanoseconds).unwrap();
        let mut record = Record::default();
        record.add(&Slice { per_second, latencies, cpu_us: 1.0, failed: 0, failure: None });
        record
    };
    let (a, b, c) = (bad(), Point { load: 2, ..bad() }, Point { load: 3, ..bad() });
    let (space, mut fake) = (space(), Fake::new(0));
    let goal = Goal::default();
    let search = Search { space: &space, goal, measure: &mut fake, ledger: Ledger::new(), over: false };
    let order = [(a, record(100.0, 9_000_000)), (b, record(99.0, 2_000_000)), (c, record(50.0, 10_000))];
    assert_eq!(search.choose(&order), Some(b));
}

#[test]
fn what_is_there_now_is_not_chosen_if_it_is_not_among_what_was_asked_for() {
    let class = Class::Inline;
    let good = Point { arrangement: Arrangement { class, batch: 32, delay_us: 0 }, load: 64 };
    let space = Space { batches: vec![1], loads: vec![64], ..space() };
    let mut fake = Fake::new(10_000);
    let goal = Goal::default();
    let mut search = Search { space: &space, goal, measure: &mut fake, ledger: Ledger::new(), over: false };
    let found = search.run(&[good]).unwrap().unwrap();
    assert_eq!(found.arrangement.batch, 1);
    assert!(search.ledger.contains_key(&good), "it is measured all the same");
}

#[test]
fn a_choice_that_does_not_keep_the_objective_after_all_gives_way_to_one_that_does() {
    let space = space();
    let goal = Goal { slo: Some(Duration::from_millis(10)), rate: None };
    let mut fake = Fake::new(0);
    let points: Vec<Point> = space.all().into_iter().take(3).collect();
    let record = |per_second: f64, p99_ms: u64| {
        let mut latencies = histogram();
        latencies.record(p99_ms * 1_000_000).unwrap();
        let mut record = Record::default();
        record.add(&Slice { per_second, latencies, cpu_us: 1.0, failed: 0, failure: None });
        record
    };
    let mut settled = |p99: [u64; 3]| {
        let records = [record(300.0, p99[0]), record(100.0, p99[1]), record(200.0, p99[2])];
        let ledger = points.iter().copied().zip(records).collect();
        let search = Search { space: &space, goal, measure: &mut fake, ledger, over: true };
        search.settled(points[0])
    };
    assert_eq!(settled([9, 5, 5]), points[0], "it does");
    assert_eq!(settled([12, 5, 5]), points[2], "the fastest of those that do");
    assert_eq!(settled([12, 30, 11]), points[2], "nothing does: the nearest");
}
