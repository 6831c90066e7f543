//! What a server is asked to stand for long: reloads under load (`make soak`), and more models than fit into memory
//! (`make residents`).
//!
//! Every answer is compared with that of the version that it names. Clients are threads with a connection each; a lane
//! that is paced sends at its times and measures from then, so that a slow answer is not hidden by the next request.
#![expect(clippy::print_stdout, reason = "the report is the output")]
use anyhow::{Context as _, bail, ensure};
use clap::{Parser, Subcommand};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
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
    /// 200 reloads, 50 loads and unloads of another model, a polled version swap and SIGTERM, at 70 % of the capacity.
    Reloads {
        /// Length of the load with the reloads.
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// 2,000 models in memory for 200, beside one that is always asked for.
    Residents {
        /// Models.
        #[arg(long, default_value_t = 2000)]
        models: usize,
    },
}

fn main() -> anyhow::Result<()> {
    match Args::parse().what {
        What::Reloads { seconds } => reloads(Duration::from_secs(seconds)),
        What::Residents { models } => residents(models),
    }
}

const RELOADS: u64 = 200;
const PAIRS: u64 = 50;
const LANES: u64 = 16;

/// y = 2 x + `offset`: version n of a model adds n.
fn model(offset: u64) -> anyhow::Result<Vec<u8>> {
    let mut model = fs::read(root().join("models/testdata/repository/scaler.onnx"))?;
    let one = 1.0_f32.to_le_bytes();
    let at = model.windows(4).position(|bytes| bytes == one).context("the scaler has no weight of 1")?;
    let place = model.get_mut(at..at + 4).context("a place")?;
    #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
    place.copy_from_slice(&(offset as f32).to_le_bytes());
    Ok(model)
}

fn put(repository: &Path, name: &str, version: u64) -> anyhow::Result<()> {
    let folder = repository.join(name).join(version.to_string());
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("new"), model(version)?)?;
    Ok(fs::rename(folder.join("new"), folder.join("model.onnx"))?)
}

/// A connection that sends requests of HTTP.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, Value)> {
        let length = body.len();
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(head.as_bytes())?;
        let (mut line, mut status, mut length) = (String::new(), None, 0);
        loop {
            line.clear();
            ensure!(self.0.read_line(&mut line)? > 0, "the connection ended");
            let text = line.trim_end();
            if text.is_empty() {
                break;
            }
            if status.is_none() {
                status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
            }
            if let Some((name, value)) = text.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body)? };
        Ok((status.context("no status")?, body))
    }

    /// Asks a model; `None` if the server takes nothing any more.
    fn ask(&mut self, name: &str) -> anyhow::Result<Option<u64>> {
        let body = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[0,0,0,0]}]}"#;
        let (status, answer) = self.send("POST", &format!("/v2/models/{name}/infer"), body)?;
        if status == 503 && answer["error"].as_str().is_some_and(|error| error.contains("draining")) {
            return Ok(None);
        }
        ensure!(status == 200, "status {status}: {answer}");
        let version: u64 = answer["model_version"].as_str().context("no version")?.parse()?;
        #[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
        let due = version as f64;
        ensure!(answer["outputs"][0]["data"][0] == due, "version {version} answered {answer}");
        Ok(Some(version))
    }

    fn order(&mut self, name: &str, verb: &str) -> anyhow::Result<()> {
        let (status, answer) = self.send("POST", &format!("/v2/repository/models/{name}/{verb}"), "")?;
        ensure!(status == 200, "{verb} of {name}: {status} {answer}");
        Ok(())
    }
}

/// Lanes that ask models until told to end.
#[derive(Default)]
struct Load {
    ending: AtomicBool,
    /// The server was told to end: refusals and ends of connections are no failure.
    draining: AtomicBool,
    answered: AtomicU64,
    failed: Mutex<Vec<String>>,
    latencies_us: Mutex<Vec<u64>>,
}

