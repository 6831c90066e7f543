//! `xebec tune`: which arrangement of a model answers most, or soonest, on this machine.
//!
//! The model runs in this process, behind the same queues, batches and threads as in a server, under load from threads
//! that submit as I/O threads do. Sockets and protocols are left out on purpose: what they cost is the same for every
//! arrangement, and their noise would hide the differences. The search is in `search`, what is tried in `space`.
//!
//! Not here: load over the network (`bench`).
use crate::{
    interrupt, local,
    local::{
        Local,
        data::{self, Cut, Requests},
    },
};
use anyhow::{Context as _, bail, ensure};
use clap::Args;
use house::House;
use indicatif::{ProgressBar, ProgressStyle};
use record::Goal;
use report::Report;
use search::{Ledger, Search};
use space::{Arrangement, Class, Point, Space};
use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};
use xebec_core::{
    model_config::{ModelDynamicBatching, model_config::SchedulingChoice},
    port::Upstream as _,
    resource::Objective,
};
use xebec_engine::{
    repository::{Candidate, complete::Defaults},
    served::Served,
};

mod chart;
mod grid;
mod house;
mod load;
mod pbtxt;
mod record;
mod report;
mod search;
mod space;
mod write;

/// Flags of `xebec tune`.
#[derive(Clone, Debug, Args)]
pub struct TuneArgs {
    /// An .onnx file, or a model folder in Triton's layout.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// The p99 to keep, such as 10ms; without one the highest throughput is looked for.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub slo_p99: Option<Duration>,
    /// Open loop: requests a second; the lowest p99 of those that keep up is looked for.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "concurrency")]
    pub rate: Option<f64>,
    /// Closed loop: requests in flight, one number or several.
    #[arg(long, short, value_name = "N,..", value_delimiter = ',', default_values_t = [1, 4, 16, 64], value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: Vec<u32>,
    /// Longest time of the search, such as 5m or 90s.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    pub time: Duration,
    /// Instances to try; by the cores if not given. A tiny model is tried without a count (inline) too.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub instances: Vec<u32>,
    /// Threads of a run to try; by the cores if not given.
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: Vec<u32>,
    /// Most rows of a run to try; a request may then have no more rows either. If not given, no fewer than it may have now.
    #[arg(long, value_name = "ROWS,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub batch: Vec<u32>,
    /// Microseconds for which a busy instance waits for company, to try.
    #[arg(long, value_name = "MICROSECONDS,..", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pub delay: Vec<u64>,
    /// Requests to send: .json (v2 infer requests), .csv or .npz (rows); random ones if not given.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Rows of a request that is made of a CSV or NPZ file or by chance.
    #[arg(long, value_name = "ROWS", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=65536))]
    pub rows: i64,
    /// Extent of the other free axes of a random request, for example a sequence's length.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..=1_000_000))]
    pub free_extent: i64,
    /// Write what was chosen: into the folder's config.pbtxt (the old one stays as config.pbtxt.bak), or, of a bare file,
    /// into a new document for `xebec up` beside it.
    #[arg(long)]
    pub write: bool,
    /// Write a chart of throughput against p99.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// After the search, measure every point of the grid and say how near the search came. Takes long; --time does not
    /// bound it.
    #[arg(long)]
    pub exhaustive: bool,
    /// ONNX Runtime's library; else it is looked for as a server does.
    #[arg(long, value_name = "FILE")]
    pub onnxruntime_library: Option<PathBuf>,
}

