//! Which waiting requests make the next batch: a state machine without clock, lock or thread.
//!
//! Order is by level, the first first, and by arrival within one; behind those of its level stands who has waited too
//! long and may go on waiting. A batch is built around the first request; later ones join while they mix with it and
//! their rows fit. The rules of waiting:
//! - an instance that was idle when a request came runs it at once and never waits for company;
//! - an instance that has just finished a run and finds less than a full batch, and no batch of a size that is
//!   preferred, waits until the oldest request is `max_delay` old (0: it does not wait either);
//! - where sizes are preferred, a batch is of the largest that can be had; if none can, the rules below hold;
//! - no batch takes more than an instance's share of all rows in the house, so that one instance does not run what
//!   two could run side by side; and only half of it where that is a batch worth having, so that the next one waits
//!   when a run ends, instead of what little came since; and no more than rows are fast together (`pace`).
//!
//! Invariants: no request is lost or given out twice; what does not mix never shares a batch; requests that mix keep
//! their order within a level; one that has expired or whose caller has gone never runs; no more wait at a level than
//! may. A model without levels has one.
//!
//! Not here: threads and clocks (`instance`, `inline`), what mixing means (`request`).
use crate::pace::Pace;
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(test)]
mod tests;

/// What a queue has to know of a request.
pub(crate) trait Job {
    /// Rows it adds to a batch; at least 1.
    fn rows(&self) -> u32;
    /// Bytes of input a row.
    fn row_bytes(&self) -> u64;
    /// Whether it and `other` may share a run. Symmetric.
    fn mixes_with(&self, other: &Self) -> bool;
    /// Whether its caller has gone.
    fn is_gone(&self) -> bool;
    /// When it came.
    fn arrived(&self) -> Instant;
    /// When it must have been started.
    fn deadline(&self) -> Option<Instant>;
    /// Its level, from 0; lower ones come first.
    fn level(&self) -> usize;
    /// Whether [`Self::go_on_waiting`] was said.
    fn is_late(&self) -> bool;
    /// It has waited too long and waits on, without a deadline.
    fn go_on_waiting(&mut self);
}

/// The rules of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Level {
    /// Most requests that wait.
    pub(crate) max_queue: usize,
    /// Who has waited too long waits on, behind the others, instead of leaving.
    pub(crate) waits_on: bool,
}

/// The rules of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Most rows of a batch; a request with more runs alone.
    pub(crate) max_rows: u32,
    /// How long an instance that was busy waits for company.
    pub(crate) max_delay: Duration,
    /// Sizes of a batch that are run as soon as they can be had, the smallest first.
    pub(crate) preferred: Arc<[u32]>,
    /// At least one.
    pub(crate) levels: Arc<[Level]>,
    /// Runs that can go on side by side.
    pub(crate) instances: u32,
    /// Whether requests go on coming during a run: instance threads, not the lanes of an I/O core.
    pub(crate) concurrent: bool,
}

/// How often a full queue looks who of those that wait has gone.
const SWEEP: Duration = Duration::from_millis(10);

/// A batch of so many rows gains little from more.
const WORTH_HAVING: u64 = 8;

/// Why somebody asks for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// It had nothing to do.
    Idle,
    /// It has just finished a run, or is still waiting after one.
    Busy,
}

/// What the asker does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// Run these together, and then say [`Queue::finish`].
    Run(Batch<T>),
    /// Ask again then, or when something arrives.
    WaitUntil(Instant),
    /// Nothing waits.
    Empty,
}

/// Requests that share a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch<T> {
    /// At least one; the oldest first.
    pub(crate) jobs: Vec<T>,
    /// Rows for which there was room; a single request may have more.
    pub(crate) limit: u64,
}

impl<T: Job> Batch<T> {
    /// Rows of all requests.
    pub(crate) fn rows(&self) -> u64 {
        self.jobs.iter().map(|job| u64::from(job.rows())).sum()
    }
}

/// Why a request left the queue without a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It waited longer than it may.
    Expired,
    /// Its caller has gone.
    Gone,
}

