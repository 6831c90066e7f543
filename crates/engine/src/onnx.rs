//! What an ONNX file says, before any engine sees it.
//!
//! Parsed zero-copy: weights stay views on the file's bytes. Invariant: no input makes this panic, and nesting is
//! limited by the decoder. Not here: running (`backend`), what is served (`repository`).
//!
//! # Source
//! ONNX, "Open Neural Network Exchange Intermediate Representation Specification", IR version 10.
use crate::formats::{self, Foreign};
use bytes::Bytes;
use prost::Message as _;
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Component, Path, PathBuf},
};
use xebec_core::Datatype;

mod batch_axis;
mod external;
mod hazard;
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: which lints it trips changes with the messages"
)]
#[rustfmt::skip]
pub(crate) mod generated;

#[cfg(test)]
mod tests;

use generated::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_proto, type_proto};

/// A parsed graph.
#[derive(Debug)]
pub struct Model {
    proto: ModelProto,
    inputs: Vec<ValueInfo>,
    outputs: Vec<ValueInfo>,
}

/// An input or output of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name.
    pub name: String,
    /// What it is.
    pub kind: ValueKind,
}

/// The type of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The only kind that the protocols know.
    Tensor {
        /** Element type. */
        elem: ElemType,
        /** Extents; `None` if the rank is not known. */
        shape: Option<Vec<Dim>>,
    },
    /// A list of values.
    Sequence,
    /// A dictionary.
    Map,
    /// A value that may be absent.
    Optional,
    /// A tensor by indices and values.
    SparseTensor,
    /// No type is given.
    Unknown,
}

/// One extent of a shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always this.
    Fixed(i64),
    /// Free, and equal wherever the name is.
    Named(String),
    /// Free.
    Free,
}

/// Element type, by ONNX's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElemType(i32);

impl ElemType {
    /// The protocol's datatype; `None` for complex numbers and those of 4 and 8 bits in floating point.
    pub fn datatype(self) -> Option<Datatype> {
        use tensor_proto::DataType as T;
        Some(match T::try_from(self.0).ok()? {
            T::Bool => Datatype::Bool,
            T::Uint8 => Datatype::Uint8,
            T::Uint16 => Datatype::Uint16,
            T::Uint32 => Datatype::Uint32,
            T::Uint64 => Datatype::Uint64,
            T::Int8 => Datatype::Int8,
            T::Int16 => Datatype::Int16,
            T::Int32 => Datatype::Int32,
            T::Int64 => Datatype::Int64,
            T::Float16 => Datatype::Fp16,
            T::Bfloat16 => Datatype::Bf16,
            T::Float => Datatype::Fp32,
            T::Double => Datatype::Fp64,
            T::String => Datatype::Bytes,
            _ => return None,
        })
    }
}

impl ElemType {
    /// Bits of an element; `None` for strings and what is not known.
    fn bits(self) -> Option<u64> {
        use tensor_proto::DataType as T;
        match T::try_from(self.0).ok()? {
            T::Undefined | T::String => None,
            T::Double | T::Int64 | T::Uint64 | T::Complex64 => Some(64),
            T::Float | T::Int32 | T::Uint32 => Some(32),
            T::Float16 | T::Bfloat16 | T::Int16 | T::Uint16 => Some(16),
            T::Complex128 => Some(128),
            T::Uint4 | T::Int4 => Some(4),
            _ => Some(8),
        }
    }
}

impl fmt::Display for ElemType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match tensor_proto::DataType::try_from(self.0) {
            Ok(known) => f.write_str(known.as_str_name()),
            Err(_) => write!(f, "element type {}", self.0),
        }
    }
}

/// Whether requests of different callers may be rows of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batchability {
    /// Every operator keeps rows apart.
    Yes,
    /// Some operator does not, or is not known to.
    No {
        /** Which, in a sentence. */
        reason: String,
    },
}

/// Operators by name, with their domain unless it is ONNX's own, and how often each is there.
pub type Operators = BTreeMap<String, usize>;

/// Constants of a graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Tensors.
    pub tensors: u64,
    /// Elements of all of them.
    pub elements: u64,
    /// Bytes of all of them, also of those in other files.
    pub bytes: u64,
}

