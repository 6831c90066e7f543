//! The infer verb over REST: headers, body, compression, and the record of how it ended.
use super::{
    answer::{self, JSON_LENGTH, error},
    request,
};
use crate::{
    Service,
    call::{Record, Spent, headers_for},
    classes,
    grpc::rows,
    memory::tensors::{Most, put},
    record::Protocol,
    tensor::json_out,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, request::Parts};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::Value;
use std::{collections::BTreeSet, fmt, time::Instant};
use xebec_core::{InferError, Principal, Verb};
use xebec_net::body::{Body, Encoding, ReadError, Received};

/// The flag that sets the limit of a body.
const FLAG: &str = "--http-max-input-size";

impl Service {
    pub(super) async fn infer(
        &self,
        principal: &Principal,
        model: &str,
        version: &str,
        head: &Parts,
        body: Body,
    ) -> Response<Bytes> {
        let mut record = Record::new(self, principal, Protocol::Http);
        record.model = model;
        record.note_parent(&head.headers);
        match self.infer_over_http(principal, version, head, body, &mut record).await {
            Ok((response, spent)) => {
                let bytes_out = response.body().len();
                record.succeed(&spent, bytes_out);
                response
            }
            Err(fault) => {
                let response = error(&fault, &record.id);
                record.fail(&fault);
                response
            }
        }
    }

    async fn infer_over_http<'a>(
        &self,
        principal: &Principal,
        version: &'a str,
        head: &Parts,
        body: Body,
        record: &mut Record<'a>,
    ) -> Result<(Response<Bytes>, Spent), InferError> {
        let routed = self.route_awake(principal, Verb::Infer, record.model, version).await?;
        let trace = record.begin_trace(&routed);
        let routed = record.routed.insert(routed);
        let (mut body, received) =
            whole(&head.headers, body, self.0.settings.max_body_bytes, &mut record.bytes_in).await?;
        record.received = Some(received);
        let json_length = json_length(&head.headers, body.len())?;
        let info = routed.upstream.info();
        let depth = self.0.settings.max_json_depth;
        let mut parsed = match json_length {
            Some(length) => request::parse(&body, length, info, depth, received, &mut record.id)?,
            None => request::raw(&body, info, received)?,
        };
        // Tensors of JSON are memory of their own; binary ones are views on the body.
        let whole = body.as_ptr_range();
        let inputs = parsed.request.inputs.iter().map(|tensor| &tensor.data);
        let own = inputs.filter(|data| !whole.contains(&data.as_ptr())).map(Bytes::len).sum();
        body.count(own).map_err(unreadable)?;
        let most = Most { bytes: self.0.settings.max_body_bytes, flag: FLAG };
        let memory = || self.memory_of_tensors(principal);
        let room = |bytes| body.count(bytes).map_err(unreadable);
        let places = parsed.shared.fetch(memory, &mut parsed.request, most, room)?;
        let rows = rows(&*routed.upstream, &parsed.request);
        parsed.request.trace = trace;
        parsed.request.headers = headers_for(&*routed.upstream, &head.headers);
        record.decoded = Some(Instant::now());
        classes::check(&parsed.classes, info)?;
        let mut response = self.run(routed, parsed.request).await?;
        let answered = Instant::now();
        let info = routed.upstream.info();
        classes::apply(&mut response, &parsed.classes, info, |output| routed.upstream.labels(output))?;
        let placed = put(&places, &mut response)?;
        let (bytes, split) = json_out::response(info, &record.id, &response, &parsed.binary, &placed)?;
        let mut response_http = match split {
            Some(json_length) => answer::with_tensors(json_length, bytes),
            None => answer::bytes(200, bytes),
        };
        compress(&head.headers, &mut response_http);
        // It waits for its caller from here on: who asks for more than there is room for is told so, and it is counted.
        body.count(response_http.body().len()).map_err(unreadable)?;
        let spent = Spent { rows, answered, done: Instant::now(), timings: response.timings };
        Ok((response_http, spent))
    }
}

/// Reads a body and decompresses it: what the caller sent, when it was there, and in `sent` its size on the wire.
async fn whole(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    sent: &mut usize,
) -> Result<(Received, Instant), InferError> {
    let encoding = content_encoding(headers)?;
    let body = body.read(limit).await.map_err(unreadable)?;
    let received = Instant::now();
    *sent = body.len();
    let body = match encoding {
        Some(encoding) => body.decompress(encoding, limit).map_err(unreadable)?,
        None => body,
    };
    Ok((body, received))
}

/// Most bytes of a body that only says what is wanted.
const OBJECT_BYTES: usize = 64 << 10;

