//! One node with the facts of its inputs: what a rule works with.
use super::{
    extent::Extent,
    fact::{Fact, MOST_AXES, Seen, Symbols},
};
use crate::onnx::generated::{AttributeProto, NodeProto};
use std::rc::Rc;

/// What a rule says: a fact per output, or how the node mixes rows.
pub(super) type Outcome = Result<Vec<Seen>, String>;

/// A node at hand.
pub(super) struct Call<'a> {
    pub(super) node: &'a NodeProto,
    pub(super) inputs: &'a [Option<Rc<Fact>>],
    pub(super) opset: i64,
    pub(super) symbols: &'a mut Symbols,
}

pub(super) const OVER_BATCH: &str = "works over the batch axis";

impl<'a> Call<'a> {
    pub(super) fn input(&self, index: usize) -> Result<&'a Fact, String> {
        self.optional(index).ok_or_else(|| format!("has no input {index}"))
    }

    pub(super) fn optional(&self, index: usize) -> Option<&'a Fact> {
        self.inputs.get(index)?.as_deref()
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    pub(super) fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| attribute.ints.as_slice())
    }

    pub(super) fn floats(&self, name: &str) -> Option<&'a [f32]> {
        self.attribute(name).map(|attribute| attribute.floats.as_slice())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&'a crate::onnx::generated::TensorProto> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref())
    }

    /// Whole numbers that are an attribute in older operator sets and an input in newer ones.
    ///
    /// `Ok(None)` if they are not given at all.
    pub(super) fn ints_or_input(&self, name: &str, index: usize) -> Result<Option<Vec<i64>>, String> {
        if let Some(ints) = self.ints(name) {
            let few = ints.len() <= 2 * MOST_AXES;
            return few
                .then(|| Some(ints.to_vec()))
                .ok_or_else(|| format!("has more {name} than are followed"));
        }
        match self.optional(index) {
            None => Ok(None),
            Some(fact) => fact.numbers().map(Some).ok_or_else(|| format!("has {name} that are not constant")),
        }
    }

    /// Whether any input has the batch in it, as rows or as a number.
    pub(super) fn touches_batch(&self) -> bool {
        self.inputs.iter().flatten().any(|fact| !fact.is_plain())
    }

    /// Requires inputs from `from` on to be plain.
    pub(super) fn rest_is_plain(&self, from: usize) -> Result<(), String> {
        let plain = self.inputs.iter().skip(from).flatten().all(|fact| fact.is_plain());
        if plain { Ok(()) } else { Err("takes the batch where weights belong".into()) }
    }

    /// The batched input `index`: its shape and batch axis.
    pub(super) fn batched(&self, index: usize) -> Result<(&'a [Extent], usize), String> {
        let fact = self.input(index)?;
        match (&fact.shape, fact.batch) {
            (Some(shape), Some(axis)) => Ok((shape, axis)),
            _ => Err("takes the batch where weights belong".into()),
        }
    }

    /// As many plain, unknown facts as the node has outputs.
    pub(super) fn plain_outputs(&self) -> Vec<Seen> {
        self.node.output.iter().map(|_| Ok(Fact::unknown())).collect()
    }

    /// Fresh extents, but `kept` stays at `axis`.
    pub(super) fn fresh_except(&mut self, rank: usize, axis: usize, kept: Extent) -> Vec<Extent> {
        (0..rank).map(|place| if place == axis { kept.clone() } else { self.symbols.fresh() }).collect()
    }
}

/// Resolves an axis that may count from the end.
pub(super) fn axis(raw: i64, rank: usize) -> Result<usize, String> {
    let rank = i64::try_from(rank).unwrap_or(i64::MAX);
    let resolved = if raw < 0 { raw.saturating_add(rank) } else { raw };
    if (0..rank).contains(&resolved) {
        usize::try_from(resolved).map_err(|_| "has an axis out of range".into())
    } else {
        Err(format!("has axis {raw} on a value of rank {rank}"))
    }
}

/// Resolves axes, none of which may be named twice.
pub(super) fn axes(raw: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut resolved = Vec::new();
    for raw in raw {
        let axis = axis(*raw, rank)?;
        if resolved.contains(&axis) {
            return Err(format!("names axis {axis} twice"));
        }
        resolved.push(axis);
    }
    Ok(resolved)
}

/// One output.
pub(super) fn one(fact: Fact) -> Outcome {
    Ok(vec![Ok(fact)])
}
