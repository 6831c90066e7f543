//! What one thread of the generator has counted.
use super::plan::{Plan, Ticket};
use hdrhistogram::Histogram;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The longest latency a histogram tells apart: an hour, in nanoseconds.
const LONGEST: u64 = 3_600_000_000_000;

/// Unsent requests are recorded in so many groups at most.
const GROUPS: u64 = 10_000;

/// How one request ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// With this status of HTTP.
    Http(u16),
    /// With this status of gRPC.
    Grpc(u32),
    /// Without an answer.
    Broken(String),
}

/// What came back for one request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// Size, with the head of HTTP, without the frames of HTTP/2.
    pub(super) bytes: usize,
}

impl Answer {
    pub(super) fn broken(error: &anyhow::Error) -> Self {
        Self { outcome: Outcome::Broken(format!("{error:#}")), bytes: 0 }
    }
}

/// Results of one thread.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) good: Histogram<u64>,
    pub(super) refused: Histogram<u64>,
    /// How long after they were due requests were sent.
    pub(super) late: Histogram<u64>,
    pub(super) failures: BTreeMap<String, u64>,
    /// Good answers within the window, whenever they were asked for.
    pub(super) in_window: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// How long requests had waited that never came back: less than they would have taken.
    pub(super) lost: Histogram<u64>,
    /// Requests that were answered at all, measured or not.
    pub(super) answered: u64,
    /// Lanes that ended because the server took no connection any more.
    pub(super) gave_up: u64,
    /// When this thread was done, at most the end of the window.
    pub(super) ended: Option<Instant>,
    /// When the measured request of each lane was due, as long as it has no outcome.
    pending: Vec<Option<Instant>>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            good: histogram(),
            refused: histogram(),
            late: histogram(),
            failures: BTreeMap::new(),
            in_window: 0,
            bytes_sent: 0,
            bytes_received: 0,
            lost: histogram(),
            answered: 0,
            gave_up: 0,
            ended: None,
            pending: Vec::new(),
        }
    }
}

/// Three significant digits: within 0.1 % of what was measured.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|_| unreachable!("the bounds are constants"))
}

impl Tally {
    /// Makes room for lanes, which are numbered from 0.
    pub(super) fn lanes(&mut self, count: u32) {
        self.pending = vec![None; count as usize];
    }

    pub(super) fn sent(&mut self, lane: usize, ticket: &Ticket, bytes: usize) {
        if ticket.measured {
            self.pending[lane] = Some(ticket.due);
            self.bytes_sent += bytes as u64;
            self.late.saturating_record(nanoseconds(ticket.sent - ticket.due));
        }
    }

    pub(super) fn add(&mut self, plan: &Plan, lane: usize, ticket: &Ticket, answer: Answer) {
        let now = Instant::now();
        let good = matches!(answer.outcome, Outcome::Http(200) | Outcome::Grpc(0));
        self.answered += u64::from(!matches!(answer.outcome, Outcome::Broken(_)));
        if good && now >= plan.measured_from && now < plan.until {
            self.in_window += 1;
        }
        if !ticket.measured {
            return;
        }
        self.pending[lane] = None;
        self.bytes_received += answer.bytes as u64;
        let latency = nanoseconds(now - ticket.due);
        if good {
            self.good.saturating_record(latency);
            return;
        }
        let why = match answer.outcome {
            Outcome::Http(status) => format!("HTTP {status}"),
            Outcome::Grpc(code) => format!("gRPC {code}"),
            Outcome::Broken(why) => return self.failed(format!("no answer: {why}"), 1),
        };
        self.refused.saturating_record(latency);
        self.failed(why, 1);
    }

    /// Counts what has no answer when nobody waits any more.
    pub(super) fn abandoned(&mut self, patience: Duration) {
        let now = Instant::now();
        let mut count = 0;
        for due in std::mem::take(&mut self.pending).into_iter().flatten() {
            self.lost.saturating_record(nanoseconds(now - due));
            count += 1;
        }
        if count > 0 {
            self.failed(format!("no answer: not within {} s of the end", patience.as_secs_f64()), count);
        }
    }

    /// Counts arrivals of an open loop that were due, one each `interval` up to the end, and never sent.
    pub(super) fn unsent(&mut self, count: u64, interval: Duration) {
        // Millions are recorded in groups, each with the shortest wait of its group.
        let group = count.div_ceil(GROUPS).max(1);
        for first in (0..count).step_by(usize::try_from(group).unwrap_or(usize::MAX)) {
            #[expect(clippy::cast_precision_loss, reason = "arrivals of years fit a double")]
            let waited = interval.mul_f64(first as f64);
            self.lost.saturating_record_n(nanoseconds(waited), group.min(count - first));
        }
    }

    /// Adds the results of another thread.
    pub(super) fn merge(&mut self, other: Self) -> anyhow::Result<()> {
        self.good.add(&other.good)?;
        self.refused.add(&other.refused)?;
        self.late.add(&other.late)?;
        self.lost.add(&other.lost)?;
        self.in_window += other.in_window;
        self.answered += other.answered;
        self.gave_up += other.gave_up;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.ended = self.ended.max(other.ended);
        other.failures.into_iter().for_each(|(why, count)| self.failed(why, count));
        Ok(())
    }

    fn failed(&mut self, why: String, count: u64) {
        *self.failures.entry(why).or_insert(0) += count;
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
