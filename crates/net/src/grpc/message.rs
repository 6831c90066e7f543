//! The request message of a call: length prefix, compression, limits, and the time it may take.
//!
//! # Source
//! gRPC over HTTP2, "Length-Prefixed-Message" and "Compression".
use crate::{
    body::{Encoding, ReadError},
    budget::Hold,
    conn::PROGRESS_BYTES,
    gather::{Excess, Gather},
    http2::Stream,
    reactor::Core,
    service::GrpcStatus,
};
use bytes::{Buf as _, Bytes};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use std::{future::poll_fn, time::Duration};
use tokio::time::Instant;
use xebec_core::Code;

pub(super) const PREFIX_BYTES: usize = 5;

pub(super) fn fail(code: Code, message: impl Into<String>) -> GrpcStatus {
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

/// Reads the stream to its end and takes the one message out of it. `peek` sees its beginning before the rest of a
/// message that comes in several frames is waited for.
pub(super) async fn read(
    stream: &Stream,
    encoding: Option<Encoding>,
    core: &Core,
    peek: impl FnOnce(&[u8]) -> Result<(), GrpcStatus>,
) -> Result<(Bytes, Hold), GrpcStatus> {
    let limit = core.limits.max_message_bytes;
    let mut gather = Gather::new(&core.budget, PREFIX_BYTES + limit, core.limits.max_body_pieces);
    let mut frames = Frames { stream, pace: Pace::new(core.limits.stall_timeout) };
    let Some(first) = frames.next().await? else {
        return Err(fail(Code::InvalidArgument, "the call has no message"));
    };
    let mut wanted = announced(&first, limit)?;
    let comes_in_parts = wanted.is_none_or(|wanted| first.len() < PREFIX_BYTES + wanted);
    if comes_in_parts && first.first() == Some(&0) {
        peek(first.get(PREFIX_BYTES..).unwrap_or_default())?;
    }
    // The rest may be long in coming: the buffer that a small beginning lies in is not kept for it.
    let small = comes_in_parts && first.len() < PROGRESS_BYTES;
    push(&mut gather, if small { Bytes::copy_from_slice(&first) } else { first }, limit)?;
    while let Some(frame) = frames.next().await? {
        push(&mut gather, frame, limit)?;
        wanted = announced(gather.start(), limit)?;
    }
    let (mut whole, mut hold) = gather.finish();
    match wanted {
        Some(wanted) if whole.len() == PREFIX_BYTES + wanted => {}
        Some(wanted) if whole.len() > PREFIX_BYTES + wanted => {
            return Err(fail(Code::Unsupported, "the method takes one message and got more"));
        }
        _ => return Err(fail(Code::InvalidArgument, "the message ends before its length")),
    }
    let compressed = whole.first() == Some(&1);
    whole.advance(PREFIX_BYTES);
    if compressed {
        whole = decompress(&whole, encoding, limit)?;
        hold.grow(whole.len()).map_err(|_| no_room())?;
    }
    Ok((whole, hold))
}

pub(super) fn push(gather: &mut Gather, frame: Bytes, limit: usize) -> Result<(), GrpcStatus> {
    gather.push(frame).map_err(|excess| match excess {
        Excess::Bytes => too_large(limit),
        Excess::Pieces => {
            fail(Code::InvalidArgument, "the message comes in too many pieces; send larger frames")
        }
        Excess::Room => no_room(),
    })
}

pub(super) fn no_room() -> GrpcStatus {
    fail(Code::Unavailable, "the requests being read and waiting fill the memory for them; try again")
}

/// The length in the prefix, once the prefix is there.
pub(super) fn announced(data: &[u8], limit: usize) -> Result<Option<usize>, GrpcStatus> {
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

/// How long a message may stand still. A frame that is there already costs no timer.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Duration,
    until: Option<Instant>,
    progress: usize,
}

impl Pace {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, until: None, progress: 0 }
    }

    /// When the stream is given up, if nothing more comes.
    pub(super) fn until(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + self.limit)
    }

    pub(super) fn moved(&mut self, bytes: usize) {
        // A byte now and then is no progress.
        self.progress += bytes;
        if self.progress >= PROGRESS_BYTES {
            (self.until, self.progress) = (None, 0);
        }
    }

    /// The status of one that was given up.
    pub(super) fn stood_still(&self) -> GrpcStatus {
        fail(Code::Cancelled, format!("the message stood still for {} s", self.limit.as_secs_f32()))
    }
}

struct Frames<'a> {
    stream: &'a Stream,
    pace: Pace,
}

impl Frames<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        if self.stream.is_read() {
            return Ok(None);
        }
        let Some(data) = self.frame().await? else { return Ok(None) };
        // What is in our hands counts against our own limits from here on, not against the caller's window.
        self.stream.release(data.len());
        self.pace.moved(data.len());
        Ok(Some(data))
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, GrpcStatus> {
        let ended = |_| fail(Code::Cancelled, "the stream ended early");
        let mut data = poll_fn(|cx| self.stream.poll_data(cx));
        if let Some(ready) = (&mut data).now_or_never() {
            return ready.transpose().map_err(ended);
        }
        match tokio::time::timeout_at(self.pace.until(), data).await {
            Ok(data) => data.transpose().map_err(ended),
            Err(_) => Err(self.pace.stood_still()),
        }
    }
}

pub(super) fn decompress(
    message: &[u8],
    encoding: Option<Encoding>,
    limit: usize,
) -> Result<Bytes, GrpcStatus> {
    let Some(encoding) = encoding else {
        return Err(fail(Code::InvalidArgument, "the message is compressed but grpc-encoding is not set"));
    };
    encoding.decompress(message, limit).map_err(|error| match error {
        ReadError::TooLarge { .. } => too_large(limit),
        other => fail(Code::InvalidArgument, other.to_string()),
    })
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
        assert_eq!(decompress(&packed, Some(Encoding::Gzip), 10).unwrap(), "hello");
        assert_eq!(decompress(&packed, None, 10).unwrap_err().code, 3);
        assert_eq!(decompress(&packed, Some(Encoding::Gzip), 4).unwrap_err().code, 8);
    }
}
