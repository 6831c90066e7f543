//! The figures of `docs/guide/performance.md`, from the real binary beside the engine alone: `make bench`, `make soak`.
//!
//! Servers are pinned to core 0 and the generator to core 1 where one core is measured. Every figure of a server is
//! the best of five loads, and the engine's the best of all slices before, between and after them: noise of the machine
//! only ever takes away.
#![expect(clippy::print_stdout, reason = "the table is the output")]
use anyhow::{Context as _, ensure};
use clap::{Parser, Subcommand};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};
use xebec_e2e::{
    generate::root,
    server::{Server, binary, engine_library},
};

#[path = "figures/beside.rs"]
mod beside;
#[path = "figures/detect.rs"]
mod detect;
#[path = "figures/recommend.rs"]
mod recommend;
#[path = "figures/trace.rs"]
mod trace;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The table of throughput, latency, start and size.
    Bench {
        /// The encoder that `models/make_encoder.py` made.
        #[arg(long)]
        encoder: PathBuf,
        /// Another server of the fraud MLP, measured by the same generator: http://host:port or grpc://host:port.
        #[arg(long)]
        url: Vec<String>,
        /// Length of one load, in seconds.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
    },
    /// What traces cost of the processor.
    Trace {
        /// A binary without traces, to compare with.
        #[arg(long)]
        before: Option<PathBuf>,
        /// Over which protocols.
        #[arg(long, value_delimiter = ',', default_value = "grpc,binary,json")]
        protocols: Vec<String>,
        /// Loads of each server.
        #[arg(long, default_value_t = 60)]
        rounds: usize,
        /// Length of one load, in seconds.
        #[arg(long, default_value_t = 0.5)]
        seconds: f64,
    },
    /// Pictures to boxes, beside one loop and beside a Python service.
    Detect {
        /// What `judge.py --save-pictures` of the example wrote.
        #[arg(long)]
        pictures: PathBuf,
        /// How many of them.
        #[arg(long, default_value_t = 60)]
        count: usize,
        /// Write what the loop sees in all of them there, and measure nothing.
        #[arg(long)]
        predictions: Option<PathBuf>,
    },
    /// Users to items, beside one loop and beside a Python service.
    Recommend {
        /// How many users.
        #[arg(long, default_value_t = 800)]
        count: usize,
        /// Write what the loop says to the users of a file of `judge.py --save-predictions` there, and measure nothing.
        #[arg(long, requires = "users")]
        predictions: Option<PathBuf>,
        /// That file.
        #[arg(long)]
        users: Option<PathBuf>,
    },
    /// Three times the capacity, for a minute.
    Soak {
        /// The encoder that `models/make_encoder.py` made.
        #[arg(long)]
        encoder: PathBuf,
        /// Length of the overload, in seconds.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Bench { encoder, url, seconds } => bench(&encoder, &url, seconds),
        What::Trace { before, protocols, rounds, seconds } => {
            trace::cost(before.as_ref(), &protocols, rounds, seconds)
        }
        What::Detect { pictures, predictions: Some(out), .. } => detect::predict(&pictures, &out),
        What::Detect { pictures, count, predictions: None } => detect::cost(&pictures, count),
        What::Recommend { predictions: Some(out), users: Some(users), .. } => {
            recommend::predict(&users, &out)
        }
        What::Recommend { count, .. } => recommend::cost(count),
        What::Soak { encoder, seconds } => soak(&encoder, seconds),
    }
}

const MLP: &str = "examples/fraud-detection/models/fraud-mlp.onnx";
const LOADS: usize = 5;

