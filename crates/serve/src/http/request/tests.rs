//! Bodies of REST, right and wrong.
use super::*;
use xebec_core::{Code, CorrelationId, ModelName, SequenceMark, Version, model::TensorInfo};

mod answers;
mod round_trip;

fn info() -> ModelInfo {
    let tensor = |name: &str| TensorInfo { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1, 2] };
    ModelInfo {
        name: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        platform: "onnxruntime_onnx".into(),
        max_batch_size: 8,
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
}

fn parse_split(body: &[u8], json_length: usize) -> Result<Parsed, InferError> {
    parse(&Bytes::copy_from_slice(body), json_length, &info(), 100, Instant::now(), &mut String::new())
}

fn parse_json(body: &str) -> Result<Parsed, InferError> {
    parse_split(body.as_bytes(), body.len())
}

fn one(datatype: &str, shape: &str, data: &str) -> Result<Bytes, InferError> {
    let body =
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#);
    parse_json(&body).map(|mut parsed| parsed.request.inputs.remove(0).data)
}

fn refusal(body: &str) -> String {
    parse_json(body).unwrap_err().to_string()
}

#[test]
fn a_raw_body_is_one_row_of_the_only_input() {
    let with = |datatype, shape: &[i64], max_batch_size| {
        let input = TensorInfo { name: "x".into(), datatype, shape: shape.to_vec() };
        ModelInfo { max_batch_size, inputs: vec![input], ..info() }
    };
    let body = Bytes::from_static(b"123456789012");
    let parse = |info: &ModelInfo| {
        let parsed = raw(&body, info, Instant::now()).map_err(|error| error.to_string())?;
        assert!(parsed.binary.wants("y") && parsed.request.outputs.is_empty());
        let tensor = parsed.request.inputs.into_iter().next().unwrap();
        Ok::<_, String>((tensor.shape, tensor.data))
    };
    for (shape, batch, want) in [
        (&[-1, 3][..], 8, &[1, 3][..]),
        (&[-1, -1], 8, &[1, 3]),
        (&[-1, 1, -1], 8, &[1, 1, 3]),
        (&[-1, 3], 0, &[1, 3]),
        (&[3], 0, &[3]),
        // Not as many bytes as it must have: the model's own check says so.
        (&[4], 0, &[4]),
    ] {
        assert_eq!(
            parse(&with(Datatype::Fp32, shape, batch)),
            Ok((want.to_vec(), body.clone())),
            "{shape:?}"
        );
    }
    let (shape, data) = parse(&with(Datatype::Bytes, &[-1, 1], 8)).unwrap();
    assert_eq!((shape, &data[..]), (vec![1, 1], &b"\x0c\0\0\x00123456789012"[..]));
    for (info, words) in [
        (with(Datatype::Fp32, &[-1, -1], 0), "more than one variable-sized dimension"),
        (with(Datatype::Fp32, &[-1, -1, 5], 8), "raw input 'x' has 12 bytes, which is no multiple of 20"),
        (with(Datatype::Fp32, &[-1, 0], 0), "no multiple of 0"),
        (with(Datatype::Fp32, &[-1, i64::MAX], 0), "no multiple of"),
        (
            with(Datatype::Bytes, &[-1, 2], 8),
            "For BYTES datatype raw input 'x', the model must have input shape [1]",
        ),
        (ModelInfo { inputs: Vec::new(), ..info() }, "but got 0 inputs in 'm' model configuration"),
    ] {
        assert!(parse(&info).unwrap_err().contains(words), "{words}");
    }
}

#[test]
fn arrays_flat_or_nested_and_keys_in_any_order_give_the_same_tensor() {
    let want: Bytes = [1.0f32, 2.5, -3.0, 4e-3].map(f32::to_le_bytes).concat().into();
    for body in [
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2.5,-3,4e-3]}]}"#,
        r#"{"inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[[1,2.5],[-3,4e-3]]}]}"#,
        r#"{"inputs":[{"data":[[1,2.5],[-3,4e-3]],"name":"x","datatype":"FP32","shape":[2,2]}]}"#,
        r#"{"inputs":[{"datatype":"FP32","data":[1,2.5,-3,0.004],"shape":[2,2],"more":{"a":[null]},"name":"x"}],"own":1}"#,
    ] {
        let parsed = parse_json(body).unwrap();
        let tensor = &parsed.request.inputs[0];
        assert_eq!(
            (&*tensor.name, tensor.shape.as_slice(), &tensor.data),
            ("x", &[2, 2][..], &want),
            "{body}"
        );
    }
}

