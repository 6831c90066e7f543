//! The whole configuration of a model, as callers are told it.
use crate::served::Batching;
use xebec_core::{
    Datatype, ModelInfo,
    model::TensorInfo,
    model_config::{
        self, DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelOutput,
        ModelVersionPolicy, model_config::SchedulingChoice, model_instance_group::Kind, model_version_policy,
    },
};

/// The whole configuration, as callers are told it.
pub(super) fn config(
    info: &ModelInfo,
    given: Option<&ModelConfig>,
    batching: &Batching,
    instances: u32,
) -> ModelConfig {
    let mut config = given.cloned().unwrap_or_default();
    let batched = info.max_batch_size > 0;
    config.name = info.name.to_string();
    config.platform.clone_from(&info.platform);
    config.backend = "onnxruntime".into();
    config.max_batch_size = i32::try_from(info.max_batch_size).unwrap_or(i32::MAX);
    let (inputs, outputs) = (std::mem::take(&mut config.input), std::mem::take(&mut config.output));
    config.input = info.inputs.iter().map(|input| config_input(input, batched, &inputs)).collect();
    config.output = info.outputs.iter().map(|output| config_output(output, batched, &outputs)).collect();
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
                max_queue_size: u32::try_from(batching.queue.max_queue).unwrap_or(u32::MAX),
                ..model_config::ModelQueuePolicy::default()
            }),
            ..ModelDynamicBatching::default()
        }));
    }
    config
}

/// The same of a graph.
pub(crate) fn graph(info: &ModelInfo, given: &ModelConfig) -> ModelConfig {
    let batched = info.max_batch_size > 0;
    let input = info.inputs.iter().map(|input| config_input(input, batched, &given.input)).collect();
    let output = info.outputs.iter().map(|output| config_output(output, batched, &given.output)).collect();
    let latest = model_version_policy::Latest { num_versions: 1 };
    let latest =
        ModelVersionPolicy { policy_choice: Some(model_version_policy::PolicyChoice::Latest(latest)) };
    ModelConfig {
        name: info.name.to_string(),
        platform: info.platform.clone(),
        input,
        output,
        version_policy: given.version_policy.clone().or(Some(latest)),
        ..given.clone()
    }
}

fn config_dims(info: &TensorInfo, batched: bool) -> Vec<i64> {
    info.shape.iter().skip(usize::from(batched)).copied().collect()
}

fn config_input(info: &TensorInfo, batched: bool, given: &[ModelInput]) -> ModelInput {
    let given = given.iter().find(|given| *given.name == *info.name).cloned().unwrap_or_default();
    let (name, data_type) = (info.name.to_string(), config_type(info.datatype) as i32);
    ModelInput { name, data_type, dims: config_dims(info, batched), ..given }
}

fn config_output(info: &TensorInfo, batched: bool, given: &[ModelOutput]) -> ModelOutput {
    let given = given.iter().find(|given| *given.name == *info.name).cloned().unwrap_or_default();
    let (name, data_type) = (info.name.to_string(), config_type(info.datatype) as i32);
    ModelOutput { name, data_type, dims: config_dims(info, batched), ..given }
}

pub(crate) fn config_type(datatype: Datatype) -> DataType {
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

/// The datatype by its number in a configuration; `None` if it says none.
pub(crate) fn datatype(number: i32) -> Option<Datatype> {
    Datatype::ALL.into_iter().find(|datatype| config_type(*datatype) as i32 == number)
}