fn bench(encoder: &Path, others: &[String], seconds: f64) -> anyhow::Result<()> {
    let mlp = root().join(MLP);
    let mut engine = Engine::new(&mlp, "0");
    let single_row: &[&str] = &["--rows", "1"];
    engine.measure(single_row)?;
    let server = serve(Path::new("examples/fraud-detection"), "0", &["--io-threads", "1"])?;
    let mut rows = Vec::new();
    for (protocol, target) in [("grpc", "0.75 (1.0)"), ("binary", "0.75 (1.0)"), ("json", "0.5 (0.7)")] {
        let load = Load::new(url(&server, protocol), protocol, "fraud-mlp").at("1", 64, seconds);
        let what = format!("fraud MLP, one core, c=64, {protocol}");
        rows.push(Row { what, target, measured: load.best(Some(server.id()))? });
        engine.measure(single_row)?;
    }
    for other in others {
        let protocols: &[&str] = if other.starts_with("http") { &["binary", "json"] } else { &["grpc"] };
        for protocol in protocols {
            let measured = Load::new(other.clone(), protocol, "fraud-mlp").at("1", 64, seconds).best(None)?;
            rows.push(Row { what: format!("{other}, c=64, {protocol}"), target: "-", measured });
        }
    }
    drop(server);
    println!(
        "| what | engine alone | xebec | ratio | wanted (aim) | p50 us | p99 us | CPU us/request | generator |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    rows.iter().for_each(|row| row.print(engine.best));
    encoder_row(encoder, seconds)?;
    println!("\n| c=1, one core | echo p50 us | xebec p50 us | engine run us | added us | wanted |");
    println!("|---|---|---|---|---|---|");
    for protocol in ["grpc", "binary", "json"] {
        single(protocol, engine.best, seconds)?;
    }
    sizes(seconds, engine.resident_bytes)
}

/// The engine without a server.
struct Engine<'a> {
    model: &'a Path,
    cores: &'a str,
    /// The most rows a second so far.
    best: f64,
    /// Resident memory of the program that ran it.
    resident_bytes: f64,
}

impl<'a> Engine<'a> {
    fn new(model: &'a Path, cores: &'a str) -> Self {
        Self { model, cores, best: 0.0, resident_bytes: f64::INFINITY }
    }

    /// Runs it for some slices more.
    fn measure(&mut self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = pinned(self.cores);
        command.arg(sibling("ceiling")?).arg(self.model).args(args);
        let ceiling = output(command)?;
        let figures = ceiling["rows_per_second"].as_object().context("the ceiling gave no figures")?;
        self.best = figures.values().filter_map(Value::as_f64).fold(self.best, f64::max);
        self.resident_bytes = self.resident_bytes.min(number(&ceiling, &["resident_bytes"])?);
        Ok(())
    }
}

/// A MiniLM-sized encoder on all cores: rows a second against the best of the engine at any batch.
fn encoder_row(encoder: &Path, seconds: f64) -> anyhow::Result<()> {
    let args = ["--rows", "1,2,4,8,16,32", "--free", "32", "--threads", "2", "--seconds", "1.0"];
    let shared = [&args[..], &["--shared"]].concat();
    let mut engine = Engine::new(encoder, "0,1");
    engine.measure(&shared)?;
    engine.measure(&args)?;
    let (server, _folder) = serve_alone(encoder, "encoder", "0,1", &["--io-threads", "2"])?;
    let mut load = Load::new(url(&server, "grpc"), "grpc", "encoder").at("0,1", 64, seconds * 3.0);
    load.free = 32;
    let measured = load.best(Some(server.id()))?;
    engine.measure(&shared)?;
    engine.measure(&args)?;
    let what = "encoder (MiniLM's size), sequence 32, two cores, c=64, grpc".to_owned();
    Row { what, target: "0.93 (0.97)", measured }.print(engine.best);
    Ok(())
}

