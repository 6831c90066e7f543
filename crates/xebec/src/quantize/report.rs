//! What a copy loses and gains, as tables and as JSON.
use super::{
    Metric, Mode, QuantizeArgs,
    loss::{Loss, worst},
    pair::{Half, Pair},
    rewriting::Tool,
    speed::Speed,
};
use clap::ValueEnum as _;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde_json::{Value, json};
use xebec_engine::onnx::Batchability;

const METRICS: [Metric; 5] =
    [Metric::MaxAbs, Metric::MeanAbs, Metric::Relative, Metric::Cosine, Metric::Top1];

/// What is told of a copy.
pub(super) struct Report<'a> {
    pub(super) args: &'a QuantizeArgs,
    pub(super) engine: String,
    pub(super) tool: Tool,
    /// What the loss was measured on.
    pub(super) eval: String,
    pub(super) losses: Vec<Loss>,
    pub(super) speeds: Vec<Speed>,
    pub(super) pair: &'a Pair,
    pub(super) kept: bool,
}

impl Report<'_> {
    /// For people.
    pub(super) fn text(&self) -> String {
        let versions: Vec<String> =
            self.tool.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let (before, after) = (self.pair.original.bytes, self.pair.copy.bytes);
        format!(
            "mode     {} by {} ({})\nengine   {}\ndata     {}\nsize     {before} bytes, the copy {after}: {:.2} of it\n{}\nloss (0 is equal)\n{}\ntime of a run, medians of turns\n{}\n{}\n",
            self.args.mode.name(),
            self.tool.tool,
            versions.join(", "),
            self.engine,
            self.eval,
            share(after, before),
            self.sharing(),
            self.loss_table(),
            self.speed_table(),
            self.verdict(),
        )
    }

    /// Whether requests to the copy share runs, by the engine's own judgement.
    fn sharing(&self) -> String {
        match (reason(&self.pair.original), reason(&self.pair.copy)) {
            (_, None) => "batching requests of different callers may share a run, as of the original".into(),
            (None, Some(reason)) => {
                let instead = match self.args.mode {
                    Mode::Dynamic => "\n         A copy of --mode static keeps rows apart.",
                    Mode::Static | Mode::Fp16 => "",
                };
                format!(
                    "batching requests of different callers never share a run of this copy, as they do of the original: {reason}.{instead}"
                )
            }
            (Some(_), Some(reason)) => {
                format!("batching requests never share a run, of the original neither: {reason}")
            }
        }
    }

    fn loss_table(&self) -> String {
        let mut table = plain();
        table.set_header(["output".to_owned()].into_iter().chain(METRICS.iter().map(|metric| name(*metric))));
        for loss in &self.losses {
            let cell =
                |metric: &Metric| loss.by(*metric).map_or_else(|| "-".into(), |loss| format!("{loss:.3e}"));
            table.add_row([loss.output.clone()].into_iter().chain(METRICS.iter().map(cell)));
        }
        aligned(table)
    }

    fn speed_table(&self) -> String {
        let mut table = plain();
        table.set_header([
            "rows",
            "original us",
            "copy us",
            "faster",
            "original CPU us",
            "copy CPU us",
            "less CPU",
        ]);
        for Speed { rows, original, copy } in &self.speeds {
            table.add_row([
                rows.to_string(),
                format!("{:.1}", original.wall_us),
                format!("{:.1}", copy.wall_us),
                format!("{:.2} x", original.wall_us / copy.wall_us),
                format!("{:.1}", original.cpu_us),
                format!("{:.1}", copy.cpu_us),
                format!("{:.2} x", original.cpu_us / copy.cpu_us),
            ]);
        }
        aligned(table)
    }

    fn verdict(&self) -> String {
        let out = self.args.output.display();
        let metric = self.args.metric;
        let worst = worst(&self.losses, metric).unwrap_or(f64::NAN);
        match (self.kept, self.args.max_loss) {
            (true, None) => format!("written: {out} (no --max-loss was given)"),
            (true, Some(most)) => {
                format!("written: {out}: its loss by {}, {worst:.3e}, is at most {most}", name(metric))
            }
            (false, most) => format!(
                "not written: the loss by {}, {worst:.3e}, is more than {}",
                name(metric),
                most.unwrap_or(0.0)
            ),
        }
    }

    /// For machines.
    pub(super) fn json(&self) -> String {
        let losses: serde_json::Map<String, Value> = self
            .losses
            .iter()
            .map(|loss| {
                let by: serde_json::Map<String, Value> =
                    METRICS.iter().map(|metric| (name(*metric), json!(loss.by(*metric)))).collect();
                (loss.output.clone(), Value::Object(by))
            })
            .collect();
        let speeds: Vec<Value> = self
            .speeds
            .iter()
            .map(|Speed { rows, original, copy }| {
                json!({"rows": rows, "original_us": original.wall_us, "copy_us": copy.wall_us,
                    "original_cpu_us": original.cpu_us, "copy_cpu_us": copy.cpu_us})
            })
            .collect();
        let report = json!({
            "mode": self.args.mode.name(),
            "tool": self.tool.tool,
            "versions": self.tool.versions,
            "engine": self.engine,
            "data": self.eval,
            "original_bytes": self.pair.original.bytes,
            "copy_bytes": self.pair.copy.bytes,
            "shares_runs": reason(&self.pair.copy).is_none(),
            "why_not": reason(&self.pair.copy),
            "loss": losses,
            "metric": name(self.args.metric),
            "worst": worst(&self.losses, self.args.metric),
            "max_loss": self.args.max_loss,
            "runs": speeds,
            "written": self.kept,
        });
        format!("{report}\n")
    }
}

/// Why requests never share a run, if so.
fn reason(half: &Half) -> Option<&str> {
    match &half.shares {
        Batchability::Yes => None,
        Batchability::No { reason } => Some(reason),
    }
}

fn name(metric: Metric) -> String {
    metric.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "bytes of files fit a double")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

fn aligned(mut table: Table) -> String {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n", table.trim_fmt())
}
