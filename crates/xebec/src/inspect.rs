//! `xebec inspect`: what an ONNX file holds, which of its operators stop batching, and what a run costs here.
//!
//! Not here: what is found out (`xebec_engine::inspect`).
use crate::{
    cli::{say, show},
    local::{self, Local},
};
use anyhow::Context as _;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, io::IsTerminal as _, path::PathBuf, time::Duration};
use xebec_engine::{
    formats,
    inspect::{self, Cost, Inspection},
    onnx::{Dim, ValueInfo, ValueKind},
};

/// Flags of `xebec inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// An .onnx file or a model's folder.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Do not run the model: look at its file alone.
    #[arg(long)]
    pub no_run: bool,
    /// ONNX Runtime's library; else it is looked for as a server does.
    #[arg(long, value_name = "FILE")]
    pub onnxruntime_library: Option<PathBuf>,
}

/// Runs `xebec inspect`.
///
/// # Errors
/// It is no ONNX model, or it cannot be read.
pub fn command(args: &InspectArgs) -> anyhow::Result<()> {
    if let Some(foreign) = formats::of_path(&args.model) {
        anyhow::bail!("{} is {}, not ONNX; {}", args.model.display(), foreign.format, foreign.way_out);
    }
    let candidate = local::open(&args.model)?;
    let version = local::newest(&candidate)?;
    let file = candidate.versions.get(&version).context("the model has no version")?;
    let inspection = inspect::inspect(file)?;
    let labels = candidate.labels.iter().map(|(label, version)| (label.to_string(), version.get())).collect();
    let mut report =
        Report { version: version.get(), labels, inspection, engine: None, costs: Vec::new(), why_not: None };
    if !args.no_run {
        let local = Local::start(args.onnxruntime_library.as_deref())?;
        let bar = spinner();
        let told = |rows: u32| bar.set_message(format!("running {rows} rows"));
        let costs = inspect::cost(&**local.backend(), &candidate, version, &local.settings, &told);
        bar.finish_and_clear();
        report.engine = Some(local.engine());
        match costs {
            Ok(costs) => report.costs = costs,
            // What the file says is worth telling all the same.
            Err(error) => report.why_not = Some(format!("{:#}", anyhow::Error::from(error))),
        }
    }
    let text = if args.json { serde_json::to_string_pretty(&report.json())? + "\n" } else { report.text() };
    if let Some(reason) = report.why_not.filter(|_| !args.json) {
        say(&format!("warning: it cannot be run as it is: {reason}; xebec doctor tells more"));
    }
    Ok(show(text.as_bytes())?)
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

struct Report {
    version: u64,
    labels: BTreeMap<String, u64>,
    inspection: Inspection,
    engine: Option<String>,
    costs: Vec<Cost>,
    why_not: Option<String>,
}

impl Report {
    fn text(&self) -> String {
        let of = &self.inspection;
        let mut text = String::new();
        let opsets: Vec<String> =
            of.opsets.iter().map(|(domain, version)| format!("{domain} {version}")).collect();
        // Writing into a String has no error to give.
        let _ = writeln!(text, "file        {}", of.path.display());
        let labels: Vec<String> =
            self.labels.iter().map(|(label, version)| format!("{label} is {version}")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("; {}", labels.join(", ")) };
        let _ = writeln!(text, "version     {}{labels}", self.version);
        let _ = writeln!(text, "bytes       {}", of.bytes);
        let _ = writeln!(text, "sha256      {}", of.sha256);
        let _ =
            writeln!(text, "producer    {}", if of.producer.is_empty() { "unknown" } else { &of.producer });
        let _ = writeln!(
            text,
            "format      ONNX, IR version {}, operator sets {}",
            of.ir_version,
            opsets.join(", ")
        );
        let constants = of.parameters;
        let _ = writeln!(
            text,
            "parameters  {} in {} tensors, {} bytes",
            constants.elements, constants.tensors, constants.bytes
        );
        for (file, bytes) in &of.external {
            let _ = writeln!(text, "external    {} ({bytes} bytes)", file.display());
        }
        section(&mut text, "inputs", of.inputs.iter().map(shown));
        section(&mut text, "inputs with a default", of.defaults.iter().map(shown));
        section(&mut text, "outputs", of.outputs.iter().map(shown));
        let mut operators: Vec<_> = of.operators.iter().collect();
        operators.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        section(&mut text, "operators", operators.iter().map(|(name, count)| format!("{count:>6}  {name}")));
        if of.stops.is_empty() {
            text.push_str("\nbatching\n  no operator stops it: rows of different callers can share a run\n");
        } else {
            section(&mut text, "batching: every request runs alone", of.stops.iter().cloned());
        }
        if !self.costs.is_empty() {
            let _ =
                writeln!(text, "\ncost per run, on zeros, by {}", self.engine.as_deref().unwrap_or_default());
            text.push_str(&self.table());
        }
        text
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["rows", "us a run", "us a row"]);
        for cost in &self.costs {
            match &cost.took {
                Ok(took) => {
                    let micros = took.as_secs_f64() * 1e6;
                    table.add_row([
                        cost.rows.to_string(),
                        format!("{micros:.1}"),
                        format!("{:.1}", micros / f64::from(cost.rows)),
                    ]);
                }
                Err(reason) => {
                    table.add_row([cost.rows.to_string(), "failed".to_owned(), reason.clone()]);
                }
            }
        }
        for column in table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt() + "\n"
    }

    fn json(&self) -> Value {
        let of = &self.inspection;
        let values = |values: &[ValueInfo]| values.iter().map(value_json).collect::<Vec<_>>();
        let cost = |cost: &Cost| match &cost.took {
            Ok(took) => json!({"rows": cost.rows, "microseconds": took.as_secs_f64() * 1e6}),
            Err(reason) => json!({"rows": cost.rows, "error": reason}),
        };
        json!({
            "file": of.path.display().to_string(),
            "version": self.version,
            "labels": self.labels,
            "bytes": of.bytes,
            "sha256": of.sha256,
            "producer": of.producer,
            "ir_version": of.ir_version,
            "opsets": of.opsets.iter().map(|(domain, version)| (domain.clone(), json!(version))).collect::<serde_json::Map<_, _>>(),
            "parameters": {"tensors": of.parameters.tensors, "elements": of.parameters.elements, "bytes": of.parameters.bytes},
            "external": of.external.iter().map(|(file, bytes)| json!({"file": file.display().to_string(), "bytes": bytes})).collect::<Vec<_>>(),
            "inputs": values(&of.inputs),
            "defaults": values(&of.defaults),
            "outputs": values(&of.outputs),
            "operators": of.operators,
            "stops_batching": of.stops,
            "engine": self.engine,
            "cost": self.costs.iter().map(cost).collect::<Vec<_>>(),
            "cost_error": self.why_not,
        })
    }
}

fn section(text: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for line in lines {
        let _ = writeln!(text, "  {line}");
    }
}

fn extents(shape: &Option<Vec<Dim>>) -> Vec<String> {
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) => extent.to_string(),
        Dim::Named(name) => name.clone(),
        Dim::Free => "?".to_owned(),
    };
    shape.iter().flatten().map(extent).collect()
}

fn shown(value: &ValueInfo) -> String {
    match &value.kind {
        ValueKind::Tensor { elem, shape } => {
            format!("{}  {elem} [{}]", value.name, extents(shape).join(", "))
        }
        other => format!("{}  {other:?}", value.name),
    }
}

fn value_json(value: &ValueInfo) -> Value {
    match &value.kind {
        ValueKind::Tensor { elem, shape } => {
            json!({"name": value.name, "type": elem.to_string(), "shape": shape.as_ref().map(|_| extents(shape))})
        }
        other => json!({"name": value.name, "type": format!("{other:?}")}),
    }
}