/// The time that everything but network and engine adds to one request.
fn single(protocol: &str, engine: f64, seconds: f64) -> anyhow::Result<()> {
    let request = single_request()?;
    let p50 = |server: &Server| -> anyhow::Result<f64> {
        let mut load = Load::new(url(server, protocol), protocol, "fraud-mlp").at("1", 1, seconds);
        load.input = Some(request.path().to_owned());
        let mut lowest = f64::INFINITY;
        for _ in 0..LOADS {
            lowest = lowest.min(number(&load.run()?, &["latency_us", "p50"])?);
        }
        Ok(lowest)
    };
    let mut command = pinned("0");
    command.arg(sibling("echo")?);
    let echo = p50(&Server::spawn(command)?)?;
    let xebec = p50(&serve(Path::new("examples/fraud-detection"), "0", &["--io-threads", "1"])?)?;
    let run = 1e6 / engine;
    println!("| {protocol} | {echo:.1} | {xebec:.1} | {run:.1} | {:.1} | at most 30 |", xebec - echo);
    Ok(())
}

/// One transaction as a v2 request: an echo has no metadata to make one from.
fn single_request() -> anyhow::Result<tempfile::NamedTempFile> {
    let data = vec!["0.5"; 30].join(",");
    let file = tempfile::NamedTempFile::new()?;
    let text = format!(
        r#"{{"inputs":[{{"name":"transactions","shape":[1,30],"datatype":"FP32","data":[{data}]}}]}}"#
    );
    fs::write(&file, text)?;
    Ok(file)
}

/// Start, memory and size; `bare` is the memory of a program with the MLP and nothing else.
fn sizes(seconds: f64, bare: f64) -> anyhow::Result<()> {
    let mut ready = Duration::MAX;
    for _ in 0..5 {
        ready = ready.min(serve(Path::new("examples/fraud-detection"), "0,1", &[])?.ready_after);
    }
    let (server, _folder) = serve_alone(&root().join(MLP), "fraud-mlp", "0", &["--io-threads", "1"])?;
    Load::new(url(&server, "grpc"), "grpc", "fraud-mlp").at("1", 64, seconds).run()?;
    let resident = resident_bytes(server.id())? as f64;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!("\n| what | figure | wanted |\n|---|---|---|");
    println!("| start to ready, both fraud models (best of 5) | {} ms | below 300 ms |", ready.as_millis());
    println!(
        "| resident memory with the MLP alone, one I/O thread, after the load | {:.1} MiB, {:.2} of the {:.1} MiB of the bare program | at most 1.5 |",
        mib(resident),
        resident / bare,
        mib(bare)
    );
    let size = fs::metadata(binary()?)?.len() as f64 / 1e6;
    println!("| release binary | {size:.1} MB | below 40 MB |");
    Ok(())
}

/// One line of the table.
struct Row {
    what: String,
    /// Of the ratio: what the first issue wants, and what it aims at.
    target: &'static str,
    measured: Measured,
}

impl Row {
    fn print(&self, engine: f64) {
        let Self { what, target, measured } = self;
        let cpu = measured.cpu_us.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
        let busy = if measured.busy { " (over 90 % busy: the server may do more)" } else { "" };
        println!(
            "| {what} | {engine:.0}/s | {:.0}/s | {:.2} | {target} | {:.0} | {:.0} | {cpu} | {:.0} %{busy} |",
            measured.per_second,
            measured.per_second / engine,
            measured.p50,
            measured.p99,
            measured.generator
        );
    }
}

/// One way to load a server.
struct Load {
    url: String,
    protocol: String,
    model: String,
    cores: String,
    concurrency: u32,
    seconds: f64,
    free: i64,
    input: Option<PathBuf>,
    more: Vec<String>,
}

struct Measured {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu_us: Option<f64>,
    generator: f64,
    busy: bool,
}

impl Load {
    fn new(url: String, protocol: &str, model: &str) -> Self {
        let (protocol, model) = (protocol.to_owned(), model.to_owned());
        Self {
            url,
            protocol,
            model,
            cores: "1".into(),
            concurrency: 1,
            seconds: 1.0,
            free: 1,
            input: None,
            more: Vec::new(),
        }
    }

