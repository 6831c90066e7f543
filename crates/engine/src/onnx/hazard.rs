//! What would let a caller end the process through ONNX Runtime.
//!
//! `Mod` of integers divides by the machine's own instruction, which traps for the least number and -1 (seen with
//! -2147483648 mod -1 in ONNX Runtime 1.31.1). A divisor that is in the file, and not -1, is harmless; zero is caught by
//! the engine.
use super::{
    ModelProto, NodeProto, TensorProto,
    generated::{GraphProto, tensor_proto::DataType},
    subgraphs,
};
use std::collections::HashSet;

/// The name of the first node over which a caller's values could trap.
pub(super) fn trap(model: &ModelProto) -> Option<&str> {
    let mut known = HashSet::new();
    let graph = model.graph.as_ref().and_then(|graph| in_graph(graph, &mut known));
    graph
        .or_else(|| model.functions.iter().find_map(|function| in_nodes(&function.node, &mut HashSet::new())))
}

fn in_graph<'m>(graph: &'m GraphProto, known: &mut HashSet<&'m str>) -> Option<&'m str> {
    known.extend(graph.initializer.iter().filter(|tensor| is_harmless(tensor)).map(|tensor| &*tensor.name));
    in_nodes(&graph.node, known)
}

fn in_nodes<'m>(nodes: &'m [NodeProto], known: &mut HashSet<&'m str>) -> Option<&'m str> {
    for node in nodes {
        let ours = node.domain.is_empty() || node.domain == "ai.onnx";
        match node.op_type.as_str() {
            "Constant" if ours => {
                let value = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
                // Of the short forms only the integers concern us.
                let short =
                    node.attribute.iter().any(|attribute| attribute.i == -1 || attribute.ints.contains(&-1));
                if value.map_or(!short, is_harmless) {
                    known.extend(node.output.first().map(String::as_str));
                }
            }
            "Mod" if ours && !is_real(node) => {
                let divisor = node.input.get(1).map(String::as_str).unwrap_or_default();
                if !known.contains(divisor) {
                    return Some(&node.name);
                }
            }
            _ => {
                // Names of a subgraph may not be used after it, but a name is used once in a model.
                if let Some(found) = subgraphs(node).find_map(|graph| in_graph(graph, known)) {
                    return Some(found);
                }
            }
        }
    }
    None
}

/// `fmod` is set, which real numbers must have and which the C library computes.
fn is_real(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name == "fmod" && attribute.i != 0)
}

/// Whether no element is -1, as far as the file says.
fn is_harmless(tensor: &TensorProto) -> bool {
    let width = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int8) => 1,
        Ok(DataType::Int16) => 2,
        Ok(DataType::Int32) => 4,
        Ok(DataType::Int64) => 8,
        // Unsigned and real numbers have no -1.
        _ => return true,
    };
    let external = !tensor.external_data.is_empty();
    let raw = tensor.raw_data.chunks(width).any(|element| element.iter().all(|byte| *byte == 0xff));
    !external && !raw && !tensor.int32_data.contains(&-1) && !tensor.int64_data.contains(&-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::generated::AttributeProto;

    fn trapped(divisor: &str, constant: i64, fmod: i64) -> bool {
        let fmod = AttributeProto { name: "fmod".into(), i: fmod, ..AttributeProto::default() };
        let node = NodeProto {
            name: "n".into(),
            op_type: "Mod".into(),
            input: vec!["x".into(), divisor.into()],
            output: vec!["y".into()],
            attribute: vec![fmod],
            ..NodeProto::default()
        };
        let tensor = TensorProto {
            name: "constant".into(),
            data_type: DataType::Int64 as i32,
            raw_data: constant.to_le_bytes().to_vec().into(),
            ..TensorProto::default()
        };
        let inner = GraphProto { node: vec![node], ..GraphProto::default() };
        let branch =
            AttributeProto { name: "then_branch".into(), g: Some(inner), ..AttributeProto::default() };
        let choice = NodeProto { op_type: "If".into(), attribute: vec![branch], ..NodeProto::default() };
        let graph = GraphProto { node: vec![choice], initializer: vec![tensor], ..GraphProto::default() };
        trap(&ModelProto { graph: Some(graph), ..ModelProto::default() }).is_some()
    }

    #[test]
    fn a_divisor_of_the_callers_or_of_minus_one_is_found_also_in_a_subgraph() {
        assert!(trapped("b", 7, 0));
        assert!(trapped("constant", -1, 0));
        assert!(!trapped("constant", 7, 0));
        assert!(!trapped("b", 7, 1));
    }
}
