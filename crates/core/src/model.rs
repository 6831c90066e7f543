//! What a caller may know of a model: its inputs and outputs, with shapes as they go over the wire.
use crate::{Datatype, ModelName, Version};
use std::sync::Arc;

/// One revision of a model, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelInfo {
    /// Name.
    pub name: ModelName,
    /// Version.
    pub version: Version,
    /// Format and engine, for example `onnxruntime_onnx`.
    pub platform: String,
    /// Most rows a request may have; 0 if the model has no batch axis.
    pub max_batch_size: u32,
    /// Inputs, in the model's order.
    pub inputs: Vec<TensorInfo>,
    /// Outputs, in the model's order.
    pub outputs: Vec<TensorInfo>,
}

/// One input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: Arc<str>,
    /// Element type.
    pub datatype: Datatype,
    /// Extents on the wire, -1 where free; with the leading -1 of the batch if the model has one.
    pub shape: Vec<i64>,
}

impl TensorInfo {
    /// Whether a concrete shape fits: same rank, same extent wherever one is fixed.
    pub fn accepts(&self, shape: &[i64]) -> bool {
        self.shape.len() == shape.len()
            && self.shape.iter().zip(shape).all(|(want, got)| *want == -1 || want == got)
    }
}
