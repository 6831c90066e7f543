//! What a search found: the front as a table, the choice and why, and the same as JSON.
use super::{
    grid::Grid,
    record::{Goal, Summary, micros},
    search::Ledger,
    space::Point,
    write::Config,
};
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde_json::{Value, json};
use std::time::Duration;

/// What a search found.
pub(super) struct Report {
    pub(super) model: String,
    pub(super) engine: String,
    /// What was sent.
    pub(super) requests: String,
    pub(super) notes: Vec<String>,
    /// Size of the grid.
    pub(super) points: usize,
    pub(super) goal: Goal,
    pub(super) start: Point,
    pub(super) chosen: Option<Point>,
    pub(super) ledger: Ledger,
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    pub(super) grid: Option<Grid>,
}

/// The points that no other beats in both throughput and p99, the soonest first.
pub(super) fn front(ledger: &Ledger) -> Vec<Point> {
    let known = ledger.iter().map(|(point, record)| (*point, record.summary()));
    let mut sorted: Vec<(Point, Summary)> = known.filter(|(_, summary)| summary.failed == 0).collect();
    sorted
        .sort_by(|(_, a), (_, b)| a.p99_us.total_cmp(&b.p99_us).then(b.per_second.total_cmp(&a.per_second)));
    let mut most = 0.0;
    sorted.retain(|(_, summary)| {
        let beats = summary.per_second > most;
        most = f64::max(most, summary.per_second);
        beats
    });
    sorted.into_iter().map(|(point, _)| point).collect()
}

impl Report {
    /// What was chosen, if anything could be measured.
    pub(super) fn chosen(&self) -> Option<Point> {
        self.chosen
    }

    pub(super) fn summary(&self, point: Point) -> Option<Summary> {
        self.ledger.get(&point).map(super::record::Record::summary)
    }

    /// Whether the chosen point does what was wanted.
    pub(super) fn does(&self) -> bool {
        let chosen = self.chosen.and_then(|point| self.summary(point));
        chosen.is_some_and(|summary| Goal::does(self.goal.score(&summary)))
    }

