//! Whether a graph keeps the rows of a batch apart: the check behind sharing runs between callers.
//!
//! An abstract run of the graph, in its own order, over facts instead of numbers. A fact says of a value which of its
//! axes is the batch, meaning: cut into B equal chunks along that axis, chunk i depends on sample i alone. Every
//! operator that may touch such a value has a rule here; one that has none counts as mixing.
//!
//! Invariant: `Ok` only if every output is the batch along axis 0 by these rules. When in doubt the answer is no, with
//! the node and the reason; that costs speed, never a wrong or leaking answer.
//!
//! # Source
//! ONNX, "Operators.md" and "Operators-ml.md"; ONNX Runtime, "ContribOperators.md".
use super::{Dim, ModelProto, ValueInfo, ValueKind, generated::NodeProto};
use fact::{Content, Fact, Seen, Symbols};
use std::collections::HashMap;

mod arith;
mod call;
mod extent;
mod fact;
mod movement;
mod neural;
mod table;

use call::Call;

/// A value that somebody looks up: a fact, or why the rows are mixed in it.
type Scope = HashMap<String, Seen>;

/// Analyses a model.
///
/// # Errors
/// Why requests must not share a run.
pub(super) fn analyse(model: &ModelProto, inputs: &[ValueInfo]) -> Result<(), String> {
    let graph = model.graph.as_ref().ok_or("there is no graph")?;
    let mut symbols = Symbols::default();
    let mut scope = Scope::new();
    let batch_name = batch_name(inputs)?;
    for input in inputs {
        scope.insert(input.name.clone(), Ok(input_fact(input, batch_name.as_deref(), &mut symbols)?));
    }
    let opsets =
        model.opset_import.iter().map(|opset| (domain(&opset.domain).to_owned(), opset.version)).collect();
    let mut analysis = Analysis { symbols, opsets };
    analysis.graph(graph, &[], &mut scope);
    for output in &graph.output {
        match scope.get(&output.name) {
            Some(Ok(fact)) => {
                output_fact(fact).map_err(|problem| format!("output '{}' {problem}", output.name))?
            }
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err(format!("output '{}' is made by no node", output.name)),
        }
    }
    Ok(())
}

/// ONNX's own domain has two names.
fn domain(raw: &str) -> &str {
    if raw == "ai.onnx" { "" } else { raw }
}

/// The name that the inputs give their first axis, if they do.
fn batch_name(inputs: &[ValueInfo]) -> Result<Option<String>, String> {
    let mut found: Option<String> = None;
    for input in inputs {
        let ValueKind::Tensor { shape: Some(shape), .. } = &input.kind else {
            return Err(format!("input '{}' has no known shape", input.name));
        };
        match shape.first() {
            // tf2onnx numbers every axis that it does not know.
            Some(Dim::Named(name)) if name.starts_with("unk__") => (),
            Some(Dim::Named(name)) => match &found {
                Some(other) if other != name => {
                    return Err(format!("the inputs' first axes are called '{other}' and '{name}'"));
                }
                _ => found = Some(name.clone()),
            },
            Some(Dim::Free) => (),
            Some(Dim::Fixed(_)) | None => {
                return Err(format!("input '{}' has no free first axis", input.name));
            }
        }
    }
    if inputs.is_empty() { Err("the graph has no inputs".into()) } else { Ok(found) }
}