#[test]
fn every_datatype_with_a_json_form_is_read_at_its_extremes() {
    let cases: [(&str, &str, Vec<u8>); 12] = [
        ("BOOL", "[true,0]", vec![1, 0]),
        ("UINT8", "[0,255]", vec![0, 255]),
        ("UINT16", "[0,65535]", vec![0, 0, 255, 255]),
        ("UINT32", "[0,4294967295]", [0, u32::MAX].map(u32::to_le_bytes).concat()),
        ("UINT64", "[0,18446744073709551615]", [0, u64::MAX].map(u64::to_le_bytes).concat()),
        ("INT8", "[-128,127]", vec![128, 127]),
        ("INT16", "[-32768,32767]", [i16::MIN, i16::MAX].map(i16::to_le_bytes).concat()),
        ("INT32", "[-2147483648,2147483647]", [i32::MIN, i32::MAX].map(i32::to_le_bytes).concat()),
        (
            "INT64",
            "[-9223372036854775808,9223372036854775807]",
            [i64::MIN, i64::MAX].map(i64::to_le_bytes).concat(),
        ),
        ("FP32", "[-0.0,3.4028235e38]", [-0.0, f32::MAX].map(f32::to_le_bytes).concat()),
        ("FP64", "[5e-324,1.7976931348623157e308]", [5e-324, f64::MAX].map(f64::to_le_bytes).concat()),
        ("BYTES", r#"["ü",""]"#, vec![2, 0, 0, 0, 0xc3, 0xbc, 0, 0, 0, 0]),
    ];
    for (datatype, data, want) in cases {
        assert_eq!(one(datatype, "[2]", data).unwrap(), want, "{datatype}");
    }
}

#[test]
fn what_does_not_fit_is_named_with_its_place() {
    for (datatype, data, want) in [
        ("INT8", "[1,300]", "input 'x' element 1: 300 does not fit INT8"),
        ("UINT8", "[-1,0]", "input 'x' element 0: -1 does not fit UINT8"),
        ("INT64", "[0,9223372036854775808]", "input 'x' element 1: 9223372036854775808 does not fit INT64"),
        ("INT32", "[1.5,0]", "input 'x' element 0: 1.5 is not INT32"),
        ("INT32", "[7, 1.0 ]", "input 'x' element 1: 1.0 is not INT32"),
        ("INT32", "[\n1e2\n,0]", "input 'x' element 0: 1e2 is not INT32"),
        (
            "INT64",
            "[0,-18446744073709551616]",
            "input 'x' element 1: -18446744073709551616 does not fit INT64",
        ),
        ("BOOL", "[true,2]", "input 'x' element 1: 2 is not BOOL"),
        ("BOOL", "[true,1.0]", "input 'x' element 1: 1.0 is not BOOL"),
        ("BYTES", "[\"a\",-1.5E+3]", "input 'x' element 1: -1.5E+3 is not BYTES"),
        ("FP32", "[1,1e39]", "input 'x' element 1: 1e39 does not fit FP32"),
        ("FP32", "[1,-34028236e32]", "input 'x' element 1: -34028236e32 does not fit FP32"),
        ("FP32", r#"["a",1]"#, "input 'x' element 0: a string is not FP32"),
        ("FP32", "[null,1]", "input 'x' element 0: null is not FP32"),
        ("FP32", "[true,1]", "input 'x' element 0: true is not FP32"),
        ("BYTES", "[1,2]", "input 'x' element 0: 1 is not BYTES"),
    ] {
        assert_eq!(one(datatype, "[2]", data).unwrap_err().to_string(), want);
    }
}

#[test]
fn a_number_is_told_as_it_was_written_also_where_its_data_stood_first() {
    let body = "{\"inputs\":[{\n\"data\":[1,\n1e39],\"name\":\"x\",\"shape\":[2],\"datatype\":\"FP32\"}]}";
    assert_eq!(refusal(body), "input 'x' element 1: 1e39 does not fit FP32");
    let long = format!("[0.{},1]", "1".repeat(500));
    let error = one("INT8", "[2]", &long).unwrap_err().to_string();
    assert_eq!(error, format!("input 'x' element 0: 0.{} is not INT8", "1".repeat(38)));
}

#[test]
fn minus_zero_is_a_whole_number() {
    for datatype in ["INT8", "UINT8", "BOOL"] {
        assert_eq!(one(datatype, "[2]", "[-0,1]").unwrap(), [0, 1].as_slice(), "{datatype}");
    }
    assert_eq!(one("FP32", "[1]", "[-0]").unwrap(), (-0.0f32).to_le_bytes().as_slice());
}

#[test]
fn strings_that_are_no_text_are_refused_with_the_way_out() {
    for lone in [r#"["\ud800"]"#, r#"["\udc00"]"#, r#"["\ud800\u0061"]"#, r#"["\ud800x"]"#] {
        let error = one("BYTES", "[1]", lone).unwrap_err();
        let hint = error.hint().unwrap_or_default();
        assert!(
            hint.contains("only in pairs") && hint.contains("binary tensor data"),
            "{lone}: {error}: {hint}"
        );
    }
    assert_eq!(one("BYTES", "[1]", r#"["\ud83d\ude00"]"#).unwrap()[4..], *"😀".as_bytes());
    let head = br#"{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","data":[""#;
    let body = [&head[..], b"\xff\xfe\"]}]}"].concat();
    let error = parse_split(&body, body.len()).unwrap_err();
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("JSON is UTF-8") && hint.contains("binary tensor data"), "{error}: {hint}");
}

#[test]
fn half_precision_has_no_json_form_wherever_its_data_stands() {
    for datatype in ["FP16", "BF16"] {
        for body in [
            format!(r#"{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype}","data":[1]}}]}}"#),
            format!(r#"{{"inputs":[{{"name":"x","data":[1],"shape":[1],"datatype":"{datatype}"}}]}}"#),
        ] {
            let error = parse_json(&body).unwrap_err();
            assert_eq!(error.to_string(), format!("input 'x': {datatype} has no JSON form"));
            assert_eq!(error.hint().as_deref(), Some("send it as binary tensor data"));
        }
    }
}

#[test]
fn elements_are_as_many_as_the_shape_says() {
    let count = |shape, data| one("FP32", shape, data).unwrap_err().to_string();
    assert_eq!(count("[1,3]", "[1,2]"), "input 'x' has 2 elements in data where shape [1,3] needs 3");
    assert_eq!(
        count("[1,1]", "[[1],[2]]"),
        "input 'x' has more elements in data than the 1 that shape [1,1] needs"
    );
    assert_eq!(
        count("[0,2]", "[1]"),
        "input 'x' has more elements in data than the 0 that shape [0,2] needs"
    );
    assert_eq!(one("FP32", "[0,2]", "[]").unwrap(), Bytes::new());
    assert_eq!(one("FP32", "[]", "[7]").unwrap(), 7f32.to_le_bytes().as_slice());
    // A shape that cannot be goes on to the model's own check, and makes nothing here.
    for shape in ["[-1,2]", "[9223372036854775807,9223372036854775807]"] {
        assert_eq!(one("FP32", shape, "[7]").unwrap(), 7f32.to_le_bytes().as_slice());
    }
    // One that is huge makes no more room than the text has elements.
    assert!(count("[4611686018427387904]", "[1,2]").contains("2 elements in data"));
}

#[test]
fn nan_and_infinity_are_refused_with_the_way_out() {
    for token in ["NaN", "Infinity", "-Infinity"] {
        for data in [format!("[1,{token}]"), format!("[1,\n{token}]")] {
            let error = one("FP32", "[2]", &data).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("JSON has no NaN") && hint.contains("binary"), "{token}: {error}: {hint}");
        }
    }
    assert_eq!(one("FP32", "[2]", "[1,}").unwrap_err().hint(), None);
}

#[test]
fn depth_is_bounded_in_data_in_parameters_and_in_what_is_skipped() {
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let bodies = |levels: usize| {
        [
            format!(r#"{{"own":{},"inputs":[]}}"#, deep(levels)),
            format!(r#"{{"parameters":{{"own":{}}},"inputs":[]}}"#, deep(levels)),
            format!(
                r#"{{"inputs":[{{"name":"x","shape":[0],"datatype":"FP32","data":[{}]}}]}}"#,
                deep(levels - 1)
            ),
            format!(
                r#"{{"inputs":[{{"name":"x","data":[{}],"shape":[0],"datatype":"FP32"}}]}}"#,
                deep(levels - 1)
            ),
        ]
    };
    for body in bodies(100) {
        assert!(parse_json(&body).is_ok(), "{body}: {:?}", parse_json(&body));
    }
    for body in bodies(101) {
        assert_eq!(refusal(&body), "the request JSON is nested deeper than 100 levels");
    }
}

#[test]
fn a_megabyte_of_open_brackets_is_refused_wherever_it_stands() {
    let open = "[".repeat(1 << 20);
    for head in
        ["", r#"{"own":"#, r#"{"inputs":"#, r#"{"inputs":[{"data":"#, r#"{"inputs":[{"parameters":{"a":"#]
    {
        let error = parse_json(&format!("{head}{open}")).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{head}");
        assert!(error.to_string().len() < 300);
    }
    let objects = r#"{"a":"#.repeat(1 << 18);
    assert!(parse_json(&objects).is_err());
}

#[test]
fn what_is_missing_or_stands_twice_is_named() {
    for (body, want) in [
        ("{}", "the request JSON has no 'inputs'"),
        (r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#, "input 'x' has no 'datatype'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}"#, "input 'x' has no 'shape'"),
        (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1]}]}"#, "input 'x' has no 'data'"),
        (
            r#"{"inputs":[{}]}"#,
            "there is not an input with 'name', 'shape', 'datatype' and 'data' in its place",
        ),
        (r#"{"inputs":[],"outputs":[{}]}"#, "there is not a requested output with 'name' in its place"),
        (r#"{"inputs":[],"inputs":[]}"#, "'inputs' stands twice in one object"),
        (r#"{"inputs":[{"name":"x","name":"y"}]}"#, "'name' stands twice in one object"),
        (
            r#"{"parameters":{"timeout":1,"timeout":2},"inputs":[]}"#,
            "parameter 'timeout' stands twice in one object",
        ),
        (r#"{"parameters":{"a":1,"\u0061":1},"inputs":[]}"#, "parameter 'a' stands twice in one object"),
        (
            r#"{"inputs":[{"name":"x","parameters":{"binary_data_size":1,"binary_data_size":2}}]}"#,
            "parameter 'binary_data_size' stands twice in one object",
        ),
        (r#"{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}"#, "output 'y' is requested twice"),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP31"}]}"#,
            "input 'x': 'FP31' is not a datatype; the datatypes are BOOL, UINT8/16/32/64, INT8/16/32/64, FP16, BF16, FP32, FP64 and BYTES",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":4}}]}"#,
            "input 'x' has both data and binary_data_size",
        ),
    ] {
        assert_eq!(refusal(body), want);
    }
    for body in [
        "",
        "[]",
        "null",
        "{",
        r#"{"inputs":[]} x"#,
        r#"{"inputs":{}}"#,
        r#"{"id":5,"inputs":[]}"#,
        "\u{feff}{}",
    ] {
        assert!(refusal(body).starts_with("failed to parse the request JSON: "), "{body}");
    }
}

#[test]
fn a_request_of_nothing_but_empty_tensors_is_refused_before_it_costs_memory() {
    let many = vec![r#"{"name":"x"}"#; 5000].join(",");
    assert_eq!(refusal(&format!(r#"{{"inputs":[{many}]}}"#)), "request has more than 4096 inputs");
    assert_eq!(
        refusal(&format!(r#"{{"inputs":[],"outputs":[{many}]}}"#)),
        "request has more than 4096 outputs"
    );
    let own: Vec<String> = (0..257).map(|own| format!(r#""p{own}":0"#)).collect();
    assert_eq!(
        refusal(&format!(r#"{{"parameters":{{{}}},"inputs":[]}}"#, own.join(","))),
        "an object has more than 256 parameters"
    );
    let axes = vec!["1"; 300].join(",");
    let body = format!(r#"{{"inputs":[{{"name":"x","shape":[{axes}]}}]}}"#);
    assert_eq!(refusal(&body), "a shape has more than 256 extents");
}

#[test]
fn what_is_not_offered_keeps_its_status_although_it_stood_in_json() {
    for (body, name) in [
        (r#"{"parameters":{"headers":"x"},"inputs":[]}"#, "headers"),
        (r#"{"parameters":{"headers":{"a":"b"}},"inputs":[]}"#, "headers"),
    ] {
        let error = parse_json(body).unwrap_err();
        assert_eq!(error.code(), Code::Unsupported, "{body}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_place_in_a_sequence_is_taken_and_nonsense_in_its_place_is_not() {
    let sequence = |parameters: &str| {
        let body = format!(r#"{{"parameters":{{{parameters}}},"inputs":[]}}"#);
        parse_json(&body).map(|parsed| parsed.request.sequence)
    };
    let mark = |id, start, end| Some(SequenceMark { id, start, end });
    let number = r#""sequence_id":7,"sequence_start":true"#;
    assert_eq!(sequence(number).unwrap(), mark(CorrelationId::Number(7), true, false));
    let text = r#""sequence_end":true,"sequence_id":"s""#;
    assert_eq!(sequence(text).unwrap(), mark(CorrelationId::Text("s".into()), false, true));
    for none in [r#""sequence_id":0"#, r#""sequence_id":"" "#, r#""sequence_start":true"#] {
        assert_eq!(sequence(none).unwrap(), None, "{none}");
    }
    let long = format!(r#""sequence_id":"{}" "#, "x".repeat(129));
    for wrong in [r#""sequence_id":1.5"#, r#""sequence_id":true"#, r#""sequence_end":1"#, &long] {
        assert_eq!(sequence(wrong).unwrap_err().code(), Code::InvalidArgument, "{wrong}");
    }
}

#[test]
fn a_priority_is_taken_and_nonsense_in_its_place_is_not() {
    assert_eq!(parse_json(r#"{"parameters":{"priority":2},"inputs":[]}"#).unwrap().request.priority, 2);
    for value in ["-1", "1.5", "null", "\"9\"", "true"] {
        let error =
            parse_json(&format!(r#"{{"parameters":{{"priority":{value}}},"inputs":[]}}"#)).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{value}");
    }
}

#[test]
fn binary_tensors_are_views_on_the_body_in_the_order_of_the_inputs() {
    let json = concat!(
        r#"{"id":"7","inputs":[{"name":"x","shape":[2],"datatype":"INT8","parameters":{"binary_data_size":2}},"#,
        r#"{"name":"z","shape":[1],"datatype":"INT8","data":[5]},"#,
        r#"{"name":"w","shape":[1],"datatype":"FP16","parameters":{"binary_data_size":2}}],"#,
        r#""outputs":[{"name":"y","parameters":{"binary_data":false}}],"parameters":{"binary_data_output":true}}"#
    );
    let body = Bytes::from([json.as_bytes(), &[1, 2, 3, 4]].concat());
    let mut id = String::new();
    let parsed = parse(&body, json.len(), &info(), 100, Instant::now(), &mut id).unwrap();
    let data: Vec<&[u8]> = parsed.request.inputs.iter().map(|tensor| &*tensor.data).collect();
    assert_eq!(data, [&[1, 2][..], &[5], &[3, 4]]);
    assert!(body.as_ptr_range().contains(&parsed.request.inputs[2].data.as_ptr()));
    assert_eq!((id.as_str(), parsed.request.id.as_str()), ("7", "7"));
    assert!(!parsed.binary.wants("y") && parsed.binary.wants("other"));
}

#[test]
fn binary_data_that_is_short_long_or_wrongly_sized_is_refused() {
    let with = |size: &str, blob: &[u8]| {
        let json = format!(
            r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"INT8","parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        parse_split(&[json.as_bytes(), blob].concat(), json.len()).unwrap_err().to_string()
    };
    assert_eq!(with("2", &[1, 2, 3]), "unexpected additional input data for model 'm'");
    assert_eq!(with("2", &[1]), "input 'x' has binary_data_size 2, but only 1 bytes are left in the body");
    assert!(with("18446744073709551615", &[1]).starts_with("input 'x' has binary_data_size"));
    assert_eq!(with("-1", &[1]), "parameter 'binary_data_size' must be a number of bytes");
    assert_eq!(with("\"2\"", &[1, 2]), "parameter 'binary_data_size' must be a number of bytes");
}

#[test]
fn the_requests_own_mark_is_known_also_where_the_rest_is_wrong() {
    let mut id = String::new();
    let body = Bytes::from_static(
        br#"{"id":"r1","inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[300]}]}"#,
    );
    assert!(parse(&body, body.len(), &info(), 100, Instant::now(), &mut id).is_err());
    assert_eq!(id, "r1");
}
