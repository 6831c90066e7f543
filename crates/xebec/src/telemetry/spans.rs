//! Calls and runs as spans.
//!
//! A call is a span of kind server with a child for each phase. The phases lie end to end: each begins where the one before
//! it ended, the first where the call began, and of a call that was answered the last ends where the call did. A run is a
//! span in a trace of its own, with links to the calls that were in it; a call's phase `compute_infer` links back.
//!
//! # Source
//! OpenTelemetry, "Trace Data Model"; semantic conventions for HTTP and RPC server spans.
use super::{Told, encode::Writer, ids};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use xebec_core::{
    Code, Principal,
    trace::{CallTrace, Entry, RunTrace, SpanContext, Traced},
};

#[cfg(test)]
mod tests;

/// Most phases of a call.
const MOST_PHASES: usize = 9;

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

/// Fields of a span.
mod field {
    pub(super) const TRACE_STATE: u64 = 3;
    pub(super) const ATTRIBUTES: u64 = 9;
    pub(super) const LINKS: u64 = 13;
    pub(super) const DROPPED_LINKS: u64 = 14;
    pub(super) const STATUS: u64 = 15;
}

/// Kinds of spans, by number.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;

/// A span that failed, by number.
const ERROR: u64 = 2;

fn link(span: &mut Writer, to: SpanContext) {
    span.message(field::LINKS, |link| {
        link.bytes(1, &to.trace.bytes());
        link.bytes(2, &to.span.bytes());
        link.fixed32(6, SAMPLED | KNOWN);
    });
}

/// Writes the spans of what was told as field `number` of a message. Returns how many there are.
pub(super) fn of(told: &Told, clock: &Clock, number: u64, to: &mut Writer) -> usize {
    match told {
        Told::Call(call) => {
            to.message(number, |span| root(call, clock, span));
            1 + children(call, clock, number, to)
        }
        Told::Run(run, own) => {
            to.message(number, |span| batch(run, *own, clock, span));
            1
        }
    }
}

/// What every span has.
struct Head<'a> {
    of: SpanContext,
    parent: Option<SpanContext>,
    name: &'a str,
    kind: u64,
    times: (u64, u64),
    flags: u32,
}

impl Head<'_> {
    fn write(&self, to: &mut Writer) {
        let Self { of, parent, name, kind, times: (from, until), flags } = self;
        to.bytes(1, &of.trace.bytes());
        to.bytes(2, &of.span.bytes());
        if let Some(parent) = parent {
            to.bytes(4, &parent.span.bytes());
        }
        to.text(5, name);
        to.number(6, *kind);
        to.fixed64(7, *from);
        to.fixed64(8, *until.max(from));
        to.fixed32(16, SAMPLED | KNOWN | flags);
    }
}

fn status(span: &mut Writer, message: &str) {
    span.message(field::STATUS, |status| {
        status.text(2, message);
        status.number(3, ERROR);
    });
}

fn root(call: &CallTrace, clock: &Clock, to: &mut Writer) {
    let Traced { span: own, parent, .. } = &*call.traced;
    let times = (clock.nanoseconds(call.moments.started), clock.nanoseconds(call.moments.done));
    let head = Head {
        of: *own,
        parent: parent.as_ref().map(|parent| parent.span),
        name: name(call.entry),
        kind: SERVER,
        times,
        flags: if parent.is_some() { REMOTE } else { 0 },
    };
    head.write(to);
    to.text(
        field::TRACE_STATE,
        parent.as_ref().and_then(|parent| parent.state.as_deref()).unwrap_or_default(),
    );
    let code = protocol(call, to);
    facts(call, to);
    if let Some(failure) = &call.failure {
        to.text_attribute(field::ATTRIBUTES, "error.type", &code.to_string());
        to.text_attribute(field::ATTRIBUTES, "xebec.error.message", &failure.message);
        if is_ours(call.entry, failure.code) {
            status(to, &failure.message);
        }
    }
}

/// Whether a failure is the server's own by the semantic conventions: of the caller's faults the span says nothing.
fn is_ours(entry: Entry, code: Code) -> bool {
    match entry {
        Entry::Http => code.http() >= 500,
        Entry::Unary | Entry::Streamed => matches!(code.grpc(), 2 | 4 | 12..=15),
    }
}

/// A call's name by the conventions of its protocol.
fn name(entry: Entry) -> &'static str {
    match entry {
        Entry::Http => "POST /v2/models/{model}/infer",
        Entry::Unary => "inference.GRPCInferenceService/ModelInfer",
        Entry::Streamed => "inference.GRPCInferenceService/ModelStreamInfer",
    }
}

