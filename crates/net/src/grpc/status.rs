//! Status, trailers and deadlines of gRPC.
//!
//! # Source
//! gRPC over HTTP2, "Responses" and "Timeout".
use crate::{http2::hpack, service::GrpcStatus};
use http::HeaderMap;
use std::{fmt::Write as _, future::Future, time::Duration};
use tokio::time::Instant;
use xebec_core::Code;

/// The head of an answer that will have messages: status 200 and the content type, by their places in the table that all
/// peers know.
pub(super) const OK_HEAD: &[u8] = b"\x88\x0f\x10\x10application/grpc";

/// The end of an answer that went well.
pub(super) const OK_TRAILERS: &[u8] = b"\x00\x0bgrpc-status\x010";

/// The end of an answer with a status.
pub(super) fn trailers(status: &GrpcStatus) -> Vec<u8> {
    let mut block = Vec::new();
    hpack::put(&mut block, "grpc-status", itoa::Buffer::new().format(status.code).as_bytes());
    hpack::put(&mut block, "grpc-message", percent_encode(shortened(&status.message)).as_bytes());
    block
}

/// An answer that is nothing but a status.
pub(super) fn trailers_only(status: &GrpcStatus) -> Vec<u8> {
    let mut block = [OK_HEAD, &trailers(status)].concat();
    hpack::put(&mut block, "grpc-accept-encoding", b"identity,deflate,gzip");
    block
}

/// Clients refuse headers that are too long, and then nobody learns what was wrong.
const MESSAGE_BYTES: usize = 2048;

fn shortened(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MESSAGE_BYTES)).unwrap_or(message)
}

/// Printable ASCII but `%` goes as it is, every other byte as `%XX`.
fn percent_encode(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing into a String has no error to give.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// When the call's time is up, if its head says so.
pub(super) fn until(headers: &HeaderMap) -> Option<Instant> {
    let limit = timeout(headers.get("grpc-timeout")?.as_bytes())?;
    Instant::now().checked_add(limit)
}

/// Runs `work` until the call's time is up.
pub(super) async fn deadline<T, E>(
    until: Option<Instant>,
    work: impl Future<Output = Result<Result<T, GrpcStatus>, E>>,
) -> Result<Result<T, GrpcStatus>, E> {
    let Some(until) = until else { return work.await };
    // Nothing is begun for a caller whose time is up already.
    if until <= Instant::now() {
        return Ok(Err(deadline_exceeded()));
    }
    tokio::time::timeout_at(until, work).await.unwrap_or_else(|_| Ok(Err(deadline_exceeded())))
}

fn deadline_exceeded() -> GrpcStatus {
    GrpcStatus { code: Code::DeadlineExceeded.grpc(), message: "Deadline Exceeded".into() }
}

/// At most eight digits and a unit. Nonsense counts as no deadline, as it does for gRPC's own servers.
fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_header_they_travel_in() {
        assert_eq!(percent_encode("input 'x' has 50% ü\n"), "input 'x' has 50%25 %C3%BC%0A");
    }

    #[test]
    fn a_long_message_is_cut_to_what_clients_take_in_a_header() {
        assert_eq!(shortened("short"), "short");
        let long = "ü".repeat(MESSAGE_BYTES);
        assert_eq!(shortened(&long).len(), MESSAGE_BYTES);
        assert!(percent_encode(shortened(&long)).len() < 8000);
    }

    #[test]
    fn timeouts_are_read_in_every_unit_and_nonsense_is_none() {
        assert_eq!(timeout(b"2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout(b"99999999u"), Some(Duration::from_micros(99_999_999)));
        for bad in [&b""[..], b"S", b"1", b"123456789S", b"-1S", b"1x"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }
}
