//! Ways to ask for the same thing, one after the other and side by side: a server, a loop, a Python service.
use anyhow::{Context as _, ensure};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use xebec_e2e::{generate::root, server::peer_python};

/// Interleaved loads of each, of which the median counts.
pub(super) const ROUNDS: usize = 10;

/// A way to ask.
pub(super) trait Way: Send {
    /// Asks, and waits for the answer.
    fn ask(&mut self, what: &[u8]) -> anyhow::Result<()>;
}

/// One connection to a server, on which requests follow each other.
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    pub(super) fn open(address: SocketAddr, path: &str, headers: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Content-Length: ");
        Ok(Self { stream: BufReader::new(stream), head })
    }
}

impl Way for Connection {
    fn ask(&mut self, what: &[u8]) -> anyhow::Result<()> {
        let head = format!("{}{}\r\n\r\n", self.head, what.len());
        self.stream.get_mut().write_all(&[head.as_bytes(), what].concat())?;
        let (mut line, mut length, mut first) = (String::new(), 0, String::new());
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the server closed the connection");
            if first.is_empty() {
                line.clone_into(&mut first);
            }
            if line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        ensure!(first.contains(" 200 "), "{first}{}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

/// Asks for everything once of every way, one after the other; microseconds of each, by way.
///
/// The ways take turns with every request, as a machine that others share is another one a second later; who begins, too.
pub(super) fn in_turn<const N: usize>(
    ways: [&mut dyn Way; N],
    all: &[Vec<u8>],
) -> anyhow::Result<[Vec<f64>; N]> {
    let mut took = [const { Vec::new() }; N];
    for (at, what) in all.iter().enumerate() {
        for turn in 0..N {
            let way = (at + turn) % N;
            let began = Instant::now();
            ways[way].ask(what)?;
            took[way].push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(took)
}

/// Answers a second of several ways side by side, each of which asks for everything.
pub(super) fn together(ways: &mut [Box<dyn Way>], all: &[Vec<u8>]) -> anyhow::Result<f64> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = ways
            .iter_mut()
            .map(|way| scope.spawn(|| all.iter().try_for_each(|what| way.ask(what))))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        })
    })?;
    Ok((ways.len() * all.len()) as f64 / began.elapsed().as_secs_f64())
}

/// Microseconds from when each request was due, at so many a second, whoever is free asking next.
pub(super) fn at_rate(
    ways: &mut [Box<dyn Way>],
    all: &[Vec<u8>],
    per_second: f64,
) -> anyhow::Result<Vec<f64>> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let began = Instant::now();
    let (next, all_of) = (&next, &all);
    std::thread::scope(|scope| {
        let ask = |way: &mut Box<dyn Way>| -> anyhow::Result<Vec<f64>> {
            let mut took = Vec::new();
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let Some(what) = all_of.get(at) else { return Ok(took) };
                let due = began + Duration::from_secs_f64(at as f64 / per_second);
                pause(due.saturating_duration_since(Instant::now()));
                way.ask(what)?;
                took.push(due.elapsed().as_secs_f64() * 1e6);
            }
        };
        let threads: Vec<_> = ways.iter_mut().map(|way| scope.spawn(move || ask(way))).collect();
        let mut took = Vec::new();
        for thread in threads {
            took.extend(thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))?);
        }
        Ok(took)
    })
}

#[expect(clippy::disallowed_methods, reason = "requests come at their time; a peer is asked now and then")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub(super) fn median(all: &[f64]) -> f64 {
    percentile(all, 0.5)
}

pub(super) fn percentile(all: &[f64], of: f64) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    let last = all.len().saturating_sub(1);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    all.get((last as f64 * of).round() as usize).copied().unwrap_or(f64::NAN)
}

/// A Python service of an example, which ends with this.
pub(super) struct Peer {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Peer {
    /// Starts `service.py` of an example in the environment of that name, and waits until it says where it listens.
    pub(super) fn start(environment: &str, example: &str, cores: &str) -> anyhow::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", cores]).arg(peer_python(environment)?).arg("-B");
        command.arg(root().join(example).join("service.py")).args(["--port", "0", "--threads", "1"]);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let address = child.stdout.take().context("the service has no output").and_then(|out| {
            let mut line = String::new();
            BufReader::new(out).read_line(&mut line)?;
            let address = line.trim().rsplit("//").next().unwrap_or_default().parse();
            address.with_context(|| format!("the service said '{}'", line.trim()))
        });
        match address {
            Ok(address) => Ok(Self { child, address }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// Waits until it answers.
    pub(super) fn wait(&self, mut ask: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match ask() {
                Err(_) if Instant::now() < until => pause(Duration::from_millis(50)),
                outcome => return outcome.context("the Python service does not answer"),
            }
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// It has nothing to lose.
fn end(child: &mut Child) {
    let _ = child.kill().and_then(|()| child.wait());
}

/// What a line of JSON for each answer goes to.
pub(super) fn write_lines(out: &Path, lines: &[serde_json::Value]) -> anyhow::Result<()> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}
