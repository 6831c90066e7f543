//! The figures of `docs/guide/performance.md`, from the real binary beside the engine alone: `make bench`, `make soak`.
//!
//! Servers are pinned to core 0 and the generator to core 1 where one core is measured. Every figure of a server is
//! the best of three loads, as the engine's is the best of five slices: noise of the machine only ever takes away.
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
        What::Soak { encoder, seconds } => soak(&encoder, seconds),
    }
}

const MLP: &str = "examples/fraud-detection/models/fraud-mlp.onnx";
const LOADS: usize = 3;

fn bench(encoder: &Path, others: &[String], seconds: f64) -> anyhow::Result<()> {
    println!("| what | engine alone | xebec | ratio | p50 us | p99 us | CPU us/request | generator |");
    println!("|---|---|---|---|---|---|---|---|");
    let one_core = |rows: &str| ceiling(&root().join(MLP), &["--rows", rows], "0");
    let alone = one_core("1")?;
    let engine = best(&alone)?;
    let server = serve(Path::new("examples/fraud-detection"), "0", &["--io-threads", "1"])?;
    for protocol in ["grpc", "binary", "json"] {
        let load = Load::new(url(&server, protocol), protocol, "fraud-mlp").at("1", 64, seconds);
        let result = load.best(Some(server.id()))?;
        row(&format!("fraud MLP, one core, c=64, {protocol}"), engine, &result, 1.0);
    }
    for other in others {
        let protocols: &[&str] = if other.starts_with("http") { &["binary", "json"] } else { &["grpc"] };
        for protocol in protocols {
            let result = Load::new(other.clone(), protocol, "fraud-mlp").at("1", 64, seconds).best(None)?;
            row(&format!("{other}, c=64, {protocol}"), engine, &result, 1.0);
        }
    }
    let resident = resident_bytes(server.id())?;
    drop(server);
    encoder_rows(encoder, seconds)?;
    println!("\n| c=1, one core | echo p50 us | xebec p50 us | engine run us | added us |");
    println!("|---|---|---|---|---|");
    for protocol in ["grpc", "binary", "json"] {
        single(protocol, engine, seconds)?;
    }
    sizes(resident, &alone)
}

/// A MiniLM-sized encoder on all cores: rows a second against the best of the engine at any batch.
fn encoder_rows(encoder: &Path, seconds: f64) -> anyhow::Result<()> {
    let best_alone = |more: &[&str]| -> anyhow::Result<f64> {
        let args = [&["--rows", "1,2,4,8,16,32", "--free", "32", "--threads", "2", "--seconds", "1.0"], more]
            .concat();
        best(&ceiling(encoder, &args, "0,1")?)
    };
    let engine = best_alone(&["--shared"])?.max(best_alone(&[])?);
    let folder = tempfile::tempdir()?;
    fs::copy(encoder, folder.path().join("encoder.onnx"))?;
    let repository = folder.path().to_string_lossy().into_owned();
    let server = start(&["serve", "--model-repository", &repository, "--io-threads", "2"], "0,1")?;
    let mut load = Load::new(url(&server, "grpc"), "grpc", "encoder").at("0,1", 64, seconds * 3.0);
    load.free = 32;
    let result = load.best(Some(server.id()))?;
    row("encoder (MiniLM's size), sequence 32, two cores, c=64, grpc", engine, &result, 1.0);
    Ok(())
}