/// A file is not an ONNX model that can be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OnnxError {
    /// Nothing is in it.
    #[error("the file is empty; export or copy the model again")]
    Empty,
    /// Another format, by its first bytes.
    #[error("the file is {format}, not ONNX; {way_out}")]
    Foreign {
        /** What it is. */
        format: &'static str,
        /** How to convert it. */
        way_out: &'static str,
    },
    /// Not what ONNX files are made of, or cut off.
    #[error("the file is damaged or not ONNX ({0}); export or copy the model again")]
    Damaged(String),
    /// It decodes, but is no model.
    #[error("the file has no {0}, so it is not an ONNX model")]
    NotAModel(&'static str),
    /// External data that may not be read, or is not there.
    #[error("tensor '{tensor}' has its data in '{location}': {problem}")]
    External {
        /** Which tensor. */
        tensor: String,
        /** As the file says it. */
        location: String,
        /** What is wrong and what to do. */
        problem: String,
    },
}

impl Model {
    /// Parses a file's bytes.
    ///
    /// # Errors
    /// It is empty, damaged, of another format, or has no graph.
    pub fn parse(bytes: Bytes) -> Result<Self, OnnxError> {
        if bytes.is_empty() {
            return Err(OnnxError::Empty);
        }
        if let Some(Foreign { format, way_out }) = formats::of_bytes(&bytes) {
            return Err(OnnxError::Foreign { format, way_out });
        }
        let proto = ModelProto::decode(bytes).map_err(|error| OnnxError::Damaged(error.to_string()))?;
        if proto.opset_import.is_empty() {
            return Err(OnnxError::NotAModel("operator set"));
        }
        let Some(graph) = &proto.graph else { return Err(OnnxError::NotAModel("graph")) };
        if graph.output.is_empty() {
            return Err(OnnxError::NotAModel("output"));
        }
        let constant = initializers(graph);
        let fed = |value: &&ValueInfoProto| !constant.contains(value.name.as_str());
        let inputs = graph.input.iter().filter(fed).map(value_info).collect();
        let outputs = graph.output.iter().map(value_info).collect();
        Ok(Self { inputs, outputs, proto })
    }

    /// Inputs that a caller gives: those without an initializer.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }

    /// Outputs.
    pub fn outputs(&self) -> &[ValueInfo] {
        &self.outputs
    }

    /// Checks that all external data lies below `folder` and is as long as it says. Returns the files.
    ///
    /// # Errors
    /// [`OnnxError::External`] for the first tensor whose data may not be read or is not there.
    pub fn check_external(&self, folder: &Path) -> Result<Vec<PathBuf>, OnnxError> {
        external::check(&self.proto, folder)
    }

    /// The name of a node over which a caller's values could end ONNX Runtime's process, if there is one.
    pub fn trap(&self) -> Option<&str> {
        hazard::trap(&self.proto)
    }

    /// Whether requests of different callers may share a run.
    pub fn batchability(&self) -> Batchability {
        self.batchability_with(&[])
    }

    /// The same where callers may give inputs of `optional` too.
    pub fn batchability_with(&self, optional: &[ValueInfo]) -> Batchability {
        let analysed = batch_axis::analyse(&self.proto, &self.inputs).and_then(|()| {
            if optional.is_empty() {
                return Ok(());
            }
            // What a caller gives is no constant.
            let mut proto = self.proto.clone();
            let given = |name: &str| optional.iter().any(|input| input.name == name);
            if let Some(graph) = &mut proto.graph {
                graph.initializer.retain(|tensor| !given(&tensor.name));
            }
            let inputs: Vec<ValueInfo> = self.inputs.iter().chain(optional).cloned().collect();
            batch_axis::analyse(&proto, &inputs)
        });
        match analysed {
            Ok(()) => Batchability::Yes,
            Err(reason) => Batchability::No { reason },
        }
    }

    /// Why rows are not kept apart, by node; none if they are.
    pub fn stops(&self) -> Vec<String> {
        batch_axis::stops(&self.proto, &self.inputs)
    }

