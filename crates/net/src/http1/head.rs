//! A request's head: from bytes to what it asks for, how its body is framed, and whether another request may follow.
//!
//! httparse reads the syntax; here is everything that it and others let through and two readers could understand
//! differently. A pure function of a head that [`Scan`](super::scan::Scan) has found the end of.
//!
//! # Source
//! RFC 9112, sections 2.2, 3, 5, 6 and 9; RFC 9110, sections 5.5, 7.2 and 10.1.1.
use super::{chunk::Chunks, refusal::Refusal, target};
use crate::hosts::Authority;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, request::Parts};
use std::mem::MaybeUninit;

/// The most headers that can be asked for as a limit.
const MOST_HEADERS: usize = 256;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By its length; 0 also where there is no body.
    Length(u64),
    /// By its last chunk.
    Chunked(Chunks),
}

/// A head that was understood.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    pub(crate) framing: Framing,
    /// The caller wants no other request on this connection.
    pub(crate) last: bool,
    /// HTTP/1.0, which needs to be told that the connection goes on.
    pub(crate) old: bool,
    /// The caller waits for a word before it sends the body.
    pub(crate) asks_first: bool,
}

/// Reads a head whose lines are all there, with the empty one.
///
/// # Errors
/// It is none, or could be understood in two ways.
pub(crate) fn read(bytes: &Bytes, most_headers: usize) -> Result<Head, Refusal> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let room = room.get_mut(..most_headers.min(MOST_HEADERS)).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let status = request
        .parse_with_uninit_headers(bytes, room)
        .map_err(|error| refusal(error, bytes, most_headers))?;
    if status != httparse::Status::Complete(bytes.len()) {
        return Err(Refusal::LineEnd);
    }
    let old = request.version == Some(0);
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| Refusal::RequestLine)?;
    let uri = target::read(&bytes.slice_ref(target.as_bytes()), &method)?;
    let mut said = Said::default();
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for line in request.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Refusal::Header)?;
        said.take(&name, line.value)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value));
        headers.append(name, value.map_err(|_| Refusal::Header)?);
    }
    said.host(old, uri.authority().map(http::uri::Authority::as_str))?;
    let framing = said.framing(old)?;
    let asks_first = said.expects && !old && framing != Framing::Length(0);
    let last = said.close || (old && !said.keep_alive);
    let mut parts = Request::new(()).into_parts().0;
    (parts.method, parts.uri, parts.headers) = (method, uri, headers);
    parts.version = if old { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    Ok(Head { parts, framing, last, old, asks_first })
}

/// What cannot be the beginning of a request is not waited for to its end.
///
/// # Errors
/// The first bytes are no request.
pub(crate) fn begins(bytes: &[u8]) -> Result<(), Refusal> {
    match bytes {
        [0x16, ..] => Err(Refusal::Tls),
        [b'\r' | b'\n', ..] => Err(Refusal::LineEnd),
        [byte, ..] if !byte.is_ascii_graphic() => Err(Refusal::NotHttp),
        _ => Ok(()),
    }
}

fn refusal(error: httparse::Error, bytes: &[u8], most_headers: usize) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::TooManyHeaders(most_headers),
        _ if bytes.starts_with(b"PRI * HTTP/2.0\r\n") => Refusal::Http2,
        httparse::Error::Version => Refusal::Version,
        httparse::Error::Token | httparse::Error::Status => Refusal::RequestLine,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => Refusal::Header,
        httparse::Error::NewLine => Refusal::LineEnd,
    }
}

/// What the headers say about the message itself.
#[derive(Debug, Default)]
struct Said<'a> {
    hosts: usize,
    host: &'a [u8],
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects: bool,
}

impl<'a> Said<'a> {
    fn take(&mut self, name: &HeaderName, value: &'a [u8]) -> Result<(), Refusal> {
        if name == header::HOST {
            self.hosts += 1;
            self.host = value;
        } else if name == header::CONTENT_LENGTH {
            // Also two that agree: somebody between us and the caller has seen one of them alone.
            let again = self.length.replace(length(value)?).is_some();
            return if again { Err(Refusal::Length) } else { Ok(()) };
        } else if name == header::TRANSFER_ENCODING {
            if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::TransferEncoding);
            }
        } else if name == header::CONNECTION {
            for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name == header::EXPECT {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expect);
            }
            self.expects = true;
        }
        Ok(())
    }

    /// Which host is meant must be said once, and the same by the target if it says so too.
    fn host(&self, old: bool, by_target: Option<&str>) -> Result<(), Refusal> {
        match (self.hosts, old) {
            (0, true) => return Ok(()),
            (1, _) => {}
            _ => return Err(Refusal::Host),
        }
        let host = Authority::parse(self.host).ok_or(Refusal::Host)?;
        match by_target {
            Some(named) if Authority::parse(named.as_bytes()) != Some(host) => Err(Refusal::OtherHost),
            _ => Ok(()),
        }
    }

    fn framing(&self, old: bool) -> Result<Framing, Refusal> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::TwoFramings),
            // Whoever passed such a request on has not understood it.
            (true, None) if old => Err(Refusal::TransferEncoding),
            (true, None) => Ok(Framing::Chunked(Chunks::new())),
            (false, length) => Ok(Framing::Length(length.unwrap_or(0))),
        }
    }
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    let digits =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Refusal::Length)
}

#[cfg(test)]
mod tests;