    fn at(mut self, cores: &str, concurrency: u32, seconds: f64) -> Self {
        (self.cores, self.concurrency, self.seconds) = (cores.to_owned(), concurrency, seconds);
        self
    }

    fn run(&self) -> anyhow::Result<Value> {
        let mut command = pinned(&self.cores);
        command.arg(binary()?).args(["bench", &self.model, "--url", &self.url, "--protocol", &self.protocol]);
        command.args(["--output", "json", "--concurrency", &self.concurrency.to_string()]);
        command.args(["--duration", &self.seconds.to_string()]).args(&self.more);
        match &self.input {
            Some(input) => command.arg("--input").arg(input),
            None => command.args(["--free-extent", &self.free.to_string()]),
        };
        output(command)
    }

    fn best(&self, server: Option<u32>) -> anyhow::Result<Measured> {
        let mut best: Option<Measured> = None;
        for _ in 0..LOADS {
            let before = server.map(cpu_seconds).transpose()?;
            let report = self.run()?;
            let failures = report["failures"].as_object().is_some_and(|failures| !failures.is_empty());
            ensure!(!failures, "requests failed: {}", report["failures"]);
            let after = server.map(cpu_seconds).transpose()?;
            // Over everything the server answered, warm-up included: all of it cost processor time.
            let answered = number(&report, &["answered"])?;
            let measured = Measured {
                per_second: number(&report, &["per_second"])?,
                p50: number(&report, &["latency_us", "p50"])?,
                p99: number(&report, &["latency_us", "p99"])?,
                cpu_us: before.zip(after).map(|(before, after)| (after - before) * 1e6 / answered),
                generator: number(&report, &["generator_cpu_percent"])?,
                busy: report["generator_was_busy"] == Value::Bool(true),
            };
            if best.as_ref().is_none_or(|best| best.per_second < measured.per_second) {
                best = Some(measured);
            }
        }
        best.context("no load was run")
    }
}

/// Requests in flight of the soak: more than all queues hold, so that none has to wait for a lane.
const SOAK_CONCURRENCY: u32 = 3800;

fn soak(encoder: &Path, seconds: u32) -> anyhow::Result<()> {
    let (server, _folder) = serve_alone(encoder, "encoder", "0,1", &[])?;
    let mut load = Load::new(url(&server, "grpc"), "grpc", "encoder").at("0,1", 64, 10.0);
    load.free = 32;
    let capacity = load.best(None)?.per_second;
    println!("capacity, closed loop at c=64: {capacity:.0} requests/s");
    load.concurrency = SOAK_CONCURRENCY;
    load.seconds = f64::from(seconds);
    load.more = ["--coarse", "--rate", &format!("{:.0}", capacity * 3.0), "--connections", "16"]
        .map(str::to_owned)
        .to_vec();
    let overload = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        let (began, mut memory) = (Instant::now(), Vec::new());
        while !running.is_finished() {
            memory.push((began.elapsed().as_secs(), resident_bytes(server.id())?));
            std::thread::park_timeout(Duration::from_millis(500));
        }
        running.join().ok().context("the load panicked")?.map(|report| (report, memory))
    });
    let (report, memory) = overload?;
    println!("offered {:.0} requests/s for {seconds} s; failures: {}", capacity * 3.0, report["failures"]);
    let faults = [refusals(&report), goodput(&report, capacity), resident(&memory)];
    let faults: Vec<String> =
        faults.into_iter().filter_map(|held| held.err().map(|fault| format!("{fault:#}"))).collect();
    ensure!(faults.is_empty(), "the soak does not hold: {}", faults.join("; "));
    println!("the soak holds");
    Ok(())
}

