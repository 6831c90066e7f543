//! What a request says about its answer, and how the answer is written.
use super::*;
use crate::tensor::json_out;
use xebec_core::{InferResponse, Timings};

#[test]
fn requested_outputs_and_their_form_are_read() {
    let text = r#"{"inputs":[],"parameters":{"binary_data_output":true,"timeout":5,"mine":[1,{"a":2}]},"outputs":[{"name":"y","parameters":{"binary_data":false}},{"name":"z"}]}"#;
    let parsed = parse_json(text).unwrap();
    assert_eq!(parsed.request.outputs, ["y", "z"]);
    assert_eq!(parsed.request.timeout, Some(std::time::Duration::from_micros(5)));
    assert_eq!((parsed.binary.wants("y"), parsed.binary.wants("z")), (false, true));
    let text = r#"{"inputs":[],"outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z","parameters":{"classification":0}}]}"#;
    assert_eq!(parse_json(text).unwrap().classes, [("y".to_owned(), 3)]);
    for wrong in ["-1", "1.5", "true", "\"3\""] {
        let text = format!(
            r#"{{"inputs":[],"outputs":[{{"name":"y","parameters":{{"classification":{wrong}}}}}]}}"#
        );
        assert!(refusal(&text).contains("parameter 'classification' must be a number of classes"), "{wrong}");
    }
}

fn answer(datatype: Datatype, shape: Vec<i64>, data: Vec<u8>) -> Result<String, String> {
    let outputs = vec![Tensor { name: "y".into(), datatype, shape, data: data.into() }];
    let response = InferResponse { outputs, timings: Timings::default() };
    let written = json_out::response(&info(), "a\"b", &response, &Binary::default(), &[]);
    written.map(|(bytes, _)| String::from_utf8(bytes.to_vec()).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn an_answer_writes_nan_and_infinity_as_triton_does() {
    let data =
        [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.1].iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(
        answer(Datatype::Fp32, vec![4], data).unwrap(),
        r#"{"id":"a\"b","model_name":"m","model_version":"1","outputs":[{"name":"y","datatype":"FP32","shape":[4],"data":[NaN,Infinity,-Infinity,0.1]}]}"#
    );
}

#[test]
fn an_answer_that_has_no_form_in_json_says_how_to_ask_for_it() {
    assert!(
        answer(Datatype::Fp16, vec![1], vec![0, 0]).unwrap_err().contains("FP16, which has no form in JSON")
    );
    assert!(
        answer(Datatype::Bytes, vec![1], vec![1, 0, 0, 0, 0xff])
            .unwrap_err()
            .contains("element 0 is not UTF-8")
    );
    assert!(answer(Datatype::Bytes, vec![1], vec![1, 0, 0, 0, b'"']).unwrap().contains(r#"["\""]"#));
    assert!(answer(Datatype::Bool, vec![2], vec![0, 1]).unwrap().contains("[false,true]"));
    assert!(
        answer(Datatype::Int64, vec![1], i64::MIN.to_le_bytes().to_vec())
            .unwrap()
            .contains("[-9223372036854775808]")
    );
}
