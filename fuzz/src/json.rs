//! The body of an infer call that is all JSON.
use crate::rest;
use bytes::Bytes;
use serde::de::IgnoredAny;

/// Takes the input as the body.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let (answer, seen) = rest::call(rest::infer("any", &[]), Bytes::copy_from_slice(bytes));
    if answer.status() != 200 {
        return false;
    }
    // No reader of JSON may think that there is something else, or nothing.
    let read: Result<IgnoredAny, _> = serde_json::from_slice(bytes);
    assert!(read.is_ok(), "only our reader takes it for JSON");
    rest::comes_back(&answer, seen.expect("a good answer is that of a model"), bytes);
    true
}
