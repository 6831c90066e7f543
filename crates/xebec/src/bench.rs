//! `xebec bench`: load on any server of the Open Inference Protocol, and what came of it.
//!
//! Closed loop: so many requests are in flight, always. Open loop (`--rate`): requests come at a constant rate whatever
//! the server does, and latencies count from when a request was due, so that a stall is not hidden. The generator
//! reports its own processor time: a figure taken with a generator at its limit says little about the server.
use crate::inputs;
use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use payload::Payload;
use plan::Plan;
pub use report::{Latencies, Report};
use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use target::Target;

mod grpc;
mod http;
mod payload;
mod plan;
mod report;
mod tally;
mod target;

/// A protocol to send by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// REST with numbers as text.
    Json,
    /// REST with binary tensors.
    Binary,
    /// gRPC with raw contents.
    Grpc,
}

/// Form of the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    #[default]
    Table,
    /// For machines, one JSON object.
    Json,
}

/// Flags of `xebec bench`.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Name of the model.
    pub model: String,
    /// The server: http://host:port for REST, host:port or grpc://host:port for gRPC.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// What to send by; by the URL's scheme if not given.
    #[arg(long, value_enum)]
    pub protocol: Option<Protocol>,
    /// Version of the model, by number or label; the newest if not given.
    #[arg(long, value_name = "N")]
    pub model_version: Option<String>,
    /// Requests in flight (closed loop, 1 if not given), or at most in flight (open loop, 256 if not given).
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Option<u32>,
    /// Open loop: requests per second, whatever the server does.
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// Open loop: send what is due and read what came every 2 ms, instead of looking at the clock, which takes a
    /// core from a server on the same machine.
    #[arg(long, requires = "rate")]
    pub coarse: bool,
    /// How long to measure, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = some_seconds)]
    pub duration: f64,
    /// How long to send before measuring, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub warm_up: f64,
    /// How long to wait after the end for answers that are still out, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub patience: f64,
    /// End after so many measured requests.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub requests: Option<u64>,
    /// A v2 infer request as JSON to send; random values by the model's metadata if not given.
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Rows of a random request to a model with a batch axis.
    #[arg(long, value_name = "ROWS", conflicts_with = "input", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub rows: i64,
    /// Extent of the other free axes of a random request, for example a sequence's length.
    #[arg(long, value_name = "N", conflicts_with = "input", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub free_extent: i64,
    /// Connections of gRPC; one per 16 requests in flight, at most 4, if not given. REST has one per request.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: Option<u32>,
    /// Threads of the generator.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Form of the report.
    #[arg(long, value_enum, default_value_t)]
    pub output: Form,
}

/// Most requests in flight of an open loop: enough that one that stalls does not hold back the others.
const OPEN_LOOP_CONCURRENCY: u32 = 256;

impl BenchArgs {
    /// Requests in flight.
    fn concurrency(&self) -> u32 {
        self.concurrency.unwrap_or(if self.rate.is_some() { OPEN_LOOP_CONCURRENCY } else { 1 })
    }
}

/// The most seconds that a duration may be given as: a year.
const LONGEST_SECONDS: f64 = 366.0 * 86_400.0;

fn positive(raw: &str) -> Result<f64, String> {
    let number = raw.parse().ok().filter(|number: &f64| *number > 0.0 && number.is_finite());
    number.ok_or_else(|| "must be a number above 0".into())
}

/// With or without the unit: 10 or 10s.
fn seconds(raw: &str) -> Result<f64, String> {
    let number = raw.strip_suffix('s').unwrap_or(raw).parse().ok();
    let number = number.filter(|number: &f64| (0.0..=LONGEST_SECONDS).contains(number));
    number.ok_or_else(|| "must be seconds, 0 or more, such as 0.5 or 10s".into())
}

pub(crate) fn some_seconds(raw: &str) -> Result<f64, String> {
    let number = seconds(raw)?;
    if number > 0.0 { Ok(number) } else { Err("must be more than 0 seconds".into()) }
}

/// Runs and prints.
///
/// # Errors
/// The server cannot be reached, does not know the model, went away, or answered no measured request well.
pub fn command(args: &BenchArgs) -> anyhow::Result<()> {
    let bar = if std::io::stderr().is_terminal() { progress(args) } else { ProgressBar::hidden() };
    let report = run(args);
    bar.finish_and_clear();
    let report = report?;
    let mut text = Vec::new();
    report.print(args.output, &mut text)?;
    crate::cli::show(&text)?;
    ensure!(
        report.gave_up == 0,
        "the server went away: {} of {} lanes found nobody to connect to, and the load ended after {:.1} s",
        report.gave_up,
        args.concurrency(),
        report.seconds
    );
    ensure!(report.good > 0, "no measured request was answered well");
    Ok(())
}

fn progress(args: &BenchArgs) -> ProgressBar {
    let total = Duration::from_secs_f64(args.warm_up + args.duration);
    let bar = ProgressBar::new(u64::try_from(total.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("measuring {bar:40} {elapsed} of {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(format!("{:.0} s", total.as_secs_f64()));
    let (ticking, started) = (bar.downgrade(), Instant::now());
    // Ends by itself once the bar is dropped.
    std::thread::spawn(move || {
        while let Some(bar) = ticking.upgrade() {
            bar.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
            drop(bar);
            std::thread::park_timeout(Duration::from_millis(100));
        }
    });
    bar
}

/// A thread of the generator.
type Worker = std::thread::JoinHandle<anyhow::Result<tally::Tally>>;

/// How often it is looked whether a load is over; seldom enough to cost it nothing.
const GLANCE: Duration = Duration::from_millis(20);

/// Runs a load and returns what came of it.
///
/// # Errors
/// As [`command`].
pub fn run(args: &BenchArgs) -> anyhow::Result<Report> {
    let target = Target::parse(args.url.as_deref(), args.protocol)?;
    let tensors = match &args.input {
        Some(file) => inputs::from_file(file)?,
        None => {
            let metadata = target.metadata(&args.model, args.model_version.as_deref())?;
            inputs::random(&metadata.slots()?, args.rows, args.free_extent, 0)?
        }
    };
    let version = args.model_version.as_deref().unwrap_or_default();
    let payload = Arc::new(Payload::new(&target, &args.model, version, &tensors)?);
    target.send_once(&payload).with_context(|| format!("a first request to '{}' failed", args.model))?;
    let plan = Arc::new(Plan::new(args, target.clone()));
    let threads: Vec<Worker> = (0..args.threads)
        .map(|thread| {
            let (plan, payload) = (Arc::clone(&plan), Arc::clone(&payload));
            std::thread::spawn(move || plan::worker(thread, &plan, &payload))
        })
        .collect();
    let share = generator_share(&plan, &threads);
    let mut tallies = Vec::new();
    for thread in threads {
        let tally = thread.join().map_err(|_| anyhow::anyhow!("a thread of the generator panicked"))?;
        tallies.push(tally?);
    }
    Report::new(args, &plan, tallies, share)
}

/// Processor time of the generator over wall time, within what is measured; waits for its end.
fn generator_share(plan: &Plan, threads: &[Worker]) -> f64 {
    let over = || threads.iter().all(std::thread::JoinHandle::is_finished);
    let wait_until = |until: Instant| {
        while Instant::now() < until && !over() {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()).min(GLANCE));
        }
    };
    wait_until(plan.measured_from);
    let (began, before) = (Instant::now(), report::own_cpu());
    wait_until(plan.until);
    let used = report::own_cpu().saturating_sub(before).as_secs_f64();
    used / began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)
}
