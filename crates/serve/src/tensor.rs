//! Tensors of the wire: typed contents of gRPC, JSON in, JSON out.
use std::sync::Arc;
use xebec_core::model::TensorInfo;

pub(crate) mod json_in;
pub(crate) mod json_out;
pub(crate) mod typed;

/// The model's own copy of a name, or a new one if it has no such tensor.
pub(crate) fn intern(known: &[TensorInfo], name: &str) -> Arc<str> {
    known.iter().find(|tensor| *tensor.name == *name).map_or_else(|| name.into(), |tensor| Arc::clone(&tensor.name))
}

/// Which outputs are wanted as binary tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Binary {
    /// Unless an output says otherwise.
    pub(crate) default: bool,
    /// By name.
    pub(crate) by_output: Vec<(String, bool)>,
}

impl Binary {
    /// Whether the output of that name goes as a binary tensor.
    pub(crate) fn wants(&self, output: &str) -> bool {
        let said = self.by_output.iter().find(|(name, _)| name == output);
        said.map_or(self.default, |(_, binary)| *binary)
    }
}
