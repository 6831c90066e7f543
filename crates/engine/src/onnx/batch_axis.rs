//! Whether a graph keeps the rows of a batch apart: the check behind sharing runs between callers.
//!
//! An abstract run of the graph, in its own order, over facts instead of numbers. A fact says of a value which of its
//! axes is the batch, meaning: cut into B equal chunks along that axis, chunk i depends on sample i alone. Every
//! operator that may touch such a value has a rule here; one that has none counts as mixing.
//!
//! Invariants:
//! 1. `Ok` only if every output is the batch along axis 0 by these rules. When in doubt the answer is no, with the node
//!    and the reason; that costs speed, never a wrong or leaking answer;
//! 2. the work grows as the file does: facts are small and shared, a node is seen once, and what a model's functions do
//!    is not followed, so that nothing is run twice. Nesting is limited by the decoder.
//!
//! # Source
//! ONNX, "Operators.md" and "Operators-ml.md"; ONNX Runtime, "ContribOperators.md".
use super::{Dim, GraphProto, ModelProto, ValueInfo, ValueKind, generated::NodeProto};
use fact::{Content, Fact, Known, MOST_AXES, Symbols};
use std::{
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
    rc::Rc,
};

mod arith;
mod call;
mod extent;
mod fact;
mod movement;
mod neural;
mod table;

use call::Call;
use extent::Extent;

/// ONNX's operator sets that the rules were written from. ONNX Runtime has nothing older, and what comes later may mean
/// something else by the same name.
const OPERATOR_SETS: RangeInclusive<i64> = 7..=25;

/// A value that somebody looks up: a fact, or why the rows are mixed in it.
type Scope<'m> = HashMap<&'m str, Known>;

/// Analyses a model.
///
/// # Errors
/// Why requests must not share a run.
pub(super) fn analyse(model: &ModelProto, inputs: &[ValueInfo]) -> Result<(), String> {
    analyse_all(model, inputs, &mut Vec::new())
}

/// Most reasons that are collected.
const MOST_STOPS: usize = 100;

/// Every reason why requests must not share a run; none if they may.
pub(super) fn stops(model: &ModelProto, inputs: &[ValueInfo]) -> Vec<String> {
    let mut stops = Vec::new();
    let Err(first) = analyse_all(model, inputs, &mut stops) else { return Vec::new() };
    let mut all: Vec<String> = stops.iter().map(ToString::to_string).collect();
    if !all.contains(&first) {
        all.push(first);
    }
    all
}

fn analyse_all(model: &ModelProto, inputs: &[ValueInfo], stops: &mut Vec<Rc<str>>) -> Result<(), String> {
    let graph = model.graph.as_ref().ok_or("there is no graph")?;
    let mut analysis = Analysis::new(model)?;
    let mut scope = Scope::new();
    let batch_name = batch_name(inputs)?;
    for input in inputs {
        let fact = input_fact(input, batch_name, &mut analysis.symbols)?;
        if scope.insert(&input.name, Ok(Rc::new(fact))).is_some() {
            return Err(format!("input '{}' is there twice", shown(&input.name)));
        }
    }
    analysis.graph(graph, &[], &mut scope);
    stops.append(&mut analysis.stops);
    for output in &graph.output {
        let name = shown(&output.name);
        match scope.get(output.name.as_str()) {
            Some(Ok(fact)) => output_fact(fact).map_err(|problem| format!("output '{name}' {problem}"))?,
            Some(Err(reason)) => return Err(reason.to_string()),
            None => return Err(format!("output '{name}' is made by no node")),
        }
    }
    Ok(())
}

/// ONNX's own domain has two names.
fn domain(raw: &str) -> &str {
    if raw == "ai.onnx" { "" } else { raw }
}

