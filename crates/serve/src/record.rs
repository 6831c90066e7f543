//! Writing down how calls ended: metrics, and the access log as the binary formats it.
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use xebec_core::{Code, Principal, trace::SpanContext};

/// A protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

impl Protocol {
    /// Its name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// One call that ended.
#[derive(Clone, Copy, Debug)]
pub struct AccessEntry<'a> {
    /// Over which protocol.
    pub protocol: Protocol,
    /// Which verb, for example `infer`.
    pub verb: &'a str,
    /// The model, as the caller named it; shortened.
    pub model: &'a str,
    /// The version that answered; 0 if none did.
    pub version: u64,
    /// On whose behalf; empty if nobody was admitted.
    pub tenant: &'a str,
    /// Status of HTTP, also for gRPC, so that one query finds both.
    pub status: u16,
    /// The request's own mark; shortened.
    pub request_id: &'a str,
    /// The trace that the call belongs to: its own span or, of a call that is not traced, its caller's.
    pub span: Option<SpanContext>,
    /// Size of the request's body, in bytes.
    pub bytes_in: usize,
    /// Size of the answer's body, in bytes.
    pub bytes_out: usize,
    /// From the head read to the answer made.
    pub duration: Duration,
    /// Who called.
    pub principal: &'a Principal,
    /// The message of the error, if it was one.
    pub error: Option<&'a str>,
}

/// Takes note of calls. Must not block: it runs on the I/O cores.
pub trait AccessLog: Send + Sync {
    /// Notes one call.
    fn record(&self, entry: &AccessEntry<'_>);
}

/// Counts failures for which there is no model to count them under.
#[derive(Debug, Default)]
pub struct Unrouted(Mutex<BTreeMap<u16, u64>>);

impl Unrouted {
    pub(crate) fn add(&self, code: Code) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(code.http()).or_insert(0) += 1;
    }

    /// Counts by status of HTTP.
    pub fn counts(&self) -> Vec<(u16, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(status, count)| (*status, *count)).collect()
    }
}
