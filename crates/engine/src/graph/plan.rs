//! A graph as its configuration says it, checked against the models that it is of: which step needs which tensor, and
//! what it makes.
//!
//! Shapes are compared as they go over the wire, with the batch axis of a model that has one. Invariants of a [`Plan`]:
//! every tensor is made once, by a step or as an input of the graph, and used, by a step or as an output; no step needs
//! what comes of it; what makes a tensor and what uses it agree on its datatype, and on its shape wherever both fix it.
//!
//! # Source
//! Triton's "Ensemble Models"; its model configuration, `ModelEnsembling`.
use super::node::Called;
use crate::repository::complete::{Misfit, datatype};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};
use xebec_core::{
    ModelInfo, ModelName, Version,
    error::dims_text,
    model::TensorInfo,
    model_config::{ModelConfig, model_ensembling},
    port::Upstream,
};

/// Most steps of a graph.
const MOST_STEPS: usize = 256;

/// A model that is a part of a graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) name: ModelName,
    /// The newest if `None`.
    pub(crate) version: Option<Version>,
}

/// Gives the members of a graph as they are served now.
pub(crate) type Find<'a> = dyn Fn(&Member) -> Result<Arc<dyn Upstream>, Misfit> + 'a;

/// A graph that can be run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) tensors: Vec<Wire>,
    /// The tensors that a request brings, in the order of the graph's inputs.
    pub(crate) inputs: Vec<usize>,
    /// The tensors of an answer, in the order of the graph's outputs.
    pub(crate) outputs: Vec<usize>,
}

/// A run of a member.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) member: Member,
    /// Its inputs by the member's names, each with the tensor that it is.
    pub(crate) inputs: Vec<(Arc<str>, usize)>,
    /// Its outputs that anybody uses, by the member's names.
    pub(crate) outputs: Vec<(Arc<str>, usize)>,
}

/// A tensor of a graph.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) name: Arc<str>,
    /// What callers call it, as an output.
    pub(crate) called: Arc<str>,
    /// The step that makes it; `None` if a request brings it.
    pub(crate) maker: Option<usize>,
    /// Steps that need it.
    pub(crate) users: Vec<usize>,
}

/// The models that a configuration makes a graph of; none if it makes none.
///
/// # Errors
/// A name that cannot be a model's, or a version that is none.
pub(crate) fn members(config: &ModelConfig) -> Result<BTreeSet<Member>, Misfit> {
    let steps = super::scheduling(config).map(|graph| graph.step.as_slice()).unwrap_or_default();
    steps.iter().map(member).collect()
}

fn member(step: &model_ensembling::Step) -> Result<Member, Misfit> {
    let name = ModelName::parse(&step.model_name)
        .map_err(|error| Misfit::new(format!("ensemble_scheduling.step.model_name: {error}")))?;
    let version = match step.model_version {
        // What is left out is 0, and means what -1 does: no version is called so.
        -1 | 0 => None,
        number => Some(Version::parse(&number.to_string()).map_err(|_| {
            Misfit::new(format!(
                "ensemble_scheduling.step.model_version {number} of '{name}' is no version; write -1 for the newest"
            ))
        })?),
    };
    Ok(Member { name, version })
}

/// Checks a graph and plans its runs. `find` gives the members as they are served now.
///
/// # Errors
/// What is wrong in it, with the names of the tensors, and what would be right.
pub(crate) fn plan(
    name: &ModelName,
    version: Version,
    config: &ModelConfig,
    find: &Find<'_>,
) -> Result<(Plan, ModelInfo), Misfit> {
    let graph = super::scheduling(config).ok_or_else(|| Misfit::new("it is no graph".into()))?;
    if graph.step.is_empty() || graph.step.len() > MOST_STEPS {
        return Err(Misfit::new(format!(
            "ensemble_scheduling has {} steps; a graph has 1 to {MOST_STEPS}",
            graph.step.len()
        )));
    }
    draw(Sketch::new(config)?, name, version, &graph.step, find)
}

/// The same for a node of an `InferenceGraph`: its inputs are what no step makes, its outputs are said.
///
/// # Errors
/// As of [`plan`].
pub(crate) fn plan_node(
    name: &ModelName,
    version: Version,
    steps: &[model_ensembling::Step],
    outputs: &[Called],
    find: &Find<'_>,
) -> Result<(Plan, ModelInfo), Misfit> {
    draw(Sketch::of_node(outputs), name, version, steps, find)
}

fn draw(
    mut sketch: Sketch,
    name: &ModelName,
    version: Version,
    steps: &[model_ensembling::Step],
    find: &Find<'_>,
) -> Result<(Plan, ModelInfo), Misfit> {
    for (index, step) in steps.iter().enumerate() {
        let member = member(step)?;
        if member.name == *name {
            return Err(Misfit::new(format!(
                "step {} is the graph itself; a graph has no cycles",
                index + 1
            )));
        }
        let upstream = find(&member)?;
        sketch.add(member, step, &*upstream)?;
    }
    sketch.finish(name, version)
}

