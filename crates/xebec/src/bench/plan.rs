//! When a request is due, when the load ends, and the threads that send it.
//!
//! Latency counts from when a request was due. What is measured is decided when a request is sent, so that answers
//! which come after the end still show how slow they were; throughput counts the answers within the window alone.
use super::{BenchArgs, Protocol, grpc, http, payload::Payload, tally::Tally, target::Target};
use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{sync::Mutex, task::LocalSet};

/// A timer of the system may be late by this; the rest is waited for by looking at the clock.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// What was due before the end of an open loop is sent if it is late by no more: that is the timer, not a backlog.
const END_SLACK: Duration = Duration::from_millis(20);

/// How often a coarse open loop sends and reads.
const TICK: Duration = Duration::from_millis(2);

/// The load of all threads.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    concurrency: u32,
    connections: u32,
    threads: u32,
    /// Arrivals a second; `None` in a closed loop.
    rate: Option<f64>,
    /// Arrivals may be late by the grain of the system's timer.
    coarse: bool,
    /// How long answers are waited for after the end.
    patience: Duration,
    pub(super) started: Instant,
    /// From here on results count.
    pub(super) measured_from: Instant,
    pub(super) until: Instant,
    most: u64,
    arrivals: AtomicU64,
    sent: AtomicU64,
    measured: AtomicU64,
}

/// Leave to send one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) due: Instant,
    pub(super) sent: Instant,
    /// Whether it was sent within what is measured.
    pub(super) measured: bool,
}

/// The turn of one thread to wait for the next arrival: only one of its lanes looks at the clock.
pub(super) type Turn = Mutex<()>;

impl Plan {
    pub(super) fn new(args: &BenchArgs, target: Target) -> Self {
        let concurrency = args.concurrency();
        let started = Instant::now();
        let measured_from = started + Duration::from_secs_f64(args.warm_up);
        Self {
            connections: args.connections.unwrap_or_else(|| concurrency.div_ceil(16).min(4)),
            target,
            concurrency,
            threads: args.threads,
            rate: args.rate,
            coarse: args.coarse,
            patience: Duration::from_secs_f64(args.patience),
            started,
            measured_from,
            until: measured_from + Duration::from_secs_f64(args.duration),
            most: args.requests.unwrap_or(u64::MAX),
            arrivals: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            measured: AtomicU64::new(0),
        }
    }

    /// Waits until the next request is due; `None` when the load is over.
    pub(super) async fn next(&self, turn: &Turn) -> Option<Ticket> {
        let due = match self.rate {
            None => None,
            Some(rate) => Some(self.arrival(rate, turn).await?),
        };
        let sent = Instant::now();
        let late = due.is_none_or(|due| sent - due > END_SLACK);
        if sent >= self.until && late {
            // Whatever else was due is told as not sent: a load with a backlog would not end otherwise.
            return None;
        }
        let measured = sent >= self.measured_from;
        if measured && self.measured.fetch_add(1, Relaxed) >= self.most {
            return None;
        }
        if due.is_some() {
            self.sent.fetch_add(1, Relaxed);
        }
        Some(Ticket { due: due.unwrap_or(sent), sent, measured })
    }

    async fn arrival(&self, rate: f64, turn: &Turn) -> Option<Instant> {
        let _turn = turn.lock().await;
        #[expect(clippy::cast_precision_loss, reason = "arrivals of years fit a double")]
        let arrival = self.arrivals.fetch_add(1, Relaxed) as f64;
        let due = self.started + Duration::from_secs_f64(arrival / rate);
        if due >= self.until || self.measured.load(Relaxed) >= self.most {
            return None;
        }
        if self.coarse {
            self.sleep_until_tick(due).await;
        } else {
            wait_until(due).await;
        }
        Some(due)
    }

    /// Sleeps, with all of the thread, until the first tick after `due`; what came meanwhile is read once a tick.
    /// Waking for each answer would cost a server on the same machine more than the answer.
    async fn sleep_until_tick(&self, due: Instant) {
        let whole = (due - self.started).as_nanos().div_ceil(TICK.as_nanos());
        let tick = self.started + TICK.saturating_mul(u32::try_from(whole).unwrap_or(u32::MAX));
        loop {
            let left = tick.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            #[expect(clippy::disallowed_methods, reason = "to keep the thread is what is wanted")]
            std::thread::sleep(left.min(TICK));
            tokio::task::yield_now().await;
        }
    }

    /// Requests that were due before the end, but no lane was free to send them.
    pub(super) fn unsent(&self) -> u64 {
        let Some(rate) = self.rate.filter(|_| self.measured.load(Relaxed) < self.most) else { return 0 };
        // One that is due at the very end is not; nor is one that only rounding puts before it.
        let due = ((self.until - self.started).as_secs_f64() * rate - 1e-6).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "above -1, far below 2^64"
        )]
        let due = due as u64;
        due.saturating_sub(self.sent.load(Relaxed))
    }

    /// Time between two arrivals of an open loop.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.rate.map(|rate| Duration::from_secs_f64(1.0 / rate))
    }

    fn share(&self, total: u32, thread: u32) -> u32 {
        total / self.threads + u32::from(thread < total % self.threads)
    }
}

async fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > TIMER_SLACK {
        tokio::time::sleep(left - TIMER_SLACK).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// One thread of the generator.
pub(super) fn worker(thread: u32, plan: &Arc<Plan>, payload: &Arc<Payload>) -> anyhow::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let share = plan.share(plan.concurrency, thread);
    let tally = Rc::new(RefCell::new(Tally::default()));
    tally.borrow_mut().lanes(share);
    let ended = runtime.block_on(LocalSet::new().run_until(async {
        let load = async {
            let connections = plan.share(plan.connections.max(plan.threads), thread).clamp(1, share.max(1));
            if plan.target.protocol == Protocol::Grpc {
                grpc::load(plan, payload, share, connections, &tally).await
            } else {
                http::load(plan, payload, share, &tally).await
            }
        };
        tokio::time::timeout_at((plan.until + plan.patience).into(), load).await
    }));
    let mut tally = tally.take();
    tally.ended = Some(Instant::now().min(plan.until));
    match ended {
        Ok(result) => result?,
        Err(_) => tally.abandoned(plan.patience),
    }
    Ok(tally)
}
