use super::*;
use prost::Message as _;
use std::sync::Arc;
use xebec_core::{
    ModelName, TenantId, Timings, Version,
    trace::{Failure, Moments, Parent, TraceChanges, TraceSettings, Tracer},
};
use xebec_net::wire::otlp::{AnyValue, KeyValue, ScopeSpans, Span, any_value::Value};

struct Nobody;

impl Tracer for Nobody {
    fn sample(&self, _: &ModelName, _: Option<&Parent>) -> Option<SpanContext> {
        None
    }

    fn call(&self, _: CallTrace) {}

    fn run(&self, _: RunTrace) -> SpanContext {
        context()
    }

    fn settings(&self, _: Option<&ModelName>) -> TraceSettings {
        TraceSettings { on: false, rate: 1, count: None, log_frequency: 0 }
    }

    fn apply(&self, _: Option<&ModelName>, _: TraceChanges) -> Result<TraceSettings, String> {
        Err("nobody".into())
    }
}

fn context() -> SpanContext {
    SpanContext { trace: ids::trace(), span: ids::span() }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// A call over REST that began at `started` and took 100 ms.
fn call(started: Instant, timings: Option<Timings>) -> CallTrace {
    let at = |count| started + milliseconds(count);
    let traced = Traced { span: context(), parent: None, at: at(10), tracer: Arc::new(Nobody) };
    CallTrace {
        traced: Arc::new(traced),
        entry: Entry::Http,
        model: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        tenant: TenantId::default_tenant(),
        principal: Principal::Anonymous { peer: ([127, 0, 0, 1], 9).into() },
        request_id: String::new(),
        rows: timings.map(|_| 1),
        bytes_in: 0,
        bytes_out: 0,
        failure: None,
        moments: Moments {
            started,
            received: Some(at(20)),
            decoded: Some(at(30)),
            timings,
            answered: timings.map(|_| at(90)),
            done: at(100),
        },
    }
}

/// The spans of what was told, as a collector reads them.
fn read(told: &Told) -> Vec<Span> {
    let mut writer = Writer::default();
    let count = of(told, &Clock::now(), 2, &mut writer);
    let spans = ScopeSpans::decode(writer.into_bytes().as_slice()).unwrap().spans;
    assert_eq!(spans.len(), count);
    spans
}

/// Name and length in milliseconds of each phase; they lie end to end.
fn phases_of(call: CallTrace) -> Vec<(String, u64)> {
    let spans = read(&Told::Call(Box::new(call)));
    let (root, children) = spans.split_first().unwrap();
    let mut from = root.start_time_unix_nano;
    let phase = |child: &Span| {
        assert_eq!(child.start_time_unix_nano, from, "{}", child.name);
        from = child.end_time_unix_nano;
        assert!(from <= root.end_time_unix_nano, "{}", child.name);
        (child.name.clone(), (child.end_time_unix_nano - child.start_time_unix_nano) / 1_000_000)
    };
    children.iter().map(phase).collect()
}

fn named(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|(name, took)| ((*name).to_owned(), *took)).collect()
}

fn ran(began: Instant) -> Timings {
    Timings {
        queue: milliseconds(8),
        compute_input: milliseconds(1),
        compute_infer: milliseconds(20),
        compute_output: milliseconds(2),
        began: Some(began),
        ..Timings::default()
    }
}

#[test]
fn the_phases_of_an_answered_call_fill_it_from_its_begin_to_its_end() {
    let started = Instant::now();
    let want = named(&[
        ("route", 10),
        ("read", 10),
        ("decode", 12),
        ("queue", 8),
        ("compute_input", 1),
        ("compute_infer", 20),
        ("compute_output", 2),
        ("deliver", 27),
        ("encode", 10),
    ]);
    assert_eq!(phases_of(call(started, Some(ran(started + milliseconds(40))))), want);
}

#[test]
fn a_call_without_a_run_and_one_that_failed_have_the_phases_that_there_were() {
    let started = Instant::now();
    let kept = Timings { cached: true, ..Timings::default() };
    let want = named(&[("route", 10), ("read", 10), ("decode", 10), ("deliver", 60), ("encode", 10)]);
    assert_eq!(phases_of(call(started, Some(kept))), want);
    let mut failed = call(started, None);
    failed.failure = Some(Failure { code: Code::Unavailable, message: "full".into() });
    assert_eq!(phases_of(failed), named(&[("route", 10), ("read", 10), ("decode", 10)]));
}

#[test]
fn a_phase_takes_no_less_than_nothing_and_ends_no_later_than_its_call() {
    let started = Instant::now();
    // A run that seems to have begun before its request was read, and to have ended after its answer.
    for began in [started, started + milliseconds(95)] {
        let phases = phases_of(call(started, Some(ran(began))));
        assert_eq!(phases.len(), 9);
        assert!(phases.iter().map(|(_, took)| took).sum::<u64>() <= 100);
    }
}

#[test]
fn a_failure_is_an_error_of_the_span_only_if_it_is_the_servers() {
    for (entry, code, name, status, is_error) in [
        (Entry::Http, Code::Unavailable, "http.response.status_code", 503, true),
        (Entry::Http, Code::InvalidArgument, "http.response.status_code", 400, false),
        (Entry::Http, Code::Cancelled, "http.response.status_code", 499, false),
        (Entry::Unary, Code::Unavailable, "rpc.grpc.status_code", 14, true),
        (Entry::Streamed, Code::NotFound, "rpc.grpc.status_code", 5, false),
    ] {
        let failure = Some(Failure { code, message: "why".into() });
        let call = CallTrace { entry, failure, ..call(Instant::now(), None) };
        let root = read(&Told::Call(Box::new(call))).swap_remove(0);
        assert_eq!(root.status.is_some(), is_error, "{entry:?} {code:?}");
        let value = Some(AnyValue { value: Some(Value::IntValue(status)) });
        assert!(root.attributes.contains(&KeyValue { key: name.into(), value }), "{entry:?} {code:?}");
    }
}

#[test]
fn links_have_a_bound_and_those_left_out_are_counted() {
    let run = RunTrace {
        model: ModelName::parse("m").unwrap(),
        version: Version::FIRST,
        rows: 130,
        requests: 130,
        calls: (0..130).map(|_| context()).collect(),
        began: Instant::now(),
        timings: Timings::default(),
        failure: None,
    };
    let batch = read(&Told::Run(Box::new(run), context())).swap_remove(0);
    assert_eq!((batch.links.len(), batch.dropped_links_count), (128, 2));
}
