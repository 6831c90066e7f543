//! Answers of HTTP: JSON bodies, and the one form of an error.
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};
use xebec_core::InferError;

/// A JSON body that is already text.
pub(super) fn bytes(status: u16, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A JSON body.
pub(super) fn json(status: u16, body: &Value) -> Response<Bytes> {
    bytes(status, body.to_string().into())
}

/// `{"error": ..., "hint": ...}` with the status and headers that belong to the error.
pub(super) fn error(fault: &InferError, id: &str) -> Response<Bytes> {
    let mut body = json!({"error": fault.message_for(id)});
    if let (Some(hint), Some(fields)) = (fault.hint(), body.as_object_mut()) {
        fields.insert("hint".into(), Value::String(hint));
    }
    let mut response = json(fault.code().http(), &body);
    let headers = response.headers_mut();
    if let Some(seconds) = fault.retry_after_seconds() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let InferError::WrongMethod { allow } = fault {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    response
}

/// Says which encodings a body may have, beside a refusal of one that it may not.
pub(super) fn with_accepted_encodings(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    response
}

/// The length of the JSON before binary tensors.
pub(super) const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// JSON and binary tensors behind it.
pub(super) fn with_tensors(json_length: usize, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(JSON_LENGTH, HeaderValue::from(json_length));
    response
}
