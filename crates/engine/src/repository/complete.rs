//! Completes a configuration from the graph, and refuses one that does not fit it, with the dims that would.
//!
//! Not here: the analysis of the graph (`onnx`), the start of the model (`served`).
use super::Candidate;
use crate::{
    backend::LoadOptions,
    onnx::{self, Batchability, Dim, ValueInfo, ValueKind},
    served::{Batching, Plan},
};
use std::{sync::Arc, time::Duration};
use xebec_core::{
    Datatype, ModelInfo, Version,
    error::dims_text,
    model::TensorInfo,
    model_config::{
        self, DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
        ModelVersionPolicy, model_config::SchedulingChoice, model_instance_group::Kind, model_version_policy,
    },
    resource::Objective,
};

mod groups;
mod tuning;

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
    let inputs = slots(graph.inputs(), "input")?;
    let outputs = slots(graph.outputs(), "output")?;
    let graph_batches = graph.batchability();
    let given = candidate.config.as_ref();
    let max_batch_size = match given.filter(|config| says_shapes(config)) {
        Some(config) => u32::try_from(config.max_batch_size).unwrap_or(0),
        None => derive_batch(candidate, &inputs, &outputs, &graph_batches, defaults)?,
    };
    let batched = max_batch_size > 0;
    let said = |config: &ModelConfig| -> (Vec<Said>, Vec<Said>) {
        (config.input.iter().map(Said::from).collect(), config.output.iter().map(Said::from).collect())
    };
    let (said_inputs, said_outputs) = given.map(said).unwrap_or_default();
    let info = ModelInfo {
        name: candidate.name.clone(),
        version,
        platform: "onnxruntime_onnx".into(),
        max_batch_size,
        inputs: fit("input", inputs, &said_inputs, max_batch_size)?,
        outputs: fit("output", outputs, &said_outputs, max_batch_size)?,
    };
    let mut batching = batching(candidate, max_batch_size, defaults);
    if batched && batching.mixes.is_ok() {
        batching.mixes = sharing(candidate, graph_batches);
    }
    let objective = candidate.resources.objective.unwrap_or(defaults.objective);
    let (groups, wishes) = match given {
        Some(config) => {
            let groups = groups::groups(config)?;
            let wishes = tuning::wishes(config, &groups.device)?;
            (groups, wishes)
        }
        None => Default::default(),
    };
    let instances = candidate.resources.instances.or(groups.instances).or(defaults.instances);
    let config = config(&info, given, &batching, instances.unwrap_or(defaults.cores));
    Ok(Plan {
        info,
        config,
        batching,
        instances,
        cores: defaults.cores,
        load: LoadOptions {
            provider: candidate.resources.provider,
            objective,
            threads: candidate.resources.threads.or(wishes.threads),
            tuning: wishes.tuning,
        },
        inline_below: defaults.inline_below,
        observer: None,
        metrics: Arc::default(),
        guard: None,
    })
}

/// Whether a `config.pbtxt` decides about the batch axis, or leaves that to the graph.
fn says_shapes(config: &ModelConfig) -> bool {
    config.max_batch_size != 0 || !config.input.is_empty() || !config.output.is_empty()
}

/// An input or output of the graph, in types of the protocol.
struct Slot {
    name: String,
    datatype: Datatype,
    /// -1 where free; `None` if the rank is unknown.
    shape: Option<Vec<i64>>,
}

impl Slot {
    fn has_free_first_axis(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.first() == Some(&-1))
    }
}

fn slots(values: &[ValueInfo], kind: &str) -> Result<Vec<Slot>, Misfit> {
    values.iter().map(|value| slot(value, kind)).collect()
}

