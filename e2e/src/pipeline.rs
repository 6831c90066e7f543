//! The examples in one loop each, by the crates that the server has and without a server: its ceiling, and what its answers are
//! judged by.
use crate::server::engine_library;
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use ort::{
    environment::Environment,
    session::{Session, SessionInputValue},
    value::TensorRef,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Files, Made, Recipe, Step, Steps as _, Unfit},
};
use xebec_steps::Library;

mod detection;
mod recommendation;

pub use detection::{Detection, Seen};
pub use recommendation::{Recommendation, Recommended};

/// Files of steps, read whole: a loop lasts.
struct Folder(PathBuf);

impl Files for Folder {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        fs::read(self.0.join(name)).map(Bytes::from).map_err(|error| format!("cannot read '{name}': {error}"))
    }
}

/// Opens steps of a folder.
struct Opens(Folder);

impl Opens {
    fn step(&self, kind: &str, settings: &[(&str, &str)]) -> anyhow::Result<Arc<dyn Step>> {
        let settings: BTreeMap<String, String> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Library.open(Recipe { kind, settings: &settings, files: &self.0 }).map_err(|why| anyhow!("{why}"))
    }
}

fn run<const N: usize>(step: &dyn Step, inputs: &[&Tensor]) -> anyhow::Result<[Tensor; N]> {
    let inputs: Vec<Tensor> = inputs.iter().copied().cloned().collect();
    let made = step.run(&inputs).map_err(|Unfit(why)| anyhow!("{why}"))?;
    let tensor = |(info, made): (&TensorInfo, Made)| Tensor {
        name: Arc::clone(&info.name),
        datatype: info.datatype,
        shape: made.shape,
        data: made.data,
    };
    let all: Vec<Tensor> = step.outputs().iter().zip(made).map(tensor).collect();
    all.try_into().ok().context("a step has made other outputs than it has")
}

/// The engine, of which a process has one.
fn environment() -> anyhow::Result<Environment> {
    static ONLY: Mutex<Option<Environment>> = Mutex::new(None);
    let mut only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*only {
        return Ok(environment.clone());
    }
    let builder = ort::init_from(engine_library()?).map_err(|error| anyhow!("{error}"))?;
    let environment = builder.with_telemetry(false).build().map_err(|error| anyhow!("{error}"))?;
    Ok(only.insert(environment).clone())
}

/// A model on one thread.
struct Model(Session);

impl Model {
    fn open(environment: &Environment, path: &Path) -> anyhow::Result<Self> {
        let said = |error: &dyn std::fmt::Display| anyhow!("{}: {error}", path.display());
        let builder = Session::builder(environment).map_err(|error| said(&error))?;
        let builder = builder.with_intra_threads(1).map_err(|error| said(&error))?;
        let mut builder = builder.with_inter_threads(1).map_err(|error| said(&error))?;
        Ok(Self(builder.commit_from_file(path).map_err(|error| said(&error))?))
    }

    /// Its only output.
    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> anyhow::Result<Tensor> {
        let wrong = |error: ort::Error| anyhow!("{error}");
        let mut given: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let shape = tensor.shape.clone();
            let value = match tensor.datatype {
                Datatype::Fp32 => {
                    let numbers: &[f32] = numbers(tensor)?;
                    TensorRef::from_array_view((shape, numbers)).map_err(wrong)?.into()
                }
                Datatype::Int64 => {
                    let numbers: &[i64] = numbers(tensor)?;
                    TensorRef::from_array_view((shape, numbers)).map_err(wrong)?.into()
                }
                other => return Err(anyhow!("'{name}' is {other}")),
            };
            given.push(((*name).into(), value));
        }
        let outputs = self.0.run(given).map_err(wrong)?;
        let (shape, data) = outputs[0].try_extract_tensor::<f32>().map_err(wrong)?;
        Ok(Tensor {
            name: "output".into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
            data: Bytes::copy_from_slice(bytemuck::cast_slice(data)),
        })
    }
}

fn numbers<T: bytemuck::Pod>(tensor: &Tensor) -> anyhow::Result<&[T]> {
    bytemuck::try_cast_slice(&tensor.data).map_err(|error| anyhow!("'{}': {error}", tensor.name))
}
