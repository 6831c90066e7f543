//! The body of an infer call with binary tensors behind its JSON, with none before them, and compressed.
use crate::rest::{self, JSON_LENGTH};
use bytes::Bytes;

/// The first byte chooses the manner of the call, the next two are the length of the JSON, the rest is the body.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Some(([manner, low, high], body)) = bytes.split_first_chunk() else { return false };
    let length = match manner & 3 {
        0 => body.len().to_string(),
        1 => "0".to_owned(),
        _ => u16::from_le_bytes([*low, *high]).to_string(),
    };
    let model = match manner >> 2 & 3 {
        0 => "raw",
        1 => "text",
        _ => "any",
    };
    let mut headers = vec![(JSON_LENGTH, length.as_str())];
    match manner >> 4 & 7 {
        0 => headers.push(("content-encoding", "gzip")),
        1 => headers.push(("content-encoding", "deflate")),
        2 => headers.push(("content-encoding", "identity")),
        _ => {}
    }
    let (answer, seen) = rest::call(rest::infer(model, &headers), Bytes::copy_from_slice(body));
    let taken = answer.status() == 200;
    if taken && model == "any" && headers.len() == 1 {
        rest::comes_back(&answer, seen.expect("a good answer is that of a model"), body);
    }
    taken
}
