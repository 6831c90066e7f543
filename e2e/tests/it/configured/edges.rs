//! Reshapes, optional inputs, ragged batches and warm-ups, with ONNX Runtime.
use super::{House, floats};
use crate::engine::submit_all;
use bytes::Bytes;
use xebec_core::{Datatype, Tensor};

fn tensor(name: &str, shape: &[i64], numbers: &[f32]) -> Tensor {
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Tensor { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec(), data: Bytes::from(data) }
}

/// Shape and numbers of an output.
type Seen = (Vec<i64>, Vec<f32>);

fn ask(house: &House, inputs: Vec<Tensor>) -> Result<Vec<Seen>, String> {
    let outputs = submit_all(&house.catalog, "m", "1".into(), inputs).outputs()?;
    Ok(outputs.into_iter().map(|output| (output.shape, floats(&output.data))).collect())
}

const RESHAPED: &str = "configured/reshaped.onnx";

#[test]
fn a_reshape_changes_what_callers_see_and_not_what_the_graph_does() {
    let config = r#"
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
        dynamic_batching { }
    "#;
    let house = House::new(RESHAPED, config);
    assert_eq!(house.refusal, None);
    let x = [1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0];
    assert_eq!(ask(&house, vec![tensor("x", &[2, 2, 2], &x)]), Ok(vec![(vec![2, 1], vec![10.0, 100.0])]));
    let refused = ask(&house, vec![tensor("x", &[2, 4], &x)]).unwrap_err();
    assert!(refused.contains("[-1,2,2]"), "{refused}");
}

#[test]
fn a_reshape_that_is_none_or_not_the_graphs_is_refused() {
    let config = |dims: &str, reshape: &str| {
        format!(
            "max_batch_size: 8 input [ {{ name: \"x\" data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {reshape} }} }} ]"
        )
    };
    let refusal = |dims, reshape| House::new(RESHAPED, &config(dims, reshape)).refusal.unwrap();
    assert!(refusal("[ 5 ]", "[ 4 ]").contains("different numbers of elements"));
    assert!(refusal("[ 4 ]", "[ 2, 2 ]").contains("has reshape: [ 2, 2 ], but the graph has [-1,4]"));
}

#[test]
fn an_optional_input_has_the_graphs_default() {
    let config = r#"
        max_batch_size: 8
        input [
          { name: "x" data_type: TYPE_FP32 dims: [ 2 ] },
          { name: "bias" data_type: TYPE_FP32 dims: [ 2 ] optional: true }
        ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
        dynamic_batching { }
    "#;
    let house = House::new("configured/optional.onnx", config);
    assert_eq!(house.refusal, None);
    let x = || tensor("x", &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let bias = tensor("bias", &[2, 2], &[0.5; 4]);
    assert_eq!(ask(&house, vec![x()]), Ok(vec![(vec![2, 2], vec![11.0, 22.0, 13.0, 24.0])]));
    assert_eq!(ask(&house, vec![bias.clone(), x()]), Ok(vec![(vec![2, 2], vec![1.5, 2.5, 3.5, 4.5])]));
    assert!(ask(&house, vec![bias]).unwrap_err().contains("expected 2 inputs but got 1"));
    let required = House::new(
        "repository/scaler.onnx",
        "max_batch_size: 8 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] optional: true } ]",
    );
    assert!(required.refusal.unwrap().contains("the graph has no default for it"));
}

const RAGGED: &str = r#"
    max_batch_size: 8
    input [ { name: "values" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
    output [
      { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] },
      { name: "doubled" data_type: TYPE_FP32 dims: [ -1 ] }
    ]
    batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "bounds" data_type: TYPE_INT64 source_input: "values" } ]
    batch_output [ { target_name: "doubled" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "values" } ]
    dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 300000 }
    instance_group [ { count: 1 } ]
"#;

#[test]
fn ragged_requests_share_a_run_and_get_their_own_answers() {
    let house = House::new("configured/ragged.onnx", RAGGED);
    assert_eq!(house.refusal, None);
    // As many values as there are bounds: what looks like the rows of the batch is none.
    let alone = ask(&house, vec![tensor("values", &[1, 2], &[1.0, 2.0])]);
    assert_eq!(alone, Ok(vec![(vec![1, 1], vec![3.0]), (vec![1, 2], vec![2.0, 4.0])]));
    let requests: [&[f32]; 6] = [&[1.0, 2.0, 3.0], &[4.0], &[5.0, 6.0], &[7.0], &[8.0, 9.0], &[]];
    let waiting: Vec<_> = requests
        .iter()
        .map(|numbers| {
            let shape = [1, i64::try_from(numbers.len()).unwrap()];
            submit_all(&house.catalog, "m", String::new(), vec![tensor("values", &shape, numbers)])
        })
        .collect();
    for (numbers, waiting) in requests.iter().zip(waiting) {
        let outputs = waiting.outputs().unwrap();
        let sum: f32 = numbers.iter().sum();
        assert_eq!((outputs[0].shape.as_slice(), floats(&outputs[0].data)), (&[1, 1][..], vec![sum]));
        let doubled: Vec<f32> = numbers.iter().map(|number| number * 2.0).collect();
        assert_eq!(floats(&outputs[1].data), doubled);
        assert_eq!(outputs[1].shape, [1, i64::try_from(numbers.len()).unwrap()]);
    }
    let runs = house.seen.take();
    assert!(runs.iter().any(|run| run.ids.len() > 1), "no two shared a run");
    for run in runs {
        let bounds = &run.inputs[1];
        assert_eq!(bounds.0, [i64::try_from(run.ids.len()).unwrap() + 1]);
    }
}

#[test]
fn a_ragged_batch_that_the_graph_cannot_take_is_refused() {
    for (from, to, says) in [
        ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size is 0"),
        ("TYPE_INT64", "TYPE_INT32", "write data_type: TYPE_INT64"),
        (
            "source_input: \"values\" } ]\n    batch_output",
            "source_input: \"z\" } ]\n    batch_output",
            "its source_input is not",
        ),
        ("target_name: \"bounds\"", "target_name: \"z\"", "the graph has no such input"),
        ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "BATCH_ITEM_SHAPE", "makes 2 axes"),
        ("target_name: \"doubled\"", "target_name: \"z\"", "is not in the list of outputs"),
    ] {
        let refusal = House::new("configured/ragged.onnx", &RAGGED.replace(from, to)).refusal.unwrap();
        assert!(refusal.contains(says), "{from}: {refusal}");
    }
    let flat = "max_batch_size: 8 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] allow_ragged_batch: true } ]";
    assert!(House::new("repository/scaler.onnx", flat).refusal.unwrap().contains("laid end to end"));
}

#[test]
fn a_warm_up_that_fails_fails_the_load() {
    let config = |file: &str| {
        format!(
            "max_batch_size: 8 model_warmup [ {{ name: \"far\" count: 2 inputs {{ key: \"index\" value {{ data_type: TYPE_INT64 input_data_file: \"{file}\" }} }} }} ]"
        )
    };
    let house = |file: &str| {
        House::with("repository/lookup.onnx", &config(file), |folder| {
            std::fs::create_dir(folder.join("warmup")).unwrap();
            std::fs::write(folder.join("warmup/near"), 3i64.to_le_bytes()).unwrap();
            std::fs::write(folder.join("warmup/far"), 10i64.to_le_bytes()).unwrap();
        })
    };
    let near = house("near");
    assert_eq!(near.refusal, None);
    let refusal = house("far").refusal.unwrap();
    assert!(refusal.starts_with("model_warmup 'far' failed:") && refusal.contains("10"), "{refusal}");
}
