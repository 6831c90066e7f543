//! The reader in place against the generated types, which know the protocol by themselves.
use super::*;
use proptest::prelude::*;
use prost::Message as _;
use xebec_core::{Code, CorrelationId, ModelName, SequenceMark, Version, model::TensorInfo};
use xebec_net::wire::inference::{
    InferParameter, InferTensorContents, ModelInferRequest,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};

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

fn decode(message: &ModelInferRequest) -> Result<InferRequest, InferError> {
    decode_bytes(message.encode_to_vec())
}

fn decode_bytes(bytes: Vec<u8>) -> Result<InferRequest, InferError> {
    request(&bytes.into(), &info(), Instant::now(), Form::Unary, &mut String::new())
        .map(|decoded| decoded.request)
}

fn input(datatype: Datatype, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: datatype.to_string(),
        shape: shape.to_vec(),
        contents,
        ..InferInputTensor::default()
    }
}

fn typed(datatype: Datatype, shape: &[i64], contents: InferTensorContents) -> Result<Bytes, InferError> {
    let inputs = vec![input(datatype, shape, Some(contents))];
    let mut decoded = decode(&ModelInferRequest { inputs, ..ModelInferRequest::default() })?;
    Ok(decoded.inputs.remove(0).data)
}

fn parameter(choice: ParameterChoice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

#[test]
fn a_message_that_names_two_models_or_versions_is_refused() {
    // Whoever read its beginning alone would have judged the first.
    for message in [&b"\x0a\x01a\x2a\x00\x0a\x01b"[..], b"\x0a\x01a\x12\x011\x12\x011"] {
        let error = peek(message).unwrap_err().to_string();
        assert!(error.ends_with("it says its model or its version twice"), "{error}");
    }
}

#[test]
fn model_and_version_are_found_wherever_they_stand() {
    let message = |model: &str, version: &str| ModelInferRequest {
        model_name: model.into(),
        model_version: version.into(),
        inputs: vec![input(Datatype::Fp32, &[1, 2], None)],
        ..ModelInferRequest::default()
    };
    let bytes = message("fraud", "3").encode_to_vec();
    assert_eq!(peek(&bytes), Ok(Target { model: "fraud", version: "3" }));
    // Version, tensor, model; and model, tensor, version: both legal in protobuf.
    for (first, second) in [(("", "3"), ("fraud", "")), (("fraud", ""), ("", "3"))] {
        let mut bytes = message(first.0, first.1).encode_to_vec();
        bytes.extend(message(second.0, second.1).encode_to_vec());
        assert_eq!(peek(&bytes), Ok(Target { model: "fraud", version: "3" }));
    }
}

#[test]
fn what_is_no_message_is_refused_without_reading_past_its_end() {
    for bytes in [&[0x0a, 200][..], &[0x0a, 2, 0xff, 0xff], &[0x08, 1], &[0xff; 20], &[0x0b, 0x0c]] {
        assert_eq!(peek(bytes).unwrap_err().code(), Code::InvalidArgument, "{bytes:?}");
    }
}

#[test]
fn a_message_of_nothing_but_empty_tensors_is_refused_before_it_costs_memory() {
    for field in [0x2a, 0x32, 0x3a] {
        let bytes = [field, 0].repeat(1 << 20);
        assert!(peek(&bytes).unwrap_err().to_string().contains("more than"));
        assert!(decode_bytes(bytes).unwrap_err().to_string().contains("more than 4096"));
    }
    let shape = InferInputTensor { shape: vec![1; 257], ..input(Datatype::Fp32, &[], None) };
    let error =
        decode(&ModelInferRequest { inputs: vec![shape], ..ModelInferRequest::default() }).unwrap_err();
    assert_eq!(error.to_string(), "a shape has more than 256 extents");
}

#[test]
fn raw_contents_are_views_on_the_message() {
    let message = ModelInferRequest {
        inputs: vec![input(Datatype::Fp32, &[1, 2], None)],
        raw_input_contents: vec![Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8])],
        ..ModelInferRequest::default()
    };
    let bytes = Bytes::from(message.encode_to_vec());
    let decoded = request(&bytes, &info(), Instant::now(), Form::Unary, &mut String::new()).unwrap().request;
    assert_eq!(decoded.inputs[0].data, [1, 2, 3, 4, 5, 6, 7, 8].as_slice());
    assert!(bytes.as_ptr_range().contains(&decoded.inputs[0].data.as_ptr()));
}

