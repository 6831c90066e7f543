//! Completes a configuration from the graph, and refuses one that does not fit it, with the dims that would.
//!
//! Not here: the analysis of the graph (`onnx`), the start of the model (`served`).
use super::Candidate;
use crate::{
    backend::{self, LoadOptions},
    onnx::{self, Batchability},
    served::Plan,
};
use shapes::{Slot, fit, slots};
use std::{sync::Arc, time::Duration};
use xebec_core::{
    ModelInfo, Version, error::dims_text, metrics::ModelMetrics, model_config::ModelConfig,
    resource::Objective,
};

mod answer;
mod batching;
mod edges;
mod files;
mod groups;
mod histograms;
mod shapes;
mod tuning;
mod warmup;

pub(crate) use answer::config_type;
pub use files::Labels;
pub(crate) use files::{named as named_files, place as place_of_file, read as read_file};
pub(crate) use groups::instances;

#[cfg(test)]
mod tests;

/// What the server's flags say where a model does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// Most rows of a request to a model whose configuration does not say.
    pub max_batch_size: u32,
    /// Most requests that wait for a model.
    pub max_queue: usize,
    /// I/O cores.
    pub cores: u32,
    /// Runs of one model side by side; by the number of cores if `None`.
    pub instances: Option<u32>,
    /// What a model's threads are arranged for.
    pub objective: Objective,
    /// A model whose run takes less runs on the I/O core that read the request.
    pub inline_below: Duration,
}

/// The graph cannot be served as it is configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

impl Misfit {
    pub(crate) fn new(problem: String) -> Self {
        Self(problem)
    }
}

/// Makes the plan by which a version of a candidate is served.
///
/// # Errors
/// [`Misfit`]: what does not fit, and what would.
pub fn plan(
    candidate: &Candidate,
    version: Version,
    graph: &onnx::Model,
    defaults: &Defaults,
) -> Result<Plan, Misfit> {
    let given = candidate.config.as_ref();
    let lists = given.map(edges::lists).unwrap_or_default();
    let optional = edges::optional(graph, &lists)?;
    let mut inputs = slots(graph.inputs().iter().chain(&optional), "input")?;
    let names: Vec<String> = inputs.iter().map(|slot| slot.name.clone()).collect();
    let made = edges::take_made(given, &mut inputs)?;
    given.map_or(Ok(()), edges::check_outputs)?;
    let outputs = slots(graph.outputs(), "output")?;
    let graph_batches = graph.batchability_with(&optional);
    let max_batch_size = match given.filter(|config| says_shapes(config)) {
        Some(config) => u32::try_from(config.max_batch_size).unwrap_or(0),
        None => derive_batch(candidate, &inputs, &outputs, &graph_batches, defaults)?,
    };
    let batched = max_batch_size > 0;
    let optional = backend_slots(&optional, &inputs);
    let info = ModelInfo {
        name: candidate.name.clone(),
        version,
        platform: "onnxruntime_onnx".into(),
        max_batch_size,
        inputs: fit("input", inputs, &lists.inputs, max_batch_size)?,
        outputs: fit("output", outputs, &lists.outputs, max_batch_size)?,
    };
    let edges = edges::edges(given, &lists, &info, &names, made)?;
    let mut batching = batching::batching(candidate, max_batch_size, defaults)?;
    if batched && batching.mixes.is_ok() {
        let told_apart = edges.as_ref().is_some_and(|edges| edges.is_ragged());
        batching.mixes = sharing(candidate, graph_batches, told_apart);
    }
    let objective = candidate.resources.objective.unwrap_or(defaults.objective);
    let (groups, wishes, bounds) = match given {
        Some(config) => {
            let groups = groups::groups(config)?;
            let wishes = tuning::wishes(config, &groups.device)?;
            (groups, wishes, histograms::bounds(config)?)
        }
        None => Default::default(),
    };
    let folder = candidate.folder.as_deref();
    let (labels, warmups) = match given {
        Some(config) => (files::labels(folder, config)?, warmup::warmups(folder, config, &info)?),
        None => Default::default(),
    };
    let instances = candidate.resources.instances.or(groups.instances).or(defaults.instances);
    let config =
        answer::config(&info, given, &batching, instances.unwrap_or(objective.instances(defaults.cores)));
    Ok(Plan {
        info,
        config,
        batching,
        edges,
        labels,
        warmups,
        instances,
        limits: groups.limits,
        limiter: None,
        cores: defaults.cores,
        load: LoadOptions {
            provider: candidate.resources.provider,
            objective,
            threads: candidate.resources.threads.or(wishes.threads),
            tuning: wishes.tuning,
            optional,
        },
        inline_below: defaults.inline_below,
        observer: None,
        metrics: Arc::new(ModelMetrics::new(bounds)),
        guard: None,
    })
}

