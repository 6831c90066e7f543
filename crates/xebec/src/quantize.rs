//! `xebec quantize`: a smaller and faster copy of a model, with what it loses and gains.
//!
//! The rewriting is onnxruntime's own, in a Python environment that the caller names (`rewriting`); the measuring is ours,
//! in the engine that serves. Invariant: a copy that loses more than was allowed is not written, and nothing stays behind.
use crate::{
    interrupt,
    local::{
        self, Graph, Local,
        data::{self, Cut, Requests},
    },
};
use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use loss::Loss;
pub use loss::Metric;
use pair::Pair;
use report::Report;
use rewriting::{Job, Workplace};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

mod loss;
mod pair;
mod report;
mod rewriting;
mod speed;

/// How a copy is made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Weights in 8 bits, activations in 8 bits by each run's own range. Needs no data.
    Dynamic,
    /// Weights and activations in 8 bits, activations by the range that calibration data shows.
    Static,
    /// Everything inside in 16-bit floats; inputs and outputs stay as they are.
    Fp16,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Static => "static",
            Self::Fp16 => "fp16",
        }
    }
}

/// Flags of `xebec quantize`.
#[derive(Clone, Debug, Args)]
pub struct QuantizeArgs {
    /// An .onnx file.
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The copy; must not be there yet.
    #[arg(long, short, value_name = "OUT.onnx")]
    pub output: PathBuf,
    /// How.
    #[arg(long, value_enum)]
    pub mode: Mode,
    /// Python of an environment with onnx and onnxruntime.
    #[arg(long, value_name = "FILE")]
    pub python: PathBuf,
    /// Data that shows the range of activations, for --mode static: .json (v2 infer requests), .csv or .npz.
    #[arg(long, value_name = "FILE", required_if_eq("mode", "static"))]
    pub calibration: Option<PathBuf>,
    /// Data to measure the loss on; random inputs if not given.
    #[arg(long, value_name = "FILE")]
    pub eval: Option<PathBuf>,
    /// Do not write a copy that loses more than this by --metric.
    #[arg(long, value_name = "LOSS", value_parser = loss)]
    pub max_loss: Option<f64>,
    /// What --max-loss is about: 0 is equal, more is worse.
    #[arg(long, value_enum, default_value = "relative")]
    pub metric: Metric,
    /// A scale for each channel of the weights instead of one for all.
    #[arg(long)]
    pub per_channel: bool,
    /// Weights in 7 bits: more exact on x86 processors without VNNI.
    #[arg(long)]
    pub reduce_range: bool,
    /// Extent of the free axes of random inputs, for example a sequence's length.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    pub free_extent: i64,
    /// Longest time of the rewriting, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1800", value_parser = crate::bench::some_seconds)]
    pub timeout: f64,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// ONNX Runtime's library; else it is looked for as a server does.
    #[arg(long, value_name = "FILE")]
    pub onnxruntime_library: Option<PathBuf>,
}

fn loss(raw: &str) -> Result<f64, String> {
    let number = raw.parse().ok().filter(|loss: &f64| *loss >= 0.0 && loss.is_finite());
    number.ok_or_else(|| "must be a number, 0 or more".into())
}

/// Rows of a request of a CSV or NPZ file, and requests by chance.
const ROWS: i64 = 32;
const RANDOM: u64 = 8;

/// Rows of the runs that are timed.
const TIMED_ROWS: [i64; 3] = [1, 8, 32];

/// Makes a copy, measures it, prints what it loses and gains, and keeps it if that may be.
///
/// # Errors
/// The model or the data does not do, Python lacks something, or the copy cannot be measured or written.
pub fn command(args: &QuantizeArgs) -> anyhow::Result<ExitCode> {
    ensure!(!args.output.exists(), "{} is there already and is not overwritten", args.output.display());
    ensure!(args.model.is_file(), "there is no file {}", args.model.display());
    let local = Local::start(args.onnxruntime_library.as_deref())?;
    let candidate = local::open(&args.model)?;
    let Graph { info, external, .. } = local.graph(&candidate)?;
    let rows = |rows| Cut { rows, free: args.free_extent, count: RANDOM };
    let eval = data::read(args.eval.as_deref(), &info, rows(ROWS)).context("--eval")?;
    let calibration = args.calibration.as_deref().filter(|_| args.mode == Mode::Static);
    let calibration: Option<Requests> = calibration
        .map(|file| data::read(Some(file), &info, rows(1)))
        .transpose()
        .context("--calibration")?;
    let stop = interrupt::on_interrupt()?;
    let workplace = Workplace::beside(&args.output)?;
    let job = Job {
        mode: args.mode,
        model: &args.model,
        external: &external,
        python: &args.python,
        per_channel: args.per_channel,
        reduce_range: args.reduce_range,
        calibration: calibration.as_ref(),
        limit: Duration::from_secs_f64(args.timeout),
    };
    let tool = rewriting::run(&job, &workplace, &stop)?;
    let mut pair = Pair::load(&local, &candidate, &workplace.copy())?;
    let losses = pair.compare(&eval.all)?;
    let mut speeds = Vec::new();
    let timed = if pair.has_rows { TIMED_ROWS.as_slice() } else { &[1] };
    for &rows in timed {
        ensure!(!stop.load(Relaxed), "interrupted: nothing is written");
        speeds.push(speed::measure(&mut pair, &eval.all, rows)?);
    }
    let kept = allowed(&losses, args.metric, args.max_loss)?;
    let report =
        Report { args, engine: local.engine(), tool, eval: eval.what, losses, speeds, pair: &pair, kept };
    let text = if args.json { report.json() } else { report.text() };
    if kept {
        keep(&workplace.copy(), &args.output)?;
    }
    crate::cli::show(text.as_bytes())?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a copy may be written.
fn allowed(losses: &[Loss], metric: Metric, most: Option<f64>) -> anyhow::Result<bool> {
    let Some(most) = most else { return Ok(true) };
    let worst = loss::worst(losses, metric).with_context(|| {
        format!("the model has no output that {metric:?} is measured of; choose another --metric")
    })?;
    Ok(worst <= most)
}

/// Moves the copy into place, unless somebody else has made a file there meanwhile.
fn keep(copy: &Path, out: &Path) -> anyhow::Result<()> {
    fs::hard_link(copy, out)
        .or_else(|error| match error.kind() {
            // Some file systems have no links; there the window between look and move is a short one.
            std::io::ErrorKind::Unsupported | std::io::ErrorKind::PermissionDenied if !out.exists() => {
                fs::rename(copy, out)
            }
            _ => Err(error),
        })
        .with_context(|| format!("cannot write {}", out.display()))
}
