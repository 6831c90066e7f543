//! External data: only files below the model's folder, without links out of it.
//!
//! # Source
//! ONNX, "External data": keys `location`, `offset`, `length` of `TensorProto.external_data`.
use super::{
    Component, GraphProto, ModelProto, OnnxError, Path, PathBuf, TensorProto, subgraphs, tensor_proto,
};

/// Checks every tensor with external data; returns the files without repeats.
pub(super) fn check(model: &ModelProto, folder: &Path) -> Result<Vec<PathBuf>, OnnxError> {
    let mut files = Vec::new();
    let mut outcome = Ok(());
    let mut see = |tensor: &TensorProto| {
        if outcome.is_ok() && tensor.data_location == tensor_proto::DataLocation::External as i32 {
            match check_tensor(tensor, folder) {
                Ok(file) if files.contains(&file) => (),
                Ok(file) => files.push(file),
                Err(error) => outcome = Err(error),
            }
        }
    };
    model.graph.iter().for_each(|graph| tensors(graph, &mut see));
    let functions = model.functions.iter().flat_map(|function| &function.node);
    functions
        .flat_map(|node| &node.attribute)
        .flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors))
        .for_each(&mut see);
    outcome.map(|()| files)
}

fn tensors(graph: &GraphProto, see: &mut impl FnMut(&TensorProto)) {
    graph.initializer.iter().for_each(&mut *see);
    for sparse in &graph.sparse_initializer {
        sparse.values.iter().chain(&sparse.indices).for_each(&mut *see);
    }
    for node in &graph.node {
        let attributes = node.attribute.iter();
        attributes.flat_map(|attribute| attribute.t.iter().chain(&attribute.tensors)).for_each(&mut *see);
        subgraphs(node).for_each(|graph| tensors(graph, see));
    }
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
