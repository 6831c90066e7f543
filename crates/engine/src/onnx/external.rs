//! External data: only files below the model's folder, without links out of it, symbolic or hard.
//!
//! # Source
//! ONNX, "External data": keys `location`, `offset`, `length` of `TensorProto.external_data`.
use super::{
    Component, ModelProto, OnnxError, Path, PathBuf, TensorProto,
    generated::{AttributeProto, GraphProto, NodeProto},
    tensor_proto,
};
use std::{collections::HashSet, os::unix::fs::MetadataExt as _};

/// Checks every tensor with external data; returns the files without repeats.
pub(super) fn check(model: &ModelProto, folder: &Path) -> Result<Vec<PathBuf>, OnnxError> {
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    let mut outcome = Ok(());
    tensors(model, &mut |tensor| {
        if outcome.is_ok() && tensor.data_location == tensor_proto::DataLocation::External as i32 {
            match check_tensor(tensor, folder) {
                Ok(file) if !seen.insert(file.clone()) => (),
                Ok(file) => files.push(file),
                Err(error) => outcome = Err(error),
            }
        }
    });
    outcome.map(|()| files)
}

/// Calls `see` with every tensor of a model, wherever it may be.
pub(super) fn tensors(model: &ModelProto, see: &mut impl FnMut(&TensorProto)) {
    model.graph.iter().for_each(|graph| of_graph(graph, see));
    for function in &model.functions {
        function.node.iter().for_each(|node| of_node(node, see));
        function.attribute_proto.iter().for_each(|default| of_attribute(default, see));
    }
}

fn of_graph(graph: &GraphProto, see: &mut impl FnMut(&TensorProto)) {
    graph.initializer.iter().for_each(&mut *see);
    for sparse in &graph.sparse_initializer {
        sparse.values.iter().chain(&sparse.indices).for_each(&mut *see);
    }
    graph.node.iter().for_each(|node| of_node(node, see));
}

fn of_node(node: &NodeProto, see: &mut impl FnMut(&TensorProto)) {
    node.attribute.iter().for_each(|attribute| of_attribute(attribute, see));
}

fn of_attribute(attribute: &AttributeProto, see: &mut impl FnMut(&TensorProto)) {
    attribute.t.iter().chain(&attribute.tensors).for_each(&mut *see);
    for sparse in attribute.sparse_tensor.iter().chain(&attribute.sparse_tensors) {
        sparse.values.iter().chain(&sparse.indices).for_each(&mut *see);
    }
    attribute.g.iter().chain(&attribute.graphs).for_each(|graph| of_graph(graph, see));
}

fn check_tensor(tensor: &TensorProto, folder: &Path) -> Result<PathBuf, OnnxError> {
    let value = |key: &str| {
        tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
    };
    let location = value("location").unwrap_or_default();
    let fault = |problem: String| OnnxError::External {
        tensor: tensor.name.clone(),
        location: location.chars().take(200).collect(),
        problem,
    };
    let mut keys = HashSet::new();
    if let Some(entry) = tensor.external_data.iter().find(|entry| !keys.insert(entry.key.as_str())) {
        let key: String = entry.key.chars().take(100).collect();
        return Err(fault(format!(
            "its {key} is given twice, and engines differ in which they read; export it again"
        )));
    }
    // ONNX Runtime's tag for an address in its own memory.
    if location.contains("_ORT_MEM_ADDR_") {
        return Err(fault("it is an address in memory and no file; export the model again".into()));
    }
    let plain =
        Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if location.is_empty() || !plain {
        return Err(fault(
            "it must be a relative path without '..'; put the file into the model's folder".into(),
        ));
    }
    let path = folder.join(location);
    let unreadable =
        |error: std::io::Error| fault(format!("it cannot be read ({error}); copy it beside the model"));
    let target = path.canonicalize().map_err(unreadable)?;
    let folder = folder.canonicalize().map_err(unreadable)?;
    if !target.starts_with(&folder) {
        return Err(fault("it is a link out of the model's folder; copy the file into the folder".into()));
    }
    let metadata = target.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(fault("it is not a regular file".into()));
    }
    // A link says where it leads, another name does not: it may be anybody's file on the same disk.
    let names = metadata.nlink();
    if names > 1 {
        return Err(fault(format!(
            "it is one file under {names} names (hard links), and the others may lie anywhere; copy it into the folder"
        )));
    }
    let number = |key: &str| match value(key) {
        None | Some("") => Ok(0u64),
        Some(text) => text.parse().map_err(|_| fault(format!("its {key} '{text}' is not a number"))),
    };
    let (offset, length) = (number("offset")?, number("length")?);
    if offset.checked_add(length).is_none_or(|end| end > metadata.len()) {
        let len = metadata.len();
        return Err(fault(format!(
            "it has {len} bytes, but {length} from {offset} on are wanted; copy it again"
        )));
    }
    Ok(target)
}
