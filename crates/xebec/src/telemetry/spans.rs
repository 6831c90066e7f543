//! Calls and runs as spans.
//!
//! A call is a span of kind server with a child for each phase. The phases lie end to end: each begins where the one before
//! it ended, the first where the call began, and of a call that was answered the last ends where the call did. A run is a
//! span in a trace of its own, with links to the calls that were in it; a call's phase `compute_infer` links back.
//!
//! # Source
//! OpenTelemetry, "Trace Data Model"; semantic conventions for HTTP and RPC server spans.
use super::{Told, ids};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xebec_core::{
    Code, Principal,
    trace::{CallTrace, Entry, RunTrace, SpanContext, SpanId, Traced},
};
use xebec_net::wire::otlp::{
    AnyValue, KeyValue, Link, Span, Status, any_value::Value, span::Kind, status::Code as StatusCode,
};

#[cfg(test)]
mod tests;

/// Most links of a span.
const MOST_LINKS: usize = 128;

/// W3C's flag of a sampled trace.
const SAMPLED: u32 = 0x1;
/// OTLP's flags of whose span the parent is: that it is known, and that it is another process's.
const KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

const SERVICE: &str = "inference.GRPCInferenceService";
const ROUTE: &str = "/v2/models/{model}/infer";

/// Where the clock of spans stands against the one that instants are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    instant: Instant,
    since_epoch: Duration,
}

impl Clock {
    pub(super) fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), since_epoch }
    }

    fn nanoseconds(&self, at: Instant) -> u64 {
        let then = match at.checked_duration_since(self.instant) {
            Some(later) => self.since_epoch.saturating_add(later),
            None => self.since_epoch.saturating_sub(self.instant - at),
        };
        u64::try_from(then.as_nanos()).unwrap_or(u64::MAX)
    }
}

pub(super) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

pub(super) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn link(to: SpanContext) -> Link {
    Link {
        trace_id: to.trace.bytes().to_vec().into(),
        span_id: to.span.bytes().to_vec().into(),
        flags: SAMPLED | KNOWN,
    }
}

/// The spans of what was told.
pub(super) fn of(told: &Told, clock: &Clock, to: &mut Vec<Span>) {
    match told {
        Told::Call(call) => {
            to.push(root(call, clock));
            children(call, clock, to);
        }
        Told::Run(run, span) => to.push(batch(run, *span, clock)),
    }
}

fn span(of: SpanContext, name: impl Into<String>, kind: Kind, (from, to): (u64, u64)) -> Span {
    Span {
        trace_id: of.trace.bytes().to_vec().into(),
        span_id: of.span.bytes().to_vec().into(),
        name: name.into(),
        kind: kind.into(),
        start_time_unix_nano: from,
        end_time_unix_nano: to.max(from),
        flags: SAMPLED | KNOWN,
        ..Span::default()
    }
}

fn root(call: &CallTrace, clock: &Clock) -> Span {
    let Traced { span: own, parent, .. } = &*call.traced;
    let times = (clock.nanoseconds(call.moments.started), clock.nanoseconds(call.moments.done));
    let (name, mut attributes, status_code) = protocol(call);
    attributes.extend(facts(call));
    let failure = call.failure.as_ref();
    if let Some(failure) = failure {
        attributes.push(text("error.type", status_code.to_string()));
        attributes.push(text("xebec.error.message", &failure.message));
    }
    let mut root = span(*own, name, Kind::Server, times);
    root.status = failure
        .filter(|failure| is_ours(call.entry, failure.code))
        .map(|failure| Status { message: failure.message.clone(), code: StatusCode::Error.into() });
    root.attributes = attributes;
    if let Some(parent) = parent {
        root.parent_span_id = parent.span.span.bytes().to_vec().into();
        root.trace_state = parent.state.as_deref().unwrap_or_default().to_owned();
        root.flags |= REMOTE;
    }
    root
}

/// Whether a failure is the server's own by the semantic conventions: of the caller's faults the span says nothing.
fn is_ours(entry: Entry, code: Code) -> bool {
    match entry {
        Entry::Http => code.http() >= 500,
        Entry::Unary | Entry::Streamed => matches!(code.grpc(), 2 | 4 | 12..=15),
    }
}

