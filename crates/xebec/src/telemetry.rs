//! Traces of calls, sent over OTLP to the collector that the operator named.
//!
//! Who is asked or tells, on the I/O cores and between runs, never waits: what was told goes through a bounded channel to a
//! thread of its own ([`export`]), which makes spans of it and sends them; what does not fit is dropped and counted. Not
//! here: what a call leaves behind (`xebec_core::trace`), how a caller changes settings (`xebec-serve`).
use settings::{Kept, Scope};
use std::{
    io,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};
use xebec_core::{
    ModelName,
    metrics::Counter,
    trace::{CallTrace, Parent, RunTrace, SpanContext, TraceChanges, TraceSettings, Tracer},
};

mod encode;
mod endpoint;
mod export;
mod ids;
mod send;
mod settings;
mod spans;

pub use endpoint::Endpoint;

/// What was told may wait to be sent, so many calls and runs of it.
const WAITING: usize = 4096;

/// How long the last traces may take at the end.
const LAST_TRACES: Duration = Duration::from_secs(2);

/// Where traces go, and as whose.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// The collector.
    pub endpoint: Endpoint,
    /// One of so many calls, of those whose caller does not say.
    pub rate: u32,
    /// Attribute `service.name`.
    pub service_name: String,
    /// More attributes of the resource.
    pub resource: Vec<(String, String)>,
}

/// What became of the calls and runs that were told.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    /// Taken by the collector.
    pub(crate) exported: Counter,
    /// There was no room for them.
    pub(crate) dropped: Counter,
    /// The collector did not take them.
    pub(crate) failed: Counter,
}

/// A call or a run, with the span that it has.
#[derive(Debug)]
enum Told {
    Call(Box<CallTrace>),
    Run(Box<RunTrace>, SpanContext),
}

/// Decides what is traced, and passes on what is told.
#[derive(Debug)]
pub(crate) struct Telemetry {
    settings: Arc<Kept>,
    to: SyncSender<Told>,
    outcomes: Arc<Outcomes>,
}

/// The thread that sends.
#[derive(Debug)]
pub(crate) struct Exporter {
    /// Nothing is ever sent either way: the end of one tells the other.
    stop: SyncSender<()>,
    done: Receiver<()>,
    pub(crate) outcomes: Arc<Outcomes>,
}

/// Starts the thread that sends traces.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn start(config: &TraceConfig) -> io::Result<(Telemetry, Exporter)> {
    let start = TraceSettings { on: true, rate: config.rate, count: None, log_frequency: 0 };
    let (settings, outcomes) = (Arc::new(Kept::new(start)), Arc::new(Outcomes::default()));
    let ((to, from), (stop, stopped), (alive, done)) =
        (sync_channel(WAITING), sync_channel(0), sync_channel::<()>(0));
    let sender = send::to(&config.endpoint)?;
    let export = export::Export::new(config, sender, Arc::clone(&settings), Arc::clone(&outcomes));
    let work = move || {
        export.run(&from, &stopped);
        drop(alive);
    };
    std::thread::Builder::new().name("traces".into()).spawn(work)?;
    let telemetry = Telemetry { settings, to, outcomes: Arc::clone(&outcomes) };
    Ok((telemetry, Exporter { stop, done, outcomes }))
}

impl Exporter {
    /// Waits until the last traces are sent, once nobody is left who tells of any; a collector that is slow is not waited
    /// for.
    pub(crate) fn finish(self) {
        drop(self.stop);
        // Either way there is nothing more to be done.
        let _ = self.done.recv_timeout(LAST_TRACES);
    }
}

impl Telemetry {
    fn pass_on(&self, told: Told) {
        if self.to.try_send(told).is_err() {
            self.outcomes.dropped.add(1);
        }
    }
}

impl Tracer for Telemetry {
    fn sample(&self, model: &ModelName, parent: Option<&Parent>) -> Option<SpanContext> {
        let wins = |scope: &Scope| {
            let trace = match parent {
                Some(parent) => parent.sampled.then_some(parent.span.trace)?,
                None => ids::trace_of_one_in(scope.rate)?,
            };
            scope.take_one().then_some(trace)
        };
        let trace = self.settings.with(model, |scope| if scope.on { wins(scope) } else { None })?;
        Some(SpanContext { trace, span: ids::span() })
    }

    fn call(&self, call: CallTrace) {
        self.pass_on(Told::Call(Box::new(call)));
    }

    fn run(&self, run: RunTrace) -> SpanContext {
        let span = SpanContext { trace: ids::trace(), span: ids::span() };
        self.pass_on(Told::Run(Box::new(run), span));
        span
    }

    fn settings(&self, model: Option<&ModelName>) -> TraceSettings {
        self.settings.told(model)
    }

    fn apply(&self, model: Option<&ModelName>, changes: TraceChanges) -> Result<TraceSettings, String> {
        self.settings.apply(model, changes)
    }
}
