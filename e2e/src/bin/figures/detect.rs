//! Pictures to boxes: the server beside the same crates in one loop, and beside a Python service, in one run.
use crate::{
    beside::{Connection, Peer, ROUNDS, Way, in_turn, median, percentile, together, write_lines},
    start_with,
};
use anyhow::{Context as _, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};
use xebec_e2e::{generate::root, pipeline::Detection, server::binary};

const EXAMPLE: &str = "examples/object-detection";

/// The score and the overlap of the example's graph.
const SETTINGS: (&str, &str) = ("0.25", "0.45");

impl Way for Detection {
    fn ask(&mut self, file: &[u8]) -> anyhow::Result<()> {
        self.see(file).map(drop)
    }
}

/// Pictures that the judge of the example drew.
fn drawn(folder: &Path) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix("scene-").and_then(|rest| rest.strip_suffix(".jpg"));
        if let Some(number) = number {
            all.push((number.parse()?, fs::read(&path)?));
        }
    }
    ensure!(!all.is_empty(), "{} has no scene-N.jpg: judge.py --save-pictures makes them", folder.display());
    all.sort();
    Ok(all)
}

fn detector() -> PathBuf {
    root().join(EXAMPLE).join("models/detector/1/model.onnx")
}

/// Writes what the loop sees in every picture, a line each, for the judge of the example.
pub(super) fn predict(pictures: &Path, out: &Path) -> anyhow::Result<()> {
    let mut detection = Detection::open(&detector(), SETTINGS.0, SETTINGS.1)?;
    let see = |(scene, file): (u64, Vec<u8>)| Ok(detection.see(&file)?.line(scene));
    write_lines(out, &drawn(pictures)?.into_iter().map(see).collect::<anyhow::Result<Vec<_>>>()?)
}

/// Prints the table.
pub(super) fn cost(pictures: &Path, count: usize) -> anyhow::Result<()> {
    let pictures: Vec<Vec<u8>> = drawn(pictures)?.into_iter().map(|(_, file)| file).take(count).collect();
    let server = start_with(&binary()?, &["up", EXAMPLE], "0,1")?;
    let peer = Peer::start("peer-detection", EXAMPLE, "0,1")?;
    let alone = || -> anyhow::Result<Box<dyn Way>> {
        Ok(Box::new(Detection::open(&detector(), SETTINGS.0, SETTINGS.1)?))
    };
    let xebec = || -> anyhow::Result<Box<dyn Way>> {
        let headers = "Inference-Header-Content-Length: 0\r\n";
        Ok(Box::new(Connection::open(server.http, "/v2/models/detect/infer", headers)?))
    };
    let python = || -> anyhow::Result<Box<dyn Way>> {
        Ok(Box::new(Connection::open(peer.address, "/detect", "Content-Type: image/jpeg\r\n")?))
    };
    let first = pictures.first().context("there is no picture")?;
    peer.wait(|| python()?.ask(first))?;
    let mut ways = [[alone()?, alone()?], [xebec()?, xebec()?], [python()?, python()?]];
    let (mut times, mut rates) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
    for round in 0..=ROUNDS {
        let took = in_turn(ways.each_mut().map(|[first, _]| &mut **first as &mut dyn Way), &pictures)?;
        for (at, (way, took)) in ways.iter_mut().zip(took).enumerate() {
            let rate = together(way, &pictures)?;
            // The first round warms up.
            if round > 0 {
                times[at].extend(took);
                rates[at].push(rate);
            }
        }
    }
    let tail = percentile(&times[1], 0.99);
    let [own, served, theirs] = times.map(|all| median(&all));
    let [own_rate, served_rate, theirs_rate] = rates.map(|all| median(&all));
    println!(
        "| JPEG to boxes, 640 x 640, a thread a picture | us, one after the other | of the loop's | pictures/s, two at a time |"
    );
    println!("|---|---|---|---|");
    println!("| the same crates in one loop | {own:.0} | 1.000 | {own_rate:.1} |");
    println!(
        "| xebec over REST (wanted: at most 1.05) | {served:.0} | {:.3} | {served_rate:.1} |",
        served / own
    );
    println!(
        "| Python: FastAPI, OpenCV, onnxruntime, NumPy | {theirs:.0} | {:.3} | {theirs_rate:.1} |",
        theirs / own
    );
    println!(
        "\nxebec is {:.2} times as fast as the Python service one after the other, and {:.2} times two at a time; its p99 is {:.0} us",
        theirs / served,
        served_rate / theirs_rate,
        tail
    );
    Ok(())
}
