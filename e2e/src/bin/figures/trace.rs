//! What traces cost: processor time of the server per request, in interleaved loads.
//!
//! Every variant has a server of its own, all on core 0, of which one at a time is loaded. A round loads each of them once,
//! for a moment; what is compared is the median of the rounds, and the median of a round's own ratios, so that a machine that
//! drifts drifts for all of them. Loads are short and many because such a drift takes seconds. Servers are started anew now and
//! then, so that what is particular to a process does not stand in all of its rounds.
use crate::{Load, cpu_seconds, number, start_with, url};
use anyhow::{Context as _, ensure};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
};
use xebec_e2e::server::{Server, binary};

struct Variant<'a> {
    name: &'static str,
    binary: &'a Path,
    flags: &'a [&'a str],
    server: Option<Server>,
    /// Microseconds of the processor per request, by round.
    cpu_us: Vec<f64>,
}

/// Rounds of one server.
const ROUNDS_OF_A_SERVER: usize = 5;

impl<'a> Variant<'a> {
    fn new(name: &'static str, binary: &'a Path, flags: &'a [&'a str]) -> Self {
        Self { name, binary, flags, server: None, cpu_us: Vec::new() }
    }

    fn measure(&mut self, protocol: &str, seconds: f64) -> anyhow::Result<()> {
        if self.cpu_us.len().is_multiple_of(ROUNDS_OF_A_SERVER) {
            self.server = None;
        }
        let server = match self.server.take() {
            Some(server) => server,
            None => {
                let base = ["up", "examples/fraud-detection", "--io-threads", "1"];
                start_with(self.binary, &[&base, self.flags].concat(), "0")?
            }
        };
        let server = &*self.server.insert(server);
        let mut load = Load::new(url(server, protocol), protocol, "fraud-mlp").at("1", 64, seconds);
        load.more = ["--warm-up", "0.05"].map(str::to_owned).to_vec();
        let before = cpu_seconds(server.id())?;
        let report = load.run()?;
        let failures = report["failures"].as_object().is_some_and(|failures| !failures.is_empty());
        ensure!(!failures, "requests failed: {}", report["failures"]);
        let spent = cpu_seconds(server.id())? - before;
        self.cpu_us.push(spent * 1e6 / number(&report, &["answered"])?);
        Ok(())
    }
}

/// Prints the table; `before` is a binary without traces, to compare with.
pub(super) fn cost(
    before: Option<&PathBuf>,
    protocols: &[String],
    rounds: usize,
    seconds: f64,
) -> anyhow::Result<()> {
    let collector = format!("http://{}", sink()?);
    let endpoint = ["--trace-endpoint", &collector];
    let never = [&endpoint[..], &["--trace-rate", "4294967295"]].concat();
    let one_percent = [&endpoint[..], &["--trace-rate", "100"]].concat();
    let all = [&endpoint[..], &["--trace-rate", "1"]].concat();
    println!("| protocol | server | CPU us/request | against the first | wanted |\n|---|---|---|---|---|");
    let own = binary()?;
    for protocol in protocols {
        let mut variants = Vec::new();
        if let Some(before) = before {
            variants.push((Variant::new("a binary without traces", before, &[]), "-"));
        }
        let off = if before.is_some() { "at most 1.01" } else { "-" };
        variants.push((Variant::new("no collector named", &own, &[]), off));
        variants.push((Variant::new("a collector, and nothing drawn", &own, &never), "-"));
        variants.push((Variant::new("1 % traced", &own, &one_percent), "at most 1.03"));
        variants.push((Variant::new("all traced", &own, &all), "-"));
        for round in 0..rounds {
            // Forwards and backwards by turns: no variant always comes behind the same other one.
            let mut order: Vec<usize> = (0..variants.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let (variant, _) = variants.get_mut(at).context("a variant")?;
                variant.measure(protocol, seconds)?;
            }
        }
        let first = variants.first().map(|(variant, _)| variant.cpu_us.clone()).unwrap_or_default();
        for (variant, wanted) in &variants {
            let ratios = variant.cpu_us.iter().zip(&first).map(|(own, first)| own / first);
            println!(
                "| {protocol} | {} | {:.2} | {:.3} | {wanted} |",
                variant.name,
                median(variant.cpu_us.iter().copied()),
                median(ratios)
            );
        }
    }
    Ok(())
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    let upper = all.get(middle).copied().unwrap_or(f64::NAN);
    let lower = all.get(middle.saturating_sub(1)).copied().unwrap_or(upper);
    if all.len().is_multiple_of(2) { f64::midpoint(lower, upper) } else { upper }
}

/// A collector that takes everything and keeps nothing.
fn sink() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that broke is made anew by who needs it.
            std::thread::spawn(move || drop(swallow(stream)));
        }
    });
    Ok(address)
}

fn swallow(mut stream: TcpStream) -> std::io::Result<()> {
    let (mut seen, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(());
        }
        seen.extend_from_slice(piece.get(..read).unwrap_or_default());
        while let Some(whole) = request_bytes(&seen).filter(|whole| *whole <= seen.len()) {
            seen.drain(..whole);
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
}

/// Bytes of the first request, by its head if that is there.
fn request_bytes(seen: &[u8]) -> Option<usize> {
    let head = seen.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(seen.get(..head)?).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"))?;
    Some(head + length.trim().parse::<usize>().ok()?)
}
