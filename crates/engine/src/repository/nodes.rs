//! An `InferenceGraph` as models: one for each node, and one for each built-in step that it has of its own.
//!
//! The root is called as the graph is, what belongs to it `GRAPH.NODE` and `GRAPH.STEP`: each is listed, measured and asked
//! like any model. Invariants of what comes out: every node is reached from the root and none from itself; steps of a node
//! have names of their own; weights add up to 100.
//!
//! Not here: whether models, tensors and types fit, which is known when they are loaded (`graph`).
use super::{Candidate, RepositoryError, canonical};
use crate::{
    builtin,
    graph::node::{Node, NodeStep},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};
use xebec_core::{
    ModelName, Version,
    model_config::{ModelConfig, ModelParameter},
    resource::{self, Dependency, InferenceGraph, ROOT, RouterType},
};

/// Most steps of a node, and most nodes.
const MOST: usize = 256;

impl Candidate {
    /// The models of an `InferenceGraph` whose document lies in `base`, the graph itself last.
    ///
    /// # Errors
    /// What of the document cannot be, by node and step.
    pub fn from_graph(graph: &InferenceGraph, base: &Path) -> Result<Vec<Self>, RepositoryError> {
        made_of(graph, &canonical(base)?)
    }
}

/// The same, of a folder that is known to be there.
pub(crate) fn made_of(graph: &InferenceGraph, base: &Path) -> Result<Vec<Candidate>, RepositoryError> {
    let named = &graph.metadata.name;
    let fault = |message: String| RepositoryError::Graph { name: named.clone(), message };
    let name =
        ModelName::parse(named).map_err(|source| RepositoryError::Name { name: named.clone(), source })?;
    if let Some(namespace) = graph.metadata.namespace.as_deref().filter(|space| *space != "default") {
        return Err(fault(format!("namespace '{namespace}' is for a cluster; a laptop has only 'default'")));
    }
    let nodes = &graph.spec.nodes;
    if nodes.len() > MOST {
        return Err(fault(format!("it has {} nodes; {MOST} are the most", nodes.len())));
    }
    check_reach(nodes).map_err(fault)?;
    let mut made = Making { name, base, all: BTreeMap::new() };
    for (called, node) in nodes {
        made.node(called, node, nodes).map_err(|why| fault(format!("node '{called}': {why}")))?;
    }
    Ok(made.all.into_values().collect())
}

/// Every node is there, is reached, and does not come back to itself.
fn check_reach(nodes: &BTreeMap<String, resource::Node>) -> Result<(), String> {
    let listed = || nodes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let next = |node: &str| -> Result<BTreeSet<&str>, String> {
        let steps = nodes.get(node).map(|node| node.steps.as_slice()).unwrap_or_default();
        let all: BTreeSet<&str> = steps.iter().filter_map(|step| step.node_name.as_deref()).collect();
        match all.iter().find(|name| !nodes.contains_key(**name)) {
            Some(unknown) => Err(format!(
                "node '{node}' names node '{unknown}', which is not there; the nodes are {}",
                listed()
            )),
            None => Ok(all),
        }
    };
    if !nodes.contains_key(ROOT) {
        return Err(format!(
            "it has no node '{ROOT}', at which a request begins; its nodes are {}",
            listed()
        ));
    }
    // Whatever leads on from a node that is still open comes around.
    let (mut way, mut done) = (vec![(ROOT, next(ROOT)?)], BTreeSet::new());
    while let Some((at, left)) = way.last_mut() {
        let Some(node) = left.pop_first() else {
            done.insert(*at);
            way.pop();
            continue;
        };
        if let Some(start) = way.iter().position(|(open, _)| *open == node) {
            let around: Vec<&str> = way[start..].iter().map(|(open, _)| *open).chain([node]).collect();
            return Err(format!("its nodes have a cycle: {}", around.join(" -> ")));
        }
        if !done.contains(node) {
            way.push((node, next(node)?));
        }
    }
    match nodes.keys().find(|node| !done.contains(node.as_str())) {
        Some(lost) => {
            Err(format!("node '{lost}' is reached by none; name it in a step as nodeName, or leave it out"))
        }
        None => Ok(()),
    }
}

/// The models so far.
struct Making<'a> {
    name: ModelName,
    base: &'a Path,
    all: BTreeMap<ModelName, Candidate>,
}