    /// For people.
    pub(super) fn text(&self, config: Option<&Config>) -> String {
        let mut text =
            format!("model    {}\nengine   {}\ndata     {}\n", self.model, self.engine, self.requests);
        self.notes.iter().for_each(|note| text.push_str(&format!("note     {note}\n")));
        let how = if self.interrupted { "interrupted after" } else { "took" };
        text.push_str(&format!(
            "search   {} points measured, the grid has {}; {how} {:.0} s\n\n",
            self.ledger.len(),
            self.points,
            self.elapsed.as_secs_f64()
        ));
        text.push_str(&self.table());
        text.push_str(&format!("\n{}\n", self.choice()));
        if let Some(config) = config {
            text.push_str(&format!("\n# config.pbtxt\n{}\n# xebec up\n{}", config.pbtxt, config.yaml));
        }
        if let Some(grid) = &self.grid {
            text.push_str(&format!("\n{}\n", self.exhaustive(grid)));
        }
        text
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["", "arrangement", "load", "requests/s", "from..to", "p50 ms", "p99 ms", "CPU us"]);
        let mut rows = front(&self.ledger);
        for more in [self.chosen, Some(self.start)].into_iter().flatten() {
            if !rows.contains(&more) && self.ledger.contains_key(&more) {
                rows.push(more);
            }
        }
        for point in rows {
            let Some(summary) = self.summary(point) else { continue };
            let mark = match () {
                () if Some(point) == self.chosen => "->",
                () if point == self.start => "as is",
                () => "",
            };
            table.add_row([
                mark.to_owned(),
                point.arrangement.to_string(),
                self.load(point),
                format!("{:.0}", summary.per_second),
                format!("{:.0}..{:.0}", summary.least_per_second, summary.most_per_second),
                milliseconds(summary.p50_us),
                milliseconds(summary.p99_us),
                format!("{:.1}", summary.cpu_us),
            ]);
        }
        for column in table.column_iter_mut().skip(3) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!("{}\n", table.trim_fmt())
    }

    fn load(&self, point: Point) -> String {
        self.goal.rate.map_or_else(|| format!("c={}", point.load), |rate| format!("{rate}/s"))
    }

    /// Which point, and why.
    pub(super) fn choice(&self) -> String {
        let Some((point, summary)) = self.chosen.and_then(|point| Some((point, self.summary(point)?))) else {
            return "nothing was measured long enough to choose".to_owned();
        };
        let what = format!("{} at {}", point.arrangement, self.load(point));
        let figures =
            format!("{:.0} requests/s with a p99 of {} ms", summary.per_second, milliseconds(summary.p99_us));
        let slo = self.goal.slo.map(|slo| format!("{} ms", milliseconds(micros(slo))));
        if !self.does() {
            let missed = match (&slo, summary.failure_or_none()) {
                (_, Some(failed)) => format!("{failed} requests failed ({})", self.failure(point)),
                (Some(slo), None) => format!("no point keeps a p99 of {slo}"),
                (None, None) => "no point keeps up with the rate".to_owned(),
            };
            return format!("{missed}; the nearest is {what}: {figures}. Nothing is written.");
        }
        let why = match (slo, self.goal.rate) {
            (Some(slo), Some(_)) => format!("the lowest p99 of all that keep up, below the {slo} asked for"),
            (None, Some(_)) => "the lowest p99 of all that keep up".to_owned(),
            (Some(slo), None) => format!("the highest throughput of all whose p99 is at most {slo}"),
            (None, None) => {
                "the highest throughput (no --slo-p99 was given), and of those within 2 % the lowest p99"
                    .to_owned()
            }
        };
        let gain =
            self.summary(self.start).filter(|start| start.per_second > 0.0 && self.goal.rate.is_none());
        let gain = gain.filter(|_| self.start != point).map(|start| {
            let times = summary.per_second / start.per_second;
            format!("; {times:.2} times the throughput of the model as it is under this load")
        });
        let (now, then) = (self.start.arrangement.batch, point.arrangement.batch);
        let fewer = (0 < then && then < now)
            .then(|| format!("; a request may then have no more than {then} rows, now it is {now}"));
        format!("chosen: {what}: {figures}: {why}{}{}", gain.unwrap_or_default(), fewer.unwrap_or_default())
    }

    /// The words of the first request of a point that failed.
    fn failure(&self, point: Point) -> &str {
        self.ledger.get(&point).and_then(|record| record.failure.as_deref()).unwrap_or("no reason given")
    }

    fn exhaustive(&self, grid: &Grid) -> String {
        let ratio =
            grid.ratio.map_or_else(|| "no point of it does".to_owned(), |ratio| format!("{ratio:.3}"));
        format!(
            "exhaustive: {} points, the hopeful ones twice, in {:.0} s, then the best and the chosen one in turn\n  best     {} at {}: {:.0} requests/s, p99 {} ms\n  chosen   {:.0} requests/s, p99 {} ms\n  ratio    {ratio}",
            grid.points,
            grid.seconds,
            grid.best.arrangement,
            self.load(grid.best),
            grid.best_summary.per_second,
            milliseconds(grid.best_summary.p99_us),
            grid.chosen_summary.per_second,
            milliseconds(grid.chosen_summary.p99_us),
        )
    }

    /// For machines.
    pub(super) fn json(&self, config: Option<&Config>) -> String {
        let on_front = front(&self.ledger);
        let all: Vec<Value> = self
            .ledger
            .keys()
            .filter_map(|point| {
                let mut value = self.point(*point)?;
                value["front"] = json!(on_front.contains(point));
                Some(value)
            })
            .collect();
        let grid = self.grid.as_ref().map(|grid| {
            json!({"points": grid.points, "seconds": grid.seconds, "best": grid.best.arrangement.to_string(),
                "best_load": grid.best.load, "best_per_second": grid.best_summary.per_second,
                "chosen_per_second": grid.chosen_summary.per_second, "ratio": grid.ratio})
        });
        let report = json!({
            "model": self.model,
            "engine": self.engine,
            "data": self.requests,
            "notes": self.notes,
            "slo_p99_us": self.goal.slo.map(micros),
            "rate": self.goal.rate,
            "seconds": self.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "grid_points": self.points,
            "start": self.point(self.start),
            "chosen": self.chosen.and_then(|point| self.point(point)),
            "does": self.does(),
            "why": self.choice(),
            "points": all,
            "config_pbtxt": config.map(|config| config.pbtxt.clone()),
            "yaml": config.map(|config| config.yaml.clone()),
            "exhaustive": grid,
        });
        format!("{report}\n")
    }

    fn point(&self, point: Point) -> Option<Value> {
        let summary = self.summary(point)?;
        let (instances, threads) = match point.arrangement.class {
            super::space::Class::Inline => (None, None),
            super::space::Class::Queued { instances, threads } => (Some(instances), Some(threads)),
        };
        Some(json!({
            "instances": instances, "threads": threads, "batch": point.arrangement.batch,
            "delay_us": point.arrangement.delay_us, "concurrency": point.load,
            "per_second": summary.per_second, "p50_us": summary.p50_us, "p99_us": summary.p99_us,
            "cpu_us": summary.cpu_us, "slices": summary.slices, "failed": summary.failed,
        }))
    }
}

impl Summary {
    fn failure_or_none(&self) -> Option<u64> {
        (self.failed > 0).then_some(self.failed)
    }
}

/// Microseconds as milliseconds, with digits that fit.
pub(super) fn milliseconds(us: f64) -> String {
    match us / 1000.0 {
        ms if ms < 1.0 => format!("{ms:.3}"),
        ms if ms < 100.0 => format!("{ms:.1}"),
        ms => format!("{ms:.0}"),
    }
}