    /// Inputs that a caller need not give, because they have an initializer.
    pub fn defaults(&self) -> Vec<ValueInfo> {
        let Some(graph) = &self.proto.graph else { return Vec::new() };
        let dense: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        graph.input.iter().filter(|input| dense.contains(input.name.as_str())).map(value_info).collect()
    }

    /// Program that wrote the file, with its version.
    pub fn producer(&self) -> String {
        format!("{} {}", self.proto.producer_name, self.proto.producer_version).trim().to_owned()
    }

    /// Operator sets by domain.
    pub fn opsets(&self) -> Vec<(String, i64)> {
        let name = |domain: &str| if domain.is_empty() { "ai.onnx".to_owned() } else { domain.to_owned() };
        self.proto.opset_import.iter().map(|opset| (name(&opset.domain), opset.version)).collect()
    }

    /// How often each operator stands in the graph and its subgraphs.
    pub fn operators(&self) -> Operators {
        let mut operators = Operators::new();
        let mut count = |node: &NodeProto| {
            let domain = if matches!(node.domain.as_str(), "" | "ai.onnx") { "" } else { &node.domain };
            let dot = if domain.is_empty() { "" } else { "." };
            *operators.entry(format!("{domain}{dot}{}", node.op_type)).or_default() += 1;
        };
        let nodes = self.proto.graph.iter().flat_map(|graph| &graph.node);
        nodes.for_each(|node| visit(node, &mut count));
        operators
    }

    /// How many constants there are, wherever they stand.
    pub fn parameters(&self) -> Parameters {
        let mut all = Parameters::default();
        external::tensors(&self.proto, &mut |tensor| {
            let extent = |dim: &i64| u64::try_from(*dim).unwrap_or(0);
            let elements = tensor.dims.iter().map(extent).fold(1u64, u64::saturating_mul);
            all.tensors += 1;
            all.elements = all.elements.saturating_add(elements);
            let bits = ElemType(tensor.data_type).bits();
            let strings = || tensor.string_data.iter().map(|text| text.len() as u64).sum();
            let bytes = bits.map_or_else(strings, |bits| elements.saturating_mul(bits).div_ceil(8));
            all.bytes = all.bytes.saturating_add(bytes);
        });
        all
    }

    /// The version of the file's format.
    pub fn ir_version(&self) -> i64 {
        self.proto.ir_version
    }
}

fn initializers(graph: &GraphProto) -> HashSet<&str> {
    let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
    graph.initializer.iter().chain(sparse).map(|tensor| tensor.name.as_str()).collect()
}

/// Calls `see` with a node and every node of its subgraphs.
fn visit<'a>(node: &'a NodeProto, see: &mut impl FnMut(&'a NodeProto)) {
    see(node);
    for graph in subgraphs(node) {
        graph.node.iter().for_each(|node| visit(node, see));
    }
}

fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
}

fn value_info(value: &ValueInfoProto) -> ValueInfo {
    let kind = match value.r#type.as_ref().and_then(|kind| kind.value.as_ref()) {
        Some(type_proto::Value::TensorType(tensor)) => ValueKind::Tensor {
            elem: ElemType(tensor.elem_type),
            shape: tensor.shape.as_ref().map(|shape| shape.dim.iter().map(dim).collect()),
        },
        Some(type_proto::Value::SequenceType(_)) => ValueKind::Sequence,
        Some(type_proto::Value::MapType(_)) => ValueKind::Map,
        Some(type_proto::Value::OptionalType(_)) => ValueKind::Optional,
        Some(type_proto::Value::SparseTensorType(_)) => ValueKind::SparseTensor,
        None => ValueKind::Unknown,
    };
    ValueInfo { name: value.name.clone(), kind }
}

fn dim(dim: &generated::tensor_shape_proto::Dimension) -> Dim {
    use generated::tensor_shape_proto::dimension::Value;
    match &dim.value {
        Some(Value::DimValue(extent)) if *extent >= 0 => Dim::Fixed(*extent),
        Some(Value::DimParam(name)) if !name.is_empty() => Dim::Named(name.clone()),
        _ => Dim::Free,
    }
}