impl Making<'_> {
    /// The model of something that belongs to the graph.
    fn own(&self, part: &str) -> Result<ModelName, String> {
        if part == ROOT {
            return Ok(self.name.clone());
        }
        ModelName::parse(&format!("{}.{part}", self.name)).map_err(|error| format!("'{part}': {error}"))
    }

    fn add(&mut self, candidate: Candidate) -> Result<(), String> {
        let name = candidate.name.clone();
        match self.all.insert(name.clone(), candidate) {
            None => Ok(()),
            Some(_) => Err(format!("two parts of the graph are called '{name}'; give one another name")),
        }
    }

    fn bare(&self, name: &ModelName) -> Candidate {
        let versions = BTreeMap::from([(Version::FIRST, self.base.to_owned())]);
        Candidate::new(self.base, name.clone(), versions)
    }

    fn node(
        &mut self,
        called: &str,
        node: &resource::Node,
        nodes: &BTreeMap<String, resource::Node>,
    ) -> Result<(), String> {
        let router = node.router_type;
        if node.steps.is_empty() || node.steps.len() > MOST {
            return Err(format!("it has {} steps; a node has 1 to {MOST}", node.steps.len()));
        }
        if let Some(twice) = twice(node.outputs.iter()) {
            return Err(format!("outputs names '{twice}' twice"));
        }
        let mut steps = Vec::new();
        for (index, step) in node.steps.iter().enumerate() {
            let label = label(step).map_err(|why| format!("step {}: {why}", index + 1))?;
            let step = self.step(&label, step, router, nodes);
            steps.push(step.map_err(|why| format!("step '{label}': {why}"))?);
        }
        if let Some(twice) = twice(steps.iter().map(|step| &step.label)) {
            return Err(format!("two steps are called '{twice}'; give each a name"));
        }
        check_router(router, &steps)?;
        let name = self.own(called)?;
        let node = Node { router, steps, outputs: node.outputs.clone() };
        self.add(Candidate { node: Some(Arc::new(node)), ..self.bare(&name) })
    }

    fn step(
        &mut self,
        label: &str,
        step: &resource::NodeStep,
        router: RouterType,
        nodes: &BTreeMap<String, resource::Node>,
    ) -> Result<NodeStep, String> {
        let model = match (&step.service_name, &step.node_name, &step.step) {
            (Some(service), None, None) => {
                ModelName::parse(service).map_err(|error| format!("serviceName '{service}': {error}"))?
            }
            (None, Some(node), None) => self.own(node)?,
            (None, None, Some(kind)) => {
                if nodes.contains_key(label) {
                    return Err("a node is called so too; give the step another name".into());
                }
                let name = self.own(label)?;
                let mut config = ModelConfig { backend: builtin::BACKEND.into(), ..ModelConfig::default() };
                let settings = step.settings.iter().map(|(name, value)| (name.clone(), value.to_string()));
                let all = settings.chain([("step".to_owned(), kind.clone())]);
                config.parameters =
                    all.map(|(name, value)| (name, ModelParameter { string_value: value })).collect();
                self.add(Candidate { config: Some(config), ..self.bare(&name) })?;
                name
            }
            _ => return Err("write one of serviceName, nodeName and step".into()),
        };
        if step.step.is_none() && !step.settings.is_empty() {
            return Err("settings are for a built-in step; a model has its own configuration".into());
        }
        let only = |given: bool, what: &str, of: RouterType| {
            if given && router != of { Err(format!("{what} is for a step of a {of:?}")) } else { Ok(()) }
        };
        only(step.data.is_some(), "data", RouterType::Sequence)?;
        only(step.when.is_some(), "when", RouterType::Switch)?;
        only(step.weight.is_some(), "weight", RouterType::Splitter)?;
        if step.dependency == Some(Dependency::Soft) {
            return Err(
                "dependency Soft is not offered: the first error ends a request; write Hard, or leave it out"
                    .into(),
            );
        }
        Ok(NodeStep {
            label: label.to_owned(),
            model,
            inputs: step.inputs.clone(),
            outputs: step.outputs.clone(),
            data: step.data,
            when: step.when.clone(),
            weight: step.weight.unwrap_or(0),
        })
    }
}

fn label(step: &resource::NodeStep) -> Result<String, String> {
    let all = [&step.name, &step.service_name, &step.node_name, &step.step];
    let label = all.into_iter().flatten().next().cloned();
    let label = label.ok_or("write one of serviceName, nodeName and step")?;
    match ModelName::parse(&label) {
        Ok(_) if label != ROOT => Ok(label),
        Ok(_) => Err(format!("a step cannot be called '{ROOT}'")),
        Err(error) => Err(format!("name '{label}': {error}")),
    }
}

fn check_router(router: RouterType, steps: &[NodeStep]) -> Result<(), String> {
    match router {
        RouterType::Sequence | RouterType::Ensemble => Ok(()),
        RouterType::Switch => {
            let before = &steps[..steps.len() - 1];
            match before.iter().find(|step| step.when.is_none()) {
                Some(step) => Err(format!(
                    "step '{}' has no `when`, so that no step behind it is ever taken; put it last",
                    step.label
                )),
                None => Ok(()),
            }
        }
        RouterType::Splitter => {
            if let Some(step) = steps.iter().find(|step| !(1..=100).contains(&step.weight)) {
                return Err(format!("step '{}' has weight {}; write 1 to 100", step.label, step.weight));
            }
            let sum: u32 = steps.iter().map(|step| step.weight).sum();
            if sum == 100 { Ok(()) } else { Err(format!("the weights add up to {sum}, and must to 100")) }
        }
    }
}

fn twice<'a>(all: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let mut seen = BTreeSet::new();
    let mut all = all;
    all.find(|one| !seen.insert(one.as_str()))
}
