//! `xebec doctor`: what is wrong or doubtful about a model or a repository, and a `config.pbtxt` that would be right.
//!
//! Not here: what is found out (`xebec_engine::doctor`).
use crate::{
    cli::{say, show},
    local::Local,
    replaced::replace,
};
use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::{fmt::Write as _, io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};
use xebec_core::Version;
use xebec_engine::doctor::{self, Diagnosis, Finding, Gravity};

/// Flags of `xebec doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// An .onnx file, a model's folder, or a repository.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the corrected config.pbtxt; the old one stays beside it as config.pbtxt.bak.
    #[arg(long)]
    pub write: bool,
    /// Do not load the models: look at their files alone.
    #[arg(long)]
    pub no_load: bool,
    /// ONNX Runtime's library; else it is looked for as a server does.
    #[arg(long, value_name = "FILE", conflicts_with = "no_load")]
    pub onnxruntime_library: Option<PathBuf>,
}

/// Runs `xebec doctor`: success if nothing has to be done, or nothing is left to do.
///
/// # Errors
/// The path cannot be read, the engine cannot be had, or a file cannot be written.
pub fn command(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let local = if args.no_load { None } else { Some(Local::start(args.onnxruntime_library.as_deref())?) };
    let settings = local.as_ref().map_or_else(Local::settings, |local| Ok(local.settings.clone()))?;
    let bar = spinner();
    let backend = local.as_ref().map(Local::backend);
    let examine = || {
        let all = doctor::examine(&args.path, backend, &settings, &|model| {
            bar.set_message(model.to_owned());
            bar.tick();
        });
        bar.finish_and_clear();
        all.with_context(|| format!("cannot read {}", args.path.display()))
    };
    let all = examine()?;
    if all.is_empty() {
        anyhow::bail!(
            "{} has no models: neither .onnx files nor folders such as NAME/1/model.onnx",
            args.path.display()
        );
    }
    let written = if args.write { write_all(&all)? } else { Vec::new() };
    let text = if args.json {
        serde_json::to_string_pretty(&as_json(&all, &written))? + "\n"
    } else {
        as_text(&all, &written)
    };
    show(text.as_bytes())?;
    // What was written may not be all that had to be done.
    let left = if written.is_empty() { all } else { examine()? };
    let faulty = left.iter().any(Diagnosis::is_faulty);
    Ok(if faulty { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn word(gravity: Gravity) -> &'static str {
    match gravity {
        Gravity::Note => "note",
        Gravity::Doubt => "warning",
        Gravity::Fault => "error",
    }
}

fn line(finding: &Finding) -> String {
    let Finding { gravity, path, place, message } = finding;
    let place = place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default();
    let path = path.display().to_string();
    // Some begin with it by themselves.
    let path = if message.starts_with(&path) { String::new() } else { format!("{path}{place}: ") };
    format!("{}: {path}{message}", word(*gravity))
}

fn as_text(all: &[Diagnosis], written: &[PathBuf]) -> String {
    let mut text = String::new();
    for diagnosis in all {
        // Writing into a String has no error to give.
        let fine = if diagnosis.findings.is_empty() { ": fine" } else { "" };
        let _ = writeln!(text, "{}{fine}{}", diagnosis.model, versions(diagnosis));
        for finding in &diagnosis.findings {
            let _ = writeln!(text, "  {}", line(finding));
        }
        match &diagnosis.proposal {
            Some((path, _)) if written.contains(path) => {
                let _ =
                    writeln!(text, "  {} is written anew; the old one is beside it as .bak", path.display());
            }
            Some((path, proposed)) => {
                let _ = writeln!(text, "\n# {}, corrected\n{proposed}", path.display());
            }
            None => (),
        }
    }
    let faulty = all.iter().filter(|diagnosis| diagnosis.is_faulty()).count();
    let unwritten = |(path, _): &(PathBuf, String)| !written.contains(path);
    let proposed = all.iter().filter_map(|diagnosis| diagnosis.proposal.as_ref()).any(unwritten);
    let write = if proposed { "; --write puts what is corrected in its place" } else { "" };
    let _ = writeln!(text, "{} looked at, {faulty} with something to fix{write}", models(all.len()));
    text
}

/// Which versions are served, where that is not plain.
fn versions(diagnosis: &Diagnosis) -> String {
    let plain = match diagnosis.versions.as_slice() {
        [] => true,
        [(version, labels)] => version.get() == 1 && labels.is_empty(),
        _ => false,
    };
    if plain {
        return String::new();
    }
    let named = |(version, labels): &(Version, Vec<String>)| match labels.as_slice() {
        [] => version.to_string(),
        labels => format!("{version} ({})", labels.join(", ")),
    };
    let all: Vec<String> = diagnosis.versions.iter().map(named).collect();
    format!(", {} {}", if all.len() == 1 { "version" } else { "versions" }, all.join(", "))
}

fn models(count: usize) -> String {
    if count == 1 { "1 model".to_owned() } else { format!("{count} models") }
}

fn as_json(all: &[Diagnosis], written: &[PathBuf]) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "severity": word(finding.gravity),
            "path": finding.path.display().to_string(),
            "line": finding.place.map(|(line, _)| line),
            "column": finding.place.map(|(_, column)| column),
            "message": finding.message,
        })
    };
    let version =
        |(version, labels): &(Version, Vec<String>)| json!({"version": version.get(), "labels": labels});
    let model = |diagnosis: &Diagnosis| {
        let proposal = diagnosis.proposal.as_ref().map(|(path, text)| {
            json!({"path": path.display().to_string(), "text": text, "written": written.contains(path)})
        });
        json!({
            "model": diagnosis.model,
            "fine": !diagnosis.is_faulty(),
            "versions": diagnosis.versions.iter().map(version).collect::<Vec<_>>(),
            "findings": diagnosis.findings.iter().map(finding).collect::<Vec<_>>(),
            "corrected": proposal,
        })
    };
    json!({"models": all.iter().map(model).collect::<Vec<_>>()})
}

/// Writes every proposal in the place of the file that is there, which is kept.
fn write_all(all: &[Diagnosis]) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (path, text) in all.iter().filter_map(|diagnosis| diagnosis.proposal.as_ref()) {
        replace(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path.clone());
    }
    if all.iter().all(|diagnosis| diagnosis.proposal.is_none()) {
        say(
            "nothing to write: no configuration has to be corrected, or none could be found that would be right",
        );
    }
    Ok(written)
}
