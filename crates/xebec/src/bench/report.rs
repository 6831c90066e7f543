//! What came of a load: latencies, throughput, failures by status, and the generator's own cost.
use super::{BenchArgs, Form, plan::Plan};
use comfy_table::{Table, presets::NOTHING};
use hdrhistogram::Histogram;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

/// A generator busier than this measures itself.
const BUSY_PERCENT: f64 = 90.0;

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

/// Results of one thread.
#[derive(Debug)]
pub(super) struct Tally {
    good: Histogram<u64>,
    refused: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    bytes_sent: u64,
    last: Option<Instant>,
}

impl Default for Tally {
    fn default() -> Self {
        // Three significant digits up to an hour; the constants are in range, so there is no error to handle.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap_or_else(|_| empty());
        let (good, refused) = (histogram(), histogram());
        Self { good, refused, failures: BTreeMap::new(), bytes_sent: 0, last: None }
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_from(&Histogram::<u64>::new(3).unwrap_or_else(|_| unreachable!("3 digits are within 0..=5")))
}

impl Tally {
    pub(super) fn add(&mut self, outcome: Outcome, latency: Duration, bytes: usize) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.bytes_sent += bytes as u64;
        self.last = Some(Instant::now());
        let failure = match outcome {
            Outcome::Http(200) | Outcome::Grpc(0) => {
                self.good.saturating_record(nanoseconds);
                return;
            }
            Outcome::Http(status) => format!("HTTP {status}"),
            Outcome::Grpc(status) => format!("gRPC {status}"),
            Outcome::Broken(why) => {
                *self.failures.entry(format!("no answer: {why}")).or_insert(0) += 1;
                return;
            }
        };
        self.refused.saturating_record(nanoseconds);
        *self.failures.entry(failure).or_insert(0) += 1;
    }

    pub(super) fn broken(&mut self, why: &str) {
        *self.failures.entry(format!("no answer: {why}")).or_insert(0) += 1;
    }
}

/// Processor time of this process so far.
pub(super) fn own_cpu() -> Duration {
    xebec_net::process::usage().map_or(Duration::ZERO, |usage| usage.cpu)
}

/// Percentiles of latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Latencies {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered well.
    pub good: u64,
    /// Their latencies.
    pub latencies: Latencies,
    /// Latencies of requests answered with an error.
    pub refusals: Option<Latencies>,
    /// Requests that failed, by how.
    pub failures: BTreeMap<String, u64>,
    /// Length of the measurement.
    pub seconds: f64,
    /// Good answers a second.
    pub per_second: f64,
    /// Bytes of requests sent.
    pub bytes_sent: u64,
    /// Processor time of the generator over wall time, in percent of one core.
    pub generator_percent: f64,
    threads: u32,
}

#[expect(clippy::cast_precision_loss, reason = "microseconds and counts fit a double")]
fn latencies(histogram: &Histogram<u64>) -> Latencies {
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    let at = |quantile| us(histogram.value_at_quantile(quantile));
    Latencies {
        mean: histogram.mean() / 1000.0,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: us(histogram.max()),
    }
}

impl Report {
    pub(super) fn new(args: &BenchArgs, plan: &Plan, tallies: Vec<Tally>, cpu_before: Duration) -> anyhow::Result<Self> {
        let cpu = own_cpu().saturating_sub(cpu_before).as_secs_f64() / plan.started.elapsed().as_secs_f64();
        let mut all = Tally::default();
        for tally in tallies {
            all.good.add(&tally.good)?;
            all.refused.add(&tally.refused)?;
            all.bytes_sent += tally.bytes_sent;
            all.last = all.last.max(tally.last);
            tally.failures.into_iter().for_each(|(why, count)| *all.failures.entry(why).or_insert(0) += count);
        }
        let end = all.last.map_or(plan.until, |last| last.min(plan.until));
        let seconds = end.saturating_duration_since(plan.measured_from).as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "counts fit a double")]
        let per_second = all.good.len() as f64 / seconds;
        Ok(Self {
            good: all.good.len(),
            latencies: latencies(&all.good),
            refusals: (!all.refused.is_empty()).then(|| latencies(&all.refused)),
            failures: all.failures,
            seconds,
            per_second,
            bytes_sent: all.bytes_sent,
            generator_percent: cpu * 100.0,
            threads: args.threads,
        })
    }

    /// Whether the generator was at its limit, so that the figures are its own rather than the server's.
    pub fn generator_was_busy(&self) -> bool {
        self.generator_percent > BUSY_PERCENT * f64::from(self.threads)
    }

    /// Prints the report.
    ///
    /// # Errors
    /// The writer's.
    pub fn print(&self, form: Form, out: &mut dyn Write) -> anyhow::Result<()> {
        match form {
            Form::Json => writeln!(out, "{}", self.json())?,
            Form::Table => writeln!(out, "{}", self.table())?,
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let latencies = |l: &Latencies| json!({"mean": l.mean, "p50": l.p50, "p90": l.p90, "p99": l.p99, "p99.9": l.p999, "max": l.max});
        json!({
            "good": self.good,
            "per_second": self.per_second,
            "latency_us": latencies(&self.latencies),
            "refusal_latency_us": self.refusals.as_ref().map(latencies),
            "failures": self.failures,
            "seconds": self.seconds,
            "bytes_sent": self.bytes_sent,
            "generator_cpu_percent": self.generator_percent,
            "generator_was_busy": self.generator_was_busy(),
        })
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let row = |l: &Latencies| format!("p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}", l.p50, l.p90, l.p99, l.p999, l.max);
        table.add_row(["requests/s".to_owned(), format!("{:.0} ({} in {:.1} s)", self.per_second, self.good, self.seconds)]);
        table.add_row(["latency us".to_owned(), row(&self.latencies)]);
        for (why, count) in &self.failures {
            table.add_row(["failed".to_owned(), format!("{count} {why}")]);
        }
        if let Some(refusals) = &self.refusals {
            table.add_row(["refusal us".to_owned(), row(refusals)]);
        }
        table.add_row(["generator".to_owned(), format!("{:.0} % of a core", self.generator_percent)]);
        let mut text = table.to_string();
        if self.generator_was_busy() {
            text.push_str("\nthe generator was busy: the server may do more than this shows");
        }
        text
    }
}