#[test]
fn raw_and_typed_contents_do_not_mix() {
    let typed = Some(InferTensorContents { fp32_contents: vec![1.0, 2.0], ..InferTensorContents::default() });
    let mut message = ModelInferRequest {
        inputs: vec![input(Datatype::Fp32, &[1, 2], typed)],
        raw_input_contents: vec![Bytes::from_static(&[0; 8])],
        ..ModelInferRequest::default()
    };
    let mixed = "contents field must not be specified when using raw_input_contents for 'x' for model 'm'";
    assert_eq!(decode(&message).unwrap_err().to_string(), mixed);
    message.inputs.push(input(Datatype::Fp32, &[1, 2], None));
    assert_eq!(decode(&message).unwrap_err().to_string(), mixed);
    message.inputs[0].contents = None;
    assert_eq!(decode(&message).unwrap_err().to_string(), "request has 2 inputs but 1 raw_input_contents");
}

#[test]
fn typed_contents_of_every_datatype_become_the_bytes_that_raw_ones_would_be() {
    type C = InferTensorContents;
    let cases: [(Datatype, C, Vec<u8>); 12] = [
        (Datatype::Bool, C { bool_contents: vec![true, false], ..C::default() }, vec![1, 0]),
        (Datatype::Int8, C { int_contents: vec![-1, 127], ..C::default() }, vec![255, 127]),
        (Datatype::Int16, C { int_contents: vec![-2, 300], ..C::default() }, vec![254, 255, 44, 1]),
        (
            Datatype::Int32,
            C { int_contents: vec![i32::MIN, 1], ..C::default() },
            [i32::MIN, 1].map(i32::to_le_bytes).concat(),
        ),
        (
            Datatype::Int64,
            C { int64_contents: vec![i64::MIN, 1], ..C::default() },
            [i64::MIN, 1].map(i64::to_le_bytes).concat(),
        ),
        (Datatype::Uint8, C { uint_contents: vec![0, 255], ..C::default() }, vec![0, 255]),
        (Datatype::Uint16, C { uint_contents: vec![1, 65535], ..C::default() }, vec![1, 0, 255, 255]),
        (
            Datatype::Uint32,
            C { uint_contents: vec![1, u32::MAX], ..C::default() },
            [1, u32::MAX].map(u32::to_le_bytes).concat(),
        ),
        (
            Datatype::Uint64,
            C { uint64_contents: vec![1, u64::MAX], ..C::default() },
            [1, u64::MAX].map(u64::to_le_bytes).concat(),
        ),
        (
            Datatype::Fp32,
            C { fp32_contents: vec![-0.0, f32::NAN], ..C::default() },
            [-0.0, f32::NAN].map(f32::to_le_bytes).concat(),
        ),
        (
            Datatype::Fp64,
            C { fp64_contents: vec![1.5, f64::INFINITY], ..C::default() },
            [1.5, f64::INFINITY].map(f64::to_le_bytes).concat(),
        ),
        (
            Datatype::Bytes,
            C { bytes_contents: vec![Bytes::from("ab"), Bytes::new()], ..C::default() },
            vec![2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0],
        ),
    ];
    for (datatype, contents, want) in cases {
        assert_eq!(typed(datatype, &[2], contents.clone()).unwrap(), want, "{datatype}");
        let short = typed(datatype, &[3], contents.clone()).unwrap_err();
        assert_eq!(short.to_string(), "input 'x' has 2 elements in contents where shape [3] needs 3");
        let long = typed(datatype, &[1], contents).unwrap_err();
        assert_eq!(
            long.to_string(),
            "input 'x' has more elements in contents than the 1 that shape [1] needs"
        );
    }
}

#[test]
fn unpacked_numbers_are_read_too() {
    // Field 6 twice, 32 bits each; field 2 twice, as varints.
    let reals = [[0x35, 0, 0, 0x80, 0x3f], [0x35, 0, 0, 0, 0x40]].concat();
    let wanted = |datatype| typed::Wanted { name: "x", datatype, shape: &[2] };
    let message = Bytes::from(reals);
    let data = typed::bytes(&wanted(Datatype::Fp32), &message, &message).unwrap();
    assert_eq!(data, [1.0f32, 2.0].map(f32::to_le_bytes).concat());
    let message = Bytes::from_static(&[0x10, 7, 0x10, 8]);
    assert_eq!(typed::bytes(&wanted(Datatype::Int8), &message, &message).unwrap(), [7, 8].as_slice());
}

