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

/// Models and built-in steps behind one name.
///
/// The router types are KServe's, over named tensors instead of whole bodies.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InferenceGraph {
    /// Must be [`API_VERSION`].
    pub api_version: String,
    /// Name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: InferenceGraphSpec,
}

/// What an [`InferenceGraph`] is made of.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InferenceGraphSpec {
    /// By name; a request begins at [`ROOT`].
    pub nodes: BTreeMap<String, Node>,
}

/// The node at which a request begins.
pub const ROOT: &str = "root";

/// A part of a graph: steps, and how a request goes through them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Node {
    /// How a request goes through the steps.
    pub router_type: RouterType,
    /// The steps, in the order in which they are written.
    pub steps: Vec<NodeStep>,
    /// Names of the tensors that the node answers with; those of its last step (of an ensemble, of every step) if empty.
    #[serde(default)]
    pub outputs: Vec<String>,
}

/// How a request goes through the steps of a [`Node`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RouterType {
    /// One after the other: each may use what those before it have made. Steps that need nothing of each other run side
    /// by side.
    Sequence,
    /// Each is given the request.
    Ensemble,
    /// The first whose condition holds.
    Switch,
    /// One of them by chance, by their weights.
    Splitter,
}

/// One step of a [`Node`]: a service, another node, or a built-in step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeStep {
    /// For messages and metrics; what it is of if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// An `InferenceService` or another `InferenceGraph`.
    #[serde(default)]
    pub service_name: Option<String>,
    /// Another node of the graph.
    #[serde(default)]
    pub node_name: Option<String>,
    /// A built-in step.
    #[serde(default)]
    pub step: Option<String>,
    /// How a built-in step is to work: each a value, or several in a list.
    #[serde(default)]
    pub settings: BTreeMap<String, Settings>,
    /// By an input of the step: the tensor that it is; the one of the same name if absent.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// By an output of the step: what its tensor is called from here on; the same if absent.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// Where the tensors of a step of a sequence come from; whatever was made last if absent.
    #[serde(default)]
    pub data: Option<Data>,
    /// When a step of a switch is taken; always if absent.
    #[serde(default)]
    pub when: Option<Condition>,
    /// How often a step of a splitter is taken, in hundredths.
    #[serde(default)]
    pub weight: Option<u32>,
    /// KServe's; only `Hard` is offered, as the first error ends a request.
    #[serde(default)]
    pub dependency: Option<Dependency>,
}

/// Where a step's tensors come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Data {
    /// What the node was given.
    #[serde(rename = "$request")]
    Request,
    /// What the step before it has made.
    #[serde(rename = "$response")]
    Response,
}

/// What an error of a step means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Dependency {
    /// The request goes on.
    Soft,
    /// The request ends.
    Hard,
}

/// What has to hold of a request: of the first element of a tensor, or of a header.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// A tensor that the node is given.
    #[serde(default)]
    pub tensor: Option<String>,
    /// Its datatype, as in `FP32`, where neither a step nor [`Self::equals`] says it.
    #[serde(default)]
    pub datatype: Option<String>,
    /// A header of the request over HTTP, or a metadata key of a call over gRPC.
    #[serde(default)]
    pub header: Option<String>,
    /// It is this.
    #[serde(default)]
    pub equals: Option<Setting>,
    /// It is this or more.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// It is less than this.
    #[serde(default)]
    pub below: Option<f64>,
}

/// A value as people write it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Setting {
    /// `true` or `false`.
    Flag(bool),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Real(f64),
    /// Anything else.
    Text(String),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Real(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// What is said of one setting of a built-in step.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "a setting is a text, a number, true or false, or a list of these")]
pub enum Settings {
    /// A value.
    One(Setting),
    /// Several, as `[0.5, 0.25, 1]`; the same as the text `0.5,0.25,1`.
    Several(Vec<Setting>),
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::One(one) => one.fmt(f),
            Self::Several(all) => {
                for (at, one) in all.iter().enumerate() {
                    write!(f, "{}{one}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
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
