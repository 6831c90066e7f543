//! The thread that makes spans of what was told and sends them, many at a time.
//!
//! A batch leaves when it is large, when it is old, or when as many calls wait as the settings ask for. The thread looks
//! into the channel now and then, so that nobody who tells has to wake it. A batch that the collector does not take is tried again a few times, ever later, and then dropped and counted; what is told meanwhile
//! waits in the channel, and what does not fit there is dropped and counted too. So the memory of it all has a bound.
use super::{
    Outcomes, Told, TraceConfig,
    encode::Writer,
    send::{Fault, Send},
    settings::Kept,
    spans::{self, Clock},
};
use bytes::Bytes;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// Field `spans` of ScopeSpans.
const SPANS: u64 = 2;

/// A batch of so many spans leaves at once.
const FULL_SPANS: usize = 2048;

/// And one that is so old.
const OLD: Duration = Duration::from_secs(1);

/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(50);

/// How often a batch is tried.
const ATTEMPTS: u32 = 5;

/// The wait after the first attempt; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait, also if the collector asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// What the thread works with.
pub(super) struct Export {
    /// Field `resource` of ResourceSpans.
    resource: Vec<u8>,
    sender: Box<dyn Send + std::marker::Send>,
    settings: Arc<Kept>,
    outcomes: Arc<Outcomes>,
    failing: bool,
}

/// Spans that leave together, and of how many calls and runs they are.
#[derive(Default)]
struct Batch {
    /// As fields of ScopeSpans.
    spans: Writer,
    count: usize,
    told: u64,
    calls: u32,
}

impl Export {
    pub(super) fn new(
        config: &TraceConfig,
        sender: Box<dyn Send + std::marker::Send>,
        settings: Arc<Kept>,
        outcomes: Arc<Outcomes>,
    ) -> Self {
        let mut resource = Writer::default();
        resource.message(1, |resource| {
            resource.text_attribute(1, "service.name", &config.service_name);
            resource.text_attribute(1, "service.version", env!("CARGO_PKG_VERSION"));
            resource.number_attribute(1, "process.pid", std::process::id());
            config.resource.iter().for_each(|(key, value)| resource.text_attribute(1, key, value));
        });
        let resource = resource.into_bytes();
        Self { resource, sender, settings, outcomes, failing: false }
    }

    /// Sends until nobody is left who tells. `stop` ends when there is no more time to try again.
    pub(super) fn run(mut self, from: &Receiver<Told>, stop: &Receiver<()>) {
        while let Ok(first) = from.recv() {
            let batch = self.gather(first, from, stop);
            self.deliver(batch, stop);
        }
    }

    fn gather(&self, first: Told, from: &Receiver<Told>, stop: &Receiver<()>) -> Batch {
        let (mut batch, mut next, clock) = (Batch::default(), Some(first), Clock::now());
        let (until, mut stopped) = (Instant::now() + OLD, false);
        loop {
            while let Some(told) = next {
                let enough = self.take(&told, &clock, &mut batch);
                if enough || batch.count >= FULL_SPANS {
                    return batch;
                }
                next = from.try_recv().ok();
            }
            if stopped || Instant::now() >= until {
                return batch;
            }
            stopped = stop.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout);
            next = from.try_recv().ok();
        }
    }

    /// Takes one in; whether the settings ask for the batch to leave with it.
    fn take(&self, told: &Told, clock: &Clock, batch: &mut Batch) -> bool {
        batch.count += spans::of(told, clock, SPANS, &mut batch.spans);
        batch.told += 1;
        let Told::Call(call) = told else { return false };
        batch.calls += 1;
        let frequency = self.settings.with(&call.model, |scope| scope.log_frequency);
        frequency > 0 && batch.calls >= frequency
    }

    fn deliver(&mut self, batch: Batch, stop: &Receiver<()>) {
        let Batch { spans, told, .. } = batch;
        let request = self.request(&spans.into_bytes());
        for attempt in 0..ATTEMPTS {
            let fault = match self.sender.send(request.clone()) {
                Ok(partial) => {
                    // Which spans it is never says: each may be one that a call or a run cannot be read without.
                    let lost = partial.as_ref().map_or(0, |partial| partial.rejected_spans.unsigned_abs());
                    if let Some(partial) = partial {
                        let (spans, why) = (partial.rejected_spans, partial.error_message);
                        tracing::warn!(spans, why, "the collector has not taken all spans");
                    }
                    let failed = lost.min(told);
                    self.outcomes.failed.add(failed);
                    self.outcomes.exported.add(told - failed);
                    return self.note(None);
                }
                Err(fault) => fault,
            };
            self.note(Some(&fault));
            let Fault::Later { after, .. } = fault else { break };
            let wait = after.unwrap_or(FIRST_WAIT * 2_u32.pow(attempt)).min(LONGEST_WAIT);
            if attempt + 1 == ATTEMPTS || stop.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                break;
            }
        }
        self.outcomes.failed.add(told);
    }

    fn request(&self, spans: &[u8]) -> Bytes {
        let mut request = Writer::default();
        request.message(1, |all| {
            all.raw(&self.resource);
            all.message(2, |of_scope| {
                of_scope.message(1, |scope| {
                    scope.text(1, "xebec");
                    scope.text(2, env!("CARGO_PKG_VERSION"));
                });
                of_scope.raw(spans);
            });
        });
        request.into_bytes().into()
    }

    /// Tells of a collector that does not take traces, once, and of the end of it.
    fn note(&mut self, fault: Option<&Fault>) {
        match (self.failing, fault) {
            (false, Some(fault)) => {
                tracing::warn!(error = fault.why(), "traces cannot be sent; serving goes on");
            }
            (true, None) => tracing::warn!("traces can be sent again"),
            _ => (),
        }
        self.failing = fault.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Endpoint, *};
    use std::sync::mpsc::sync_channel;
    use xebec_core::trace::TraceSettings;
    use xebec_net::wire::otlp::PartialSuccess;

    /// A collector that refuses so many spans of everything.
    struct Refuses(i64);

    impl Send for Refuses {
        fn send(&mut self, _: Bytes) -> Result<Option<PartialSuccess>, Fault> {
            let partial = PartialSuccess { rejected_spans: self.0, error_message: "full".into() };
            Ok((self.0 > 0).then_some(partial))
        }
    }

    #[test]
    fn what_a_collector_refuses_of_a_batch_is_not_counted_as_exported() {
        for (refused, exported, failed) in [(0, 100, 0), (3, 97, 3), (512, 0, 100)] {
            let config = TraceConfig {
                endpoint: Endpoint::Grpc("127.0.0.1:1".into()),
                rate: 1,
                service_name: "test".into(),
                resource: vec![],
            };
            let start = TraceSettings { on: true, rate: 1, count: None, log_frequency: 0 };
            let (settings, outcomes) = (Arc::new(Kept::new(start)), Arc::new(Outcomes::default()));
            let sender = Box::new(Refuses(refused));
            let mut export = Export::new(&config, sender, settings, Arc::clone(&outcomes));
            let (_stop, stopped) = sync_channel(0);
            export.deliver(Batch { told: 100, calls: 100, ..Batch::default() }, &stopped);
            assert_eq!((outcomes.exported.get(), outcomes.failed.get()), (exported, failed), "{refused}");
        }
    }
}
