//! Load on a model in this process: threads that submit requests as the I/O threads of a server do.
//!
//! Each thread keeps its share of the requests in flight (closed loop) or sends its share of the arrivals when they are
//! due (open loop), ends a turn with [`TurnEnd`], and takes the answers that are there. What a server adds before and
//! behind that, reading and writing, is not in the figures: it is the same for every arrangement.
//!
//! Invariant: the threads live as long as the generator, so that a tiny model has a lane for each of them.
use super::record::{Slice, histogram};
use crate::local::permit;
use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};
use xebec_core::{
    InferError, InferRequest, InferResponse, Permit, Tensor,
    port::{Answer, Turn as _, Upstream as _},
};
use xebec_engine::{TurnEnd, served::Served};

/// How long an answer is waited for after the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most requests in flight of one thread of an open loop.
const MOST_IN_FLIGHT: usize = 4096;

/// What to put on a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Load {
    /// So many requests in flight, always.
    Closed(u32),
    /// So many requests a second, whatever the model does.
    Open(f64),
}

/// One stretch of load.
#[derive(Clone)]
pub(super) struct Stretch {
    pub(super) served: Arc<Served>,
    pub(super) requests: Arc<[Vec<Tensor>]>,
    pub(super) load: Load,
    pub(super) warm_up: Duration,
    pub(super) measure: Duration,
}

/// The threads.
pub(super) struct Generator {
    threads: Vec<Worker>,
}

/// Where a thread gets its work from, and where its count comes back.
type Worker = (SyncSender<(Stretch, Instant)>, Receiver<anyhow::Result<Tally>>);

/// What one thread counted.
struct Tally {
    per_second: f64,
    answered: u64,
    latencies: Histogram<u64>,
    failed: u64,
    failure: Option<String>,
}

impl Generator {
    /// Starts so many threads.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) fn start(threads: u32) -> anyhow::Result<Self> {
        let one = |index: u32| {
            let (to, work) = sync_channel::<(Stretch, Instant)>(1);
            let (done, from) = sync_channel(1);
            let run = move || {
                while let Ok((stretch, begin)) = work.recv() {
                    let tally = Thread::new(&stretch, index, threads, begin).and_then(Thread::run);
                    // The model goes before its answer is known, so that it can be let go of.
                    drop(stretch);
                    if done.send(tally).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new().name(format!("load-{index}")).spawn(run)?;
            Ok((to, from))
        };
        Ok(Self { threads: (0..threads).map(one).collect::<anyhow::Result<_>>()? })
    }

    /// Puts load on a model and waits for the end of it.
    ///
    /// # Errors
    /// An answer did not come.
    pub(super) fn run(&self, stretch: &Stretch) -> anyhow::Result<Slice> {
        let (begin, before) = (Instant::now(), cpu());
        for (to, _) in &self.threads {
            to.send((stretch.clone(), begin)).context("a thread of the load has ended")?;
        }
        let (mut latencies, mut per_second, mut answered) = (histogram(), 0.0, 0);
        let (mut failed, mut failure) = (0, None);
        // All are waited for before an error of one is told: none may still run when the next stretch begins.
        let tallies: Vec<_> = self.threads.iter().map(|(_, from)| from.recv()).collect();
        for tally in tallies {
            let tally = tally.context("a thread of the load has ended")??;
            latencies.add(&tally.latencies)?;
            per_second += tally.per_second;
            answered += tally.answered;
            failed += tally.failed;
            failure = failure.or(tally.failure);
        }
        #[expect(clippy::cast_precision_loss, reason = "answers of seconds fit a double")]
        let cpu_us = cpu().saturating_sub(before).as_secs_f64() * 1e6 / answered.max(1) as f64;
        Ok(Slice { per_second, latencies, cpu_us, failed, failure })
    }
}

fn cpu() -> Duration {
    xebec_net::process::usage().map_or(Duration::ZERO, |usage| usage.cpu)
}

/// The way back of an answer, with the number of the lane that waits for it.
struct Slot {
    lane: usize,
    to: SyncSender<(usize, Result<InferResponse, InferError>)>,
}

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        false
    }

    fn send(self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        // There is room for every lane.
        let _ = self.to.try_send((self.lane, outcome));
    }
}

/// One thread of the load during a stretch.
struct Thread<'a> {
    stretch: &'a Stretch,
    permit: Permit,
    to: SyncSender<(usize, Result<InferResponse, InferError>)>,
    from: Receiver<(usize, Result<InferResponse, InferError>)>,
    /// When the request of each lane was due.
    due: Vec<Instant>,
    free: Vec<usize>,
    arrivals: Option<Arrivals>,
    next_request: usize,
    measured_from: Instant,
    until: Instant,
    opened: Option<Instant>,
    closed: Option<Instant>,
    in_turns: u64,
    in_time: u64,
    tally: Tally,
}

/// The arrivals of one thread in an open loop.
struct Arrivals {
    next: Instant,
    interval: Duration,
}

