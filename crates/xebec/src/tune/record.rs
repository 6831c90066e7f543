//! What was measured of a point, and how good that is.
//!
//! A point is measured in slices, between slices of others, because the machine's speed changes from one minute to the
//! next. Its throughput is the median of its slices; its percentiles are over all their requests.
use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest latency that is told apart, in nanoseconds.
const LONGEST: u64 = 600_000_000_000;

/// Latencies in nanoseconds, within 1 %.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, LONGEST, 2).unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

/// One stretch of load.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    /// Good answers a second.
    pub(super) per_second: f64,
    pub(super) latencies: Histogram<u64>,
    /// Processor time of this process a request, in microseconds.
    pub(super) cpu_us: f64,
    /// Requests that failed, with the first one's words.
    pub(super) failed: u64,
    pub(super) failure: Option<String>,
}

/// All slices of a point.
#[derive(Clone, Debug)]
pub(super) struct Record {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
    latencies: Histogram<u64>,
    failed: u64,
    pub(super) failure: Option<String>,
}

impl Default for Record {
    fn default() -> Self {
        Self { per_second: vec![], cpu_us: vec![], latencies: histogram(), failed: 0, failure: None }
    }
}

impl Record {
    pub(super) fn add(&mut self, slice: &Slice) {
        self.per_second.push(slice.per_second);
        self.cpu_us.push(slice.cpu_us);
        // Both were made with the same bounds.
        let _ = self.latencies.add(&slice.latencies);
        self.failed += slice.failed;
        self.failure = self.failure.take().or_else(|| slice.failure.clone());
    }

    pub(super) fn slices(&self) -> usize {
        self.per_second.len()
    }

    pub(super) fn summary(&self) -> Summary {
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit a double")]
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        let fold = |start, pick: fn(f64, f64) -> f64| self.per_second.iter().copied().fold(start, pick);
        Summary {
            per_second: median(&self.per_second),
            least_per_second: fold(f64::INFINITY, f64::min),
            most_per_second: fold(0.0, f64::max),
            p50_us: at(0.5),
            p99_us: at(0.99),
            cpu_us: median(&self.cpu_us),
            failed: self.failed,
            slices: self.slices(),
        }
    }
}

/// A point in numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// Median of the slices, in requests a second.
    pub(super) per_second: f64,
    pub(super) least_per_second: f64,
    pub(super) most_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) cpu_us: f64,
    pub(super) failed: u64,
    pub(super) slices: usize,
}

/// The one in the middle; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => sorted[len / 2],
        len => f64::midpoint(sorted[len / 2 - 1], sorted[len / 2]),
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Goal {
    /// The p99 that must be kept.
    pub(super) slo: Option<Duration>,
    /// Requests a second of an open loop, which must be kept up with.
    pub(super) rate: Option<f64>,
}

/// Who answers less than this share of what comes does not keep up.
const KEEPS_UP: f64 = 0.97;

/// Scores below this are of points that do not do.
const DOES: f64 = 0.0;

impl Goal {
    /// How good a point is: above 0 if it does what is wanted, and more is better.
    ///
    /// In a closed loop that is throughput, in an open loop, where throughput is given, the inverse of p99 (in 1/s). What
    /// does not do is below 0: the nearer to what is wanted, the higher.
    pub(super) fn score(&self, summary: &Summary) -> f64 {
        self.score_of(summary, summary.per_second)
    }

    /// How good it was in its best slice.
    pub(super) fn best_score(&self, summary: &Summary) -> f64 {
        self.score_of(summary, summary.most_per_second)
    }

    fn score_of(&self, summary: &Summary, per_second: f64) -> f64 {
        if summary.failed > 0 || summary.slices == 0 {
            return f64::NEG_INFINITY;
        }
        let share = self.rate.map_or(1.0, |rate| per_second / rate);
        if share < KEEPS_UP {
            // Below all that keep up but miss the objective by less than 1000 times.
            return -1000.0 - 1.0 / share.max(f64::MIN_POSITIVE);
        }
        let missed = self.slo.map(|slo| summary.p99_us / micros(slo)).filter(|missed| *missed > 1.0);
        match (missed, self.rate) {
            (Some(missed), _) => -missed,
            (None, Some(_)) => 1e6 / summary.p99_us.max(1.0),
            (None, None) => per_second,
        }
    }

    /// Whether a score is of a point that does what is wanted.
    pub(super) fn does(score: f64) -> bool {
        score > DOES
    }
}

pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Whether `a` is better than `b` by more than a share of it.
pub(super) fn better(a: f64, b: f64, margin: f64) -> bool {
    if b == f64::NEG_INFINITY { a > b } else { a > b + margin * b.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(per_second: f64, p99_us: f64) -> Summary {
        let (least_per_second, most_per_second) = (per_second, per_second);
        Summary {
            per_second,
            least_per_second,
            most_per_second,
            p50_us: 0.0,
            p99_us,
            cpu_us: 0.0,
            failed: 0,
            slices: 3,
        }
    }

    #[test]
    fn who_keeps_the_objective_is_better_than_anyone_who_does_not() {
        let goal = Goal { slo: Some(Duration::from_millis(10)), rate: None };
        let (kept, missed) = (goal.score(&summary(10.0, 9000.0)), goal.score(&summary(1e6, 11_000.0)));
        assert!(kept > missed && Goal::does(kept) && !Goal::does(missed));
        assert!(goal.score(&summary(1.0, 20_000.0)) < missed);
        let failed = Summary { failed: 1, ..summary(1e9, 1.0) };
        assert!(goal.score(&failed) < goal.score(&summary(1.0, 1e9)));
    }

    #[test]
    fn at_a_given_rate_the_lowest_p99_of_those_that_keep_up_is_best() {
        let goal = Goal { slo: None, rate: Some(100.0) };
        let score = |per_second, p99| goal.score(&summary(per_second, p99));
        assert!(score(99.0, 1000.0) > score(100.0, 2000.0));
        assert!(score(99.0, 1e6) > score(50.0, 100.0));
        assert!(score(60.0, 1e6) > score(50.0, 100.0));
    }

    #[test]
    fn throughput_is_the_median_of_the_slices_and_percentiles_are_over_all() {
        let mut record = Record::default();
        for (per_second, latency) in [(10.0, 1_000_000), (30.0, 2_000_000), (20.0, 9_000_000)] {
            let mut latencies = histogram();
            latencies.record(latency).unwrap();
            record.add(&Slice { per_second, latencies, cpu_us: 1.0, failed: 0, failure: None });
        }
        let summary = record.summary();
        assert_eq!(
            (summary.per_second, summary.least_per_second, summary.most_per_second),
            (20.0, 10.0, 30.0)
        );
        assert!((summary.p99_us / 9000.0 - 1.0).abs() < 0.02, "{}", summary.p99_us);
    }
}
