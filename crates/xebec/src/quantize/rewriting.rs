//! The rewriting of a model: onnxruntime's own tools in a Python environment that the caller names.
//!
//! Python is started isolated (`-I`), without our environment, in a folder of its own; it reads a job as JSON and writes an
//! answer as JSON. Invariant: whatever happens, the folder is gone afterwards.
use super::Mode;
use crate::local::data::Requests;
use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use xebec_core::{Datatype, Tensor};

const SCRIPT: &str = include_str!("script.py");

/// How often it is looked whether the tool has ended.
const GLANCE: Duration = Duration::from_millis(20);

/// Most of what the tool printed that is told.
const TOLD: usize = 2000;

/// A folder beside the file that is to be made, gone with this value.
pub(super) struct Workplace {
    folder: PathBuf,
}

impl Workplace {
    /// Makes a folder beside `out`.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn beside(out: &Path) -> anyhow::Result<Self> {
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder =
            parent.canonicalize().with_context(|| format!("cannot write to {}", parent.display()))?;
        let folder = folder.join(format!(".xebec-quantize-{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| format!("cannot make a folder in {}", parent.display()))?;
        Ok(Self { folder })
    }

    /// Brings a model and its external data in: the tool writes beside the file that it reads.
    fn bring(&self, model: &Path, external: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let model = model.canonicalize().with_context(|| format!("cannot read {}", model.display()))?;
        let folder = model.parent().unwrap_or(Path::new("/"));
        for file in external.iter().chain([&model]) {
            let Ok(inside) = file.strip_prefix(folder) else {
                bail!("{} is not beside the model", file.display())
            };
            let place = self.folder.join("in").join(inside);
            fs::create_dir_all(place.parent().unwrap_or(&self.folder))?;
            // No second name: a server would not load external data that has two.
            fs::copy(file, &place).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(self.folder.join("in").join(model.file_name().unwrap_or_default()))
    }

    /// Where the copy is made.
    pub(super) fn copy(&self) -> PathBuf {
        self.folder.join("copy.onnx")
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What is to be done.
pub(super) struct Job<'a> {
    pub(super) mode: Mode,
    pub(super) model: &'a Path,
    /// Files of its external data.
    pub(super) external: &'a [PathBuf],
    pub(super) python: &'a Path,
    pub(super) per_channel: bool,
    pub(super) reduce_range: bool,
    pub(super) calibration: Option<&'a Requests>,
    pub(super) limit: Duration,
}

/// Which tool did it.
#[derive(Debug, Deserialize)]
pub(super) struct Tool {
    pub(super) tool: String,
    pub(super) versions: BTreeMap<String, String>,
}

/// Makes the copy.
///
/// # Errors
/// Python cannot be started, lacks a package, refuses the model, or takes too long.
pub(super) fn run(job: &Job<'_>, workplace: &Workplace, stop: &AtomicBool) -> anyhow::Result<Tool> {
    let at = |name: &str| workplace.folder.join(name);
    let calibration = job.calibration.map(|requests| lay_out(requests, &at("data.bin"))).transpose()?;
    let text = json!({
        "mode": job.mode.name(),
        "input": workplace.bring(job.model, job.external)?,
        "output": workplace.copy(),
        "per_channel": job.per_channel,
        "reduce_range": job.reduce_range,
        "calibration": calibration,
    });
    fs::write(at("job.json"), text.to_string())?;
    fs::write(at("script.py"), SCRIPT)?;
    let said = File::create(at("said"))?;
    let mut command = Command::new(job.python);
    command.arg("-I").args([at("script.py"), at("job.json"), at("answer.json")]).env_clear();
    command.current_dir(&workplace.folder).stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
    wait(command, job, stop).with_context(|| told(&at("said")))?;
    let answer = fs::read(at("answer.json")).with_context(|| told(&at("said")))?;
    let answer: Value = serde_json::from_slice(&answer).context("the tool's answer is not JSON")?;
    if let Some(missing) = answer["missing"].as_array() {
        let names: Vec<&str> = missing.iter().filter_map(Value::as_str).collect();
        let (python, names) = (job.python.display(), names.join(" "));
        bail!("{python} has no package {names}; install: {python} -m pip install {names}");
    }
    if let Some(error) = answer["error"].as_str() {
        bail!("onnxruntime's tool refused the model: {error:.2000}");
    }
    ensure!(workplace.copy().is_file(), "the tool made no file (models of 2 GB and more are not rewritten)");
    Ok(serde_json::from_value(answer)?)
}

fn wait(mut command: Command, job: &Job<'_>, stop: &AtomicBool) -> anyhow::Result<()> {
    let python = job.python.display();
    let mut child = command.spawn().with_context(|| format!("cannot start {python}"))?;
    let until = Instant::now() + job.limit;
    let end = loop {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "{python} ended with {status}");
            return Ok(());
        }
        match (stop.load(Relaxed), Instant::now() >= until) {
            (true, _) => break "interrupted".to_owned(),
            (false, true) => {
                break format!("the tool took longer than {} s (--timeout)", job.limit.as_secs());
            }
            (false, false) => std::thread::park_timeout(GLANCE),
        }
    };
    // It may have ended by itself meanwhile.
    let _ = child.kill();
    child.wait()?;
    bail!(end)
}

/// The end of what the tool printed.
fn told(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let begin = (text.len().saturating_sub(TOLD)..=text.len()).find(|at| text.is_char_boundary(*at));
    format!(
        "the rewriting failed; Python said:\n{}",
        text.get(begin.unwrap_or(0)..).unwrap_or_default().trim()
    )
}

/// Writes the tensors one after another, and says where each is.
fn lay_out(requests: &Requests, file: &Path) -> anyhow::Result<Value> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut offset = 0;
    let mut place = |tensor: &Tensor| -> anyhow::Result<Value> {
        let dtype = dtype(tensor.datatype).with_context(|| {
            format!("input '{}' is {}, with which nothing is calibrated", tensor.name, tensor.datatype)
        })?;
        out.write_all(&tensor.data)?;
        let size = tensor.data.len();
        let value = json!({"name": &*tensor.name, "dtype": dtype, "shape": tensor.shape, "offset": offset, "size": size});
        offset += size;
        Ok(value)
    };
    let mut all = Vec::new();
    for inputs in &requests.all {
        all.push(inputs.iter().map(&mut place).collect::<anyhow::Result<Vec<_>>>()?);
    }
    out.flush()?;
    Ok(json!({"file": file, "requests": all}))
}

/// NumPy's name.
fn dtype(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool",
        Datatype::Uint8 => "uint8",
        Datatype::Uint16 => "uint16",
        Datatype::Uint32 => "uint32",
        Datatype::Uint64 => "uint64",
        Datatype::Int8 => "int8",
        Datatype::Int16 => "int16",
        Datatype::Int32 => "int32",
        Datatype::Int64 => "int64",
        Datatype::Fp16 => "float16",
        Datatype::Fp32 => "float32",
        Datatype::Fp64 => "float64",
        Datatype::Bf16 | Datatype::Bytes => return None,
    })
}
