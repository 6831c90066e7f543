//! What is no request of HTTP/1.1 as this server reads it, and what its sender is told.
//!
//! Whatever two readers could understand differently is refused, and the connection ends with the refusal: nobody knows
//! where the next request begins.
use bytes::Bytes;
use http::StatusCode;
use std::fmt::Write as _;

/// Why a request is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a line of a request at all.
    #[error("this is not a request of HTTP/1.1")]
    NotHttp,
    /// The preface of HTTP/2.
    #[error("this port speaks HTTP/1.1, not HTTP/2")]
    Http2,
    /// The first record of TLS.
    #[error("this port speaks HTTP without TLS")]
    Tls,
    /// Another version.
    #[error("only HTTP/1.1 and HTTP/1.0 are spoken here")]
    Version,
    /// A line that does not end in CR LF, or a CR elsewhere.
    #[error("a line of the head does not end in CR LF")]
    LineEnd,
    /// The first line.
    #[error("the request line is not a method, a path and HTTP/1.1 with one blank between them")]
    RequestLine,
    /// The target.
    #[error("the request's target is not a path that begins with '/'")]
    Target,
    /// A header line.
    #[error("a header is not a name, a colon and a value without control characters")]
    Header,
    /// More bytes than may be.
    #[error("the request's head is larger than the limit of {0} bytes")]
    HeadTooLarge(u32),
    /// More lines than may be.
    #[error("the request has more than {0} headers")]
    TooManyHeaders(usize),
    /// None, several, or no name of a host.
    #[error("the request has not exactly one Host header that names a host")]
    Host,
    /// The target and the header name different hosts.
    #[error("the request's target and its Host header name different hosts")]
    OtherHost,
    /// Not one whole number.
    #[error("the request's Content-Length is not one whole number of digits")]
    Length,
    /// Both framings.
    #[error("the request has both Transfer-Encoding and Content-Length")]
    TwoFramings,
    /// Not `chunked` alone.
    #[error("the request's Transfer-Encoding is not exactly 'chunked'")]
    TransferEncoding,
    /// Not `100-continue`.
    #[error("the request's Expect is not 100-continue")]
    Expect,
    /// A chunk's size.
    #[error("a chunk does not begin with its size in at most 16 hexadecimal digits")]
    ChunkSize,
    /// A chunk's end.
    #[error("a chunk does not end where its size says, in CR LF")]
    ChunkEnd,
    /// Extensions of chunks.
    #[error("the body's chunks have longer extensions than {0} bytes or ones that are no extensions")]
    ChunkExtension(usize),
    /// Lines behind the last chunk.
    #[error("the lines behind the last chunk are no headers, or more than {0} bytes")]
    Trailers(usize),
}

impl Refusal {
    /// The status of the answer.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::HeadTooLarge(_) | Self::TooManyHeaders(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version | Self::Http2 => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// What to do about it, where something can be done.
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Http2 => Some("send HTTP/1.1; gRPC has a port of its own, --grpc-port"),
            Self::Tls => Some("use http://, or a proxy that ends TLS before this port"),
            Self::HeadTooLarge(_) => Some("the operator can raise the limit with --max-header-bytes"),
            Self::Length | Self::TwoFramings | Self::TransferEncoding => {
                Some("send the body with one Content-Length, or with 'Transfer-Encoding: chunked' alone")
            }
            _ => None,
        }
    }

    /// The JSON that says so.
    pub(crate) fn body(self) -> Bytes {
        body(&self.to_string(), self.hint())
    }
}

/// What the network side itself has to say. No text of ours needs escaping.
pub(crate) fn body(error: &str, hint: Option<&str>) -> Bytes {
    let mut text = format!(r#"{{"error":"{error}""#);
    if let Some(hint) = hint {
        // Writing into a string has no error to give.
        let _ = write!(text, r#","hint":"{hint}""#);
    }
    text.push('}');
    text.into()
}
