//! Tensors of the wire: typed contents of gRPC, JSON in, JSON out.
use std::{collections::BTreeSet, sync::Arc};
use xebec_core::{InferError, model::TensorInfo};

pub(crate) mod json_in;
pub(crate) mod json_out;
pub(crate) mod typed;

/// The model's own copy of a name, or a new one if it has no such tensor.
pub(crate) fn intern(known: &[TensorInfo], name: &str) -> Arc<str> {
    known
        .iter()
        .find(|tensor| *tensor.name == *name)
        .map_or_else(|| name.into(), |tensor| Arc::clone(&tensor.name))
}

/// Refuses an output that is asked for twice: its two forms could differ, and an answer holds it once.
pub(crate) fn each_once(outputs: &[String]) -> Result<(), InferError> {
    if outputs.len() < 2 {
        return Ok(());
    }
    let mut seen = BTreeSet::new();
    match outputs.iter().find(|output| !seen.insert(output.as_str())) {
        None => Ok(()),
        Some(twice) => {
            Err(InferError::invalid_hint(format!("output '{twice}' is requested twice"), "ask for it once"))
        }
    }
}

/// The refusal of a tensor whose elements are not as many as its shape says. Reading stops at the first one too many.
pub(crate) fn miscounted(name: &str, got: usize, want: usize, dims: &str, place: &str) -> InferError {
    InferError::invalid(if got > want {
        format!("input '{name}' has more elements in {place} than the {want} that shape {dims} needs")
    } else {
        format!("input '{name}' has {got} elements in {place} where shape {dims} needs {want}")
    })
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