/// Whether a `config.pbtxt` decides about the batch axis, or leaves that to the graph.
fn says_shapes(config: &ModelConfig) -> bool {
    config.max_batch_size != 0 || !config.input.is_empty() || !config.output.is_empty()
}

/// What the engine has to know of optional inputs.
fn backend_slots(optional: &[onnx::ValueInfo], slots: &[shapes::Slot]) -> Vec<backend::Slot> {
    let of = |info: &onnx::ValueInfo| slots.iter().find(|slot| slot.name == info.name);
    let slot = |slot: &shapes::Slot| backend::Slot {
        name: slot.name.as_str().into(),
        datatype: slot.datatype,
        dims: slot.shape.clone(),
    };
    optional.iter().filter_map(of).map(slot).collect()
}

/// The batch limit of a model whose configuration says nothing of shapes.
fn derive_batch(
    candidate: &Candidate,
    inputs: &[Slot],
    outputs: &[Slot],
    graph: &Batchability,
    defaults: &Defaults,
) -> Result<u32, Misfit> {
    let free = !inputs.is_empty() && inputs.iter().chain(outputs).all(Slot::has_free_first_axis);
    match candidate.batching.max_batch_size {
        Some(0) => Ok(0),
        Some(wanted) if free => Ok(wanted),
        Some(wanted) => {
            let fixed = inputs.iter().chain(outputs).find(|slot| !slot.has_free_first_axis());
            let (name, shape) = fixed.map_or(("", String::new()), |slot| {
                (
                    slot.name.as_str(),
                    slot.shape.as_ref().map_or_else(|| "an unknown shape".into(), |shape| dims_text(shape)),
                )
            });
            Err(Misfit(format!(
                "maxBatchSize is {wanted}, but '{name}' has shape {shape}, whose first axis is not free: write maxBatchSize: 0, or export the model with a dynamic batch axis"
            )))
        }
        None if free && candidate.batching.share_runs_although_rows_mix => Ok(defaults.max_batch_size),
        None => match graph {
            Batchability::Yes if free => Ok(defaults.max_batch_size),
            Batchability::No { reason } if free => {
                tracing::info!(model = %candidate.name, %reason, "the first axis is not a batch");
                Ok(0)
            }
            _ => Ok(0),
        },
    }
}

fn sharing(candidate: &Candidate, graph: Batchability, told_apart: bool) -> Result<(), String> {
    match graph {
        Batchability::Yes => Ok(()),
        // The graph is written for requests that lie end to end, which is more than the analysis can see.
        Batchability::No { .. } if told_apart => {
            tracing::warn!(
                model = %candidate.name,
                "requests share runs because config.pbtxt says that the batch is ragged: the graph has to keep them apart"
            );
            Ok(())
        }
        Batchability::No { reason } if candidate.batching.share_runs_although_rows_mix => {
            tracing::warn!(
                model = %candidate.name, %reason,
                "requests share runs because the owner said so: an answer can depend on who else is in the run"
            );
            Ok(())
        }
        Batchability::No { reason } => Err(reason),
    }
}