/// The name that the inputs give their first axis, if they do.
fn batch_name(inputs: &[ValueInfo]) -> Result<Option<&str>, String> {
    let mut found: Option<&str> = None;
    for input in inputs {
        match input_shape(input)?.first() {
            // tf2onnx numbers every axis that it does not know.
            Some(Dim::Named(name)) if name.starts_with("unk__") => (),
            Some(Dim::Named(name)) => match found {
                Some(other) if other != name => {
                    let (other, name) = (shown(other), shown(name));
                    return Err(format!("the inputs' first axes are called '{other}' and '{name}'"));
                }
                _ => found = Some(name),
            },
            Some(Dim::Free) => (),
            Some(Dim::Fixed(_)) | None => {
                return Err(format!("input '{}' has no free first axis", shown(&input.name)));
            }
        }
    }
    if inputs.is_empty() { Err("the graph has no inputs".into()) } else { Ok(found) }
}

fn input_shape(input: &ValueInfo) -> Result<&[Dim], String> {
    match &input.kind {
        ValueKind::Tensor { shape: Some(shape), .. } if shape.len() <= MOST_AXES => Ok(shape),
        _ => Err(format!("input '{}' has no known shape", shown(&input.name))),
    }
}

/// The batch, then what else there is. Only the first axes are checked against each other when a request comes, so a
/// name that two other axes share says nothing.
fn input_fact(input: &ValueInfo, batch_name: Option<&str>, symbols: &mut Symbols) -> Result<Fact, String> {
    let mut extents = vec![Extent::batch()];
    for dim in input_shape(input)?.iter().skip(1) {
        extents.push(match dim {
            Dim::Fixed(extent) => Extent::constant(*extent),
            Dim::Named(name) if Some(name.as_str()) == batch_name => {
                return Err(format!("input '{}' has the batch in two axes", shown(&input.name)));
            }
            Dim::Named(_) | Dim::Free => symbols.fresh(),
        });
    }
    Ok(Fact::batched(extents, 0))
}

fn output_fact(fact: &Fact) -> Result<(), String> {
    match (fact.batch, fact.shape.as_deref()) {
        (Some(0), Some([first, ..])) if first.is_batch() => Ok(()),
        (Some(0), _) => Err("has another number of rows than the inputs".into()),
        (Some(axis), _) => Err(format!("has the batch at axis {axis}, not 0")),
        (None, _) => Err("has no batch axis".into()),
    }
}

struct Analysis<'m> {
    symbols: Symbols,
    /// Reasons for values in which rows are mixed.
    stops: Vec<Rc<str>>,
    opsets: HashMap<&'m str, i64>,
    /// The model's own functions. Where they have an operator's name, which of the two runs is the engine's choice.
    functions: HashSet<(&'m str, &'m str)>,
}

impl<'m> Analysis<'m> {
    fn new(model: &'m ModelProto) -> Result<Self, String> {
        let mut opsets = HashMap::new();
        for opset in &model.opset_import {
            let before = opsets.insert(domain(&opset.domain), opset.version);
            if before.is_some_and(|before| before != opset.version) {
                return Err(format!("the model imports two operator sets of '{}'", shown(&opset.domain)));
            }
        }
        if let Some(version) = opsets.get("").filter(|version| !OPERATOR_SETS.contains(version)) {
            let (oldest, newest) = (OPERATOR_SETS.start(), OPERATOR_SETS.end());
            return Err(format!("the operator set is {version}, and only {oldest} to {newest} are followed"));
        }
        let functions = model.functions.iter();
        let functions =
            functions.map(|function| (domain(&function.domain), function.name.as_str())).collect();
        Ok(Self { symbols: Symbols::default(), stops: Vec::new(), opsets, functions })
    }