impl Load {
    fn fail(&self, error: &anyhow::Error) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
    }

    /// One lane; `every` paces it.
    fn lane(&self, address: SocketAddr, name: impl Fn(u64) -> String, every: Option<Duration>) {
        let outcome = Client::connect(address).and_then(|mut client| {
            let (mut latencies, mut due) = (Vec::new(), Instant::now());
            for number in 0.. {
                if self.ending.load(Relaxed) {
                    break;
                }
                if let Some(every) = every {
                    due += every;
                    if let Some(wait) = due.checked_duration_since(Instant::now()) {
                        std::thread::park_timeout(wait);
                    }
                } else {
                    due = Instant::now();
                }
                match client.ask(&name(number)) {
                    Ok(Some(_)) => {
                        self.answered.fetch_add(1, Relaxed);
                        latencies.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
                    }
                    Ok(None) => break,
                    Err(_) if self.draining.load(SeqCst) => break,
                    Err(error) => return Err(error),
                }
            }
            self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner).append(&mut latencies);
            Ok(())
        });
        if let Err(error) = outcome {
            self.fail(&error);
        }
    }

    fn hold(&self) -> anyhow::Result<()> {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            failed.is_empty(),
            "{} failed, the first: {}",
            failed.len(),
            failed.first().map_or("", |one| one)
        );
        Ok(())
    }

    fn p99_us(&self) -> u64 {
        let mut all = self.latencies_us.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_unstable();
        all.get(all.len() * 99 / 100).copied().unwrap_or(0)
    }
}

/// Answers a second of all lanes, each as fast as it can.
fn capacity(server: &Server, models: &'static [&'static str]) -> anyhow::Result<f64> {
    let (load, time) = (Load::default(), Duration::from_secs(3));
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let name = move |number| pick(models, lane + number);
            scope.spawn({
                let load = &load;
                move || load.lane(server.http, name, None)
            });
        }
        std::thread::park_timeout(time);
        load.ending.store(true, SeqCst);
    });
    load.hold()?;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    Ok(load.answered.load(SeqCst) as f64 / time.as_secs_f64())
}

fn pick(models: &[&str], number: u64) -> String {
    let at = usize::try_from(number).unwrap_or(0) % models.len().max(1);
    models.get(at).copied().unwrap_or_default().to_owned()
}

fn pace(capacity: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    Duration::from_secs_f64(LANES as f64 / (0.7 * capacity))
}

fn resident_bytes(server: &Server) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}

/// One on the I/O threads and one with instance threads, so that both ways of serving are reloaded.
const MODELS: &[&str] = &["inline", "queued"];

fn repository() -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    for name in ["inline", "queued", "other"] {
        put(folder.path(), name, 1)?;
    }
    fs::write(folder.path().join("queued/config.pbtxt"), "instance_group { count: 2 kind: KIND_CPU }")?;
    Ok(folder)
}

fn start(folder: &Path, more: &[&str]) -> anyhow::Result<Server> {
    let path = folder.to_string_lossy();
    Server::start(&[&["serve", "--model-repository", &*path], more].concat())
}

fn reloads(time: Duration) -> anyhow::Result<()> {
    let folder = repository()?;
    let explicit = ["--model-control-mode", "explicit", "--load-model", "inline,queued"];
    let server = start(folder.path(), &explicit)?;
    let capacity = capacity(&server, MODELS)?;
    println!("capacity, {LANES} lanes, REST with JSON: {capacity:.0} requests/s; offered 70 %");
    let load = Load::default();
    let memory = under_load(&server, &load, pace(capacity), |lanes_on| {
        let mut control = Client::connect(server.http)?;
        let (began, mut memory) = (Instant::now(), Vec::new());
        for step in 0..RELOADS {
            let name = pick(MODELS, step);
            put(folder.path(), &name, step + 2)?;
            control.order(&name, "load")?;
            if step % (RELOADS / PAIRS) == 0 {
                control.order("other", "load")?;
                control.order("other", "unload")?;
            }
            memory.push((began.elapsed(), resident_bytes(&server)?));
            let due = time.mul_f64((step + 1) as f64 / RELOADS as f64);
            while let Some(wait) = due.checked_sub(began.elapsed()).filter(|_| lanes_on()) {
                std::thread::park_timeout(wait.min(Duration::from_secs(1)));
                memory.push((began.elapsed(), resident_bytes(&server)?));
            }
        }
        load.draining.store(true, SeqCst);
        server.terminate()?;
        Ok(memory)
    })?;
    load.hold()?;
    ensure!(server.wait()?.success(), "the server did not end well");
    println!(
        "{RELOADS} reloads, {PAIRS} loads and unloads of another, SIGTERM: {} answers, 0 failed, each of its version",
        load.answered.load(SeqCst)
    );
    polled()?;
    bounded(&memory, time)
}

/// Runs `change` while the lanes are on.
fn under_load<T>(
    server: &Server,
    load: &Load,
    every: Duration,
    change: impl FnOnce(&dyn Fn() -> bool) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                load.lane(server.http, move |number| pick(MODELS, lane + number), Some(every))
            });
        }
        let going = || load.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let outcome = change(&going);
        if outcome.is_err() || !load.draining.load(SeqCst) {
            load.ending.store(true, SeqCst);
        }
        outcome
    })
}