/// Reads a body that is a small JSON object, or nothing. `what` it is for stands in the refusal of another.
pub(super) async fn object<T: Default + DeserializeOwned>(
    head: &Parts,
    body: Body,
    what: &str,
    example: &str,
) -> Result<T, InferError> {
    let object = object_within(head, body, OBJECT_BYTES, what, example).await;
    object.map_err(|fault| match fault {
        InferError::TooLarge { .. } => {
            InferError::invalid(format!("the body of {what} is larger than {OBJECT_BYTES} bytes"))
        }
        other => other,
    })
}

/// As [`object`], of up to `limit` bytes.
pub(super) async fn object_within<T: Default + DeserializeOwned>(
    head: &Parts,
    body: Body,
    limit: usize,
    what: &str,
    example: &str,
) -> Result<T, InferError> {
    let (body, _) = whole(&head.headers, body, limit, &mut 0).await?;
    let wrong = |reason: &dyn std::fmt::Display| {
        InferError::invalid_hint(format!("the body does not fit {what}: {reason}"), format!("send {example}"))
    };
    match body.trim_ascii() {
        [] => Ok(T::default()),
        text @ [b'{', ..] => serde_json::from_slice(text).map_err(|error| wrong(&error)),
        _ => Err(wrong(&"it is not a JSON object")),
    }
}

/// A JSON object whose names are each there once: of two, readers differ in which they take.
#[derive(Debug, Default)]
pub(super) struct Distinct(pub(super) Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
        let (mut seen, mut entries) = (BTreeSet::new(), Vec::new());
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if !seen.insert(name.clone()) {
                let name: String = name.chars().filter(|letter| !letter.is_control()).take(64).collect();
                return Err(A::Error::custom(format!("'{name}' is there twice")));
            }
            entries.push((name, value));
        }
        Ok(Distinct(entries))
    }
}

fn unreadable(fault: ReadError) -> InferError {
    match fault {
        ReadError::TooLarge { limit_bytes } => {
            InferError::TooLarge { what: "request body", limit_bytes: limit_bytes as u64, flag: FLAG }
        }
        ReadError::NoRoom => InferError::NoRoom,
        ReadError::TooManyPieces { .. } | ReadError::Broken(_) | ReadError::Corrupt { .. } => {
            InferError::invalid(fault.to_string())
        }
    }
}

pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Option<Encoding>, InferError> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(InferError::invalid_hint(
            "the body has several content encodings",
            "compress it once, with gzip or deflate",
        ));
    }
    let token = value.to_str().unwrap_or_default();
    if token.is_empty() || token.eq_ignore_ascii_case("identity") {
        return Ok(None);
    }
    Encoding::parse(token).map(Some).ok_or_else(|| InferError::Unsupported {
        what: format!("content encoding '{}' is not offered", token.chars().take(40).collect::<String>()),
        hint: Some("send the body plain, as gzip or as deflate".into()),
    })
}

/// Where the JSON ends and binary tensors begin; `None` for a raw binary request, which has no JSON.
fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, InferError> {
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(Some(body)) };
    if values.next().is_some() {
        return Err(InferError::invalid_hint(
            "the request has several headers Inference-Header-Content-Length",
            "send one: it is the size of the JSON at the body's start",
        ));
    }
    let text = value.to_str().unwrap_or_default();
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length: usize = digits.and_then(|text| text.parse().ok()).ok_or_else(|| {
        InferError::invalid(format!(
            "header Inference-Header-Content-Length is '{}', which is not a number of bytes",
            text.chars().take(40).collect::<String>()
        ))
    })?;
    if length == 0 {
        return Ok(None);
    }
    if length > body {
        return Err(InferError::invalid_hint(
            format!("header Inference-Header-Content-Length is {length}, but the body has {body} bytes"),
            "it is the size of the JSON at the body's start",
        ));
    }
    Ok(Some(length))
}

/// Compresses the answer if the caller takes it so.
fn compress(headers: &HeaderMap, response: &mut Response<Bytes>) {
    let Some(encoding) = accepted(headers) else { return };
    *response.body_mut() = encoding.compress(response.body());
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
}

/// The first encoding of `Accept-Encoding` that is ours and not refused by `q=0`.
///
/// # Source
/// RFC 9110, section 12.5.3. Order stands for preference where qualities are equal; no client known sends others.
fn accepted(headers: &HeaderMap) -> Option<Encoding> {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).find_map(|offer| {
        let (token, quality) = offer.split_once(';').unwrap_or((offer, ""));
        let refused =
            quality.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()) == Some(0.0);
        Encoding::parse(token).filter(|_| !refused)
    })
}