/// The time that everything but network and engine adds to one request.
fn single(protocol: &str, engine: f64, seconds: f64) -> anyhow::Result<()> {
    let p50 = |server: &Server| -> anyhow::Result<f64> {
        let mut load = Load::new(url(server, protocol), protocol, "fraud-mlp").at("1", 1, seconds);
        load.input = Some(single_request()?);
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
    println!("| {protocol} | {echo:.1} | {xebec:.1} | {run:.1} | {:.1} |", xebec - echo);
    Ok(())
}

/// One transaction as a v2 request: an echo has no metadata to make one from.
fn single_request() -> anyhow::Result<PathBuf> {
    let data = vec!["0.5"; 30].join(",");
    let file = std::env::temp_dir().join(format!("xebec-single-{}.json", std::process::id()));
    let text = format!(
        r#"{{"inputs":[{{"name":"transactions","shape":[1,30],"datatype":"FP32","data":[{data}]}}]}}"#
    );
    fs::write(&file, text)?;
    Ok(file)
}

fn sizes(resident: u64, alone: &Value) -> anyhow::Result<()> {
    let mut ready = Duration::MAX;
    for _ in 0..5 {
        ready = ready.min(serve(Path::new("examples/fraud-detection"), "0,1", &[])?.ready_after);
    }
    let bare = number(alone, &["resident_bytes"])?;
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    println!("\n| what | figure |\n|---|---|");
    println!("| start to ready, both fraud models (best of 5) | {} ms |", ready.as_millis());
    println!(
        "| resident memory after the load, two fraud models | {:.1} MiB, {:.2} of the {:.1} MiB of the bare program with the MLP |",
        mib(resident as f64),
        resident as f64 / bare,
        mib(bare)
    );
    println!("| release binary | {:.1} MB |", fs::metadata(binary()?)?.len() as f64 / 1e6);
    Ok(())
}

fn row(what: &str, engine: f64, result: &Measured, rows: f64) {
    let per_second = result.per_second * rows;
    let cpu = result.cpu_us.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.1}"));
    let busy = if result.busy { " (over 90 % busy: the server may do more)" } else { "" };
    println!(
        "| {what} | {engine:.0}/s | {per_second:.0}/s | {:.2} | {:.0} | {:.0} | {cpu} | {:.0} %{busy} |",
        per_second / engine,
        result.p50,
        result.p99,
        result.generator
    );
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
        command.args(["--duration", &self.seconds.to_string(), "--free-extent", &self.free.to_string()]);
        command.args(&self.more);
        if let Some(input) = &self.input {
            command.arg("--input").arg(input);
        }
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
            // The second of warm-up cost the server as well.
            let share = self.seconds / (self.seconds + 1.0);
            let good = number(&report, &["good"])?;
            let measured = Measured {
                per_second: number(&report, &["per_second"])?,
                p50: number(&report, &["latency_us", "p50"])?,
                p99: number(&report, &["latency_us", "p99"])?,
                cpu_us: before.zip(after).map(|(before, after)| (after - before) * share * 1e6 / good),
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

fn soak(encoder: &Path, seconds: u32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    fs::copy(encoder, folder.path().join("encoder.onnx"))?;
    let repository = folder.path().to_string_lossy().into_owned();
    let server = start(&["serve", "--model-repository", &repository], "0,1")?;
    let mut load = Load::new(url(&server, "grpc"), "grpc", "encoder").at("0,1", 64, 10.0);
    load.free = 32;
    let capacity = load.best(None)?.per_second;
    println!("capacity, closed loop at c=64: {capacity:.0} requests/s");
    load.concurrency = 3800;
    load.seconds = f64::from(seconds);
    load.more =
        ["--rate", &format!("{:.0}", capacity * 3.0), "--connections", "16"].map(str::to_owned).to_vec();
    let overload = std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run());
        let (began, mut memory) = (Instant::now(), Vec::new());
        while !running.is_finished() {
            memory.push((began.elapsed().as_secs(), resident_bytes(server.id()).unwrap_or(0)));
            std::thread::park_timeout(Duration::from_millis(500));
        }
        running.join().ok().context("the load panicked")?.map(|report| (report, memory))
    });
    let (report, memory) = overload?;
    let later: Vec<u64> =
        memory.iter().filter(|(second, _)| *second >= 10).map(|(_, bytes)| *bytes).collect();
    let (least, most) = (later.iter().min().copied().unwrap_or(0), later.iter().max().copied().unwrap_or(0));
    let goodput = number(&report, &["per_second"])?;
    let refusal = number(&report, &["refusal_latency_us", "p99"]).unwrap_or(f64::NAN);
    println!("offered {:.0} requests/s for {seconds} s; failures: {}", capacity * 3.0, report["failures"]);
    println!("goodput {goodput:.0}/s, {:.2} of the capacity (wanted: 0.90)", goodput / capacity);
    println!("p99 of a refusal {:.1} ms (wanted: below 50)", refusal / 1000.0);
    println!(
        "resident memory from second 10 on: {} to {} MiB, {:.1} % apart (wanted: 10)",
        least >> 20,
        most >> 20,
        (most - least) as f64 * 100.0 / least.max(1) as f64
    );
    ensure!(
        goodput >= 0.9 * capacity && refusal < 50_000.0 && most - least <= least / 10,
        "the soak does not hold"
    );
    println!("the soak holds");
    Ok(())
}

fn serve(folder: &Path, cores: &str, more: &[&str]) -> anyhow::Result<Server> {
    let folder = folder.to_string_lossy();
    start(&[&["up", &folder], more].concat(), cores)
}

fn start(args: &[&str], cores: &str) -> anyhow::Result<Server> {
    let mut command = pinned(cores);
    command.arg(binary()?).args(args).args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
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

fn ceiling(model: &Path, args: &[&str], cores: &str) -> anyhow::Result<Value> {
    let mut command = pinned(cores);
    command.arg(sibling("ceiling")?).arg(model).args(args);
    output(command)
}

fn best(ceiling: &Value) -> anyhow::Result<f64> {
    let figures = ceiling["rows_per_second"].as_object().context("the ceiling gave no figures")?;
    figures.values().filter_map(Value::as_f64).reduce(f64::max).context("the ceiling gave no figures")
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

fn cpu_seconds(id: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no such process")?;
    let ticks: f64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}

fn resident_bytes(id: u32) -> anyhow::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{id}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("no such process")?.parse()?;
    Ok(pages * 4096)
}
