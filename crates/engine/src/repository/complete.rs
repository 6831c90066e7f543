//! Completes a configuration from the graph, and refuses one that does not fit it, with the dims that would.
//!
//! Not here: the analysis of the graph (`onnx`), the start of the model (`served`).
use super::Candidate;
use crate::{
    backend::{self, LoadOptions},
    builtin,
    graph::plan as graph,
    onnx::{self, Batchability},
    served::Plan,
};
use shapes::{Slot, fit, slots};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use xebec_core::{
    ModelInfo, Version,
    error::dims_text,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::{ModelConfig, ModelOutput},
    resource::Objective,
    step::Step,
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

pub(crate) use answer::{config_type, datatype, graph as graph_config};
pub use files::Labels;
pub(crate) use files::labels;
pub(crate) use files::{named as named_files, place as place_of_file, read as read_file};
pub(crate) use groups::instances;
pub(crate) use histograms::bounds;

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

    /// The same, with the step that it is about.
    pub(crate) fn within(self, step: &str) -> Self {
        Self(format!("step '{step}': {}", self.0))
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

/// What callers see of a built-in step.
///
/// # Errors
/// The configuration says other inputs or outputs than the step has.
pub(crate) fn step_info(
    candidate: &Candidate,
    version: Version,
    config: &ModelConfig,
    step: &dyn Step,
) -> Result<ModelInfo, Misfit> {
    let info = ModelInfo {
        name: candidate.name.clone(),
        version,
        platform: builtin::PLATFORM.into(),
        max_batch_size: 0,
        inputs: step.inputs().to_vec(),
        outputs: step.outputs().to_vec(),
    };
    let own = answer::graph(&info, &ModelConfig::default());
    let same_inputs = config.input.is_empty() || config.input == own.input;
    // What else is said of an output, as a file of labels, is its owner's.
    let outputs = |config: &ModelConfig| -> Vec<_> {
        let kind = |output: &ModelOutput| (output.name.clone(), output.data_type, output.dims.clone());
        config.output.iter().map(kind).collect()
    };
    let same_outputs = config.output.is_empty() || outputs(config) == outputs(&own);
    if same_inputs && same_outputs {
        return Ok(info);
    }
    let text = |all: &[TensorInfo]| {
        let one = |info: &TensorInfo| format!("'{}' {} {}", info.name, info.datatype, dims_text(&info.shape));
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    Err(Misfit(format!(
        "config lists other inputs or outputs than the step has: its inputs are {}, its outputs {}; leave input and output out",
        text(&info.inputs),
        text(&info.outputs)
    )))
}

/// The settings of a built-in step, and which it is.
///
/// # Errors
/// It is not said which.
pub(crate) fn step_settings(config: &ModelConfig) -> Result<(String, BTreeMap<String, String>), Misfit> {
    let own = config.parameters.iter().filter(|(name, _)| !name.starts_with("version_label."));
    let mut settings: BTreeMap<String, String> =
        own.map(|(name, value)| (name.clone(), value.string_value.clone())).collect();
    let kind = settings.remove("step").ok_or_else(|| {
        Misfit("parameter 'step' is missing: write which one, as parameters { key: \"step\" value { string_value: \"image_decode\" } }".into())
    })?;
    Ok((kind, settings))
}

/// Labels of a graph's outputs: its own, or those of the models that make them.
///
/// # Errors
/// A file of labels cannot be read.
pub(crate) fn graph_labels(
    candidate: &Candidate,
    config: &ModelConfig,
    plan: &graph::Plan,
    info: &ModelInfo,
    find: &graph::Find<'_>,
) -> Result<Labels, Misfit> {
    let mut labels = files::labels(candidate.folder.as_deref(), config)?;
    for (output, at) in info.outputs.iter().zip(&plan.outputs) {
        let Some(step) = plan.tensors[*at].maker.map(|step| &plan.steps[step]) else { continue };
        let Some((name, _)) = step.outputs.iter().find(|(_, made)| made == at) else { continue };
        let member = find(&step.member)?;
        let theirs = member.labels(name);
        if !theirs.is_empty() {
            labels.entry(output.name.to_string()).or_insert_with(|| theirs.into());
        }
    }
    Ok(labels)
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