fn slot(value: &ValueInfo, kind: &str) -> Result<Slot, Misfit> {
    let name = &value.name;
    let ValueKind::Tensor { elem, shape } = &value.kind else {
        let what = match value.kind {
            ValueKind::Sequence => "a sequence",
            ValueKind::Map => "a map",
            ValueKind::Optional => "an optional",
            ValueKind::SparseTensor => "a sparse tensor",
            _ => "of no known type",
        };
        return Err(Misfit(format!(
            "{kind} '{name}' is {what}, and only tensors are served; export the model with tensors (scikit-learn: options={{'zipmap': False}})"
        )));
    };
    let Some(datatype) = elem.datatype() else {
        return Err(Misfit(format!(
            "{kind} '{name}' holds {elem}, which is not a datatype of the Open Inference Protocol; put a Cast to one at the edge of the graph"
        )));
    };
    let extent = |dim: &Dim| match dim {
        Dim::Fixed(extent) if *extent >= 0 => *extent,
        _ => -1,
    };
    Ok(Slot {
        name: name.clone(),
        datatype,
        shape: shape.as_ref().map(|dims| dims.iter().map(extent).collect()),
    })
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

fn sharing(candidate: &Candidate, graph: Batchability) -> Result<(), String> {
    match graph {
        Batchability::Yes => Ok(()),
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

/// An input or output as `config.pbtxt` has it.
struct Said {
    name: String,
    data_type: i32,
    dims: Vec<i64>,
}

impl From<&ModelInput> for Said {
    fn from(input: &ModelInput) -> Self {
        Self { name: input.name.clone(), data_type: input.data_type, dims: input.dims.clone() }
    }
}

impl From<&ModelOutput> for Said {
    fn from(output: &ModelOutput) -> Self {
        Self { name: output.name.clone(), data_type: output.data_type, dims: output.dims.clone() }
    }
}

/// Puts what the configuration says over what the graph says.
fn fit(kind: &str, graph: Vec<Slot>, said: &[Said], max_batch_size: u32) -> Result<Vec<TensorInfo>, Misfit> {
    if let Some(unknown) = said.iter().find(|said| !graph.iter().any(|slot| slot.name == said.name)) {
        let known: Vec<String> = graph.iter().map(|slot| format!("'{}'", slot.name)).collect();
        return Err(Misfit(format!(
            "config says {kind} '{}', but the graph's {kind}s are {}",
            unknown.name,
            known.join(", ")
        )));
    }
    graph.into_iter().map(|slot| fit_slot(kind, slot, said, max_batch_size)).collect()
}

fn fit_slot(kind: &str, slot: Slot, said: &[Said], max_batch_size: u32) -> Result<TensorInfo, Misfit> {
    let batched = max_batch_size > 0;
    if batched && slot.shape.is_some() && !slot.has_free_first_axis() {
        let shape = dims_text(slot.shape.as_deref().unwrap_or_default());
        return Err(Misfit(format!(
            "config says max_batch_size: {max_batch_size}, but {kind} '{}' of the graph has shape {shape}, whose first axis is not free: write max_batch_size: 0 with dims: {}",
            slot.name,
            spaced(slot.shape.as_deref().unwrap_or_default()),
        )));
    }
    let Some(said_here) = said.iter().find(|said| said.name == slot.name) else {
        if !said.is_empty() {
            let line = snippet(kind, &slot, batched);
            return Err(Misfit(format!("config lists {kind}s but not '{}'; add {line}", slot.name)));
        }
        let shape = slot.shape.ok_or_else(|| {
            Misfit(format!(
                "the graph does not say the rank of {kind} '{}'; give its dims in config.pbtxt",
                slot.name
            ))
        })?;
        return Ok(TensorInfo { name: slot.name.into(), datatype: slot.datatype, shape });
    };
    if config_type(slot.datatype) as i32 != said_here.data_type {
        let said_type = DataType::try_from(said_here.data_type).unwrap_or_default().as_str_name();
        let want = config_type(slot.datatype).as_str_name();
        return Err(Misfit(format!(
            "config says {kind} '{}' is {said_type}, but the graph has {want}; write data_type: {want}",
            slot.name
        )));
    }
    let mut shape = said_here.dims.clone();
    if batched {
        shape.insert(0, -1);
    }
    if slot.shape.as_ref().is_some_and(|graph| !narrows(&shape, graph)) {
        let line = snippet(kind, &slot, batched);
        let graph = dims_text(slot.shape.as_deref().unwrap_or_default());
        let batch =
            if batched { " (dims leave out the batch axis because max_batch_size is above 0)" } else { "" };
        return Err(Misfit(format!(
            "config says {kind} '{}' has dims: {}, but the graph has {graph}{batch}; write {line}",
            slot.name,
            spaced(&said_here.dims),
        )));
    }
    if let Some(bad) = shape.iter().find(|extent| **extent < -1 || **extent == 0) {
        return Err(Misfit(format!(
            "config says {kind} '{}' has an extent of {bad}; write -1 where it is free",
            slot.name
        )));
    }
    Ok(TensorInfo { name: slot.name.into(), datatype: slot.datatype, shape })
}

/// Whether every concrete shape of `said` is one of `graph`.
fn narrows(said: &[i64], graph: &[i64]) -> bool {
    said.len() == graph.len() && said.iter().zip(graph).all(|(said, graph)| graph == &-1 || said == graph)
}

/// The lines of `config.pbtxt` that would fit.
fn snippet(kind: &str, slot: &Slot, batched: bool) -> String {
    let shape = slot.shape.as_deref().unwrap_or_default();
    let dims = if batched { shape.get(1..).unwrap_or_default() } else { shape };
    let data_type = config_type(slot.datatype).as_str_name();
    format!("{kind} {{ name: \"{}\" data_type: {data_type} dims: {} }}", slot.name, spaced(dims))
}

/// As people write it in `config.pbtxt`: `[ -1, 30 ]`.
fn spaced(dims: &[i64]) -> String {
    let inner: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[ {} ]", inner.join(", "))
}

fn dynamic(config: Option<&ModelConfig>) -> Option<&ModelDynamicBatching> {
    match config?.scheduling_choice.as_ref()? {
        SchedulingChoice::DynamicBatching(batching) => Some(batching),
        _ => None,
    }
}

fn batching(candidate: &Candidate, max_batch_size: u32, defaults: &Defaults) -> Batching {
    let said = dynamic(candidate.config.as_ref());
    let policy = said.and_then(|said| said.default_queue_policy.as_ref());
    let wishes = &candidate.batching;
    let preferred = said
        .and_then(|said| said.preferred_batch_size.iter().max())
        .and_then(|size| u32::try_from(*size).ok())
        .map(|size| size.min(max_batch_size));
    let microseconds = |value: u64| (value > 0).then(|| Duration::from_micros(value));
    let timeout = policy.map(|policy| policy.default_timeout_microseconds).or(wishes.timeout_microseconds);
    let queue = policy.map(|policy| policy.max_queue_size).filter(|size| *size > 0).or(wishes.max_queue_size);
    let delay = said.map_or(wishes.max_delay_microseconds, |said| said.max_queue_delay_microseconds);
    let silent = candidate.config.as_ref().is_some_and(says_shapes) && said.is_none();
    Batching {
        max_rows: preferred.unwrap_or(max_batch_size).max(1),
        max_delay: Duration::from_micros(delay),
        max_queue: queue.map_or(defaults.max_queue, |size| size as usize),
        timeout: timeout.and_then(microseconds),
        // Who writes no policy has none against it; who writes one gets Triton's default.
        timeout_override: policy.is_none_or(|policy| policy.allow_timeout_override),
        mixes: match () {
            () if max_batch_size == 0 => Err("the model has no batch axis".into()),
            () if silent => Err("config.pbtxt has no dynamic_batching".into()),
            () => Ok(()),
        },
    }
}

/// The whole configuration, as callers are told it.
fn config(info: &ModelInfo, given: Option<&ModelConfig>, batching: &Batching, instances: u32) -> ModelConfig {
    let mut config = given.cloned().unwrap_or_default();
    let batched = info.max_batch_size > 0;
    config.name = info.name.to_string();
    config.platform.clone_from(&info.platform);
    config.backend = "onnxruntime".into();
    config.max_batch_size = i32::try_from(info.max_batch_size).unwrap_or(i32::MAX);
    config.input = info.inputs.iter().map(|input| config_input(input, batched)).collect();
    config.output = info.outputs.iter().map(|output| config_output(output, batched)).collect();
    if config.default_model_filename.is_empty() {
        config.default_model_filename = "model.onnx".into();
    }
    config.version_policy.get_or_insert(ModelVersionPolicy {
        policy_choice: Some(model_version_policy::PolicyChoice::Latest(model_version_policy::Latest {
            num_versions: 1,
        })),
    });
    if config.instance_group.is_empty() {
        config.instance_group = vec![ModelInstanceGroup {
            name: info.name.to_string(),
            kind: Kind::Cpu as i32,
            count: i32::try_from(instances).unwrap_or(i32::MAX),
            ..ModelInstanceGroup::default()
        }];
    }
    if batching.mixes.is_ok() && config.scheduling_choice.is_none() {
        config.scheduling_choice = Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching {
            max_queue_delay_microseconds: u64::try_from(batching.max_delay.as_micros()).unwrap_or(u64::MAX),
            default_queue_policy: Some(model_config::ModelQueuePolicy {
                max_queue_size: u32::try_from(batching.max_queue).unwrap_or(u32::MAX),
                ..model_config::ModelQueuePolicy::default()
            }),
            ..ModelDynamicBatching::default()
        }));
    }
    config
}

fn config_dims(info: &TensorInfo, batched: bool) -> Vec<i64> {
    info.shape.iter().skip(usize::from(batched)).copied().collect()
}

fn config_input(info: &TensorInfo, batched: bool) -> ModelInput {
    let (name, data_type) = (info.name.to_string(), config_type(info.datatype) as i32);
    ModelInput { name, data_type, dims: config_dims(info, batched), ..ModelInput::default() }
}

fn config_output(info: &TensorInfo, batched: bool) -> ModelOutput {
    let (name, data_type) = (info.name.to_string(), config_type(info.datatype) as i32);
    ModelOutput { name, data_type, dims: config_dims(info, batched), ..ModelOutput::default() }
}

fn config_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    }
}