/// A graph while its steps are read.
struct Sketch {
    max_batch_size: u32,
    steps: Vec<Step>,
    wires: Vec<Drawn>,
    by_name: HashMap<String, usize>,
    says: Says,
}

/// What is said of a graph's inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Both.
    Edges,
    /// Its outputs; inputs are what nobody makes.
    Outputs,
    /// Nothing; outputs are what nobody uses.
    Nothing,
}

/// A tensor while the steps are read.
struct Drawn {
    wire: Wire,
    /// What is known of it, and from where, for messages.
    kind: Option<(TensorInfo, String)>,
    is_input: bool,
    is_output: bool,
}

impl Sketch {
    fn new(config: &ModelConfig) -> Result<Self, Misfit> {
        let max_batch_size = u32::try_from(config.max_batch_size).unwrap_or(0);
        let says_edges = !config.input.is_empty() || !config.output.is_empty();
        let says = if says_edges { Says::Edges } else { Says::Nothing };
        let mut sketch = Self::empty(max_batch_size, says);
        for input in &config.input {
            let info = sketch.edge("input", &input.name, input.data_type, &input.dims)?;
            let at = sketch.wire(&input.name);
            let drawn = &mut sketch.wires[at];
            if std::mem::replace(&mut drawn.is_input, true) {
                return Err(Misfit::new(format!("config lists input '{}' twice; leave one out", input.name)));
            }
            drawn.kind = Some((info, "config's input".into()));
        }
        for output in &config.output {
            let info = sketch.edge("output", &output.name, output.data_type, &output.dims)?;
            let at = sketch.wire(&output.name);
            let drawn = &mut sketch.wires[at];
            if std::mem::replace(&mut drawn.is_output, true) {
                return Err(Misfit::new(format!(
                    "config lists output '{}' twice; leave one out",
                    output.name
                )));
            }
            sketch.meet(at, info, "config's output".into())?;
        }
        Ok(sketch)
    }

    fn empty(max_batch_size: u32, says: Says) -> Self {
        Self { max_batch_size, steps: Vec::new(), wires: Vec::new(), by_name: HashMap::new(), says }
    }

    fn of_node(outputs: &[Called]) -> Self {
        let mut sketch = Self::empty(0, Says::Outputs);
        for Called { tensor, output } in outputs {
            let at = sketch.wire(tensor);
            let drawn = &mut sketch.wires[at];
            drawn.is_output = true;
            drawn.wire.called = output.as_str().into();
        }
        sketch
    }

    /// An input or output of the graph as its configuration says it.
    fn edge(&self, kind: &str, name: &str, data_type: i32, dims: &[i64]) -> Result<TensorInfo, Misfit> {
        if name.is_empty() {
            return Err(Misfit::new(format!("config lists an {kind} without a name")));
        }
        let datatype = datatype(data_type).ok_or_else(|| {
            Misfit::new(format!("config says no data_type of {kind} '{name}'; write for example TYPE_FP32"))
        })?;
        let batch = (self.max_batch_size > 0).then_some(-1);
        Ok(TensorInfo {
            name: name.into(),
            datatype,
            shape: batch.into_iter().chain(dims.iter().copied()).collect(),
        })
    }

    fn wire(&mut self, name: &str) -> usize {
        if let Some(at) = self.by_name.get(name) {
            return *at;
        }
        let at = self.wires.len();
        let wire = Wire { name: name.into(), called: name.into(), maker: None, users: Vec::new() };
        self.wires.push(Drawn { wire, kind: None, is_input: false, is_output: false });
        self.by_name.insert(name.to_owned(), at);
        at
    }

    /// Brings together what is known of a tensor and what `whence` says of it.
    fn meet(&mut self, at: usize, info: TensorInfo, whence: String) -> Result<(), Misfit> {
        let drawn = &mut self.wires[at];
        let Some((known, from)) = &mut drawn.kind else {
            drawn.kind = Some((info, whence));
            return Ok(());
        };
        let name = &drawn.wire.name;
        if known.datatype != info.datatype {
            return Err(Misfit::new(format!(
                "tensor '{name}' is {} by {from}, but {} by {whence}",
                known.datatype, info.datatype
            )));
        }
        let fit = known.shape.len() == info.shape.len()
            && known.shape.iter().zip(&info.shape).all(|(a, b)| *a == -1 || *b == -1 || a == b);
        if !fit {
            return Err(Misfit::new(format!(
                "tensor '{name}' has shape {} by {from}, but {} by {whence}; shapes here have the batch axis of a model that has one",
                dims_text(&known.shape),
                dims_text(&info.shape)
            )));
        }
        // What one of them leaves open the other may fix.
        for (known, new) in known.shape.iter_mut().zip(&info.shape) {
            *known = (*known).max(*new);
        }
        Ok(())
    }

