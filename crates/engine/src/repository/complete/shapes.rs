//! What a configuration says of inputs and outputs, against what the graph says.
use super::{Misfit, answer::config_type};
use crate::{
    edges::Reshape,
    onnx::{Dim, ValueInfo, ValueKind},
};
use xebec_core::{
    Datatype,
    error::dims_text,
    model::TensorInfo,
    model_config::{DataType, ModelInput, ModelOutput, model_input::Format},
};

/// An input or output of the graph, in types of the protocol.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    /// -1 where free; `None` if the rank is unknown.
    pub(super) shape: Option<Vec<i64>>,
}

impl Slot {
    pub(super) fn has_free_first_axis(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| shape.first() == Some(&-1))
    }
}

pub(super) fn slots<'a>(
    values: impl IntoIterator<Item = &'a ValueInfo>,
    kind: &str,
) -> Result<Vec<Slot>, Misfit> {
    values.into_iter().map(|value| slot(value, kind)).collect()
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

/// An input or output as `config.pbtxt` has it.
pub(super) struct Said {
    pub(super) name: String,
    data_type: i32,
    dims: Vec<i64>,
    format: Format,
    pub(super) reshape: Option<Vec<i64>>,
    pub(super) ragged: bool,
    pub(super) optional: bool,
    /// Whether it is cut by the shapes of an input.
    pub(super) scattered: bool,
}

impl From<&ModelInput> for Said {
    fn from(input: &ModelInput) -> Self {
        Self {
            name: input.name.clone(),
            data_type: input.data_type,
            dims: input.dims.clone(),
            format: Format::try_from(input.format).unwrap_or(Format::None),
            reshape: input.reshape.as_ref().map(|reshape| reshape.shape.clone()),
            ragged: input.allow_ragged_batch,
            optional: input.optional,
            scattered: false,
        }
    }
}

impl From<&ModelOutput> for Said {
    fn from(output: &ModelOutput) -> Self {
        Self {
            name: output.name.clone(),
            data_type: output.data_type,
            dims: output.dims.clone(),
            format: Format::None,
            reshape: output.reshape.as_ref().map(|reshape| reshape.shape.clone()),
            ragged: false,
            optional: false,
            scattered: false,
        }
    }
}

impl Said {
    /// The reshape from what callers see to what the graph has.
    pub(super) fn reshape(&self, kind: &str) -> Result<Option<Reshape>, Misfit> {
        let Some(inner) = &self.reshape else { return Ok(None) };
        Reshape::new(&self.dims, inner).map(Some).map_err(|unequal| {
            Misfit(format!(
                "config says {kind} '{}' has dims: {} and reshape: {}, but {unequal}; make their products equal, with as many -1 in both",
                self.name,
                spaced(&self.dims),
                spaced(inner),
            ))
        })
    }
}

/// Puts what the configuration says over what the graph says.
pub(super) fn fit(
    kind: &str,
    graph: Vec<Slot>,
    said: &[Said],
    max_batch_size: u32,
) -> Result<Vec<TensorInfo>, Misfit> {
    for (index, one) in said.iter().enumerate() {
        if said.iter().take(index).any(|earlier| earlier.name == one.name) {
            return Err(Misfit(format!("config lists {kind} '{}' twice; leave one out", one.name)));
        }
    }
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
    let said_here = said.iter().find(|said| said.name == slot.name);
    let by_rows = said_here.is_none_or(|said| !said.ragged && !said.scattered);
    if batched && by_rows && slot.shape.is_some() && !slot.has_free_first_axis() {
        let shape = dims_text(slot.shape.as_deref().unwrap_or_default());
        return Err(Misfit(format!(
            "config says max_batch_size: {max_batch_size}, but {kind} '{}' of the graph has shape {shape}, whose first axis is not free: write max_batch_size: 0 with dims: {}",
            slot.name,
            spaced(slot.shape.as_deref().unwrap_or_default()),
        )));
    }
    let Some(said_here) = said_here else {
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
    fit_type(kind, &slot, said_here)?;
    said_here.reshape(kind)?;
    if said_here.ragged {
        fit_ragged(&slot, said_here, batched)?;
    } else if by_rows {
        fit_dims(kind, &slot, said_here, batched)?;
    }
    let with_batch = |dims: &[i64]| batched.then_some(-1).into_iter().chain(dims.iter().copied()).collect();
    Ok(TensorInfo { name: slot.name.into(), datatype: slot.datatype, shape: with_batch(&said_here.dims) })
}

fn fit_type(kind: &str, slot: &Slot, said: &Said) -> Result<(), Misfit> {
    if config_type(slot.datatype) as i32 != said.data_type {
        let said_type = DataType::try_from(said.data_type).unwrap_or_default().as_str_name();
        let want = config_type(slot.datatype).as_str_name();
        return Err(Misfit(format!(
            "config says {kind} '{}' is {said_type}, but the graph has {want}; write data_type: {want}",
            slot.name
        )));
    }
    if said.format != Format::None && said.dims.len() != 3 {
        return Err(Misfit(format!(
            "config says {kind} '{}' is {}, but dims: {} are not the 3 of an image; leave format out",
            slot.name,
            said.format.as_str_name(),
            spaced(&said.dims),
        )));
    }
    let mut extents = said.dims.iter().chain(said.reshape.iter().flatten());
    if let Some(bad) = extents.find(|extent| **extent < -1 || **extent == 0) {
        return Err(Misfit(format!(
            "config says {kind} '{}' has an extent of {bad}; write -1 where it is free",
            slot.name
        )));
    }
    Ok(())
}

fn fit_dims(kind: &str, slot: &Slot, said: &Said, batched: bool) -> Result<(), Misfit> {
    let Some(graph) = &slot.shape else { return Ok(()) };
    let inner = said.reshape.as_ref().unwrap_or(&said.dims);
    let shape: Vec<i64> = batched.then_some(-1).into_iter().chain(inner.iter().copied()).collect();
    if narrows(&shape, graph) {
        return Ok(());
    }
    let line = snippet(kind, slot, batched);
    let field = if said.reshape.is_some() { "reshape" } else { "dims" };
    let batch =
        if batched { " (dims leave out the batch axis because max_batch_size is above 0)" } else { "" };
    Err(Misfit(format!(
        "config says {kind} '{}' has {field}: {}, but the graph has {}{batch}; write {line}",
        slot.name,
        spaced(inner),
        dims_text(graph),
    )))
}

/// A ragged input is one long row.
fn fit_ragged(slot: &Slot, said: &Said, batched: bool) -> Result<(), Misfit> {
    let fault =
        |problem: String| Err(Misfit(format!("config says input '{}' is ragged, but {problem}", slot.name)));
    if !batched {
        return fault("max_batch_size is 0; write the most rows of a request".into());
    }
    if said.reshape.is_some() || said.optional {
        return fault("it has a reshape or is optional too; leave that out".into());
    }
    match slot.shape.as_deref() {
        None | Some([-1]) if slot.datatype != Datatype::Bytes => Ok(()),
        None | Some([-1]) => fault("it is of strings; pad in the client".into()),
        Some(shape) => fault(format!(
            "requests are laid end to end, and the graph has {} in the place of one free axis; pad in the client",
            dims_text(shape)
        )),
    }
}

/// Whether every concrete shape of `said` is one of `graph`.
fn narrows(said: &[i64], graph: &[i64]) -> bool {
    said.len() == graph.len() && said.iter().zip(graph).all(|(said, graph)| graph == &-1 || said == graph)
}

/// The lines of `config.pbtxt` that would fit.
pub(super) fn snippet(kind: &str, slot: &Slot, batched: bool) -> String {
    let shape = slot.shape.as_deref().unwrap_or_default();
    let dims = if batched { shape.get(1..).unwrap_or_default() } else { shape };
    let data_type = config_type(slot.datatype).as_str_name();
    format!("{kind} {{ name: \"{}\" data_type: {data_type} dims: {} }}", slot.name, spaced(dims))
}

/// As people write it in `config.pbtxt`: `[ -1, 30 ]`.
pub(super) fn spaced(dims: &[i64]) -> String {
    let inner: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[ {} ]", inner.join(", "))
}