/// A time with its unit: 10ms, 250us, 90s, 5m.
fn time(raw: &str) -> Result<Duration, String> {
    let wrong = || format!("'{raw}' is not a time above 0 with its unit, such as 250us, 10ms, 90s or 5m");
    let end = raw.find(|letter: char| letter.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (number, unit) = raw.split_at(end);
    let unit = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    let seconds = seconds.filter(|seconds| (1e-6..=1e6).contains(seconds)).ok_or_else(wrong)?;
    Ok(Duration::from_secs_f64(seconds))
}

fn rate(raw: &str) -> Result<f64, String> {
    let number = raw.parse().ok().filter(|rate: &f64| (0.1..=1e7).contains(rate));
    number.ok_or_else(|| "must be requests a second, from 0.1 to 10000000".into())
}

/// Searches, prints, and writes what was asked for.
///
/// # Errors
/// The model cannot be served, the data does not fit, or a file cannot be written.
pub fn command(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let candidate = local::open(&args.model)?;
    if let Some(field) = candidate.config.as_ref().and_then(pbtxt::beyond) {
        bail!(
            "instance_group.{field} of config.pbtxt: tune measures instances on the CPU alone, and would take it out; tune a copy of the model without it"
        );
    }
    let target = write::Target::of(&args.model, &candidate)?;
    if args.write {
        target.check()?;
    }
    let mut tuning = Tuning::start(args, candidate)?;
    let report = tuning.search()?;
    if let Some(file) = &args.svg {
        std::fs::write(file, chart::svg(&report))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let config = report.chosen().map(|point| target.config(point.arrangement)).transpose()?;
    let text = if args.json { report.json(config.as_ref()) } else { report.text(config.as_ref()) };
    crate::cli::show(text.as_bytes())?;
    let written = config.filter(|_| args.write && report.does());
    if let Some(config) = written {
        crate::cli::say(&config.write()?);
    }
    Ok(if report.does() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A search with what it needs.
struct Tuning<'a> {
    args: &'a TuneArgs,
    space: Space,
    start: Point,
    fallback: Option<Point>,
    goal: Goal,
    engine: String,
    requests: String,
    notes: Vec<String>,
    model: String,
    house: House,
}

impl<'a> Tuning<'a> {
    fn start(args: &'a TuneArgs, candidate: Candidate) -> anyhow::Result<Self> {
        let local = Local::start(args.onnxruntime_library.as_deref())?;
        let (engine, cores) = (local.engine(), local.settings.defaults.cores.max(1));
        let objective = objective(&candidate, &local.settings.defaults);
        // As it is configured now.
        let served = local.serve(&candidate)?;
        let cut = Cut { rows: args.rows, free: args.free_extent, count: 64 };
        let Requests { all, what } = data::read(args.data.as_deref(), served.info(), cut)?;
        let here = at_hand(&candidate, &served, &local.settings.defaults);
        drop(served);
        let (space, notes) = space(args, &local, &candidate, here, rows_of(&all))?;
        let (model, stop) = (candidate.name.to_string(), interrupt::on_interrupt()?);
        let house = House::new(local, candidate, all, args.rate, stop)?;
        let load = space.loads.get(space.loads.len() / 2).copied().unwrap_or(0);
        let fallback = default_of(&space, objective, cores).map(|arrangement| Point { arrangement, load });
        Ok(Self {
            args,
            start: Point { arrangement: here, load },
            fallback,
            space,
            goal: Goal { slo: args.slo_p99, rate: args.rate },
            engine,
            requests: what,
            notes,
            model,
            house,
        })
    }

    fn search(&mut self) -> anyhow::Result<Report> {
        let bar =
            if std::io::stderr().is_terminal() { progress(self.args.time) } else { ProgressBar::hidden() };
        self.house.start_clock(Some(self.args.time), bar.clone());
        let given: Vec<Point> = [Some(self.start), self.fallback].into_iter().flatten().collect();
        let (space, goal) = (&self.space, self.goal);
        let mut search = Search { space, goal, measure: &mut self.house, ledger: Ledger::new(), over: false };
        let chosen = search.run(&given)?;
        search.confirm(&report::front(&search.ledger))?;
        let chosen = chosen.map(|point| search.settled(point));
        let (ledger, elapsed) = (std::mem::take(&mut search.ledger), self.house.elapsed());
        let grid = match chosen.filter(|_| self.args.exhaustive && !self.house.stopped()) {
            Some(chosen) => Some(grid::measure(&self.space, self.goal, &mut self.house, chosen, &bar)?),
            None => None,
        };
        bar.finish_and_clear();
        ensure!(
            !ledger.is_empty(),
            "nothing was measured: {}",
            "the time was over or it was interrupted before"
        );
        Ok(Report {
            model: self.model.clone(),
            engine: self.engine.clone(),
            requests: self.requests.clone(),
            notes: self.notes.clone(),
            points: self.space.all().len(),
            goal: self.goal,
            start: Point { load: chosen.map_or(self.start.load, |point| point.load), ..self.start },
            chosen,
            ledger,
            elapsed,
            interrupted: self.house.stopped(),
            grid,
        })
    }
}

fn progress(time: Duration) -> ProgressBar {
    let bar = ProgressBar::new(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("tuning {bar:30} {elapsed} {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// The most rows of any request: a batch must hold them.
fn rows_of(requests: &[Vec<xebec_core::Tensor>]) -> u32 {
    let rows = requests.iter().filter_map(|inputs| inputs.first()?.shape.first().copied()).max();
    rows.and_then(|rows| u32::try_from(rows).ok()).unwrap_or(1).max(1)
}

/// What a model's threads are arranged for.
fn objective(candidate: &Candidate, defaults: &Defaults) -> Objective {
    candidate.resources.objective.unwrap_or(defaults.objective)
}

/// How a model is arranged as it is configured.
fn at_hand(candidate: &Candidate, served: &Served, defaults: &Defaults) -> Arrangement {
    let batching = served.batching();
    let config = served.config();
    let count: i32 = config.instance_group.iter().map(|group| group.count.max(1)).sum();
    let threads = candidate.resources.threads.or_else(|| pbtxt::threads(candidate.config.as_ref()?));
    let own = objective(candidate, defaults).threads(defaults.cores.max(1));
    let (instances, threads) = (u32::try_from(count).unwrap_or(1).max(1), threads.unwrap_or(own));
    let class = if served.is_inline() { Class::Inline } else { Class::Queued { instances, threads } };
    let (batch, delay_us) = match &batching.mixes {
        Ok(()) => (served.info().max_batch_size, u64::try_from(batching.max_delay.as_micros()).unwrap_or(0)),
        Err(_) => (0, 0),
    };
    Arrangement { class, batch, delay_us }
}

/// What is tried, and what had to be left out.
fn space(
    args: &TuneArgs,
    local: &Local,
    candidate: &Candidate,
    here: Arrangement,
    rows: u32,
) -> anyhow::Result<(Space, Vec<String>)> {
    let Allowed { inline, shared, notes } = allowed(local, candidate, rows)?;
    let mut classes = queued(args, local.settings.defaults.cores.max(1));
    classes.push(here.class);
    classes.extend(inline.then_some(Class::Inline));
    let space = Space {
        classes: distinct(classes),
        batches: if shared { batches(&args.batch, here.batch, rows)? } else { vec![0] },
        delays_us: distinct(or(&args.delay, || vec![0, 500, 2000, here.delay_us])),
        // In an open loop nobody counts what is in flight.
        loads: if args.rate.is_some() { vec![0] } else { distinct(args.concurrency.clone()) },
    };
    Ok((space, notes))
}

/// What a graph allows, however it is configured, with a note on what it does not.
struct Allowed {
    inline: bool,
    shared: bool,
    notes: Vec<String>,
}

/// Asks the engine, by the arrangement that wants most of it.
fn allowed(local: &Local, candidate: &Candidate, rows: u32) -> anyhow::Result<Allowed> {
    let most = Arrangement { class: Class::Inline, batch: rows.max(64), delay_us: 0 };
    let served = local.serve(&arranged(candidate, most)).or_else(|_| local.serve(candidate))?;
    let inline = served.is_inline();
    let mut notes = Vec::new();
    if !inline {
        notes.push("the model is not tiny, or its rows differ in size: it does not run inline".to_owned());
    }
    let mixes = &served.batching().mixes;
    notes.extend(mixes.as_ref().err().map(|reason| format!("requests never share a run: {reason}")));
    Ok(Allowed { inline, shared: mixes.is_ok(), notes })
}

/// What was given, or else the tool's own choice.
fn or<T: Clone>(given: &[T], own: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if given.is_empty() { own() } else { given.to_vec() }
}

fn distinct<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

/// Instance threads to try, with the threads of their runs.
fn queued(args: &TuneArgs, cores: u32) -> Vec<Class> {
    let (all, threads) = (
        or(&args.instances, || [powers(cores), vec![cores * 2]].concat()),
        or(&args.threads, || powers(cores)),
    );
    let free = args.instances.is_empty() && args.threads.is_empty();
    // More threads in all than twice the cores only get in each other's way.
    let fits = |instances: u32, threads: u32| !free || instances * threads <= cores * 2;
    let pairs = all.iter().flat_map(|&instances| threads.iter().map(move |&threads| (instances, threads)));
    let pairs = pairs.filter(|(instances, threads)| fits(*instances, *threads));
    pairs.map(|(instances, threads)| Class::Queued { instances, threads }).collect()
}

/// Batches to try: those that were asked for, or what is there now and powers of four above it up to 64. A batch bounds
/// the rows of a request too: what callers may send today they may send tomorrow, unless a smaller one is asked for.
fn batches(given: &[u32], now: u32, rows: u32) -> anyhow::Result<Vec<u32>> {
    let mut batches = or(given, || vec![now, 1, 4, 16, 64]);
    let least = if given.is_empty() { rows.max(now) } else { rows };
    batches.retain(|batch| *batch >= least);
    if batches.is_empty() {
        bail!("--batch: requests have up to {rows} rows, and no batch of the list holds so many");
    }
    Ok(distinct(batches))
}

/// 1, 2, 4, .. up to `most`, and `most`.
fn powers(most: u32) -> Vec<u32> {
    let mut all: Vec<u32> = (0..32).map(|power| 1 << power).take_while(|power| *power <= most).collect();
    all.push(most);
    all.dedup();
    all
}

/// What a server does with a model that says nothing, if that is among what is tried.
fn default_of(space: &Space, objective: Objective, cores: u32) -> Option<Arrangement> {
    let queued = Class::Queued { instances: objective.instances(cores), threads: objective.threads(cores) };
    let all = match objective {
        Objective::Throughput => vec![Class::Inline, queued],
        // All cores are for one run, also of a tiny model.
        Objective::Latency => vec![queued],
    };
    let class = all.into_iter().find(|class| space.classes.contains(class))?;
    Some(Arrangement { class, batch: *space.batches.last()?, delay_us: 0 })
}

/// The candidate in another arrangement.
fn arranged(candidate: &Candidate, arrangement: Arrangement) -> Candidate {
    let mut candidate = candidate.clone();
    let Arrangement { class, batch, delay_us } = arrangement;
    (candidate.resources.instances, candidate.resources.threads) = match class {
        Class::Inline => (None, None),
        Class::Queued { instances, threads } => (Some(instances), Some(threads)),
    };
    if let Some(config) = &mut candidate.config {
        config.instance_group.clear();
        config.parameters.remove(pbtxt::THREADS);
        if batch > 0 {
            config.max_batch_size = i32::try_from(batch).unwrap_or(i32::MAX);
            let mut dynamic = match config.scheduling_choice.take() {
                Some(SchedulingChoice::DynamicBatching(dynamic)) => dynamic,
                _ => ModelDynamicBatching::default(),
            };
            dynamic.preferred_batch_size.clear();
            dynamic.max_queue_delay_microseconds = delay_us;
            config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(dynamic));
        }
    } else if batch > 0 {
        candidate.batching.max_batch_size = Some(batch);
        candidate.batching.max_delay_microseconds = delay_us;
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_unit() {
        assert_eq!(time("10ms"), Ok(Duration::from_millis(10)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(time("250us"), Ok(Duration::from_micros(250)));
        for wrong in ["10", "ms", "-1s", "0s", "1e99s", "1d", "nan s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: TuneArgs,
    }

    fn classes(more: &[&str], cores: u32) -> Space {
        let line = [&["tune", "model.onnx"], more].concat();
        let args = <Line as clap::Parser>::try_parse_from(line).unwrap().args;
        Space { classes: queued(&args, cores), batches: vec![8], delays_us: vec![0], loads: vec![1] }
    }

    #[test]
    fn what_a_server_does_by_itself_is_tried_for_either_objective() {
        for cores in 1..=64 {
            let space = classes(&[], cores);
            let class = |objective| default_of(&space, objective, cores).unwrap().class;
            assert_eq!(class(Objective::Throughput), Class::Queued { instances: cores, threads: 1 });
            assert_eq!(class(Objective::Latency), Class::Queued { instances: 1, threads: cores });
        }
        // Nothing is tried that the flags leave out.
        let few = classes(&["--instances", "1,2", "--threads", "1"], 4);
        assert_eq!(default_of(&few, Objective::Throughput, 4), None);
        assert_eq!(default_of(&few, Objective::Latency, 4), None);
    }

    #[test]
    fn what_callers_may_send_is_not_made_less_unless_it_is_asked_for() {
        assert_eq!(batches(&[], 32, 1).unwrap(), [32, 64]);
        assert_eq!(batches(&[], 1, 1).unwrap(), [1, 4, 16, 64]);
        assert_eq!(batches(&[], 128, 1).unwrap(), [128]);
        assert_eq!(batches(&[1, 64], 32, 1).unwrap(), [1, 64]);
        assert!(batches(&[1, 2], 32, 4).unwrap_err().to_string().contains("up to 4 rows"));
    }

    #[test]
    fn counts_to_try_are_powers_of_two_and_the_largest() {
        assert_eq!(powers(1), [1]);
        assert_eq!(powers(4), [1, 2, 4]);
        assert_eq!(powers(6), [1, 2, 4, 6]);
    }
}