/// A bounded queue.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    rules: Rules,
    waiting: VecDeque<T>,
    /// How many of them are of each level.
    of_level: Vec<usize>,
    waiting_rows: u64,
    running_rows: u64,
    pace: Pace,
    swept: Option<Instant>,
    left: Vec<(T, Left)>,
}

impl<T: Job> Queue<T> {
    /// An empty queue.
    pub(crate) fn new(rules: Rules) -> Self {
        let (waiting, of_level, pace) = (VecDeque::new(), vec![0; rules.levels.len()], Pace::new());
        Self {
            rules,
            waiting,
            of_level,
            waiting_rows: 0,
            running_rows: 0,
            pace,
            swept: None,
            left: Vec::new(),
        }
    }

    /// Rules it was made with.
    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Rows that wait.
    pub(crate) fn waiting_rows(&self) -> u64 {
        self.waiting_rows
    }

    /// Adds a request.
    ///
    /// # Errors
    /// The request itself, if as many of its level wait as may, also after those were taken out who had no caller within the last
    /// [`SWEEP`]: refusing is to stay cheap where thousands are refused.
    pub(crate) fn push(&mut self, job: T, now: Instant) -> Result<(), T> {
        let is_due = self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP);
        if self.is_full(job.level()) && is_due {
            self.sweep(now);
        }
        if self.is_full(job.level()) {
            return Err(job);
        }
        self.insert(job);
        Ok(())
    }

    fn is_full(&self, level: usize) -> bool {
        let (waiting, rules) = (self.of_level.get(level), self.rules.levels.get(level));
        // A level that is not there takes nobody.
        waiting.zip(rules).is_none_or(|(waiting, rules)| *waiting >= rules.max_queue)
    }

    /// Puts a request behind those that come before it: without levels and late ones that is the end.
    fn insert(&mut self, job: T) {
        let order = |job: &T| (job.level(), job.is_late());
        let before = self.waiting.iter().rposition(|other| order(other) <= order(&job));
        self.waiting_rows += u64::from(job.rows());
        if let Some(count) = self.of_level.get_mut(job.level()) {
            *count += 1;
        }
        self.waiting.insert(before.map_or(0, |before| before + 1), job);
    }

    /// The next batch, if it is time for one.
    pub(crate) fn next(&mut self, now: Instant, asker: Asker) -> Step<T> {
        self.sweep(now);
        let Some(first) = self.waiting.front() else { return Step::Empty };
        let preferred = self.preferred(first);
        if let Some(until) = self.held_until(first, preferred, now, asker) {
            return Step::WaitUntil(until);
        }
        let limit = preferred.unwrap_or_else(|| self.room(first));
        Step::Run(self.take_batch(limit))
    }

    /// Whether [`Self::next`] would give a batch: for who has to get something else first.
    pub(crate) fn is_due(&mut self, now: Instant, asker: Asker) -> bool {
        self.sweep(now);
        let first = self.waiting.front();
        first.is_some_and(|first| self.held_until(first, self.preferred(first), now, asker).is_none())
    }

    /// Until when company is waited for, if it is.
    fn held_until(&self, first: &T, preferred: Option<u64>, now: Instant, asker: Asker) -> Option<Instant> {
        let until = self.oldest(first) + self.rules.max_delay;
        let waits = asker == Asker::Busy && until > now && preferred.is_none() && !self.has_full_batch();
        waits.then_some(until)
    }

    /// When the request that has waited longest came.
    fn oldest(&self, first: &T) -> Instant {
        if self.of_level.len() == 1 && !first.is_late() {
            return first.arrived();
        }
        self.waiting.iter().map(Job::arrived).min().unwrap_or(first.arrived())
    }

    /// The largest preferred size for which there is company.
    fn preferred(&self, first: &T) -> Option<u64> {
        if self.rules.preferred.is_empty() {
            return None;
        }
        let company = self.company(first);
        let mut sizes = self.rules.preferred.iter().rev().map(|size| u64::from(*size));
        sizes.find(|size| *size <= company && u64::from(first.rows()) <= *size)
    }

    /// Rows of all that may share a run with `first`, with its own.
    fn company(&self, first: &T) -> u64 {
        let company = self.waiting.iter().skip(1).filter(|job| job.mixes_with(first));
        u64::from(first.rows()) + company.map(|job| u64::from(job.rows())).sum::<u64>()
    }

    /// A run of `rows` rows is over.
    pub(crate) fn finish(&mut self, rows: u64) {
        self.running_rows = self.running_rows.saturating_sub(rows);
    }

    /// What a run took that went well, of rows with so many bytes of input each.
    pub(crate) fn learn(&mut self, row_bytes: u64, limit: u64, rows: u64, took: Duration) {
        self.pace.learn(row_bytes, limit, rows, took);
    }

    /// Whether somebody left without a run since the last call of [`Self::take_left`].
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Requests that left without a run since the last call, to be answered by the caller.
    pub(crate) fn take_left(&mut self) -> Vec<(T, Left)> {
        std::mem::take(&mut self.left)
    }

    /// When the first of those that wait will have waited too long.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(Job::deadline).min()
    }

    /// Takes out who has waited too long or has no caller any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.swept = Some(now);
        let why = |job: &T| match job.deadline() {
            _ if job.is_gone() => Some(Left::Gone),
            Some(deadline) if deadline <= now => Some(Left::Expired),
            _ => None,
        };
        let mut index = 0;
        while let Some(job) = self.waiting.get(index) {
            match why(job) {
                None => index += 1,
                Some(left) => {
                    let Some(mut job) = self.remove(index) else { return };
                    let level = self.rules.levels.get(job.level());
                    if left == Left::Expired && level.is_some_and(|level| level.waits_on) {
                        job.go_on_waiting();
                        self.insert(job);
                    } else {
                        self.left.push((job, left));
                    }
                }
            }
        }
    }

    fn remove(&mut self, index: usize) -> Option<T> {
        let job = self.waiting.remove(index)?;
        self.waiting_rows -= u64::from(job.rows());
        if let Some(count) = self.of_level.get_mut(job.level()) {
            *count -= 1;
        }
        Some(job)
    }

    /// Rows that a batch around `oldest` may take: the rules' limit, no more than an instance's share, and as many as
    /// are fast together.
    fn room(&self, oldest: &T) -> u64 {
        let share = (self.waiting_rows + self.running_rows).div_ceil(u64::from(self.rules.instances.max(1)));
        let half = share.div_ceil(2);
        let share = if self.rules.concurrent && half >= WORTH_HAVING { half } else { share };
        self.fast_together(oldest, share.min(u64::from(self.rules.max_rows)))
    }

    fn fast_together(&self, oldest: &T, rows: u64) -> u64 {
        if self.rules.concurrent { self.pace.rows(oldest.row_bytes(), rows) } else { rows }
    }

    fn has_full_batch(&self) -> bool {
        let Some(oldest) = self.waiting.front() else { return false };
        // A request that mixes with nothing, not even itself, is as full a batch as it will ever be.
        self.company(oldest) >= self.fast_together(oldest, u64::from(self.rules.max_rows))
            || !oldest.mixes_with(oldest)
    }

    fn take_batch(&mut self, limit: u64) -> Batch<T> {
        let mut batch: Vec<T> = self.remove(0).into_iter().collect();
        let mut rows: u64 = batch.iter().map(|oldest| u64::from(oldest.rows())).sum();
        let mut index = 0;
        while let (Some(job), Some(oldest)) = (self.waiting.get(index), batch.first()) {
            if !job.mixes_with(oldest) {
                index += 1;
                continue;
            }
            // Not skipped for a smaller one behind it: requests that mix keep their order.
            if rows + u64::from(job.rows()) > limit {
                break;
            }
            let Some(job) = self.remove(index) else { break };
            rows += u64::from(job.rows());
            batch.push(job);
        }
        self.running_rows += rows;
        Batch { jobs: batch, limit }
    }
}
