use super::*;
use crate::onnx::generated::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use crate::repository::config::parse;
use prost::Message as _;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use xebec_core::{ModelName, resource};

const FLOAT: i32 = 1;

pub(super) fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |extent: &i64| Dimension {
        value: Some(match extent {
            -1 => dimension::Value::DimParam("batch".into()),
            extent => dimension::Value::DimValue(*extent),
        }),
    };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: FLOAT, shape: Some(shape) };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)) }),
    }
}

/// A graph of `y = -x`, which keeps rows apart.
fn graph(dims: &[i64]) -> onnx::Model {
    let node = NodeProto {
        op_type: "Neg".into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        ..NodeProto::default()
    };
    let graph = GraphProto {
        node: vec![node],
        input: vec![value("x", dims)],
        output: vec![value("y", dims)],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: 17, ..OperatorSetIdProto::default() };
    let model = ModelProto { graph: Some(graph), opset_import: vec![opset], ..ModelProto::default() };
    onnx::Model::parse(model.encode_to_vec().into()).unwrap()
}

pub(super) const DEFAULTS: Defaults = Defaults {
    max_batch_size: 64,
    max_queue: 100,
    cores: 2,
    instances: None,
    objective: Objective::Throughput,
    inline_below: Duration::ZERO,
};

pub(super) fn candidate(config: &str) -> Candidate {
    Candidate {
        labels: xebec_core::VersionLabels::new(),
        name: ModelName::parse("m").unwrap(),
        root: PathBuf::new(),
        folder: None,
        versions: BTreeMap::new(),
        config: Some(parse(config).unwrap()),
        node: None,
        batching: resource::Batching::default(),
        resources: resource::Resources::default(),
    }
}

fn planned(config: &str, dims: &[i64]) -> Result<Plan, String> {
    plan(&candidate(config), Version::FIRST, &graph(dims), &DEFAULTS).map_err(|misfit| misfit.to_string())
}

pub(super) fn planned_in(
    mut candidate: Candidate,
    folder: Option<&Path>,
    dims: &[i64],
) -> Result<Plan, String> {
    candidate.folder = folder.map(Path::to_owned);
    plan(&candidate, Version::FIRST, &graph(dims), &DEFAULTS).map_err(|misfit| misfit.to_string())
}

fn misfit(config: &str, dims: &[i64]) -> String {
    planned(config, dims).err().unwrap()
}

#[test]
fn a_config_that_does_not_fit_the_graph_shows_the_line_that_would() {
    let line = "write input { name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] }";
    for (config, dims, says) in [
        ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] }", &[-1, 4][..], line),
        ("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ 5 ] }", &[-1, 4], line),
        (
            "max_batch_size: 8 input { name: \"x\" data_type: TYPE_INT64 dims: [ 4 ] }",
            &[-1, 4],
            "write data_type: TYPE_FP32",
        ),
        (
            "max_batch_size: 8 input { name: \"z\" data_type: TYPE_FP32 dims: [ 4 ] }",
            &[-1, 4],
            "config says input 'z', but the graph's inputs are 'x'",
        ),
        (
            "max_batch_size: 8 output { name: \"y\" data_type: TYPE_FP32 dims: [ 1 ] }",
            &[-1, 4],
            "write output { name: \"y\" data_type: TYPE_FP32 dims: [ 4 ] }",
        ),
        ("max_batch_size: 8", &[3, 4], "write max_batch_size: 0 with dims: [ 3, 4 ]"),
    ] {
        let said = misfit(config, dims);
        assert!(said.contains(says), "{config}: {said}");
    }
}

#[test]
fn a_format_needs_the_three_extents_of_an_image() {
    let config = |format: &str, dims: &str| {
        format!(
            "max_batch_size: 8 input {{ name: \"x\" data_type: TYPE_FP32 dims: {dims} format: {format} }}"
        )
    };
    let image = planned(&config("FORMAT_NCHW", "[ 3, 2, 2 ]"), &[-1, 3, 2, 2]).unwrap();
    assert_eq!(image.config.input[0].format(), xebec_core::model_config::model_input::Format::Nchw);
    assert!(misfit(&config("FORMAT_NHWC", "[ 4 ]"), &[-1, 4]).contains("are not the 3 of an image"));
}

#[test]
fn a_config_without_dynamic_batching_runs_every_request_alone() {
    let alone = planned("max_batch_size: 8", &[-1, 4]).unwrap().batching;
    assert_eq!(alone.mixes, Err("config.pbtxt has no dynamic_batching".into()));
    assert_eq!(planned("max_batch_size: 8 dynamic_batching { }", &[-1, 4]).unwrap().batching.mixes, Ok(()));
}
