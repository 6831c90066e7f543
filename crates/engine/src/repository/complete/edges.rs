//! From a configuration to the edges of a graph: which inputs are made, may be missing or are laid end to end, which
//! outputs are scattered.
use super::{
    Misfit,
    shapes::{Said, Slot},
};
use crate::{
    edges::{Edges, InputEdge, Kind, OutputEdge, Source},
    onnx,
};
use std::sync::Arc;
use xebec_core::{
    Datatype, ModelInfo,
    error::dims_text,
    model_config::{BatchInput, ModelConfig, batch_input},
};

/// Inputs and outputs as the configuration lists them.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) inputs: Vec<Said>,
    pub(super) outputs: Vec<Said>,
}

/// Reads the lists of a configuration.
pub(super) fn lists(config: &ModelConfig) -> Lists {
    let mut outputs: Vec<Said> = config.output.iter().map(Said::from).collect();
    for output in &mut outputs {
        output.scattered = config.batch_output.iter().any(|batch| batch.target_name.contains(&output.name));
    }
    Lists { inputs: config.input.iter().map(Said::from).collect(), outputs }
}

/// Takes the inputs that are made for each batch out of those that callers give.
pub(super) fn take_made(
    config: Option<&ModelConfig>,
    slots: &mut Vec<Slot>,
) -> Result<Vec<(Slot, Source)>, Misfit> {
    let mut made = Vec::new();
    for input in config.map(|config| config.batch_input.as_slice()).unwrap_or_default() {
        let config_inputs = config.map(|config| config.input.as_slice()).unwrap_or_default();
        let [target] = input.target_name.as_slice() else {
            return Err(Misfit("batch_input: write one target_name, an input of the graph".into()));
        };
        let fault = |problem: &str| Misfit(format!("batch_input '{target}': {problem}"));
        if config_inputs.iter().any(|given| given.name == *target) {
            return Err(fault("it is in the list of inputs too, which callers give; leave it out there"));
        }
        let place = slots.iter().position(|slot| slot.name == *target);
        let slot = place.map(|place| slots.remove(place));
        let slot = slot.ok_or_else(|| fault("the graph has no such input, or it is made twice"))?;
        let [from] = input.source_input.as_slice() else {
            return Err(fault("write one source_input"));
        };
        let source = config_inputs.iter().find(|given| given.name == *from);
        if source.is_none_or(|source| source.optional) {
            return Err(fault("its source_input is not in the list of inputs, or is optional"));
        }
        let kind = kind(input, &slot)?;
        let source = Source::Made { kind, from: from.as_str().into(), datatype: slot.datatype };
        made.push((slot, source));
    }
    Ok(made)
}

fn kind(input: &BatchInput, slot: &Slot) -> Result<Kind, Misfit> {
    let fault = |problem: String| Misfit(format!("batch_input '{}': {problem}", slot.name));
    let kind =
        batch_input::Kind::try_from(input.kind).map_err(|_| fault(format!("{} is no kind", input.kind)))?;
    if !matches!(slot.datatype, Datatype::Int32 | Datatype::Int64 | Datatype::Fp32) {
        let message = format!("the graph has {}; make it TYPE_INT32, TYPE_INT64 or TYPE_FP32", slot.datatype);
        return Err(fault(message));
    }
    if super::answer::config_type(slot.datatype) as i32 != input.data_type {
        let want = super::answer::config_type(slot.datatype).as_str_name();
        return Err(fault(format!("write data_type: {want}, which the graph has")));
    }
    let rank = if kind == batch_input::Kind::BatchItemShape { 2 } else { 1 };
    if let Some(shape) = slot.shape.as_ref().filter(|shape| shape.len() != rank) {
        return Err(fault(format!(
            "{} makes {rank} axes, and the graph has {}",
            kind.as_str_name(),
            dims_text(shape)
        )));
    }
    Ok(match kind {
        batch_input::Kind::BatchElementCount => Kind::Count,
        batch_input::Kind::BatchAccumulatedElementCount => Kind::Accumulated,
        batch_input::Kind::BatchAccumulatedElementCountWithZero => Kind::AccumulatedWithZero,
        batch_input::Kind::BatchMaxElementCountAsShape => Kind::MaxAsShape,
        batch_input::Kind::BatchItemShape => Kind::ItemShape,
        batch_input::Kind::BatchItemShapeFlatten => Kind::ItemShapeFlat,
    })
}