    fn add(
        &mut self,
        member: Member,
        step: &model_ensembling::Step,
        upstream: &dyn Upstream,
    ) -> Result<(), Misfit> {
        let (index, info) = (self.steps.len(), upstream.info());
        let of =
            |kind: &str, name: &str| format!("{kind} '{name}' of '{}' in step {}", member.name, index + 1);
        if info.max_batch_size > 0 && self.max_batch_size > info.max_batch_size {
            return Err(Misfit::new(format!(
                "max_batch_size of the graph is {}, but '{}' in step {} takes {} rows; write max_batch_size: {}",
                self.max_batch_size,
                member.name,
                index + 1,
                info.max_batch_size,
                info.max_batch_size
            )));
        }
        let mut inputs = Vec::new();
        for (name, tensor) in &step.input_map {
            let known = find(&info.inputs, name, "input_map", &member.name)?;
            let at = self.named(tensor, &of("input", name))?;
            self.meet(at, known.clone(), of("input", name))?;
            let users = &mut self.wires[at].wire.users;
            if users.last() != Some(&index) {
                users.push(index);
            }
            inputs.push((Arc::clone(&known.name), at));
        }
        let optional =
            |name: &str| upstream.config().input.iter().any(|input| input.name == name && input.optional);
        let missing = info
            .inputs
            .iter()
            .find(|input| !step.input_map.contains_key(&*input.name) && !optional(&input.name));
        if let Some(missing) = missing {
            return Err(Misfit::new(format!(
                "{} has no tensor; add input_map {{ key: \"{}\" value: \"NAME OF A TENSOR\" }}",
                of("input", &missing.name),
                missing.name
            )));
        }
        let mut outputs = Vec::new();
        for (name, tensor) in &step.output_map {
            let known = find(&info.outputs, name, "output_map", &member.name)?;
            let at = self.named(tensor, &of("output", name))?;
            let Drawn { wire, is_input, .. } = &mut self.wires[at];
            if *is_input {
                return Err(Misfit::new(format!(
                    "tensor '{tensor}' is an input of the graph, and {} makes it too; call one of them otherwise",
                    of("output", name)
                )));
            }
            if let Some(other) = wire.maker.replace(index) {
                return Err(Misfit::new(format!(
                    "tensor '{tensor}' is made by step {} and by step {}; call one of them otherwise",
                    other + 1,
                    index + 1
                )));
            }
            self.meet(at, known.clone(), of("output", name))?;
            outputs.push((Arc::clone(&known.name), at));
        }
        if outputs.is_empty() {
            return Err(Misfit::new(format!(
                "'{}' in step {} makes nothing; add output_map {{ key: \"{}\" value: \"NAME OF A TENSOR\" }}, or leave the step out",
                member.name,
                index + 1,
                info.outputs.first().map_or("OUTPUT", |output| &*output.name)
            )));
        }
        self.steps.push(Step { member, inputs, outputs });
        Ok(())
    }

    fn named(&mut self, tensor: &str, what: &str) -> Result<usize, Misfit> {
        if tensor.is_empty() {
            return Err(Misfit::new(format!("{what} is given no name of a tensor; write one as the value")));
        }
        Ok(self.wire(tensor))
    }

    fn finish(mut self, name: &ModelName, version: Version) -> Result<(Plan, ModelInfo), Misfit> {
        for drawn in &mut self.wires {
            if self.says != Says::Edges {
                drawn.is_input = drawn.wire.maker.is_none();
            }
            if self.says == Says::Nothing {
                drawn.is_output = drawn.wire.users.is_empty();
            }
        }
        self.check_made()?;
        self.check_order()?;
        let of = |which: fn(&Drawn) -> bool| -> (Vec<usize>, Vec<TensorInfo>) {
            let chosen = self.wires.iter().enumerate().filter(|(_, drawn)| which(drawn));
            let edge = |(at, drawn): (usize, &Drawn)| {
                let (info, _) = drawn.kind.as_ref()?;
                Some((at, TensorInfo { name: Arc::clone(&drawn.wire.called), ..info.clone() }))
            };
            chosen.filter_map(edge).unzip()
        };
        let ((inputs, input_infos), (outputs, output_infos)) =
            (of(|drawn| drawn.is_input), of(|drawn| drawn.is_output));
        if outputs.is_empty() {
            return Err(Misfit::new(
                "the graph has no output; list one in config.pbtxt, as output { name: ... }".into(),
            ));
        }
        let info = ModelInfo {
            name: name.clone(),
            version,
            platform: "ensemble".into(),
            max_batch_size: self.max_batch_size,
            inputs: input_infos,
            outputs: output_infos,
        };
        let tensors = self.wires.into_iter().map(|drawn| drawn.wire).collect();
        Ok((Plan { steps: self.steps, tensors, inputs, outputs }, info))
    }