/// Attributes by the same conventions, and the status that is one of them.
fn protocol(call: &CallTrace, to: &mut Writer) -> u16 {
    let code = call.failure.as_ref().map(|failure| failure.code);
    if call.entry == Entry::Http {
        let status = match code {
            // nginx's number for a caller that has gone.
            Some(Code::Cancelled) => 499,
            Some(code) => code.http(),
            None => 200,
        };
        to.text_attribute(field::ATTRIBUTES, "http.request.method", "POST");
        to.text_attribute(field::ATTRIBUTES, "http.route", ROUTE);
        to.text_attribute(field::ATTRIBUTES, "url.scheme", "http");
        to.number_attribute(field::ATTRIBUTES, "http.response.status_code", status);
        return status;
    }
    let method = if call.entry == Entry::Streamed { "ModelStreamInfer" } else { "ModelInfer" };
    let status = code.map_or(0, Code::grpc).into();
    to.text_attribute(field::ATTRIBUTES, "rpc.system", "grpc");
    to.text_attribute(field::ATTRIBUTES, "rpc.service", SERVICE);
    to.text_attribute(field::ATTRIBUTES, "rpc.method", method);
    to.number_attribute(field::ATTRIBUTES, "rpc.grpc.status_code", status);
    status
}

/// What there is to know of a call over any protocol.
fn facts(call: &CallTrace, to: &mut Writer) {
    let Principal::Anonymous { peer } = &call.principal;
    to.text_attribute(field::ATTRIBUTES, "client.address", &peer.ip().to_string());
    to.number_attribute(field::ATTRIBUTES, "client.port", peer.port());
    to.text_attribute(field::ATTRIBUTES, "xebec.model.name", call.model.as_str());
    to.number_attribute(field::ATTRIBUTES, "xebec.model.version", call.version.get());
    to.text_attribute(field::ATTRIBUTES, "xebec.tenant", call.tenant.as_str());
    to.number_attribute(field::ATTRIBUTES, "xebec.request.bytes", call.bytes_in);
    to.number_attribute(field::ATTRIBUTES, "xebec.response.bytes", call.bytes_out);
    if let Some(rows) = call.rows {
        to.number_attribute(field::ATTRIBUTES, "xebec.request.rows", rows);
    }
    if call.moments.timings.is_some_and(|timings| timings.cached) {
        to.flag_attribute(field::ATTRIBUTES, "xebec.response.cached", true);
    }
    if !call.request_id.is_empty() {
        to.text_attribute(field::ATTRIBUTES, "xebec.request.id", &call.request_id);
    }
}

/// Phases by their ends, in their order.
fn phases(call: &CallTrace) -> Vec<(&'static str, Instant)> {
    let moments = &call.moments;
    let mut phases = Vec::with_capacity(MOST_PHASES);
    phases.push(("route", call.traced.at));
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

fn children(call: &CallTrace, clock: &Clock, number: u64, to: &mut Writer) -> usize {
    let parent = call.traced.span;
    let (mut from, phases) = (call.moments.started, phases(call));
    for (name, end) in &phases {
        // Clocks of several cores may differ by a little; a phase takes no less than nothing.
        let end = (*end).clamp(from, call.moments.done.max(from));
        let head = Head {
            of: SpanContext { trace: parent.trace, span: ids::span() },
            parent: Some(parent),
            name,
            kind: INTERNAL,
            times: (clock.nanoseconds(from), clock.nanoseconds(end)),
            flags: 0,
        };
        to.message(number, |child| {
            head.write(child);
            if let ("compute_infer", Some(run)) =
                (*name, call.moments.timings.and_then(|timings| timings.run))
            {
                link(child, run);
            }
        });
        from = end;
    }
    phases.len()
}

fn batch(run: &RunTrace, own: SpanContext, clock: &Clock, to: &mut Writer) {
    let took = run.timings.compute_input + run.timings.compute_infer + run.timings.compute_output;
    let times = (clock.nanoseconds(run.began), clock.nanoseconds(run.began + took));
    Head { of: own, parent: None, name: "batch", kind: INTERNAL, times, flags: 0 }.write(to);
    to.text_attribute(field::ATTRIBUTES, "xebec.model.name", run.model.as_str());
    to.number_attribute(field::ATTRIBUTES, "xebec.model.version", run.version.get());
    to.number_attribute(field::ATTRIBUTES, "xebec.batch.rows", run.rows);
    to.number_attribute(field::ATTRIBUTES, "xebec.batch.requests", run.requests);
    for (name, time) in [
        ("xebec.batch.compute_input_us", run.timings.compute_input),
        ("xebec.batch.compute_infer_us", run.timings.compute_infer),
        ("xebec.batch.compute_output_us", run.timings.compute_output),
    ] {
        to.number_attribute(field::ATTRIBUTES, name, time.as_micros());
    }
    run.calls.iter().take(MOST_LINKS).for_each(|call| link(to, *call));
    let dropped = run.calls.len().saturating_sub(MOST_LINKS);
    to.number(field::DROPPED_LINKS, dropped as u64);
    if let Some(message) = &run.failure {
        status(to, message);
    }
}
