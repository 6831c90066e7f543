//! When a request is due, when the load ends, and the threads that send it.
use super::{BenchArgs, Protocol, grpc, http, payload::Payload, report::Tally, target::Target};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::LocalSet;

/// A timer of the system may be late by this; the rest is waited for by looking at the clock.
const TIMER_SLACK: Duration = Duration::from_millis(2);

/// The load of all threads.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) target: Target,
    concurrency: u32,
    connections: u32,
    threads: u32,
    gap: Option<Duration>,
    pub(super) started: Instant,
    /// From here on results count.
    pub(super) measured_from: Instant,
    pub(super) until: Instant,
    most: u64,
    arrivals: AtomicU64,
    measured: AtomicU64,
}

impl Plan {
    pub(super) fn new(args: &BenchArgs, target: Target) -> Self {
        let started = Instant::now();
        let measured_from = started + Duration::from_secs_f64(args.warm_up);
        Self {
            connections: args.connections.unwrap_or_else(|| args.concurrency.div_ceil(16).min(4)),
            target,
            concurrency: args.concurrency,
            threads: args.threads,
            gap: args.rate.map(|rate| Duration::from_secs_f64(1.0 / rate)),
            started,
            measured_from,
            until: measured_from + Duration::from_secs_f64(args.duration),
            most: args.requests.unwrap_or(u64::MAX),
            arrivals: AtomicU64::new(0),
            measured: AtomicU64::new(0),
        }
    }

    /// Waits until the next request is due and returns that time; `None` when the load is over.
    pub(super) async fn next(&self) -> Option<Instant> {
        let due = match self.gap {
            None => Instant::now(),
            Some(gap) => {
                let arrival = self.arrivals.fetch_add(1, Relaxed);
                self.started + gap.mul_f64(arrival as f64)
            }
        };
        if due >= self.until || self.measured.load(Relaxed) >= self.most {
            return None;
        }
        wait_until(due).await;
        Some(due)
    }

    /// Counts a result, if it belongs to what is measured.
    pub(super) fn counts(&self, due: Instant) -> bool {
        let counts = due >= self.measured_from;
        if counts {
            self.measured.fetch_add(1, Relaxed);
        }
        counts
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
    let tally = Rc::new(std::cell::RefCell::new(Tally::default()));
    runtime.block_on(LocalSet::new().run_until(async {
        let connections = plan.share(plan.connections.max(plan.threads), thread).clamp(1, share.max(1));
        if plan.target.protocol == Protocol::Grpc {
            grpc::load(plan, payload, share, connections, &tally).await
        } else {
            http::load(plan, payload, share, &tally).await
        }
    }))?;
    Ok(tally.take())
}
