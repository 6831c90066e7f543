//! Calls over REST, and what holds for every answer.
use crate::{
    memory::bounded,
    model::Seen,
    service::{self, MOST_BYTES},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::value::RawValue;
use xebec_core::{Datatype, Tensor};
use xebec_net::service::HttpService;

/// The header that says where JSON ends and binary tensors begin.
pub(crate) const JSON_LENGTH: &str = "inference-header-content-length";

/// The head of an infer call.
pub(crate) fn infer(model: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::post(format!("/v2/models/{model}/infer"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a head").into_parts().0
}

/// Makes a call and asserts of its answer what holds for all. The answer, and what reached a model.
pub(crate) fn call(head: Parts, body: Bytes) -> (Response<Bytes>, Option<Seen>) {
    // What is compressed may become as large as any body.
    let size = if head.headers.contains_key("content-encoding") { MOST_BYTES } else { body.len() };
    let (answer, mut seen) = service::with(|listener| {
        let read = listener.desk.body(body);
        let answer = bounded(size, || {
            HttpService::call(&listener.service, &listener.principal, head, read).now_or_never()
        });
        (answer.expect("nothing in memory is waited for"), listener.seen())
    });
    assert!(seen.len() <= 1, "one call reached models {} times", seen.len());
    let seen = seen.pop();
    let status = answer.status();
    if !status.is_success() {
        // What is not offered can be asked for as well.
        let callers = status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED;
        assert!(callers, "status {status}: {}", answer.body().escape_ascii());
        let refusal: Refusal = serde_json::from_slice(answer.body()).expect("a refusal is JSON");
        assert!(!refusal.error.is_empty(), "a refusal without a reason");
    }
    (answer, seen)
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// An answer of an infer call, as its JSON says.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(default)]
    id: String,
    #[serde(borrow)]
    outputs: &'a RawValue,
}

/// An output of an answer, without its data.
#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// Asserts that the answer of an infer call is what its model gave: sent again as inputs it is understood as the same.
/// `body` is that of the call.
pub(crate) fn comes_back(answer: &Response<Bytes>, seen: Seen, body: &[u8]) {
    let given = seen.answered.expect("a good answer is that of a model");
    let bytes = answer.body();
    let split = json_length(answer.headers());
    let (json, blobs) = match split {
        Some(length) => bytes.split_at(length),
        None => (&bytes[..], &[][..]),
    };
    let Ok(Answered { id, outputs }) = serde_json::from_slice(json) else {
        let odd = given.iter().any(is_not_finite);
        return assert!(odd, "an answer that is no JSON: {}", json.escape_ascii());
    };
    assert_eq!(id, seen.id, "the caller's mark");
    let said: Vec<Output> = serde_json::from_str(outputs.get()).expect("outputs");
    let same = |(said, given): (&Output, &Tensor)| {
        said.name == *given.name && said.datatype == given.datatype.as_str() && said.shape == given.shape
    };
    if said.len() != given.len() || !said.iter().zip(&given).all(same) {
        // An escape may hide the word.
        let asked = body.windows(14).any(|word| word == b"classification") || body.contains(&b'\\');
        return assert!(asked, "other outputs than the model's: {}", json.escape_ascii());
    }
    // Some datatypes have no form in JSON: what came as binary data goes as binary data.
    let binary = split.is_some();
    let again = format!(r#"{{"inputs":{},"parameters":{{"binary_data_output":{binary}}}}}"#, outputs.get());
    let length = again.len().to_string();
    let headers = [(JSON_LENGTH, length.as_str())];
    let head = infer("any", if binary { &headers } else { &[] });
    let (repeated, seen) = call(head, [again.as_bytes(), blobs].concat().into());
    let told = || format!("{} is not taken: {}", again.escape_debug(), repeated.body().escape_ascii());
    let came = seen.unwrap_or_else(|| panic!("{}", told())).came;
    assert!(repeated.status() == 200, "{}", told());
    let given: Vec<Tensor> = given.into_iter().map(in_json).collect();
    assert_eq!(came, given, "{again}");
}

/// A BOOL that came as another byte than 0 is `true` in JSON, and 1 from there on, as it is for models.
fn in_json(tensor: Tensor) -> Tensor {
    if tensor.datatype != Datatype::Bool {
        return tensor;
    }
    let ones: Vec<u8> = tensor.data.iter().map(|byte| u8::from(*byte != 0)).collect();
    Tensor { data: ones.into(), ..tensor }
}

fn json_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(JSON_LENGTH)
        .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).expect("a number"))
}

/// Whether JSON has no number for an element: such an answer is for readers that know NaN.
fn is_not_finite(tensor: &Tensor) -> bool {
    let exponent = |bytes: &[u8], at: usize, mask: u16| {
        bytes.get(at..at + 2).is_some_and(|pair| u16::from_le_bytes([pair[0], pair[1]]) & mask == mask)
    };
    let (size, at, mask) = match tensor.datatype {
        Datatype::Fp16 => (2, 0, 0x7c00),
        Datatype::Bf16 => (2, 0, 0x7f80),
        Datatype::Fp32 => (4, 2, 0x7f80),
        Datatype::Fp64 => (8, 6, 0x7ff0),
        _ => return false,
    };
    tensor.data.chunks(size).any(|element| exponent(element, at, mask))
}
