use super::*;
use crate::tensor::json_out;
use proptest::prelude::*;
use xebec_core::{InferResponse, ModelName, Timings, Version, model::TensorInfo};

fn info() -> ModelInfo {
    let tensor = |name: &str| TensorInfo { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
    ModelInfo {
        name: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        platform: "p".into(),
        max_batch_size: 8,
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
}

fn parse_split(body: &[u8], json_length: usize) -> Result<Parsed, InferError> {
    let body = Bytes::copy_from_slice(body);
    parse(&body, json_length, &info(), 100, Instant::now(), &mut String::new())
}

fn parse_text(text: &str) -> Result<Parsed, InferError> {
    parse_split(text.as_bytes(), text.len())
}

fn refusal(text: &str) -> String {
    parse_text(text).unwrap_err().to_string()
}

fn one(datatype: &str, data: &str) -> Result<Vec<u8>, String> {
    let count = data.matches(',').count() + 1;
    let text = format!(r#"{{"inputs":[{{"name":"x","shape":[{count}],"datatype":"{datatype}","data":[{data}]}}]}}"#);
    parse_text(&text).map(|parsed| parsed.request.inputs[0].data.to_vec()).map_err(|error| error.to_string())
}

#[test]
fn nested_and_flat_data_are_the_same_tensor_whatever_the_order_of_keys() {
    let texts = [
        r#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2],[3,4.5]]}]}"#,
        r#"{"inputs":[{"data":[1,2,3,4.5],"datatype":"FP32","shape":[2,2],"name":"x","extra":{"a":[1]}}],"id":"7"}"#,
        r#" { "inputs" : [ { "shape" : [2, 2], "data" : [ [1.0, 2e0], [3, 4.5] ], "name" : "x", "datatype" : "FP32" } ], "id" : "7" } "#,
    ];
    let want: Vec<u8> = [1.0f32, 2.0, 3.0, 4.5].iter().flat_map(|x| x.to_le_bytes()).collect();
    for text in texts {
        let request = parse_text(text).unwrap().request;
        assert_eq!((request.inputs[0].data.as_ref(), request.id.as_str()), (want.as_slice(), "7"), "{text}");
    }
}

#[test]
fn numbers_are_strict_on_overflow_and_lenient_from_whole_to_real() {
    assert_eq!(one("INT8", "-128, 127"), Ok(vec![128, 127]));
    assert_eq!(one("FP64", "1"), Ok(1f64.to_le_bytes().to_vec()));
    assert_eq!(one("BOOL", "true, 0"), Ok(vec![1, 0]));
    assert_eq!(one("BYTES", r#""ab""#), Ok(vec![2, 0, 0, 0, b'a', b'b']));
    assert_eq!(one("UINT64", "18446744073709551615"), Ok(vec![255; 8]));
    for (datatype, data, words) in [
        ("INT8", "1, 300", "input 'x' element 1: 300 does not fit INT8"),
        ("UINT8", "-1", "input 'x' element 0: -1 does not fit UINT8"),
        ("INT32", "1.5", "input 'x' element 0: 1.5 is not INT32"),
        ("FP32", "1e39", "does not fit FP32"),
        ("BOOL", "2", "2 is not BOOL"),
        ("FP32", r#""1""#, "a string is not FP32"),
        ("BYTES", "1", "1 is not BYTES"),
        ("FP32", "null", "null is not FP32"),
        ("FP16", "1", "FP16 has no form in JSON; send it as binary data"),
        ("BF16", "1", "BF16 has no form in JSON"),
        ("FP33", "1", "'FP33' is not a datatype"),
    ] {
        let error = one(datatype, data).unwrap_err();
        assert!(error.contains(words), "{datatype} {data}: {error}");
    }
}

#[test]
fn what_json_does_not_have_is_told_with_the_way_out() {
    for data in ["NaN", "Infinity", "-Infinity"] {
        let text = format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":[{data}]}}]}}"#);
        let hint = parse_text(&text).unwrap_err().hint();
        assert_eq!(hint.as_deref(), Some("JSON has no NaN and no Infinity: send the tensor as binary data"), "{data}");
    }
}

#[test]
fn a_body_that_is_no_request_says_what_is_missing() {
    for (text, words) in [
        ("", "failed to parse the request JSON: EOF"),
        ("[]", "expected an object with 'inputs'"),
        ("{}", "there is no 'inputs'"),
        (r#"{"inputs":[{}]}"#, "an input has no 'name'"),
        (r#"{"inputs":[{"name":"x"}]}"#, "input 'x' has no 'datatype'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32"}]}"#, "input 'x' has no 'shape'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#, "input 'x' has no 'data'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[1,2]}]}"#, "input 'x' has 2 elements in its data, but shape [3] needs 3"),
        (r#"{"inputs":[]} {}"#, "trailing characters"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1.5],"data":[1]}]}"#, "invalid type"),
    ] {
        let error = refusal(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn a_megabyte_of_brackets_is_refused_without_a_deep_stack() {
    let brackets = "[".repeat(1 << 20);
    let data = format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"FP32","data":{brackets}"#);
    assert!(refusal(&data).contains("nested too deep"), "{}", refusal(&data));
    let elsewhere = format!(r#"{{"other":{brackets}"#);
    assert!(refusal(&elsewhere).contains("failed to parse"));
    assert!(refusal(&brackets).contains("failed to parse"));
    let before = format!(r#"{{"inputs":[{{"data":{brackets}{},"name":"x","shape":[1],"datatype":"FP32"}}]}}"#, "]".repeat(1 << 20));
    assert!(refusal(&before).contains("nested too deep") || refusal(&before).contains("recursion limit"));
}

#[test]
fn binary_tensors_are_views_on_the_body_in_the_order_of_the_inputs() {
    let json = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","parameters":{"binary_data_size":4}},{"name":"z","shape":[2],"datatype":"UINT8","parameters":{"binary_data_size":2}}]}"#;
    let body = [json.as_bytes(), &[0, 0, 128, 63, 8, 9]].concat();
    let parsed = parse_split(&body, json.len()).unwrap();
    assert_eq!(parsed.request.inputs[0].data.as_ref(), 1f32.to_le_bytes());
    assert_eq!(parsed.request.inputs[1].data.as_ref(), [8, 9]);
    let short = parse_split(&body[..body.len() - 1], json.len()).unwrap_err();
    assert_eq!(short.to_string(), "input 'z' has binary_data_size 2, but only 1 bytes are left in the body");
    let long = parse_split(&[body.as_slice(), &[1]].concat(), json.len()).unwrap_err();
    assert_eq!(long.to_string(), "unexpected additional input data for model 'm'");
    let both = r#"{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1],"parameters":{"binary_data_size":4}}]}"#;
    assert!(refusal(both).contains("both data and binary_data_size"));
}

#[test]
fn requested_outputs_and_their_form_are_read() {
    let text = r#"{"inputs":[],"parameters":{"binary_data_output":true,"timeout":5,"mine":[1,{"a":2}]},"outputs":[{"name":"y","parameters":{"binary_data":false}},{"name":"z"}]}"#;
    let parsed = parse_text(text).unwrap();
    assert_eq!(parsed.request.outputs, ["y", "z"]);
    assert_eq!(parsed.request.timeout, Some(std::time::Duration::from_micros(5)));
    assert_eq!((parsed.binary.wants("y"), parsed.binary.wants("z")), (false, true));
    let refused = refusal(r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#);
    assert!(refused.contains("classification"), "{refused}");
}

fn answer(datatype: Datatype, shape: Vec<i64>, data: Vec<u8>) -> Result<String, String> {
    let outputs = vec![Tensor { name: "y".into(), datatype, shape, data: data.into() }];
    let response = InferResponse { outputs, timings: Timings::default() };
    let written = json_out::response(&info(), "a\"b", &response, &Binary::default());
    written.map(|(bytes, _)| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn an_answer_writes_nan_and_infinity_as_triton_does() {
    let data = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(
        answer(Datatype::Fp32, vec![4], data).unwrap(),
        r#"{"id":"a\"b","model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[4],"data":[NaN,Infinity,-Infinity,0.1]}]}"#
    );
}

#[test]
fn an_answer_that_has_no_form_in_json_says_how_to_ask_for_it() {
    assert!(answer(Datatype::Fp16, vec![1], vec![0, 0]).unwrap_err().contains("FP16, which has no form in JSON"));
    assert!(answer(Datatype::Bytes, vec![1], vec![1, 0, 0, 0, 0xff]).unwrap_err().contains("element 0 is not UTF-8"));
    assert!(answer(Datatype::Bytes, vec![1], vec![1, 0, 0, 0, b'"']).unwrap().contains(r#"["\""]"#));
    assert!(answer(Datatype::Bool, vec![2], vec![0, 1]).unwrap().contains("[false,true]"));
    assert!(answer(Datatype::Int64, vec![1], i64::MIN.to_le_bytes().to_vec()).unwrap().contains("[-9223372036854775808]"));
}

/// Datatypes that have a form in JSON, with bytes for `count` finite elements.
fn elements() -> impl Strategy<Value = (Datatype, Vec<u8>, usize)> {
    let kinds: Vec<Datatype> =
        Datatype::ALL.into_iter().filter(|kind| !matches!(kind, Datatype::Fp16 | Datatype::Bf16)).collect();
    (prop::sample::select(kinds), prop::collection::vec(any::<u64>(), 0..20)).prop_map(|(kind, seeds)| {
        let mut bytes = Vec::new();
        for seed in &seeds {
            match kind {
                Datatype::Bool => bytes.push(u8::from(seed % 2 == 0)),
                Datatype::Fp32 => {
                    let x = f32::from_bits(*seed as u32);
                    bytes.extend_from_slice(&(if x.is_finite() { x } else { 1.5 }).to_le_bytes());
                }
                Datatype::Fp64 => {
                    let x = f64::from_bits(*seed);
                    bytes.extend_from_slice(&(if x.is_finite() { x } else { 1.5 }).to_le_bytes());
                }
                Datatype::Bytes => {
                    let text = format!("é\"\\\n{seed}");
                    bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
                    bytes.extend_from_slice(text.as_bytes());
                }
                _ => bytes.extend_from_slice(&seed.to_le_bytes()[..kind.size_bytes().unwrap()]),
            }
        }
        (kind, bytes, seeds.len())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_datatype_comes_back_from_json_bit_for_bit((kind, bytes, count) in elements()) {
        let text = answer(kind, vec![count as i64], bytes.clone()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let data = value["outputs"][0]["data"].to_string();
        // The text that was written, not what a parser made of it.
        let raw = &text[text.find("\"data\":").unwrap() + 7..text.len() - 3];
        prop_assert!(serde_json::from_str::<serde_json::Value>(raw).is_ok(), "{} {}", raw, data);
        let request = format!(r#"{{"inputs":[{{"name":"x","shape":[{count}],"datatype":"{kind}","data":{raw}}}]}}"#);
        let parsed = parse_text(&request).unwrap();
        prop_assert_eq!(parsed.request.inputs[0].data.as_ref(), bytes.as_slice());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), length in 0..250usize) {
        let _ = parse_split(&bytes, length.min(bytes.len()));
    }
}
