//! A node of an `InferenceGraph` as steps of a graph: which tensor each takes and makes, by their names.
//!
//! Names are looked up when the models are known: a step's input is the newest tensor of that name, or one that the caller
//! brings if no step before has made it. What is made is called `NAME of step STEP` within the graph, so that a caller's tensor and
//! a made one of the same name are two.
//!
//! Not here: whether types and shapes fit ([`super::plan`]), which step of a switch is taken ([`super::choice`]).
use super::plan::{Find, Member};
use crate::repository::complete::Misfit;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use xebec_core::{
    ModelName,
    model::TensorInfo,
    model_config::{ModelEnsembling, model_ensembling},
    port::Upstream,
    resource::{Condition, Data, RouterType},
};

/// A node with models in the place of services, other nodes and built-in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub(crate) router: RouterType,
    pub(crate) steps: Vec<NodeStep>,
    /// What it answers with; what its steps make if empty.
    pub(crate) outputs: Vec<String>,
}

/// A step of a [`Node`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NodeStep {
    /// No other step of the node is called so.
    pub(crate) label: String,
    pub(crate) model: ModelName,
    pub(crate) inputs: BTreeMap<String, String>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) data: Option<Data>,
    pub(crate) when: Option<Condition>,
    pub(crate) weight: u32,
}

impl Node {
    /// The models that it is of.
    pub(crate) fn members(&self) -> BTreeSet<ModelName> {
        self.steps.iter().map(|step| step.model.clone()).collect()
    }
}

/// An output of a node: a tensor of the graph, and what callers call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) tensor: String,
    pub(crate) output: String,
}

/// A made tensor: what steps call it, and what it is called within the graph.
#[derive(Clone)]
struct Made {
    name: String,
    tensor: String,
}

/// The steps of a node, and what it answers with. `find` gives the models as they are served now.
///
/// # Errors
/// A name that nobody has or makes, with those that there are.
pub(crate) fn drawn(
    steps: &[&NodeStep],
    router: RouterType,
    outputs: &[String],
    find: &Find<'_>,
) -> Result<(ModelEnsembling, Vec<Called>), Misfit> {
    let mut made: Vec<Vec<Made>> = Vec::new();
    let mut graph = ModelEnsembling::default();
    for step in steps {
        let upstream = find(&Member { name: step.model.clone(), version: None })?;
        known(&step.inputs, &upstream.info().inputs, step, "input")?;
        known(&step.outputs, &upstream.info().outputs, step, "output")?;
        let input_map = inputs(step, router, &made, &*upstream)?;
        let outputs: Vec<(String, Made)> =
            upstream.info().outputs.iter().map(|output| output_of(step, output)).collect();
        graph.step.push(model_ensembling::Step {
            model_name: step.model.to_string(),
            model_version: -1,
            input_map,
            output_map: outputs.iter().map(|(own, made)| (own.clone(), made.tensor.clone())).collect(),
            ..model_ensembling::Step::default()
        });
        made.push(outputs.into_iter().map(|(_, made)| made).collect());
    }
    let answer = answer(steps, router, outputs, &made)?;
    let mut used: HashSet<String> = answer.iter().map(|called| called.tensor.clone()).collect();
    used.extend(graph.step.iter().flat_map(|step| step.input_map.values().cloned()));
    for (drawn, step) in graph.step.iter_mut().zip(steps) {
        drawn.output_map.retain(|_, tensor| used.contains(tensor));
        if drawn.output_map.is_empty() {
            return Err(Misfit::new(format!(
                "nothing that step '{}' makes is used; use it, name it in outputs, or leave the step out",
                step.label
            )));
        }
    }
    Ok((graph, answer))
}

/// Every name on the left of a map is the model's.
fn known(
    map: &BTreeMap<String, String>,
    all: &[TensorInfo],
    step: &NodeStep,
    kind: &str,
) -> Result<(), Misfit> {
    let Some(unknown) = map.keys().find(|name| !all.iter().any(|info| *info.name == ***name)) else {
        return Ok(());
    };
    Err(Misfit::new(format!(
        "step '{}' names {kind} '{unknown}', which '{}' does not have; it has {}",
        step.label,
        step.model,
        listed(all.iter().map(|info| &*info.name))
    )))
}

fn inputs(
    step: &NodeStep,
    router: RouterType,
    made: &[Vec<Made>],
    upstream: &dyn Upstream,
) -> Result<BTreeMap<String, String>, Misfit> {
    let optional =
        |name: &str| upstream.config().input.iter().any(|input| input.name == name && input.optional);
    let mut map = BTreeMap::new();
    for input in &upstream.info().inputs {
        let own = input.name.to_string();
        let said = step.inputs.get(&own);
        let name = said.unwrap_or(&own);
        let newest = |all: &[Vec<Made>]| {
            let found = all.iter().rev().flatten().find(|made| made.name == *name);
            found.map(|made| made.tensor.clone())
        };
        let data = if router == RouterType::Sequence { step.data } else { Some(Data::Request) };
        let tensor = match data {
            Some(Data::Request) => None,
            None => newest(made),
            Some(Data::Response) => {
                let before = made.last().map(Vec::as_slice).unwrap_or_default();
                let found = newest(&made[made.len().saturating_sub(1)..]);
                Some(found.ok_or_else(|| {
                    Misfit::new(format!(
                        "step '{}' takes '{name}' from the step before it, which makes {}",
                        step.label,
                        listed(before.iter().map(|made| made.name.as_str()))
                    ))
                })?)
            }
        };
        match tensor {
            Some(tensor) => drop(map.insert(own, tensor)),
            None if said.is_none() && optional(&own) => {}
            None => drop(map.insert(own.clone(), name.clone())),
        }
    }
    Ok(map)
}

fn output_of(step: &NodeStep, output: &TensorInfo) -> (String, Made) {
    let own = output.name.to_string();
    let name = step.outputs.get(&own).unwrap_or(&own).clone();
    let tensor = format!("{own} of step {}", step.label);
    (own, Made { name, tensor })
}

/// What a node answers with.
fn answer(
    steps: &[&NodeStep],
    router: RouterType,
    wanted: &[String],
    made: &[Vec<Made>],
) -> Result<Vec<Called>, Misfit> {
    let called = |made: &Made| Called { tensor: made.tensor.clone(), output: made.name.clone() };
    let all = || made.iter().rev().flatten();
    if !wanted.is_empty() {
        let find = |name: &String| {
            all().find(|made| made.name == *name).map(called).ok_or_else(|| {
                Misfit::new(format!(
                    "output '{name}' is made by no step; what is made is {}",
                    listed(made.iter().flatten().map(|made| made.name.as_str()))
                ))
            })
        };
        return wanted.iter().map(find).collect();
    }
    let from = if router == RouterType::Ensemble { 0 } else { made.len().saturating_sub(1) };
    let mut answer: Vec<Called> = Vec::new();
    for (made, step) in made[from..].iter().zip(&steps[from..]) {
        for made in made {
            if answer.iter().any(|other| other.output == made.name) {
                return Err(Misfit::new(format!(
                    "more than one step makes '{}'; call that of step '{}' otherwise, as outputs: {{NAME: OTHER}}",
                    made.name, step.label
                )));
            }
            answer.push(called(made));
        }
    }
    Ok(answer)
}

pub(crate) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    if all.is_empty() { "nothing".into() } else { all.join(", ") }
}
