//! What came of a load: latencies, throughput, failures by status, and the generator's own cost.
use super::{BenchArgs, Form, plan::Plan, tally::Tally};
use comfy_table::{Table, presets::NOTHING};
use hdrhistogram::Histogram;
use serde_json::json;
use std::{collections::BTreeMap, io::Write, time::Duration};

/// A generator busier than this measures itself.
const BUSY_PERCENT: f64 = 90.0;

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
    /// Measured requests that were answered well.
    pub good: u64,
    /// Latencies: from when a request was sent, in an open loop from when it was due. Those that never came back are in it
    /// with the time they had waited.
    pub latencies: Latencies,
    /// Requests that never came back, or were never sent: their latencies are lower bounds.
    pub lost: u64,
    /// Requests that were answered at all, with those of the warm-up.
    pub answered: u64,
    /// Lanes that ended early, because the server took no connection any more.
    pub gave_up: u64,
    /// Latencies of requests answered with an error.
    pub refusals: Option<Latencies>,
    /// Measured requests that failed, by how.
    pub failures: BTreeMap<String, u64>,
    /// Length of the measurement.
    pub seconds: f64,
    /// Good answers a second within it.
    pub per_second: f64,
    /// Bytes of measured requests.
    pub bytes_sent: u64,
    /// Bytes of their answers.
    pub bytes_received: u64,
    /// Open loop: requests that were due but never sent, because all lanes were taken.
    pub unsent: u64,
    /// Open loop: how long after it was due a request was sent.
    pub late: Option<Latencies>,
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
    pub(super) fn new(
        args: &BenchArgs,
        plan: &Plan,
        tallies: Vec<Tally>,
        generator_share: f64,
    ) -> anyhow::Result<Self> {
        let mut all = Tally::default();
        for tally in tallies {
            all.merge(tally)?;
        }
        let end = all.ended.unwrap_or(plan.until);
        let seconds = end.saturating_duration_since(plan.measured_from).as_secs_f64().max(1e-9);
        #[expect(clippy::cast_precision_loss, reason = "counts fit a double")]
        let per_second = all.in_window as f64 / seconds;
        let (good, unsent) = (all.good.len(), plan.unsent());
        if let Some(interval) = plan.interval() {
            all.unsent(unsent, interval);
        }
        all.good.add(&all.lost)?;
        Ok(Self {
            good,
            latencies: latencies(&all.good),
            lost: all.lost.len(),
            answered: all.answered,
            gave_up: all.gave_up,
            refusals: (!all.refused.is_empty()).then(|| latencies(&all.refused)),
            failures: all.failures,
            seconds,
            per_second,
            bytes_sent: all.bytes_sent,
            bytes_received: all.bytes_received,
            unsent,
            late: plan.interval().is_some().then(|| latencies(&all.late)),
            generator_percent: generator_share * 100.0,
            threads: args.threads,
        })
    }

    /// Whether the generator was at its limit, so that the figures are its own rather than the server's.
    ///
    /// An open loop looks at the clock while it waits, so that its processor time says nothing: how late it sent does.
    pub fn generator_was_busy(&self) -> bool {
        self.late.is_none() && self.generator_percent > BUSY_PERCENT * f64::from(self.threads)
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
            "lost": self.lost,
            "answered": self.answered,
            "lanes_that_gave_up": self.gave_up,
            "unsent": self.unsent,
            "late_us": self.late.as_ref().map(latencies),
            "seconds": self.seconds,
            "bytes_sent": self.bytes_sent,
            "bytes_received": self.bytes_received,
            "generator_cpu_percent": self.generator_percent,
            "generator_was_busy": self.generator_was_busy(),
        })
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let row = |l: &Latencies| {
            format!(
                "p50 {:.0}  p90 {:.0}  p99 {:.0}  p99.9 {:.0}  max {:.0}",
                l.p50, l.p90, l.p99, l.p999, l.max
            )
        };
        let answered = format!("{:.0} ({} in {:.1} s)", self.per_second, self.good, self.seconds);
        table.add_row(["requests/s".to_owned(), answered]);
        table.add_row(["latency us".to_owned(), row(&self.latencies)]);
        for (why, count) in &self.failures {
            table.add_row(["failed".to_owned(), format!("{count} {why}")]);
        }
        if let Some(refusals) = &self.refusals {
            table.add_row(["refusal us".to_owned(), row(refusals)]);
        }
        if let Some(late) = &self.late {
            table.add_row(["sent late us".to_owned(), row(late)]);
        }
        let bytes = format!("{} sent, {} received", self.bytes_sent, self.bytes_received);
        table.add_row(["bytes".to_owned(), bytes]);
        table.add_row(["generator".to_owned(), format!("{:.0} % of a core", self.generator_percent)]);
        let lines = table.to_string();
        // The table pads every line to the same width.
        let mut text = lines.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
        if self.generator_was_busy() {
            text.push_str("\nthe generator was busy: the server may do more than this shows");
        }
        if self.lost > 0 {
            text.push_str(&format!(
                "\n{} requests never came back: they are in the latencies with the time they had waited, which is less than they would have taken",
                self.lost
            ));
        }
        if self.unsent > 0 {
            text.push_str(&format!(
                "\n{} requests were due but never sent: all that --concurrency allows were in flight",
                self.unsent
            ));
        }
        text
    }
}
