//! `make tune-check`: how near `xebec tune` comes to the best of a whole grid, from bad configurations of two models.
//!
//! Ends with an error if it comes less near than is wanted, or takes longer.
#![expect(clippy::print_stdout, reason = "what it found goes to standard output")]
use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use xebec_e2e::{
    generate::root,
    server::{binary, engine_library},
};

/// What a search must reach of the best point, and within which time.
const RATIO: f64 = 0.95;
const SECONDS: f64 = 300.0;

/// One request a run, more instances than cores, and a wait for company that cannot come.
const BAD: &str = "max_batch_size: 1\ninstance_group [ { count: 4 kind: KIND_CPU } ]\ndynamic_batching { max_queue_delay_microseconds: 5000 }\n";

#[derive(Parser)]
struct Args {
    /// The encoder that `make tune-check` makes.
    #[arg(long)]
    encoder: PathBuf,
    /// Only this model: fraud-mlp or encoder.
    #[arg(long)]
    only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mlp = root().join("examples/fraud-detection/models/fraud-mlp.onnx");
    let models: [(&str, &Path, &[&str]); 2] =
        [("fraud-mlp", &mlp, &[]), ("encoder", &args.encoder, &["--free-extent", "32"])];
    println!("| model | as it is | chosen | requests/s | search | grid | best of it | ratio |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut faults = Vec::new();
    for (name, model, more) in models {
        if args.only.as_deref().is_none_or(|only| only == name)
            && let Some(fault) = check(name, model, more)?
        {
            faults.push(fault);
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    Ok(())
}

/// Tunes a model and prints its row; returns what is not as wanted.
fn check(name: &str, model: &Path, more: &[&str]) -> anyhow::Result<Option<String>> {
    let folder = tempfile::tempdir()?;
    let version = folder.path().join(name).join("1");
    fs::create_dir_all(&version)?;
    fs::copy(model, version.join("model.onnx"))?;
    fs::write(folder.path().join(name).join("config.pbtxt"), BAD)?;
    let report = tune(&folder.path().join(name), more)?;
    let (start, chosen, grid) = (&report["start"], &report["chosen"], &report["exhaustive"]);
    let number = |value: &Value, key: &str| {
        value[key].as_f64().with_context(|| format!("the report has no {key}: {value}"))
    };
    let (ratio, seconds) = (number(grid, "ratio")?, number(&report, "seconds")?);
    println!(
        "| {name} | {:.0}/s | {} | {:.0}/s | {seconds:.0} s | {} points, {:.0} s | {:.0}/s, {} at c={} | {ratio:.3} |",
        number(start, "per_second")?,
        arrangement(chosen),
        number(grid, "chosen_per_second")?,
        grid["points"],
        number(grid, "seconds")?,
        number(grid, "best_per_second")?,
        grid["best"].as_str().unwrap_or_default(),
        grid["best_load"],
    );
    let enough = ratio >= RATIO && seconds <= SECONDS;
    Ok((!enough).then(|| {
        format!("{name}: {ratio:.3} of the best after {seconds:.0} s, wanted {RATIO} within {SECONDS} s")
    }))
}

fn arrangement(point: &Value) -> String {
    let class = match point["instances"].as_u64() {
        Some(instances) => format!("{instances} x {}", point["threads"]),
        None => "inline".to_owned(),
    };
    format!("{class}, batch {}, delay {} us, c={}", point["batch"], point["delay_us"], point["concurrency"])
}

fn tune(model: &Path, more: &[&str]) -> anyhow::Result<Value> {
    let mut command = Command::new(binary()?);
    command.arg("tune").arg(model).args(["--json", "--exhaustive", "--time", "5m"]).args(more);
    command.env("ORT_DYLIB_PATH", engine_library()?).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "xebec tune failed for {}", model.display());
    serde_json::from_slice(&output.stdout).context("the report is not JSON")
}
