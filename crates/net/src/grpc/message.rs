//! The one request message of a call: length prefix, compression, limits.
//!
//! # Source
//! gRPC over HTTP2, "Length-Prefixed-Message" and "Compression".
use crate::{
    body::{Encoding, ReadError},
    budget::Hold,
    reactor::Core,
    service::GrpcStatus,
};
use bytes::{Buf as _, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, HeaderValue};
use std::rc::Rc;
use xebec_core::Code;

const PREFIX_BYTES: usize = 5;

fn fail(code: Code, message: impl Into<String>) -> GrpcStatus {
    GrpcStatus { code: code.grpc(), message: message.into() }
}

/// The compression that the caller announces.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Option<Encoding>, GrpcStatus> {
    let token = headers.get("grpc-encoding").map(HeaderValue::as_bytes).unwrap_or(b"identity");
    match std::str::from_utf8(token) {
        Ok("identity") => Ok(None),
        Ok(token) if Encoding::parse(token).is_some() => Ok(Encoding::parse(token)),
        _ => Err(fail(Code::Unsupported, "grpc-encoding is not one of identity, deflate, gzip")),
    }
}

/// Reads the stream to its end and takes the one message out of it.
pub(super) async fn read(
    mut body: RecvStream,
    encoding: Option<Encoding>,
    core: &Core,
) -> Result<Bytes, GrpcStatus> {
    let limit = core.limits.max_message_bytes;
    let Some(first) = next(&mut body).await? else {
        return Err(fail(Code::InvalidArgument, "the call has no message"));
    };
    let wanted = PREFIX_BYTES + announced(&first, limit)?.unwrap_or(0);
    // Almost every message comes in one frame and stays the view on the connection's buffer that it is.
    let mut whole = first;
    if whole.len() < PREFIX_BYTES || whole.len() < wanted {
        whole = gather(whole, &mut body, core).await?;
    }
    let wanted = PREFIX_BYTES + announced(&whole, limit)?.unwrap_or(0);
    if whole.len() < wanted || whole.len() < PREFIX_BYTES {
        return Err(fail(Code::InvalidArgument, "the message ends before its length"));
    }
    if whole.len() > wanted || (!body.is_end_stream() && next(&mut body).await?.is_some()) {
        return Err(fail(Code::Unsupported, "the method takes one message and got more"));
    }
    let compressed = whole.first() == Some(&1);
    whole.advance(PREFIX_BYTES);
    decompress(whole, compressed, encoding, limit)
}

/// The length in the prefix, once the prefix is there.
fn announced(data: &[u8], limit: usize) -> Result<Option<usize>, GrpcStatus> {
    let Some(([flag, length @ ..], _)) = data.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    if *flag > 1 {
        return Err(fail(Code::InvalidArgument, "the message's compression flag is neither 0 nor 1"));
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > limit { Err(too_large(limit)) } else { Ok(Some(length)) }
}

fn too_large(limit: usize) -> GrpcStatus {
    fail(
        Code::TooLarge,
        format!(
            "request message is larger than the limit of {limit} bytes; the operator can raise it with --grpc-max-message-size"
        ),
    )
}

async fn gather(first: Bytes, body: &mut RecvStream, core: &Core) -> Result<Bytes, GrpcStatus> {
    let limit = core.limits.max_message_bytes;
    let mut hold = Hold::new(Rc::clone(&core.budget));
    let mut whole = BytesMut::new();
    let mut pieces = 0;
    let mut piece = Some(first);
    while let Some(data) = piece {
        pieces += 1;
        if pieces > core.limits.max_body_pieces {
            return Err(fail(
                Code::InvalidArgument,
                "the message comes in too many pieces; send larger frames",
            ));
        }
        if whole.len() + data.len() > PREFIX_BYTES + limit {
            return Err(too_large(limit));
        }
        if hold.grow(data.len()).is_err() {
            return Err(fail(
                Code::Unavailable,
                "the server is reading as many messages as it has memory for",
            ));
        }
        whole.extend_from_slice(&data);
        announced(&whole, limit)?;
        piece = next(body).await?;
    }
    Ok(whole.freeze())
}

async fn next(body: &mut RecvStream) -> Result<Option<Bytes>, GrpcStatus> {
    loop {
        let Some(data) = body.data().await else { return Ok(None) };
        let data = data.map_err(|_| fail(Code::Cancelled, "the stream ended early"))?;
        // What is in our hands counts against our own limits from here on, not against the caller's window.
        if body.flow_control().release_capacity(data.len()).is_err() {
            return Err(fail(Code::Internal, "flow control failed"));
        }
        if !data.is_empty() {
            return Ok(Some(data));
        }
    }
}

fn decompress(
    message: Bytes,
    compressed: bool,
    encoding: Option<Encoding>,
    limit: usize,
) -> Result<Bytes, GrpcStatus> {
    match (compressed, encoding) {
        (false, _) => Ok(message),
        (true, None) => {
            Err(fail(Code::InvalidArgument, "the message is compressed but grpc-encoding is not set"))
        }
        (true, Some(encoding)) => encoding.decompress(&message, limit).map_err(|error| match error {
            ReadError::TooLarge { .. } => too_large(limit),
            other => fail(Code::InvalidArgument, other.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_prefix_alone() {
        assert_eq!(announced(&[0, 0, 0, 0], 10), Ok(None));
        assert_eq!(announced(&[0, 0, 0, 0, 10], 10), Ok(Some(10)));
        assert_eq!(announced(&[0, 0, 0, 0, 11], 10).unwrap_err().code, 8);
        assert_eq!(announced(&[0, 255, 255, 255, 255], 10).unwrap_err().code, 8);
        assert_eq!(announced(&[2, 0, 0, 0, 1], 10).unwrap_err().code, 3);
    }

    #[test]
    fn a_compressed_message_needs_an_announced_compression() {
        let packed = Encoding::Gzip.compress(b"hello");
        assert_eq!(decompress(packed.clone(), true, Some(Encoding::Gzip), 10).unwrap(), "hello");
        assert_eq!(decompress(packed.clone(), true, None, 10).unwrap_err().code, 3);
        assert_eq!(decompress(packed, true, Some(Encoding::Gzip), 4).unwrap_err().code, 8);
    }
}