    /// Runs a graph over `scope`; names that are not there are looked up in `outer`, innermost last.
    fn graph(&mut self, graph: &'m GraphProto, outer: &[&Scope<'m>], scope: &mut Scope<'m>) {
        for tensor in &graph.initializer {
            define(&tensor.name, Ok(Rc::new(Fact::constant(tensor))), &[], scope);
        }
        for sparse in &graph.sparse_initializer {
            if let Some(values) = &sparse.values {
                define(&values.name, Ok(Rc::new(Fact::of_shape(&sparse.dims))), &[], scope);
            }
        }
        for node in &graph.node {
            match self.node(node, outer, scope) {
                Ok(facts) => {
                    let mut facts = facts.into_iter();
                    for (index, name) in node.output.iter().enumerate() {
                        let known: Known = facts.next().unwrap_or_else(|| {
                            let problem = format!("output {index} is not known to keep rows apart");
                            Err(described(node, &problem))
                        });
                        if let Err(reason) = &known {
                            self.note(reason);
                        }
                        define(name, known, outer, scope);
                    }
                }
                Err(reason) => {
                    self.note(&reason);
                    for name in &node.output {
                        define(name, Err(Rc::clone(&reason)), outer, scope);
                    }
                }
            }
        }
    }

    fn note(&mut self, reason: &Rc<str>) {
        if self.stops.len() < MOST_STOPS && !self.stops.contains(reason) {
            self.stops.push(Rc::clone(reason));
        }
    }

    fn node(
        &mut self,
        node: &'m NodeProto,
        outer: &[&Scope<'m>],
        scope: &Scope<'m>,
    ) -> Result<Vec<Known>, Rc<str>> {
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match find(name, outer, scope) {
                Some(known) => Some(known?),
                None if name.is_empty() => None,
                None => {
                    return Err(described(node, &format!("reads '{}', which nothing makes", shown(name))));
                }
            });
        }
        if super::subgraphs(node).next().is_some() {
            return self.with_subgraphs(node, &inputs, outer, scope);
        }
        let opset = self.opset(node).map_err(|problem| described(node, &problem))?;
        let mut call = Call { node, inputs: &inputs, opset, symbols: &mut self.symbols };
        let facts = table::apply(domain(&node.domain), &mut call);
        let facts = facts.map_err(|problem| described(node, &problem))?;
        Ok(facts.into_iter().map(|seen| kept(node, seen)).collect())
    }

    /// The version of the operator that a node names.
    fn opset(&self, node: &NodeProto) -> Result<i64, String> {
        let domain = domain(&node.domain);
        if self.functions.contains(&(domain, node.op_type.as_str())) {
            return Err("calls a function of the model, and what that does is not followed".into());
        }
        let imported = self.opsets.get(domain).copied();
        imported.ok_or_else(|| "is of an operator set that the model does not import".into())
    }

    /// `If` takes what both branches agree on; `Loop` and `Scan` must not see the batch at all.
    fn with_subgraphs(
        &mut self,
        node: &'m NodeProto,
        inputs: &[Option<Rc<Fact>>],
        outer: &[&Scope<'m>],
        scope: &Scope<'m>,
    ) -> Result<Vec<Known>, Rc<str>> {
        self.opset(node).map_err(|problem| described(node, &problem))?;
        let mut scopes = outer.to_vec();
        scopes.push(scope);
        if domain(&node.domain).is_empty() && node.op_type == "If" {
            return self.branches(node, inputs, &scopes);
        }
        let mut fault = None;
        super::visit(node, &mut |inner| {
            fault = fault.take().or_else(|| self.body_fault(inner, &scopes));
        });
        match fault {
            Some(problem) => Err(described(node, &problem)),
            None => Ok(node.output.iter().map(|_| Ok(Rc::new(Fact::unknown()))).collect()),
        }
    }

    /// Why a node inside a loop, or the loop itself, cannot be left unfollowed.
    fn body_fault(&self, inner: &NodeProto, scopes: &[&Scope<'m>]) -> Option<String> {
        let faulty = |problem: &str| Some(format!("has a {} that {problem}", shown(&inner.op_type)));
        if let Err(problem) = self.opset(inner) {
            return faulty(&problem);
        }
        if !table::is_steady(domain(&inner.domain), inner) {
            return faulty("is not known to answer the same each time");
        }
        let results =
            super::subgraphs(inner).flat_map(|graph| graph.output.iter().map(|output| &output.name));
        inner.input.iter().chain(results).find_map(|name| {
            let known = scopes.iter().rev().find_map(|scope| scope.get(name.as_str()))?;
            let plain = known.as_ref().is_ok_and(|fact| fact.is_plain());
            let name = shown(name);
            (!plain).then(|| format!("works on '{name}', and what it does with rows is not followed"))
        })
    }

    fn branches(
        &mut self,
        node: &'m NodeProto,
        inputs: &[Option<Rc<Fact>>],
        scopes: &[&Scope<'m>],
    ) -> Result<Vec<Known>, Rc<str>> {
        if !inputs.iter().flatten().all(|fact| fact.is_plain()) {
            return Err(described(node, "takes a branch by what is in the batch"));
        }
        let mut agreed: Option<Vec<Known>> = None;
        for branch in super::subgraphs(node) {
            let mut inner = Scope::new();
            self.graph(branch, scopes, &mut inner);
            let facts = branch.output.iter().map(|output| {
                find(&output.name, scopes, &inner)
                    .unwrap_or_else(|| Err(described(node, "has a branch without an output")))
            });
            let facts: Vec<Known> = facts.collect();
            agreed = Some(match agreed {
                None => facts,
                Some(before) => before.into_iter().zip(facts).map(|(a, b)| self.agree(node, a, b)).collect(),
            });
        }
        Ok(agreed.unwrap_or_default())
    }

    fn agree(&mut self, node: &NodeProto, a: Known, b: Known) -> Known {
        let (a, b) = (a?, b?);
        if a == b {
            return Ok(a);
        }
        let differently = || described(node, "has branches that treat the rows differently");
        if a.batch != b.batch || a.sized || b.sized || a.rank() != b.rank() {
            return Err(differently());
        }
        let (Some(left), Some(right)) = (&a.shape, &b.shape) else { return Ok(Rc::new(Fact::unknown())) };
        let pairs = left.iter().zip(right);
        let shape: Vec<_> =
            pairs.map(|(a, b)| if a == b { a.clone() } else { self.symbols.fresh() }).collect();
        match a.batch {
            Some(axis) if shape.get(axis).is_some_and(Extent::has_batch) => {
                Ok(Rc::new(Fact::batched(shape, axis)))
            }
            Some(_) => Err(differently()),
            None => {
                Ok(Rc::new(Fact { shape: Some(shape), batch: None, sized: false, content: Content::Unknown }))
            }
        }
    }
}

fn find(name: &str, outer: &[&Scope<'_>], scope: &Scope<'_>) -> Option<Known> {
    let inner = scope.get(name);
    inner.or_else(|| outer.iter().rev().find_map(|scope| scope.get(name))).cloned()
}

/// Gives a value its name. One that is given twice is neither: which of them a reader gets is the engine's choice.
fn define<'m>(name: &'m str, known: Known, outer: &[&Scope<'m>], scope: &mut Scope<'m>) {
    if name.is_empty() {
        return;
    }
    let taken = scope.contains_key(name) || outer.iter().any(|scope| scope.contains_key(name));
    let twice = || Err(format!("two values are called '{}'", shown(name)).into());
    scope.insert(name, if taken { twice() } else { known });
}

fn kept(node: &NodeProto, seen: fact::Seen) -> Known {
    match seen {
        Ok(fact) if fact.rank().is_some_and(|rank| rank > MOST_AXES) => {
            Err(described(node, "makes a value of more axes than are followed"))
        }
        Ok(fact) => Ok(Rc::new(fact)),
        Err(problem) => Err(described(node, &problem)),
    }
}

/// `node 'softmax_3' (Softmax) works over the batch axis`.
fn described(node: &NodeProto, problem: &str) -> Rc<str> {
    let name =
        [&node.name, node.output.first().unwrap_or(&node.name)].into_iter().find(|name| !name.is_empty());
    let name = name.map_or("", String::as_str);
    format!("node '{}' ({}) {problem}", shown(name), shown(&node.op_type)).into()
}

/// As much of a file's name for something as a message has room for.
fn shown(name: &str) -> &str {
    name.char_indices().nth(100).map_or(name, |(end, _)| &name[..end])
}