/// Every excess request was sent, and refused at once.
fn refusals(report: &Value) -> anyhow::Result<()> {
    let failures = report["failures"].as_object().context("no failures in the report")?;
    let refusal = number(report, &["refusal_latency_us", "p99"]).context("nothing was refused")?;
    println!("p99 of a refusal {:.1} ms (wanted: below 50)", refusal / 1000.0);
    ensure!(number(report, &["unsent"])? == 0.0, "requests were due and never sent: {}", report["unsent"]);
    ensure!(failures.keys().eq([REFUSED]), "not only refusals: {}", report["failures"]);
    ensure!(refusal < 50_000.0, "refusals take too long");
    Ok(())
}

/// UNAVAILABLE: the queue is full.
const REFUSED: &str = "gRPC 14";

fn goodput(report: &Value, capacity: f64) -> anyhow::Result<()> {
    let goodput = number(report, &["per_second"])?;
    println!("goodput {goodput:.0}/s, {:.2} of the capacity (wanted: 0.90)", goodput / capacity);
    ensure!(goodput >= 0.9 * capacity, "goodput is too low");
    Ok(())
}

fn resident(memory: &[(u64, u64)]) -> anyhow::Result<()> {
    let later = memory.iter().filter(|(second, _)| *second >= 10).map(|(_, bytes)| *bytes);
    let (least, most) = later.clone().min().zip(later.max()).context("the soak ended before second 10")?;
    println!(
        "resident memory from second 10 on: {} to {} MiB, {:.1} % apart (wanted: 10)",
        least >> 20,
        most >> 20,
        (most - least) as f64 * 100.0 / least as f64
    );
    ensure!(most - least <= least / 10, "resident memory grows");
    Ok(())
}

/// A server of one model, in a folder that is to live as long.
fn serve_alone(
    model: &Path,
    name: &str,
    cores: &str,
    more: &[&str],
) -> anyhow::Result<(Server, tempfile::TempDir)> {
    let folder = tempfile::tempdir()?;
    fs::copy(model, folder.path().join(format!("{name}.onnx")))?;
    let repository = folder.path().to_string_lossy().into_owned();
    Ok((start(&[&["serve", "--model-repository", &repository], more].concat(), cores)?, folder))
}

fn serve(folder: &Path, cores: &str, more: &[&str]) -> anyhow::Result<Server> {
    let folder = folder.to_string_lossy();
    start(&[&["up", &folder], more].concat(), cores)
}

fn start(args: &[&str], cores: &str) -> anyhow::Result<Server> {
    start_with(&binary()?, args, cores)
}

fn start_with(binary: &Path, args: &[&str], cores: &str) -> anyhow::Result<Server> {
    let mut command = pinned(cores);
    command.arg(binary).args(args).args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
    command.env("ORT_DYLIB_PATH", engine_library()?);
    Server::spawn(command)
}

fn pinned(cores: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", cores]);
    command
}

fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    Ok(binary()?.parent().context("no folder")?.join(name))
}

fn url(server: &Server, protocol: &str) -> String {
    if protocol == "grpc" { server.grpc.to_string() } else { format!("http://{}", server.http) }
}

fn output(mut command: Command) -> anyhow::Result<Value> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn number(value: &Value, path: &[&str]) -> anyhow::Result<f64> {
    let found = path.iter().try_fold(value, |value, key| value.get(key));
    found.and_then(Value::as_f64).with_context(|| format!("no {} in {value}", path.join(".")))
}

/// Processor time of a process's threads, to the nanosecond: the ticks of `stat` are hundredths of a second.
fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{id}/task")).context("no such process")? {
        // One that has ended meanwhile is one of a loader's.
        let Ok(spent) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds: f64 = spent.split(' ').next().context("no time of a thread")?.parse()?;
        seconds += nanoseconds / 1e9;
    }
    ensure!(seconds > 0.0, "the kernel counts no time of threads (schedstat)");
    Ok(seconds)
}

fn resident_bytes(id: u32) -> anyhow::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{id}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("no such process")?.parse()?;
    Ok(pages * 4096)
}
