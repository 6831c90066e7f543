//! The door for fuzzing: what every request passes before it may reach a model, and what a graph may be.
//!
//! Only with the feature `fuzzing`, which no build that serves has.
use crate::{
    graph::{
        choice::Test,
        node::{self, NodeStep},
        plan::{self, Member, Plan},
        progress::Progress,
    },
    repository::{Candidate, complete::Misfit, nodes},
};
use std::{collections::HashMap, path::Path, sync::Arc};
use xebec_core::{
    Datatype, InferError, InferRequest, ModelInfo, ModelName, Permit, Tensor, Version,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::ModelConfig,
    port::{Reply, Upstream},
    resource::{InferenceGraph, RouterType},
};

/// Checks `request` as a model does that has no optional inputs, and returns its rows.
///
/// # Errors
/// It does not fit the model.
pub fn check(info: &ModelInfo, request: &mut InferRequest) -> Result<u32, InferError> {
    crate::check::check(info, None, request)
}

/// Plans the graph of a configuration over models that are made up by their names, and takes a request through it.
///
/// # Errors
/// What is wrong in it.
///
/// # Panics
/// A graph that was found right cannot be gone through.
pub fn ensemble(config: &ModelConfig) -> Result<(), String> {
    let find = |member: &Member| made_up(&member.name);
    let name = ModelName::parse("graph").map_err(|error| error.to_string())?;
    let (plan, info) = plan::plan(&name, Version::FIRST, config, &find).map_err(|error| error.to_string())?;
    go_through(&plan, &info);
    Ok(())
}

/// The same for every node of an `InferenceGraph`.
///
/// # Errors
/// What is wrong in it.
///
/// # Panics
/// A graph that was found right cannot be gone through.
pub fn nodes(graph: &InferenceGraph) -> Result<(), String> {
    let all = nodes::made_of(graph, Path::new("/")).map_err(|error| error.to_string())?;
    let all: HashMap<ModelName, Candidate> =
        all.into_iter().map(|candidate| (candidate.name.clone(), candidate)).collect();
    let mut known = HashMap::new();
    all.keys().try_for_each(|name| info(name, &all, &mut known).map(drop)).map_err(|error| error.to_string())
}

/// What a node is, and everything that it is of before it.
fn info(
    name: &ModelName,
    all: &HashMap<ModelName, Candidate>,
    known: &mut HashMap<ModelName, Arc<dyn Upstream>>,
) -> Result<Arc<dyn Upstream>, Misfit> {
    if let Some(known) = known.get(name) {
        return Ok(Arc::clone(known));
    }
    let Some(node) = all.get(name).and_then(|candidate| candidate.node.as_ref()) else {
        return made_up(name);
    };
    for member in node.members() {
        let found = info(&member, all, known)?;
        known.insert(member, found);
    }
    let find = |member: &Member| {
        known.get(&member.name).cloned().ok_or_else(|| Misfit::new("a member was not planned".into()))
    };
    let of = |steps: &[&NodeStep]| -> Result<ModelInfo, Misfit> {
        let (drawn, outputs) = node::drawn(steps, node.router, &node.outputs, &find)?;
        let (plan, info) = plan::plan_node(name, Version::FIRST, &drawn.step, &outputs, &find)?;
        go_through(&plan, &info);
        Ok(info)
    };
    let info = match node.router {
        RouterType::Sequence | RouterType::Ensemble => of(&node.steps.iter().collect::<Vec<_>>())?,
        RouterType::Switch | RouterType::Splitter => {
            let mut first = None;
            for step in &node.steps {
                let info = of(&[step])?;
                step.when.as_ref().map(|when| Test::read(when, &info.inputs)).transpose()?;
                first.get_or_insert(info);
            }
            first.ok_or_else(|| Misfit::new("it has no steps".into()))?
        }
    };
    Ok(Arc::new(MadeUp { info, config: ModelConfig::default(), metrics: ModelMetrics::default() }))
}

/// Takes a request through a graph, step by step.
#[expect(clippy::expect_used, reason = "a panic is how the target tells what it found")]
fn go_through(plan: &Plan, info: &ModelInfo) {
    let tensor = |name: &str| Tensor {
        name: name.into(),
        datatype: Datatype::Fp32,
        shape: vec![1],
        data: vec![0; 4].into(),
    };
    let inputs = info.inputs.iter().map(|input| tensor(&input.name)).collect();
    let mut progress = Progress::new(plan, inputs, plan.outputs.clone());
    let (mut free, mut begun) = (progress.first(), 0);
    while let Some(step) = free.pop() {
        begun += 1;
        assert!(begun <= plan.steps.len(), "a step began twice");
        let (given, wanted) = progress.begin(plan, step);
        assert_eq!(given.len(), plan.steps[step].inputs.len(), "a tensor is missing");
        let made = wanted.iter().map(|name| tensor(name)).collect();
        free.extend(progress.end(plan, step, made).expect("everything was made"));
    }
    let answer = progress.answer().expect("everything that is wanted is there");
    let names = |all: Vec<&Arc<str>>| all.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(answer.iter().map(|tensor| &tensor.name).collect()),
        names(info.outputs.iter().map(|output| &output.name).collect())
    );
}

/// A model whose inputs and outputs depend on its name.
struct MadeUp {
    info: ModelInfo,
    config: ModelConfig,
    metrics: ModelMetrics,
}

impl Upstream for MadeUp {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn submit(&self, _: &Permit, _: InferRequest, reply: Reply) {
        reply.send(Err(InferError::Draining));
    }
}

fn made_up(name: &ModelName) -> Result<Arc<dyn Upstream>, Misfit> {
    let letter = name.as_str().bytes().next_back().unwrap_or(0);
    if letter == b'n' {
        return Err(Misfit::new(format!("'{name}' is not there")));
    }
    let datatype = if letter.is_multiple_of(4) { Datatype::Int64 } else { Datatype::Fp32 };
    let slots = |names: &[&str]| -> Vec<TensorInfo> {
        let slot = |name: &&str| TensorInfo { name: (*name).into(), datatype, shape: vec![-1] };
        names.iter().map(slot).collect()
    };
    let info = ModelInfo {
        name: name.clone(),
        version: Version::FIRST,
        platform: "made_up".into(),
        max_batch_size: 0,
        inputs: slots(&["a", "b"][..1 + usize::from(letter % 2)]),
        outputs: slots(&["y", "z"][..1 + usize::from(letter / 2 % 2)]),
    };
    Ok(Arc::new(MadeUp { info, config: ModelConfig::default(), metrics: ModelMetrics::default() }))
}
