//! Sending a request of OTLP to a collector, over gRPC or HTTP.
//!
//! # Source
//! OpenTelemetry Protocol 1.x, "OTLP/gRPC Response" and "OTLP/HTTP Response": which failures may be tried again.
use super::Endpoint;
use bytes::Bytes;
use prost::Message as _;
use std::{io, time::Duration};
use xebec_net::wire::otlp::{ExportTraceServiceResponse, PartialSuccess};

mod grpc;
mod http;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Most bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;

/// Why a collector did not take a request.
#[derive(Debug)]
pub(super) enum Fault {
    /// It may take it later.
    Later {
        /** The wait that it asks for. */
        after: Option<Duration>,
        /** For the log. */
        why: String,
    },
    /// It will not take it.
    Never {
        /** For the log. */
        why: String,
    },
}

impl Fault {
    fn later(why: impl Into<String>) -> Self {
        Self::Later { after: None, why: why.into() }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Later { why, .. } | Self::Never { why } => why,
        }
    }
}

/// A way to a collector.
pub(super) trait Send {
    /// Sends a request; what the collector did not take of it, if it says so.
    fn send(&mut self, request: Bytes) -> Result<Option<PartialSuccess>, Fault>;
}

/// The way to a collector. It need not be there yet.
pub(super) fn to(endpoint: &Endpoint) -> io::Result<Box<dyn Send + std::marker::Send>> {
    Ok(match endpoint {
        Endpoint::Grpc(authority) => Box::new(grpc::Grpc::new(authority)?),
        Endpoint::Http(url) => Box::new(http::Http::new(url)),
    })
}

/// What a collector answered. An answer that cannot be read is one all the same.
fn partial(answer: &[u8]) -> Option<PartialSuccess> {
    let partial = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
    (partial.rejected_spans > 0).then_some(partial)
}