/// The graph's inputs with a default that the configuration lists as optional.
pub(super) fn optional(graph: &onnx::Model, lists: &Lists) -> Result<Vec<onnx::ValueInfo>, Misfit> {
    let known = graph.defaults();
    let mut found = Vec::new();
    for said in lists.inputs.iter().filter(|said| said.optional) {
        let fault =
            |problem: &str| Misfit(format!("config says input '{}' is optional, but {problem}", said.name));
        if graph.inputs().iter().any(|input| input.name == said.name) {
            return Err(fault(
                "the graph has no default for it: give it an initializer of that name, or leave optional out",
            ));
        }
        let input = known.iter().find(|input| input.name == said.name);
        let input = input.ok_or_else(|| fault("the graph has no such input"))?;
        if graph.ir_version() < 4 {
            return Err(fault(
                "in a graph of IR version 3 a default cannot be replaced; export it with a newer version",
            ));
        }
        found.push(input.clone());
    }
    Ok(found)
}

/// The edges of a model, if its configuration asks for any. `inputs` are the graph's, in its order, optional ones last.
pub(super) fn edges(
    config: Option<&ModelConfig>,
    lists: &Lists,
    info: &ModelInfo,
    inputs: &[String],
    made: Vec<(Slot, Source)>,
) -> Result<Option<Arc<Edges>>, Misfit> {
    let said = |name: &str| lists.inputs.iter().find(|said| said.name == name);
    let asks = |said: &Said| said.reshape.is_some() || said.ragged || said.optional || said.scattered;
    if made.is_empty() && !lists.inputs.iter().chain(&lists.outputs).any(asks) {
        return Ok(None);
    }
    let batched = info.max_batch_size > 0;
    if !batched && !made.is_empty() {
        return Err(Misfit("batch_input: max_batch_size is 0; write the most rows of a request".into()));
    }
    let mut made: Vec<_> = made.into_iter().map(|(slot, source)| (slot.name, source)).collect();
    let input = |name: &String| -> Result<InputEdge, Misfit> {
        let source = match made.iter().position(|(made, _)| made == name) {
            Some(place) => made.swap_remove(place).1,
            None => Source::Caller {
                reshape: said(name).map_or(Ok(None), |said| said.reshape("input"))?,
                ragged: said(name).is_some_and(|said| said.ragged),
                optional: said(name).is_some_and(|said| said.optional),
            },
        };
        Ok(InputEdge { name: name.as_str().into(), source })
    };
    let inputs = inputs.iter().map(input).collect::<Result<_, _>>()?;
    let outputs = info.outputs.iter().map(|output| {
        let said = lists.outputs.iter().find(|said| *said.name == *output.name);
        let reshape = said.map_or(Ok(None), |said| said.reshape("output"))?;
        let scatter = scatter(config, info, &output.name)?;
        Ok(OutputEdge { reshape: reshape.map(crate::edges::Reshape::inverse), scatter })
    });
    let outputs = outputs.collect::<Result<_, Misfit>>()?;
    Ok(Some(Arc::new(Edges { inputs, outputs, batched })))
}

type Scatter = Option<(Arc<str>, Vec<i64>)>;

fn scatter(config: Option<&ModelConfig>, info: &ModelInfo, name: &str) -> Result<Scatter, Misfit> {
    let all = config.map(|config| config.batch_output.as_slice()).unwrap_or_default();
    let Some(said) = all.iter().find(|said| said.target_name.iter().any(|target| target == name)) else {
        return Ok(None);
    };
    let fault = |problem: &str| Misfit(format!("batch_output '{name}': {problem}"));
    let ([_], [from]) = (said.target_name.as_slice(), said.source_input.as_slice()) else {
        return Err(fault("write one target_name and one source_input"));
    };
    let source = info.inputs.iter().find(|input| *input.name == **from);
    let source = source.ok_or_else(|| fault("its source_input is not in the list of inputs"))?;
    let output = info.outputs.iter().find(|output| *output.name == *name);
    let output = output.ok_or_else(|| fault("the graph has no such output"))?;
    if info.max_batch_size == 0 {
        return Err(fault("max_batch_size is 0; write the most rows of a request"));
    }
    if output.datatype.size_bytes().is_none() {
        return Err(fault("it is of strings, which cannot be scattered"));
    }
    let free_beyond = output.shape.iter().skip(source.shape.len()).any(|extent| *extent == -1);
    if free_beyond {
        return Err(fault("it has a free extent in an axis that its source_input has not"));
    }
    Ok(Some((Arc::clone(&source.name), output.shape.clone())))
}

/// Refuses what names outputs that are not there.
pub(super) fn check_outputs(config: &ModelConfig) -> Result<(), Misfit> {
    for said in &config.batch_output {
        let unknown =
            said.target_name.iter().find(|name| !config.output.iter().any(|output| output.name == **name));
        if said.target_name.is_empty() || unknown.is_some() {
            let name = unknown.map_or("", String::as_str);
            return Err(Misfit(format!(
                "batch_output '{name}': its target_name is not in the list of outputs"
            )));
        }
    }
    Ok(())
}
