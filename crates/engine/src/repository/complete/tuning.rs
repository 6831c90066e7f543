//! From a configuration to the engine's settings: `optimization`, and what Triton's ONNX Runtime backend takes from
//! `parameters`.
//!
//! The rule for `parameters`: a key of [`KNOBS`] or one that begins as ONNX Runtime's own settings do is honoured, or
//! refused by name; labels of versions are read elsewhere; every other key is the owner's, means nothing here and is carried in the configuration's answer.
//!
//! # Source
//! Triton's ONNX Runtime backend, "README", for the meaning of levels and parameters; ONNX Runtime, "Session Options" and
//! "onnxruntime_session_options_config_keys.h".
use super::{Misfit, groups::Device};
use crate::{
    backend::options::{Accelerator, Level, Tuning},
    repository::config::text::nearest,
};
use std::collections::BTreeMap;
use xebec_core::{
    model_config::{
        ModelConfig, ModelOptimizationPolicy,
        model_optimization_policy::{ExecutionAccelerators, execution_accelerators},
    },
    resource::Provider,
};

/// What a parameter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knob {
    IntraThreads,
    InterThreads,
    Parallel,
    Arena,
    Pattern,
    Shrinkage,
    /// Shares one session among the instances, which is what is done.
    Shared,
    /// A setting of CUDA's provider, by its own name.
    Cuda,
    /// A setting of a session, by its own name.
    Entry,
}

/// Every parameter that means something here.
const KNOBS: &[(&str, Knob)] = &[
    ("intra_op_thread_count", Knob::IntraThreads),
    ("inter_op_thread_count", Knob::InterThreads),
    ("execution_mode", Knob::Parallel),
    ("enable_mem_arena", Knob::Arena),
    ("enable_mem_pattern", Knob::Pattern),
    ("memory.enable_memory_arena_shrinkage", Knob::Shrinkage),
    ("share_session_between_instances", Knob::Shared),
    ("gpu_mem_limit", Knob::Cuda),
    ("arena_extend_strategy", Knob::Cuda),
    ("cudnn_conv_algo_search", Knob::Cuda),
    ("cudnn_conv_use_max_workspace", Knob::Cuda),
    ("cudnn_conv1d_pad_to_nc1d", Knob::Cuda),
    ("do_copy_in_default_stream", Knob::Cuda),
    ("session.disable_prepacking", Knob::Entry),
    ("session.set_denormal_as_zero", Knob::Entry),
    ("session.disable_quant_qdq", Knob::Entry),
    ("session.disable_double_qdq_remover", Knob::Entry),
    ("session.enable_quant_qdq_cleanup", Knob::Entry),
    ("session.qdqisint8allowed", Knob::Entry),
    ("session.x64quantprecision", Knob::Entry),
    ("session.use_device_allocator_for_initializers", Knob::Entry),
    ("session.inter_op.allow_spinning", Knob::Entry),
    ("session.intra_op.allow_spinning", Knob::Entry),
    ("session.force_spinning_stop", Knob::Entry),
    ("session.intra_op_thread_affinities", Knob::Entry),
    ("session.dynamic_block_base", Knob::Entry),
    ("session.strict_shape_type_inference", Knob::Entry),
    ("session.allow_released_opsets_only", Knob::Entry),
    ("session.disable_cpu_ep_fallback", Knob::Entry),
    ("session.disable_aot_function_inlining", Knob::Entry),
    ("optimization.enable_gelu_approximation", Knob::Entry),
    ("optimization.enable_cast_chain_elimination", Knob::Entry),
    ("optimization.disable_specified_optimizers", Knob::Entry),
    ("mlas.enable_gemm_fastmath_arm64_bfloat16", Knob::Entry),
];

/// How ONNX Runtime's own settings begin.
const OWN_PREFIXES: [&str; 5] = ["session.", "memory.", "optimization.", "ep.", "mlas."];

/// Most threads that a parameter may ask for.
const MOST_THREADS: u32 = 1024;

/// What a configuration asks of the engine.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    pub(super) tuning: Tuning,
    pub(super) threads: Option<u32>,
}