/// A new version is put into a polled folder, and served within a few looks.
fn polled() -> anyhow::Result<()> {
    let folder = repository()?;
    let server = start(folder.path(), &["--model-control-mode", "poll", "--repository-poll-secs", "0.5"])?;
    let (load, every) = (Load::default(), pace(capacity(&server, MODELS)?));
    under_load(&server, &load, every, |going| {
        let mut control = Client::connect(server.http)?;
        for version in 2..=3 {
            put(folder.path(), "inline", version)?;
            let began = Instant::now();
            while control.ask("inline")? != Some(version) {
                ensure!(
                    going() && began.elapsed() < Duration::from_secs(30),
                    "version {version} is not served"
                );
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
        Ok(())
    })?;
    load.hold()?;
    println!("a polled folder with two newer versions: {} answers, 0 failed", load.answered.load(SeqCst));
    Ok(())
}

/// Memory at the end is that of a fifth of the time.
fn bounded(memory: &[(Duration, u64)], time: Duration) -> anyhow::Result<()> {
    let around = |share: f64| {
        let at = time.mul_f64(share);
        let near = memory.iter().filter(|(when, _)| when.abs_diff(at) < time.mul_f64(0.05));
        near.map(|(_, bytes)| *bytes).max().context("no memory was read")
    };
    let (early, late) = (around(0.2)?, around(1.0)?);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = late as f64 / early as f64;
    let mib = |bytes: u64| bytes / (1 << 20);
    let (at, end) = (time.mul_f64(0.2).as_secs(), time.as_secs());
    println!(
        "resident memory around second {at} {} MiB, second {end} {} MiB: {ratio:.3} (wanted: at most 1.05)",
        mib(early),
        mib(late)
    );
    ensure!(ratio <= 1.05, "memory grows");
    println!("the reloads hold");
    Ok(())
}

fn residents(models: usize) -> anyhow::Result<()> {
    const FIT: u64 = 200;
    let folder = tempfile::tempdir()?;
    for at in 0..models {
        fs::write(folder.path().join(format!("m{at}.onnx")), model(1)?)?;
    }
    // One core is the server's, so that what it does to itself is what is measured; `make` runs this on another. A model
    // takes half a MiB and its file for the I/O thread.
    let budget = (FIT * ((512 << 10) + model(1)?.len() as u64)).to_string();
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(binary()?).env("ORT_DYLIB_PATH", engine_library()?);
    command.args(["serve", "--model-memory-budget", &budget, "--model-repository"]).arg(folder.path());
    command.args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
    let server = Server::spawn(command)?;
    let window = Duration::from_secs(10);
    let hot = |others: bool| -> anyhow::Result<u64> {
        let (hot, cold) = (&Load::default(), &Load::default());
        std::thread::scope(|scope| {
            scope.spawn(move || hot.lane(server.http, |_| "m0".to_owned(), Some(Duration::from_millis(2))));
            if others {
                // Steps that meet every model, in an order that no cache likes.
                let name = |number: u64| {
                    format!("m{}", 1 + usize::try_from(number * 7919).unwrap_or(0) % (models - 1))
                };
                scope.spawn(move || cold.lane(server.http, name, Some(Duration::from_millis(20))));
            }
            std::thread::park_timeout(window);
            hot.ending.store(true, SeqCst);
            cold.ending.store(true, SeqCst);
        });
        hot.hold()?;
        cold.hold()?;
        Ok(hot.p99_us())
    };
    let _ = hot(false)?;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        alone.push(hot(false)?);
        beside.push(hot(true)?);
    }
    let median = |all: &mut Vec<u64>| {
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    };
    let (alone, beside) = (median(&mut alone), median(&mut beside));
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = beside as f64 / alone as f64;
    println!(
        "{models} models in memory for {FIT}: every answer right, resident {} MiB",
        resident_bytes(&server)? / (1 << 20)
    );
    println!(
        "p99 of the one that is always asked for: alone {alone} us, while others load and go {beside} us: {ratio:.2} (wanted: at most 1.2)"
    );
    let mut client = Client::connect(server.metrics)?;
    let used = page_number(&mut client, "xebec_engine_model_evictions_total")?;
    println!("models sent out of memory: {used}");
    if ratio > 1.2 {
        bail!("loads of others are felt");
    }
    println!("the residents hold");
    Ok(())
}

/// A number of the metrics page, which is no JSON.
fn page_number(client: &mut Client, family: &str) -> anyhow::Result<u64> {
    client.0.get_mut().write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    client.0.read_to_string(&mut page)?;
    let line = page.lines().find_map(|line| line.strip_prefix(family)).context("no such family")?;
    Ok(line.trim().parse()?)
}