impl<'a> Thread<'a> {
    fn new(stretch: &'a Stretch, index: u32, threads: u32, begin: Instant) -> anyhow::Result<Self> {
        let (lanes, arrivals) = match stretch.load {
            Load::Closed(load) => ((load / threads + u32::from(index < load % threads)) as usize, None),
            Load::Open(rate) => {
                let interval = Duration::from_secs_f64(f64::from(threads) / rate);
                (MOST_IN_FLIGHT, Some(Arrivals { next: begin + interval * index / threads, interval }))
            }
        };
        let (to, from) = sync_channel(lanes.max(1));
        let measured_from = begin + stretch.warm_up;
        Ok(Self {
            permit: permit(&stretch.served.info().name)?,
            to,
            from,
            due: vec![begin; lanes],
            free: (0..lanes).rev().collect(),
            arrivals,
            next_request: index as usize,
            measured_from,
            until: measured_from + stretch.measure,
            opened: None,
            closed: None,
            in_turns: 0,
            in_time: 0,
            tally: Tally { per_second: 0.0, answered: 0, latencies: histogram(), failed: 0, failure: None },
            stretch,
        })
    }

    fn run(mut self) -> anyhow::Result<Tally> {
        let lanes = self.due.len();
        loop {
            let next = self.submit(Instant::now());
            TurnEnd.flush();
            let out = lanes - self.free.len();
            match next {
                None if out == 0 => break,
                None => self.take(PATIENCE)?,
                Some(next) => self.take_until(next.min(self.until))?,
            }
        }
        self.count_unsent();
        self.tally.per_second = self.per_second();
        Ok(self.tally)
    }

    /// Good answers a second, from one turn's answers to another's: what ends just outside a window of time counts in no
    /// part. Where that is no window worth its name, over the time itself.
    fn per_second(&self) -> f64 {
        let turns = self.opened.zip(self.closed).map(|(opened, closed)| closed - opened);
        let (answers, window) = match turns.filter(|turns| *turns >= self.stretch.measure / 2) {
            Some(turns) => (self.in_turns, turns),
            None => (self.in_time, self.stretch.measure),
        };
        #[expect(clippy::cast_precision_loss, reason = "answers of seconds fit a double")]
        let answers = answers as f64;
        answers / window.as_secs_f64().max(1e-9)
    }

    /// Arrivals that were due and found no lane: as long as they had waited.
    fn count_unsent(&mut self) {
        let Some(Arrivals { mut next, interval }) = self.arrivals.take() else { return };
        while next < self.until {
            let waited = u64::try_from((self.until - next).as_nanos()).unwrap_or(u64::MAX);
            self.tally.latencies.saturating_record(waited);
            next += interval;
        }
    }

    /// Sends what is due. Returns when there is more to send; `None` if nothing before an answer comes.
    fn submit(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.until {
            return None;
        }
        loop {
            let due = match &mut self.arrivals {
                None => now,
                Some(arrivals) if arrivals.next > now => return Some(arrivals.next),
                Some(arrivals) => arrivals.next,
            };
            let lane = self.free.pop()?;
            if let Some(arrivals) = &mut self.arrivals {
                arrivals.next += arrivals.interval;
            }
            self.send(lane, due, now);
        }
    }

    fn send(&mut self, lane: usize, due: Instant, now: Instant) {
        if let Some(place) = self.due.get_mut(lane) {
            *place = due;
        }
        let requests = &self.stretch.requests;
        let inputs = requests.get(self.next_request % requests.len().max(1)).cloned().unwrap_or_default();
        self.next_request += 1;
        let request = InferRequest {
            id: String::new(),
            inputs,
            outputs: Vec::new(),
            timeout: None,
            priority: 0,
            sequence: None,
            streamed: false,
            headers: Vec::new(),
            received: now,
            trace: None,
        };
        self.stretch.served.submit(&self.permit, request, Box::new(Slot { lane, to: self.to.clone() }));
    }

    /// Takes answers until it is time to send again.
    fn take_until(&mut self, next: Instant) -> anyhow::Result<()> {
        match self.from.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(first) => self.note_all(first),
            Err(RecvTimeoutError::Timeout) => (),
            Err(RecvTimeoutError::Disconnected) => bail!("the answers have ended"),
        }
        Ok(())
    }

    fn take(&mut self, patience: Duration) -> anyhow::Result<()> {
        let first = self.from.recv_timeout(patience);
        self.note_all(first.with_context(|| format!("no answer within {} s", patience.as_secs()))?);
        Ok(())
    }

    /// Notes an answer and all others that are there.
    fn note_all(&mut self, first: (usize, Result<InferResponse, InferError>)) {
        let now = Instant::now();
        let mut answers = 0;
        let mut next = Some(first);
        while let Some((lane, outcome)) = next {
            answers += self.note(lane, outcome, now);
            next = self.from.try_recv().ok();
        }
        if (self.measured_from..self.until).contains(&now) {
            self.in_time += answers;
        }
        match self.opened {
            None if now >= self.measured_from => self.opened = Some(now),
            Some(_) if self.closed.is_none() => {
                self.in_turns += answers;
                self.closed = (now >= self.until).then_some(now);
            }
            _ => (),
        }
    }

    /// Notes one answer; 1 if it is good.
    fn note(&mut self, lane: usize, outcome: Result<InferResponse, InferError>, now: Instant) -> u64 {
        self.free.push(lane);
        self.tally.answered += 1;
        if let Err(error) = outcome {
            self.tally.failed += 1;
            self.tally.failure.get_or_insert_with(|| error.to_string());
            return 0;
        }
        let due = self.due.get(lane).copied().unwrap_or(now);
        if due >= self.measured_from {
            let nanoseconds = u64::try_from((now - due).as_nanos()).unwrap_or(u64::MAX);
            self.tally.latencies.saturating_record(nanoseconds);
        }
        1
    }
}
