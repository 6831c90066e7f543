use super::*;
use xebec_core::{ModelName, Timings, Version, tensor::bytes_elements};

fn top(
    datatype: Datatype,
    shape: &[i64],
    data: Vec<u8>,
    most: usize,
    batch: u32,
) -> Result<(Vec<i64>, Vec<String>), String> {
    labelled(datatype, shape, data, most, batch, &[])
}

fn labelled(
    datatype: Datatype,
    shape: &[i64],
    data: Vec<u8>,
    most: usize,
    batch: u32,
    labels: &[Box<str>],
) -> Result<(Vec<i64>, Vec<String>), String> {
    let info = ModelInfo {
        name: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        platform: String::new(),
        max_batch_size: batch,
        inputs: Vec::new(),
        outputs: Vec::new(),
    };
    let tensor = Tensor { name: "y".into(), datatype, shape: shape.to_vec(), data: data.into() };
    let mut response = InferResponse { outputs: vec![tensor], timings: Timings::default() };
    apply(&mut response, &vec![("z".into(), 1), ("y".into(), most)], &info, |_| labels)
        .map_err(|error| error.to_string())?;
    let tensor = &response.outputs[0];
    assert_eq!(tensor.datatype, Datatype::Bytes);
    let text = |element: &[u8]| String::from_utf8(element.to_vec()).unwrap();
    Ok((tensor.shape.clone(), bytes_elements(&tensor.data).map(|element| text(element.unwrap())).collect()))
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn the_largest_of_each_row_come_first_and_of_equal_ones_the_first() {
    let data = floats(&[0.1, 0.7, 0.2, 0.5, 0.5, -1.0]);
    let want = ["0.700000:1", "0.200000:2", "0.500000:0", "0.500000:1"].map(str::to_owned).to_vec();
    assert_eq!(top(Datatype::Fp32, &[2, 3], data.clone(), 2, 8), Ok((vec![2, 2], want)));
    // Without a batch axis all elements are one row; more classes than elements are as many as there are.
    let (shape, all) = top(Datatype::Fp32, &[2, 3], data, 99, 0).unwrap();
    assert_eq!((shape, all[0].as_str(), all[5].as_str()), (vec![6], "0.700000:1", "-1.000000:5"));
}

#[test]
fn a_class_has_its_label_where_there_is_one() {
    let labels = ["cat", "", "dog"].map(Box::from);
    let data = floats(&[0.1, 0.2, 0.4, 0.3]);
    let (_, classes) = labelled(Datatype::Fp32, &[1, 4], data, 4, 8, &labels).unwrap();
    assert_eq!(classes, ["0.400000:2:dog", "0.300000:3", "0.200000:1", "0.100000:0:cat"]);
}

#[test]
fn values_that_have_no_order_come_last_and_extremes_are_exact() {
    let data = floats(&[f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN]);
    let want = ["inf:2", "1.000000:1", "-inf:3", "nan:0", "nan:4"].map(str::to_owned).to_vec();
    assert_eq!(top(Datatype::Fp32, &[5], data, 5, 0), Ok((vec![5], want)));
    let data = [i64::MAX - 1, i64::MAX, i64::MIN].iter().flat_map(|value| value.to_le_bytes()).collect();
    let want = ["9223372036854775807:1", "9223372036854775806:0"].map(str::to_owned).to_vec();
    assert_eq!(top(Datatype::Int64, &[3], data, 2, 0), Ok((vec![2], want)));
    assert_eq!(top(Datatype::Uint8, &[1, 2], vec![3, 200], 1, 4), Ok((vec![1, 1], vec!["200:1".into()])));
}

#[test]
fn empty_outputs_have_no_classes_and_odd_types_are_named() {
    assert_eq!(top(Datatype::Fp32, &[0, 3], Vec::new(), 2, 8), Ok((vec![0, 0], Vec::new())));
    assert_eq!(top(Datatype::Fp32, &[2, 0], Vec::new(), 2, 8), Ok((vec![2, 0], Vec::new())));
    let refused = top(Datatype::Fp16, &[1, 1], vec![0, 0], 1, 8).unwrap_err();
    assert_eq!(refused, "class result not available for output 'y' due to unsupported type 'FP16'");
}

#[test]
fn a_long_row_gives_the_same_classes_as_all_of_it_sorted() {
    let values: Vec<u32> = (0..10_000_u32).map(|at| at.wrapping_mul(2_654_435_761) % 5_000).collect();
    let mut sorted: Vec<(usize, u32)> = values.iter().copied().enumerate().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let want: Vec<String> = sorted.iter().take(7).map(|(at, value)| format!("{value}:{at}")).collect();
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(top(Datatype::Uint32, &[10_000], data, 7, 0), Ok((vec![7], want)));
}