    /// Everything that is used is made, and everything that is there is used.
    fn check_made(&self) -> Result<(), Misfit> {
        for Drawn { wire, is_input, .. } in &self.wires {
            let name = &wire.name;
            if wire.maker.is_none() && !is_input {
                let user = match wire.users.first() {
                    Some(step) => format!("step {} needs it", step + 1),
                    None => "it is an output of the graph".to_owned(),
                };
                return Err(Misfit::new(format!(
                    "tensor '{name}' is made by no step and is no input of the graph, but {user}; the tensors are {}",
                    self.names()
                )));
            }
        }
        // A tensor that is spelt in two ways is both: what is missing says more.
        for Drawn { wire, is_input, is_output, .. } in &self.wires {
            let name = &wire.name;
            if wire.users.is_empty() && !is_output {
                let (what, way_out) = match wire.maker {
                    Some(step) => (
                        format!("tensor '{name}', which step {} makes,", step + 1),
                        "take it out of output_map, or list it as an output",
                    ),
                    None => (
                        format!("input '{name}' of the graph"),
                        "leave it out, or give it to a step in input_map",
                    ),
                };
                return Err(Misfit::new(format!("{what} is used by nobody; {way_out}")));
            }
            if *is_input && *is_output {
                return Err(Misfit::new(format!(
                    "tensor '{name}' is an input and an output of the graph: the caller has it already"
                )));
            }
        }
        Ok(())
    }

    fn names(&self) -> String {
        let made = self.wires.iter().filter(|drawn| drawn.wire.maker.is_some() || drawn.is_input);
        made.map(|drawn| format!("'{}'", drawn.wire.name)).collect::<Vec<_>>().join(", ")
    }

    /// No step waits for itself.
    fn check_order(&self) -> Result<(), Misfit> {
        let needs = |step: &Step| -> BTreeSet<usize> {
            step.inputs.iter().filter_map(|(_, at)| self.wires[*at].wire.maker).collect()
        };
        let mut waiting: BTreeMap<usize, BTreeSet<usize>> =
            self.steps.iter().map(needs).enumerate().collect();
        loop {
            let free: Vec<usize> =
                waiting.iter().filter(|(_, needs)| needs.is_empty()).map(|(at, _)| *at).collect();
            if free.is_empty() {
                break;
            }
            for at in free {
                waiting.remove(&at);
                waiting.values_mut().for_each(|needs| {
                    needs.remove(&at);
                });
            }
        }
        // Whoever follows needs from step to step comes around.
        let Some(first) = waiting.keys().next().copied() else { return Ok(()) };
        let (mut way, mut at) = (Vec::new(), first);
        while !way.contains(&at) {
            way.push(at);
            at = waiting.get(&at).and_then(|needs| needs.first()).copied().unwrap_or(first);
        }
        let start = way.iter().position(|step| *step == at).unwrap_or(0);
        let around = way[start..].iter().chain([&at]);
        let named = around.map(|step| format!("step {} ('{}')", step + 1, self.steps[*step].member.name));
        Err(Misfit::new(format!(
            "the graph has a cycle: {}; each needs what the next one makes",
            named.collect::<Vec<_>>().join(" -> ")
        )))
    }
}

fn find<'a>(
    all: &'a [TensorInfo],
    name: &str,
    map: &str,
    member: &ModelName,
) -> Result<&'a TensorInfo, Misfit> {
    all.iter().find(|info| *info.name == *name).ok_or_else(|| {
        let known: Vec<String> = all.iter().map(|info| format!("'{}'", info.name)).collect();
        Misfit::new(format!(
            "{map} of '{member}' names '{name}', which it does not have; it has {}",
            known.join(", ")
        ))
    })
}

impl Plan {
    /// Steps without which `wanted` tensors are not made.
    pub(crate) fn needed(&self, wanted: &[usize]) -> Vec<bool> {
        let mut needed = vec![false; self.steps.len()];
        let mut open = wanted.to_vec();
        while let Some(at) = open.pop() {
            let Some(maker) = self.tensors[at].maker else { continue };
            if !std::mem::replace(&mut needed[maker], true) {
                open.extend(self.steps[maker].inputs.iter().map(|(_, at)| *at));
            }
        }
        needed
    }

    /// The tensor of an output, by its name.
    pub(crate) fn output(&self, outputs: &[TensorInfo], name: &str) -> Option<usize> {
        let place = outputs.iter().position(|output| *output.name == *name)?;
        self.outputs.get(place).copied()
    }
}
