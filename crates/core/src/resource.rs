//! The YAML: kinds of `xebec.dev/v1alpha1`, the same on a laptop and on Kubernetes.
//!
//! Invariant: an unknown field is an error. Not here: reading files (the binary), meaning beyond types.
use serde::Deserialize;
use std::collections::BTreeMap;

/// The only version of the resources.
pub const API_VERSION: &str = "xebec.dev/v1alpha1";

/// A served model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InferenceService {
    /// Must be [`API_VERSION`].
    pub api_version: String,
    /// Name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: InferenceServiceSpec,
}

/// Name and labels of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name: the model's name.
    pub name: String,
    /// Namespace on Kubernetes; on a laptop only `default` or none.
    #[serde(default)]
    pub namespace: Option<String>,
    /// For people and selectors; no meaning on a laptop.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// For tools; no meaning on a laptop.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// What an [`InferenceService`] wants.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InferenceServiceSpec {
    /// Which model.
    pub model: ModelSource,
    /// How requests are put together.
    #[serde(default)]
    pub batching: Batching,
    /// What it runs on.
    #[serde(default)]
    pub resources: Resources,
    /// Processes that serve it; a laptop has one.
    #[serde(default = "one")]
    pub replicas: u32,
}

fn one() -> u32 {
    1
}

/// Where a model is and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelSource {
    /// `file:///absolute`, or a path relative to the document's folder.
    pub uri: String,
    /// Format.
    #[serde(default)]
    pub format: ModelFormat,
}

/// Formats that are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelFormat {
    /// ONNX.
    #[default]
    Onnx,
}

/// How requests of different callers are put into one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Batching {
    /// Most rows in one run; the server's default if absent; 0 switches the batch axis off.
    #[serde(default)]
    pub max_batch_size: Option<u32>,
    /// How long a request may wait for company while an instance is busy anyway; an idle one never waits.
    #[serde(default)]
    pub max_delay_microseconds: u64,
    /// Most requests that may wait; the server's default if absent.
    #[serde(default)]
    pub max_queue_size: Option<u32>,
    /// Longest wait of a request; unlimited if absent.
    #[serde(default)]
    pub timeout_microseconds: Option<u64>,
    /// The owner's word that rows of different callers may share a run although the graph has an operator over the
    /// batch axis: answers then depend on company.
    #[serde(default)]
    pub share_runs_although_rows_mix: bool,
}

/// What a model runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// Runs at the same time; by the number of cores if absent.
    #[serde(default)]
    pub instances: Option<u32>,
    /// Threads that runs share, in a pool of the model's own; by the objective if absent.
    #[serde(default)]
    pub threads: Option<u32>,
    /// What to optimise for; the server's default if absent.
    #[serde(default)]
    pub objective: Option<Objective>,
    /// Execution provider.
    #[serde(default)]
    pub provider: Provider,
}

/// What a model's threads are arranged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// One thread a run, many runs side by side.
    #[default]
    Throughput,
    /// All cores on one run, in one pool shared by all such models.
    Latency,
}

impl Objective {
    /// Instances of a model that names no count, on so many cores.
    pub const fn instances(self, cores: u32) -> u32 {
        match self {
            Self::Throughput => cores,
            Self::Latency => 1,
        }
    }

    /// Threads of a run of a model that names no count.
    pub const fn threads(self, cores: u32) -> u32 {
        match self {
            Self::Throughput => 1,
            Self::Latency => cores,
        }
    }
}

/// Execution providers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The processor.
    #[default]
    Cpu,
    /// NVIDIA's GPUs, by CUDA.
    Cuda,
    /// NVIDIA's GPUs, by TensorRT.
    Tensorrt,
    /// Intel's devices, by OpenVINO.
    Openvino,
}

impl Provider {
    /// Its maker's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "the CPU",
            Self::Cuda => "CUDA",
            Self::Tensorrt => "TensorRT",
            Self::Openvino => "OpenVINO",
        }
    }
}
