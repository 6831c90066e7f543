//! What the writer of answers writes, the reader of requests reads; and no bytes break the reader.
use super::*;
use crate::tensor::json_out;
use proptest::prelude::*;
use xebec_core::{InferResponse, Timings};

/// A tensor with any bytes of a fixed-width datatype that has a JSON form, finite where it is real.
fn any_tensor() -> impl Strategy<Value = Tensor> {
    let kinds: Vec<Datatype> =
        Datatype::ALL.into_iter().filter(|d| !matches!(d, Datatype::Fp16 | Datatype::Bf16)).collect();
    (prop::sample::select(kinds), prop::collection::vec(any::<u64>(), 0..20), "\\PC{0,6}").prop_map(
        |(datatype, numbers, text)| {
            let element = |number: &u64| -> Vec<u8> {
                let bytes = number.to_le_bytes();
                match datatype {
                    Datatype::Bool => vec![bytes[0] & 1],
                    Datatype::Bytes => {
                        let text = format!("{text}{number}\"\\\n\u{0}");
                        [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
                    }
                    Datatype::Fp32 if !f32::from_bits(*number as u32).is_finite() => {
                        1.5f32.to_le_bytes().into()
                    }
                    Datatype::Fp64 if !f64::from_bits(*number).is_finite() => 1.5f64.to_le_bytes().into(),
                    _ => bytes[..datatype.size_bytes().unwrap()].to_vec(),
                }
            };
            let data: Vec<u8> = numbers.iter().flat_map(element).collect();
            Tensor { name: "x".into(), datatype, shape: vec![numbers.len() as i64], data: data.into() }
        },
    )
}

fn respond(tensors: Vec<Tensor>, binary: &Binary) -> (Bytes, Option<usize>) {
    let response = InferResponse { outputs: tensors, timings: Timings::default() };
    json_out::response(&info(), "", &response, binary, &[]).unwrap()
}

/// An answer is a request with another word in it.
fn as_request(answer: &[u8], json_length: usize) -> Vec<Tensor> {
    let (json, blobs) = answer.split_at(json_length);
    let json = std::str::from_utf8(json).unwrap().replacen("\"outputs\":", "\"inputs\":", 1);
    parse_split(&[json.as_bytes(), blobs].concat(), json.len()).unwrap().request.inputs
}

proptest! {
    #[test]
    fn a_tensor_written_as_json_is_read_back_bit_for_bit(tensor in any_tensor()) {
        let (json, split) = respond(vec![tensor.clone()], &Binary::default());
        prop_assert_eq!(split, None);
        prop_assert_eq!(as_request(&json, json.len()), vec![tensor]);
    }

    #[test]
    fn tensors_written_as_binary_or_as_json_are_read_back_bit_for_bit(tensors in prop::collection::vec((any_tensor(), any::<bool>()), 1..5)) {
        let names: Vec<String> = (0..tensors.len()).map(|place| format!("t{place}")).collect();
        let by_output = names.iter().cloned().zip(tensors.iter().map(|(_, binary)| *binary)).collect();
        let named = tensors.iter().zip(&names).map(|((tensor, _), name)| Tensor { name: name.as_str().into(), ..tensor.clone() });
        let sent: Vec<Tensor> = named.collect();
        let (answer, split) = respond(sent.clone(), &Binary { default: false, by_output });
        prop_assert_eq!(split.is_some(), tensors.iter().any(|(_, binary)| *binary));
        prop_assert_eq!(as_request(&answer, split.unwrap_or(answer.len())), sent);
    }

    #[test]
    fn bytes_of_any_kind_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), split in 0usize..300) {
        let _ = parse_split(&bytes, split);
    }

    #[test]
    fn a_body_with_one_byte_changed_is_answered(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = br#"{"id":"1","inputs":[{"name":"x","shape":[2],"datatype":"FP32","data":[[1.5],[-2]]}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#.to_vec();
        let place = place.index(body.len());
        body[place] = byte;
        let _ = parse_split(&body, body.len());
    }
}