fn input_fact(input: &ValueInfo, batch_name: Option<&str>, symbols: &mut Symbols) -> Result<Fact, String> {
    let ValueKind::Tensor { shape: Some(shape), .. } = &input.kind else {
        return Err(format!("input '{}' has no known shape", input.name));
    };
    let mut extents = vec![extent::Extent::batch()];
    for dim in shape.iter().skip(1) {
        extents.push(match dim {
            Dim::Fixed(extent) => extent::Extent::constant(*extent),
            Dim::Named(name) if Some(name.as_str()) == batch_name => {
                return Err(format!("input '{}' has the batch in two axes", input.name));
            }
            Dim::Named(name) => symbols.named(name),
            Dim::Free => symbols.fresh(),
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

struct Analysis {
    symbols: Symbols,
    opsets: HashMap<String, i64>,
}

impl Analysis {
    /// Runs a graph over `scope`; names that are not there are looked up in `outer`, innermost last.
    fn graph(&mut self, graph: &super::GraphProto, outer: &[&Scope], scope: &mut Scope) {
        for tensor in &graph.initializer {
            scope.entry(tensor.name.clone()).or_insert_with(|| Ok(Fact::constant(tensor)));
        }
        for sparse in &graph.sparse_initializer {
            if let Some(values) = &sparse.values {
                scope.insert(values.name.clone(), Ok(Fact::of_shape(&sparse.dims)));
            }
        }
        for node in &graph.node {
            let outcome = self.node(node, outer, scope);
            for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                let seen = match &outcome {
                    Ok(facts) => facts.get(index).cloned().unwrap_or_else(|| {
                        Err(described(node, &format!("output {index} is not known to keep rows apart")))
                    }),
                    Err(reason) => Err(reason.clone()),
                };
                scope.insert(name.clone(), seen);
            }
        }
    }

    fn node(&mut self, node: &NodeProto, outer: &[&Scope], scope: &Scope) -> Result<Vec<Seen>, String> {
        let find = |name: &str| {
            let inner = scope.get(name);
            inner.or_else(|| outer.iter().rev().find_map(|scope| scope.get(name))).cloned()
        };
        let mut inputs = Vec::new();
        for name in &node.input {
            inputs.push(match find(name) {
                Some(seen) => Some(seen?),
                None if name.is_empty() => None,
                None => return Err(described(node, &format!("reads '{name}', which nothing makes"))),
            });
        }
        if super::subgraphs(node).next().is_some() {
            return self.with_subgraphs(node, &inputs, outer, scope);
        }
        let opset = self.opsets.get(domain(&node.domain)).copied().unwrap_or(1);
        let mut call = Call { node, inputs: &inputs, opset, symbols: &mut self.symbols };
        table::apply(domain(&node.domain), &mut call).map_err(|problem| described(node, &problem))
    }

    /// `If` takes what both branches agree on; `Loop` and `Scan` must not see the batch at all.
    fn with_subgraphs(
        &mut self,
        node: &NodeProto,
        inputs: &[Option<Fact>],
        outer: &[&Scope],
        scope: &Scope,
    ) -> Result<Vec<Seen>, String> {
        let mut scopes = outer.to_vec();
        scopes.push(scope);
        if node.op_type == "If" {
            return self.branches(node, inputs, &scopes);
        }
        let mut captured = Vec::new();
        super::visit(node, &mut |inner| captured.extend(inner.input.iter().map(String::as_str)));
        for name in captured {
            let Some(seen) = scopes.iter().rev().find_map(|scope| scope.get(name)) else { continue };
            if seen.as_ref().is_err() || seen.as_ref().is_ok_and(|fact| !fact.is_plain()) {
                return Err(described(
                    node,
                    &format!("works on '{name}', and what it does with rows is not followed"),
                ));
            }
        }
        Ok(node.output.iter().map(|_| Ok(Fact::unknown())).collect())
    }

    fn branches(
        &mut self,
        node: &NodeProto,
        inputs: &[Option<Fact>],
        scopes: &[&Scope],
    ) -> Result<Vec<Seen>, String> {
        if !inputs.iter().flatten().all(Fact::is_plain) {
            return Err(described(node, "takes a branch by what is in the batch"));
        }
        let mut agreed: Option<Vec<Seen>> = None;
        for branch in super::subgraphs(node) {
            let mut inner = Scope::new();
            self.graph(branch, scopes, &mut inner);
            let find = |name: &str| {
                inner.get(name).or_else(|| scopes.iter().rev().find_map(|scope| scope.get(name)))
            };
            let facts: Vec<Seen> = branch
                .output
                .iter()
                .map(|output| {
                    find(&output.name).cloned().unwrap_or_else(|| Err("a branch has no such output".into()))
                })
                .collect();
            agreed = Some(match agreed {
                None => facts,
                Some(before) => before.into_iter().zip(facts).map(|(a, b)| self.agree(node, a, b)).collect(),
            });
        }
        Ok(agreed.unwrap_or_default())
    }

    fn agree(&mut self, node: &NodeProto, a: Seen, b: Seen) -> Seen {
        let (a, b) = (a?, b?);
        if a == b {
            return Ok(a);
        }
        let ranks = (a.shape.as_ref().map(Vec::len), b.shape.as_ref().map(Vec::len));
        if a.batch != b.batch || a.sized || b.sized || ranks.0 != ranks.1 {
            return Err(described(node, "has branches that treat the rows differently"));
        }
        let (Some(left), Some(right)) = (a.shape, b.shape) else { return Ok(Fact::unknown()) };
        let pairs = left.into_iter().zip(right);
        let shape: Vec<_> = pairs.map(|(a, b)| if a == b { a } else { self.symbols.fresh() }).collect();
        match a.batch {
            Some(axis) if shape.get(axis).is_some_and(extent::Extent::has_batch) => {
                Ok(Fact::batched(shape, axis))
            }
            Some(_) => Err(described(node, "has branches that treat the rows differently")),
            None => Ok(Fact { shape: Some(shape), batch: None, sized: false, content: Content::Unknown }),
        }
    }
}

/// `node 'softmax_3' (Softmax) works over the batch axis`.
fn described(node: &NodeProto, problem: &str) -> String {
    let name =
        [&node.name, node.output.first().unwrap_or(&node.name)].into_iter().find(|name| !name.is_empty());
    format!("node '{}' ({}) {problem}", name.map_or("", String::as_str), node.op_type)
}
