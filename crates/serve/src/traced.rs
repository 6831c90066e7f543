//! What of the trace of a call the protocols know: its parent by the caller's headers, and its story when it has ended.
//!
//! # Source
//! W3C, "Trace Context"; over gRPC the same names are metadata.
use crate::{
    call::{Record, Routed, Spent},
    record::Protocol,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::{sync::Arc, time::Instant};
use xebec_core::{
    InferError,
    trace::{CallTrace, Entry, Failure, Moments, Parent, SpanContext, Traced},
};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest message of an error that goes into a trace.
const MESSAGE_BYTES: usize = 256;

/// The span that a call is made from; two of them are as good as none.
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut all = headers.get_all(TRACEPARENT).iter();
    let parent = Parent::parse(all.next()?.as_bytes())?;
    let states = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes);
    all.next().is_none().then(|| parent.with_state(states))
}

impl Record<'_> {
    /// Reads what the caller says of its trace, if anybody wants to know.
    pub(crate) fn note_parent(&mut self, headers: &HeaderMap) {
        let parts = &self.service.0;
        if parts.tracer.is_some() || parts.access_log.is_some() {
            self.parent = parent(headers);
        }
    }

    /// Decides whether the call is traced, now that its model is found.
    pub(crate) fn begin_trace(&mut self, routed: &Routed<'_>) -> Option<Arc<Traced>> {
        let tracer = self.service.0.tracer.as_ref()?;
        let info = routed.upstream.info();
        let span = tracer.sample(&info.name, self.parent.as_ref())?;
        let (parent, tracer) = (self.parent.clone(), Arc::clone(tracer));
        self.traced = Some(Arc::new(Traced { span, parent, at: Instant::now(), tracer }));
        self.traced.clone()
    }

    /// The trace that the call belongs to, for lines of a log: its own span or, of a call that is not traced, its caller's.
    pub(crate) fn span(&self) -> Option<SpanContext> {
        let own = self.traced.as_ref().map(|traced| traced.span);
        own.or_else(|| self.parent.as_ref().map(|parent| parent.span))
    }

    /// Tells how a traced call went.
    pub(crate) fn tell(&self, spent: Option<&Spent>, bytes_out: usize, error: Option<&InferError>) {
        let (Some(traced), Some(routed)) = (&self.traced, &self.routed) else { return };
        let info = routed.upstream.info();
        let message = |error: &InferError| {
            let mut text = error.to_string();
            text.truncate(text.floor_char_boundary(MESSAGE_BYTES));
            text
        };
        traced.tracer.call(CallTrace {
            traced: Arc::clone(traced),
            entry: match (self.protocol, self.streamed) {
                (Protocol::Http, _) => Entry::Http,
                (Protocol::Grpc, false) => Entry::Unary,
                (Protocol::Grpc, true) => Entry::Streamed,
            },
            model: info.name.clone(),
            version: info.version,
            tenant: routed.permit.tenant().clone(),
            principal: self.principal.clone(),
            request_id: self.shortened_id().to_owned(),
            rows: spent.map(|spent| spent.rows),
            bytes_in: self.bytes_in,
            bytes_out,
            failure: error.map(|error| Failure { code: error.code(), message: message(error) }),
            moments: Moments {
                started: self.started,
                received: self.received,
                decoded: self.decoded,
                timings: spent.map(|spent| spent.timings),
                answered: spent.map(|spent| spent.answered),
                done: spent.map_or_else(Instant::now, |spent| spent.done),
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_parent_is_read_of_the_headers_and_of_two_neither_is_believed() {
        let mut headers = HeaderMap::new();
        assert_eq!(parent(&headers), None);
        headers.append(TRACEPARENT, HeaderValue::from_static(ONE));
        headers.append(TRACESTATE, HeaderValue::from_static("a=1"));
        headers.append(TRACESTATE, HeaderValue::from_static("b=2"));
        let read = parent(&headers).unwrap();
        assert_eq!((read.sampled, read.state.as_deref()), (true, Some("a=1,b=2")));
        headers.append(TRACEPARENT, HeaderValue::from_static(ONE));
        assert_eq!(parent(&headers), None);
    }
}