/// Reads `optimization` and `parameters`.
pub(super) fn wishes(config: &ModelConfig, device: &Device) -> Result<Wishes, Misfit> {
    let mut wishes = Wishes::default();
    let mut cuda = BTreeMap::new();
    for (key, value) in &config.parameters {
        take(&mut wishes, &mut cuda, key, &value.string_value)?;
    }
    shrinkage(&wishes.tuning, device)?;
    let policy = config.optimization.as_ref();
    wishes.tuning.level = level(policy)?;
    let asked = policy.and_then(|policy| policy.execution_accelerators.as_ref());
    wishes.tuning.accelerators = accelerators(asked, device)?;
    match device {
        Device::Cpu => {
            if let Some(key) = cuda.keys().next() {
                return Err(Misfit(format!(
                    "parameter '{key}' is CUDA's: write kind: KIND_GPU in instance_group too, or leave it out"
                )));
            }
        }
        Device::Gpu(number) => {
            cuda.insert("device_id".into(), number.to_string());
            let last = Accelerator { kind: Provider::Cuda, options: cuda };
            let known = wishes.tuning.accelerators.iter_mut().find(|one| one.kind == Provider::Cuda);
            match known {
                Some(known) => last.options.into_iter().for_each(|(key, value)| {
                    known.options.entry(key).or_insert(value);
                }),
                None => wishes.tuning.accelerators.push(last),
            }
        }
    }
    Ok(wishes)
}

fn take(
    wishes: &mut Wishes,
    cuda: &mut BTreeMap<String, String>,
    key: &str,
    value: &str,
) -> Result<(), Misfit> {
    let Some((_, knob)) = KNOBS.iter().find(|(known, _)| *known == key) else {
        return foreign(key);
    };
    let wrong = |wants: &str| Misfit(format!("parameter '{key}' is \"{value}\"; write {wants}"));
    let threads = || match value.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(threads) if threads <= MOST_THREADS => Ok(Some(threads)),
        _ => Err(wrong("a number from 1 to 1024, or 0 for the server's own choice")),
    };
    let switch = || match value.to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err(wrong("1 or 0")),
    };
    let tuning = &mut wishes.tuning;
    match knob {
        Knob::IntraThreads => wishes.threads = threads()?,
        Knob::InterThreads => tuning.inter_threads = threads()?,
        Knob::Parallel => tuning.parallel = Some(switch()?),
        Knob::Arena => tuning.memory_arena = Some(switch()?),
        Knob::Pattern => tuning.memory_pattern = Some(switch()?),
        Knob::Shrinkage => tuning.shrinkage = Some(value.to_owned()),
        Knob::Shared if switch()? => (),
        Knob::Shared => return Err(wrong("1, or leave it out: instances always share one session")),
        Knob::Cuda => drop(cuda.insert(key.to_owned(), cuda_value(key, value))),
        Knob::Entry if value.contains('\0') => return Err(wrong("a text without NUL")),
        Knob::Entry => drop(tuning.entries.insert(key.to_owned(), value.to_owned())),
    }
    Ok(())
}

/// ONNX Runtime fails every run that names an arena which is not there.
fn shrinkage(tuning: &Tuning, device: &Device) -> Result<(), Misfit> {
    let Some(asked) = &tuning.shrinkage else { return Ok(()) };
    let mut arenas: Vec<String> = match device {
        Device::Cpu => Vec::new(),
        Device::Gpu(number) => vec![format!("gpu:{number}")],
    };
    if tuning.memory_arena != Some(false) {
        arenas.insert(0, "cpu:0".to_owned());
    }
    if asked.split(';').all(|one| arenas.iter().any(|arena| arena == one)) {
        return Ok(());
    }
    Err(Misfit(format!(
        "parameter 'memory.enable_memory_arena_shrinkage' is \"{asked}\"; write arenas that the model has, joined by semicolons: it has {}",
        if arenas.is_empty() { "none, as enable_mem_arena is off".to_owned() } else { arenas.join(", ") }
    )))
}

/// Triton gives numbers where the provider has names.
fn cuda_value(key: &str, value: &str) -> String {
    let name = match (key, value) {
        ("arena_extend_strategy", "0") => "kNextPowerOfTwo",
        ("arena_extend_strategy", "1") => "kSameAsRequested",
        ("cudnn_conv_algo_search", "0") => "EXHAUSTIVE",
        ("cudnn_conv_algo_search", "1") => "HEURISTIC",
        ("cudnn_conv_algo_search", "2") => "DEFAULT",
        (_, other) => other,
    };
    name.to_owned()
}