#[test]
fn reading_ends_at_the_first_element_too_many() {
    // Three elements where one is wanted; the third is cut off, but nobody gets so far.
    for contents in [&[0x10, 7, 0x10, 8, 0x10][..], &[0x12, 3, 7, 8, 0xff]] {
        let message = Bytes::copy_from_slice(contents);
        let wanted = typed::Wanted { name: "x", datatype: Datatype::Int8, shape: &[1] };
        let error = typed::bytes(&wanted, &message, &message).unwrap_err();
        assert_eq!(
            error.to_string(),
            "input 'x' has more elements in contents than the 1 that shape [1] needs"
        );
    }
}

#[test]
fn narrow_integers_are_checked_and_other_fields_are_refused() {
    let ints = |int_contents| InferTensorContents { int_contents, ..InferTensorContents::default() };
    let error = typed(Datatype::Int8, &[2], ints(vec![0, 300])).unwrap_err();
    assert_eq!(error.to_string(), "input 'x' element 1: 300 does not fit INT8");
    let error = typed(Datatype::Fp32, &[1], ints(vec![1])).unwrap_err();
    assert_eq!(error.to_string(), "input 'x' of FP32 has its elements in int_contents");
    for datatype in [Datatype::Fp16, Datatype::Bf16] {
        let error = typed(datatype, &[1], ints(vec![1])).unwrap_err();
        assert_eq!(error.to_string(), format!("input 'x': {datatype} has no typed contents in gRPC"));
        assert_eq!(error.hint().as_deref(), Some("send it in raw_input_contents"));
    }
}

#[test]
fn an_output_that_is_asked_for_twice_is_refused() {
    let output = |name: &str| InferRequestedOutputTensor { name: name.into(), ..Default::default() };
    let outputs = vec![output("y"), output("z"), output("y")];
    let error = decode(&ModelInferRequest { outputs, ..ModelInferRequest::default() }).unwrap_err();
    assert_eq!(error.to_string(), "output 'y' is requested twice");
}

#[test]
fn parameters_have_their_meaning_whichever_of_the_integers_carries_them() {
    for choice in [ParameterChoice::Int64Param(1500), ParameterChoice::Uint64Param(1500)] {
        let parameters = [("timeout".to_owned(), parameter(choice))].into();
        let decoded = decode(&ModelInferRequest { parameters, ..ModelInferRequest::default() }).unwrap();
        assert_eq!(decoded.timeout, Some(std::time::Duration::from_micros(1500)));
    }
    let parameters = [("headers".to_owned(), parameter(ParameterChoice::StringParam("x".into())))].into();
    let error = decode(&ModelInferRequest { parameters, ..ModelInferRequest::default() }).unwrap_err();
    assert!(error.code() == Code::Unsupported && error.to_string().contains("headers"), "{error}");
    for (choice, id) in [
        (ParameterChoice::StringParam("s".into()), CorrelationId::Text("s".into())),
        (ParameterChoice::Uint64Param(u64::MAX), CorrelationId::Number(u64::MAX)),
        (ParameterChoice::Uint64Param(u64::MAX - 1), CorrelationId::Number(u64::MAX - 1)),
        (ParameterChoice::Int64Param(7), CorrelationId::Number(7)),
    ] {
        let start = ("sequence_start".to_owned(), parameter(ParameterChoice::BoolParam(true)));
        let parameters = [("sequence_id".to_owned(), parameter(choice)), start].into();
        let decoded = decode(&ModelInferRequest { parameters, ..ModelInferRequest::default() }).unwrap();
        assert_eq!(decoded.sequence, Some(SequenceMark { id, start: true, end: false }));
    }
    for (choice, priority) in [
        (ParameterChoice::Uint64Param(2), Some(2)),
        (ParameterChoice::Int64Param(2), Some(2)),
        (ParameterChoice::Int64Param(-1), None),
        (ParameterChoice::StringParam("2".into()), None),
        (ParameterChoice::DoubleParam(1.5), None),
    ] {
        let parameters = [("priority".to_owned(), parameter(choice))].into();
        let decoded = decode(&ModelInferRequest { parameters, ..ModelInferRequest::default() });
        assert_eq!(decoded.ok().map(|decoded| decoded.priority), priority);
    }
    let parameters = [("classification".to_owned(), parameter(ParameterChoice::Int64Param(3)))].into();
    let outputs = vec![InferRequestedOutputTensor { name: "y".into(), parameters }];
    let message = ModelInferRequest { outputs, ..ModelInferRequest::default() };
    let bytes = message.encode_to_vec().into();
    let classes = request(&bytes, &info(), Instant::now(), Form::Unary, &mut String::new()).unwrap().classes;
    assert_eq!(classes, [("y".to_owned(), 3)]);
    for choice in [
        ParameterChoice::Int64Param(-1),
        ParameterChoice::Int64Param(4097),
        ParameterChoice::StringParam("3".into()),
    ] {
        let parameters = [("classification".to_owned(), parameter(choice))].into();
        let outputs = vec![InferRequestedOutputTensor { name: "y".into(), parameters }];
        let error = decode(&ModelInferRequest { outputs, ..ModelInferRequest::default() }).unwrap_err();
        assert_eq!(error.to_string(), "parameter 'classification' must be a number of classes, at most 4096");
    }
}

