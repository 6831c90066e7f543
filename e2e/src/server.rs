//! The real binary as a child process on free ports of loopback, stopped by its own process id.
use crate::generate::root;
use anyhow::{Context as _, bail};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// A running `xebec`.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Of HTTP/1.1.
    pub http: SocketAddr,
    /// Of gRPC.
    pub grpc: SocketAddr,
    /// Of the metrics page.
    pub metrics: SocketAddr,
    /// What it printed until it was ready.
    pub greeting: String,
    /// From the start of the process until it said that it is ready.
    pub ready_after: Duration,
}

/// The bound of a start that fails; a start that works takes a fraction of a second.
const START_BOUND: Duration = Duration::from_secs(120);

/// The binary that cargo built beside this test.
///
/// # Errors
/// It is not there; the text says how it is made.
pub fn binary() -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.ancestors().find(|folder| folder.join("xebec").is_file());
    profile
        .map(|folder| folder.join("xebec"))
        .context("there is no xebec beside the tests: run `cargo build --package xebec`")
}

/// The folder of ONNX Runtime's library.
///
/// # Errors
/// It is not there; the text says how it is brought.
pub fn engine_library() -> anyhow::Result<PathBuf> {
    let cache = cache("XEBEC_ENGINE_CACHE", "engine");
    let mut found: Vec<PathBuf> =
        glob(&cache, "onnxruntime-").into_iter().flat_map(|f| glob(&f, "libonnxruntime.so")).collect();
    // As numbers: 1.31.1 is newer than 1.9.0.
    found.sort_by_key(|path| numbers(path));
    found.pop().with_context(|| format!("no libonnxruntime.so below {}: run `make engine`", cache.display()))
}

fn numbers(path: &std::path::Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The Python of the stock clients' environment.
///
/// # Errors
/// It is not there; the text says how it is made.
pub fn clients_python() -> anyhow::Result<PathBuf> {
    peer_python("clients")
}

/// The Python of a peers' environment, by the name of its requirements.
///
/// # Errors
/// It is not there; the text says how it is made.
pub fn peer_python(name: &str) -> anyhow::Result<PathBuf> {
    let variable = format!("XEBEC_PEERS_{}", name.replace('-', "_").to_uppercase());
    let cache = cache(&variable, "peers");
    // Behind the name stands a checksum: import-1 is one of import, and import-jax-1 is not.
    let is_one = |folder: &PathBuf| {
        let last = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        last.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('-'))
            .is_some_and(|sum| sum.parse::<u64>().is_ok())
    };
    let folders = if cache.join("bin/python").is_file() {
        vec![cache.clone()]
    } else {
        glob(&cache, name).into_iter().filter(is_one).collect()
    };
    let python = folders.into_iter().map(|folder| folder.join("bin/python")).find(|python| python.is_file());
    python.with_context(|| {
        format!("no Python of {name} below {}: run `make peers` or `make peers-import`", cache.display())
    })
}

/// The collector of traces.
///
/// # Errors
/// It is not there; the text says how it is made.
pub fn collector() -> anyhow::Result<PathBuf> {
    program("XEBEC_PEERS_COLLECTOR", "collector")
}

/// The conformance judge of HTTP/2.
///
/// # Errors
/// It is not there; the text says how it is made.
pub fn h2spec() -> anyhow::Result<PathBuf> {
    program("XEBEC_PEERS_H2SPEC", "h2spec")
}

/// A program that `make NAME` makes, in the folder that a variable names or in one of the cache.
fn program(variable: &str, name: &str) -> anyhow::Result<PathBuf> {
    let cache = cache(variable, "peers");
    let folders = [vec![cache.clone()], glob(&cache, &format!("{name}-"))].concat();
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|program| program.is_file());
    found.with_context(|| format!("no {name} below {}: run `make {name}`", cache.display()))
}

#[expect(clippy::disallowed_methods, reason = "where make keeps what it brings")]
fn cache(variable: &str, folder: &str) -> PathBuf {
    let home = || PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache");
    let base = || std::env::var("XDG_CACHE_HOME").map_or_else(|_| home(), PathBuf::from).join("xebec");
    std::env::var(variable).map_or_else(|_| base().join(folder), PathBuf::from)
}

fn glob(folder: &PathBuf, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect()
}

impl Server {
    /// Starts `xebec` with `args` on free ports and waits until it is ready.
    ///
    /// # Errors
    /// It ended or said nothing; its standard error is in the text.
    pub fn start(args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(args).args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
        command.env("ORT_DYLIB_PATH", engine_library()?);
        Self::spawn(command)
    }

    /// Starts a command that serves and greets as `xebec serve` does.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn spawn(mut command: Command) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut child = command.current_dir(root()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (send, lines) = mpsc::sync_channel(1024);
        let out = child.stdout.take().context("no standard output")?;
        // The reader goes on after the greeting, so that the server never waits for a full pipe.
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(send.try_send(line)))
        });
        let log = pass_on(child.stderr.take().context("no standard error")?);
        let greeting = match greeting(&lines) {
            Ok(greeting) => greeting,
            Err(error) => {
                child.kill()?;
                let log = log.join().unwrap_or_default();
                bail!("{error}; it said:\n{log}");
            }
        };
        let ready_after = started.elapsed();
        let address = |name: &str| address(&greeting, name);
        Ok(Self {
            http: address("http")?,
            grpc: address("grpc")?,
            metrics: address("metrics")?,
            child,
            greeting,
            ready_after,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to drain, as Kubernetes does.
    ///
    /// # Errors
    /// There is no `kill`.
    pub fn terminate(&self) -> anyhow::Result<()> {
        Command::new("kill").arg(self.child.id().to_string()).status()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone if the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Most of a log that is kept for the text of an error, in bytes.
const KEPT: usize = 64 << 10;

/// Prints what a server logs, from its first line on, so that it never waits for a full pipe; the begin is kept.
fn pass_on(log: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut kept = String::new();
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            // If nobody listens, the server's log is still to be read.
            let _ = writeln!(std::io::stderr(), "{line}");
            if kept.len() < KEPT {
                kept.push_str(&line);
                kept.push('\n');
            }
        }
        kept
    })
}

fn greeting(lines: &mpsc::Receiver<String>) -> anyhow::Result<String> {
    let mut greeting = String::new();
    let end = Instant::now() + START_BOUND;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = lines
            .recv_timeout(left)
            .map_err(|_| anyhow::anyhow!("xebec did not become ready; it printed:\n{greeting}"))?;
        greeting.push_str(&line);
        greeting.push('\n');
        if line.starts_with("ready") {
            return Ok(greeting);
        }
    }
}

fn address(greeting: &str, name: &str) -> anyhow::Result<SocketAddr> {
    let line = greeting.lines().find_map(|line| line.strip_prefix(name));
    let text = line.with_context(|| format!("no line '{name}' in\n{greeting}"))?.trim();
    let text = text.trim_start_matches("http://").trim_end_matches("/metrics");
    text.parse().with_context(|| format!("'{text}' is not an address"))
}