/// A key without meaning here: the owner's own, unless it looks like one of ONNX Runtime's.
fn foreign(key: &str) -> Result<(), Misfit> {
    if !OWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) {
        return Ok(());
    }
    let meant = nearest(key, KNOBS.iter().map(|(known, _)| *known));
    let way_out = meant.map_or_else(|| "leave it out".to_owned(), |meant| format!("did you mean '{meant}'?"));
    Err(Misfit(format!(
        "parameter '{key}' is a setting of ONNX Runtime that is not honoured by this version; {way_out}"
    )))
}

fn level(policy: Option<&ModelOptimizationPolicy>) -> Result<Level, Misfit> {
    match policy.and_then(|policy| policy.graph.as_ref()).map_or(0, |graph| graph.level) {
        0 => Ok(Level::All),
        1 => Ok(Level::Extended),
        -1 => Ok(Level::Basic),
        2 => Ok(Level::Disabled),
        other => Err(Misfit(format!(
            "optimization.graph.level is {other}; write 0 (all), 1 (extended), -1 (basic) or 2 (none)"
        ))),
    }
}

fn accelerators(asked: Option<&ExecutionAccelerators>, device: &Device) -> Result<Vec<Accelerator>, Misfit> {
    let Some(asked) = asked else { return Ok(Vec::new()) };
    if *device == Device::Cpu && !asked.gpu_execution_accelerator.is_empty() {
        return Err(Misfit(
            "gpu_execution_accelerator: the model runs on the CPU; write kind: KIND_GPU in instance_group, or leave it out".into(),
        ));
    }
    if *device != Device::Cpu && !asked.cpu_execution_accelerator.is_empty() {
        return Err(Misfit(
            "cpu_execution_accelerator: the model runs on the GPU; write kind: KIND_CPU in instance_group, or leave it out".into(),
        ));
    }
    let gpu = asked.gpu_execution_accelerator.iter().map(|one| gpu(one, device));
    gpu.chain(asked.cpu_execution_accelerator.iter().map(cpu)).collect()
}

fn cpu(asked: &execution_accelerators::Accelerator) -> Result<Accelerator, Misfit> {
    match asked.name.as_str() {
        "openvino" => Ok(Accelerator { kind: Provider::Openvino, options: asked.parameters.clone() }),
        other => Err(Misfit(format!(
            "cpu_execution_accelerator '{other}' is not one of ONNX Runtime's; write openvino, or leave it out"
        ))),
    }
}

fn gpu(asked: &execution_accelerators::Accelerator, device: &Device) -> Result<Accelerator, Misfit> {
    let mut options = asked.parameters.clone();
    let kind = match asked.name.as_str() {
        "cuda" => Provider::Cuda,
        "tensorrt" => {
            options = tensorrt(asked)?;
            Provider::Tensorrt
        }
        other => {
            return Err(Misfit(format!(
                "gpu_execution_accelerator '{other}' is not one of ONNX Runtime's; write tensorrt or cuda, or leave it out"
            )));
        }
    };
    if let Device::Gpu(number) = device {
        options.entry("device_id".into()).or_insert_with(|| number.to_string());
    }
    Ok(Accelerator { kind, options })
}

/// Triton's names for TensorRT's settings, and TensorRT's own.
fn tensorrt(asked: &execution_accelerators::Accelerator) -> Result<BTreeMap<String, String>, Misfit> {
    let mut options = BTreeMap::new();
    for (key, value) in &asked.parameters {
        let (key, value) = match (key.as_str(), value.as_str()) {
            ("precision_mode", "FP32") => continue,
            ("precision_mode", "FP16") => ("trt_fp16_enable", "1"),
            ("precision_mode", "INT8") => ("trt_int8_enable", "1"),
            ("precision_mode", other) => {
                return Err(Misfit(format!(
                    "precision_mode \"{other}\" of tensorrt: write FP32, FP16 or INT8"
                )));
            }
            ("max_workspace_size_bytes", value) => ("trt_max_workspace_size", value),
            ("int8_calibration_table_name", value) => ("trt_int8_calibration_table_name", value),
            ("int8_use_native_calibration_table", value) => ("trt_int8_use_native_calibration_table", value),
            (own, value) if own.starts_with("trt_") => (own, value),
            (other, _) => {
                return Err(Misfit(format!(
                    "parameter '{other}' of tensorrt is not known; write one of precision_mode, max_workspace_size_bytes, int8_calibration_table_name, int8_use_native_calibration_table, or TensorRT's own that begin with trt_"
                )));
            }
        };
        options.insert(key.to_owned(), value.to_owned());
    }
    Ok(options)
}

#[cfg(test)]
mod tests;