#[test]
fn the_requests_own_mark_is_known_also_where_the_rest_is_wrong() {
    let mut id = String::new();
    let inputs = vec![InferInputTensor { datatype: "FP31".into(), ..InferInputTensor::default() }];
    let message = ModelInferRequest { id: "r1".into(), inputs, ..ModelInferRequest::default() };
    let error =
        request(&message.encode_to_vec().into(), &info(), Instant::now(), Form::Unary, &mut id).unwrap_err();
    assert!(error.to_string().contains("'FP31' is not a datatype"));
    assert_eq!(id, "r1");
}

prop_compose! {
    fn any_request()(
        id in "[a-z]{0,8}",
        tensors in prop::collection::vec(
            ("[a-z]{1,4}", prop::collection::vec(0i64..5, 0..4), prop::collection::vec(any::<u8>(), 0..40)),
            0..5,
        ),
        outputs in prop::collection::btree_set("[a-z]{1,4}", 0..4),
        own in prop::option::of(any::<i64>()),
    ) -> ModelInferRequest {
        ModelInferRequest {
            model_name: "m".into(),
            id,
            parameters: own.map(|own| ("my_own".to_owned(), parameter(ParameterChoice::Int64Param(own)))).into_iter().collect(),
            inputs: tensors.iter().map(|(name, shape, _)| InferInputTensor {
                name: name.clone(), ..input(Datatype::Int8, shape, None)
            }).collect(),
            outputs: outputs.into_iter().map(|name| InferRequestedOutputTensor { name, ..Default::default() }).collect(),
            raw_input_contents: tensors.into_iter().map(|(_, _, data)| data.into()).collect(),
            ..ModelInferRequest::default()
        }
    }
}

proptest! {
    #[test]
    fn what_the_generated_types_write_is_read_back(message in any_request()) {
        let decoded = decode(&message).unwrap();
        prop_assert_eq!(&decoded.id, &message.id);
        let outputs: Vec<_> = message.outputs.iter().map(|output| output.name.clone()).collect();
        prop_assert_eq!(&decoded.outputs, &outputs);
        prop_assert_eq!(decoded.inputs.len(), message.inputs.len());
        for ((got, want), raw) in decoded.inputs.iter().zip(&message.inputs).zip(&message.raw_input_contents) {
            prop_assert_eq!(&*got.name, want.name.as_str());
            prop_assert_eq!(&got.shape, &want.shape);
            prop_assert_eq!(&got.data, raw);
        }
    }

    #[test]
    fn bytes_of_any_kind_are_answered_and_never_read_past(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = peek(&bytes);
        let _ = decode_bytes(bytes.clone());
        // The same behind a correct head of an input.
        let mut inside = vec![0x2a, u8::try_from(bytes.len().min(127)).unwrap()];
        bytes.truncate(127);
        inside.append(&mut bytes);
        let _ = decode_bytes(inside);
    }

    #[test]
    fn a_message_with_one_bit_flipped_is_answered(message in any_request(), place in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = message.encode_to_vec();
        let place = place.index(bytes.len());
        bytes[place] ^= 1u8 << bit;
        // As a call does it: names first, the rest behind admission.
        let ours = peek(&bytes).is_ok() && decode_bytes(bytes.clone()).is_ok();
        // What we take, the generated types take too; the other way round we are stricter.
        if ours {
            prop_assert!(ModelInferRequest::decode(bytes.as_slice()).is_ok());
        }
    }
}

#[test]
fn the_beginning_of_a_message_says_the_model_if_its_name_is_there_whole() {
    let message = ModelInferRequest {
        model_name: "fraud".into(),
        model_version: "3".into(),
        raw_input_contents: vec![vec![0; 100].into()],
        ..ModelInferRequest::default()
    };
    let bytes = prost::Message::encode_to_vec(&message);
    for end in 10..bytes.len() {
        assert_eq!(target_of_start(&bytes[..end]), Some(Target { model: "fraud", version: "3" }), "{end}");
    }
    assert_eq!(target_of_start(&bytes[..7]), Some(Target { model: "fraud", version: "" }));
    (0..7).for_each(|end| assert_eq!(target_of_start(&bytes[..end]), None, "{end}"));
}