/// Name, attributes and status by the conventions of the call's protocol.
fn protocol(call: &CallTrace) -> (String, Vec<KeyValue>, u16) {
    let code = call.failure.as_ref().map(|failure| failure.code);
    if call.entry == Entry::Http {
        let status = match code {
            // nginx's number for a caller that has gone.
            Some(Code::Cancelled) => 499,
            Some(code) => code.http(),
            None => 200,
        };
        let attributes = vec![
            text("http.request.method", "POST"),
            text("http.route", ROUTE),
            text("url.scheme", "http"),
            number("http.response.status_code", status),
        ];
        return (format!("POST {ROUTE}"), attributes, status);
    }
    let method = if call.entry == Entry::Streamed { "ModelStreamInfer" } else { "ModelInfer" };
    let status = code.map_or(0, Code::grpc).into();
    let attributes = vec![
        text("rpc.system", "grpc"),
        text("rpc.service", SERVICE),
        text("rpc.method", method),
        number("rpc.grpc.status_code", status),
    ];
    (format!("{SERVICE}/{method}"), attributes, status)
}

/// What there is to know of a call over any protocol.
fn facts(call: &CallTrace) -> Vec<KeyValue> {
    let Principal::Anonymous { peer } = &call.principal;
    let mut facts = vec![
        text("client.address", peer.ip().to_string()),
        number("client.port", peer.port()),
        text("xebec.model.name", call.model.as_str()),
        number("xebec.model.version", call.version.get()),
        text("xebec.tenant", call.tenant.as_str()),
        number("xebec.request.bytes", call.bytes_in),
        number("xebec.response.bytes", call.bytes_out),
    ];
    if let Some(rows) = call.rows {
        facts.push(number("xebec.request.rows", rows));
    }
    if call.moments.timings.is_some_and(|timings| timings.cached) {
        facts.push(attribute("xebec.response.cached", Value::BoolValue(true)));
    }
    if !call.request_id.is_empty() {
        facts.push(text("xebec.request.id", &call.request_id));
    }
    facts
}

/// Phases by their ends, in their order.
fn phases(call: &CallTrace) -> Vec<(&'static str, Instant)> {
    let moments = &call.moments;
    let mut phases = vec![("route", call.traced.at)];
    phases.extend(moments.received.filter(|_| call.entry == Entry::Http).map(|at| ("read", at)));
    let Some((timings, answered)) = moments.timings.zip(moments.answered) else {
        phases.extend(moments.decoded.map(|at| ("decode", at)));
        return phases;
    };
    if let Some(began) = timings.began {
        let gathered = began + timings.compute_input;
        let ran = gathered + timings.compute_infer;
        phases.extend([
            ("decode", began.checked_sub(timings.queue).unwrap_or(began)),
            ("queue", began),
            ("compute_input", gathered),
            ("compute_infer", ran),
            ("compute_output", ran + timings.compute_output),
        ]);
    } else {
        phases.extend(moments.decoded.map(|at| ("decode", at)));
    }
    phases.extend([("deliver", answered), ("encode", moments.done)]);
    phases
}

fn children(call: &CallTrace, clock: &Clock, to: &mut Vec<Span>) {
    let SpanContext { trace, span: parent } = call.traced.span;
    let mut from = call.moments.started;
    for (name, end) in phases(call) {
        // Clocks of several cores may differ by a little; a phase takes no less than nothing.
        let end = end.clamp(from, call.moments.done.max(from));
        let own = SpanContext { trace, span: ids::span() };
        let times = (clock.nanoseconds(from), clock.nanoseconds(end));
        let mut child = Span { parent_span_id: id(parent), ..span(own, name, Kind::Internal, times) };
        if let ("compute_infer", Some(run)) = (name, call.moments.timings.and_then(|timings| timings.run)) {
            child.links.push(link(run));
        }
        to.push(child);
        from = end;
    }
}

fn id(span: SpanId) -> bytes::Bytes {
    span.bytes().to_vec().into()
}

fn batch(run: &RunTrace, own: SpanContext, clock: &Clock) -> Span {
    let took = run.timings.compute_input + run.timings.compute_infer + run.timings.compute_output;
    let times = (clock.nanoseconds(run.began), clock.nanoseconds(run.began + took));
    let microseconds = |time: Duration| time.as_micros();
    let mut batch = span(own, "batch", Kind::Internal, times);
    batch.attributes = vec![
        text("xebec.model.name", run.model.as_str()),
        number("xebec.model.version", run.version.get()),
        number("xebec.batch.rows", run.rows),
        number("xebec.batch.requests", run.requests),
        number("xebec.batch.compute_input_us", microseconds(run.timings.compute_input)),
        number("xebec.batch.compute_infer_us", microseconds(run.timings.compute_infer)),
        number("xebec.batch.compute_output_us", microseconds(run.timings.compute_output)),
    ];
    batch.links = run.calls.iter().take(MOST_LINKS).copied().map(link).collect();
    batch.dropped_links_count = u32::try_from(run.calls.len().saturating_sub(MOST_LINKS)).unwrap_or(u32::MAX);
    batch.status = run.failure.clone().map(|message| Status { message, code: StatusCode::Error.into() });
    batch
}
