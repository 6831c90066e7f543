//! Stateful models: requests of one sequence run one after the other, over the state that the last one left.
//!
//! A layer before a served model. Callers see the model without the inputs that tell it of sequences and without its
//! state; here they are added to each request, and the state is taken out of each answer and kept for the next.
//! Requests of different sequences share runs as those of any model do. Invariant: a state never leaves its sequence,
//! and a sequence never leaves its tenant.
//!
//! Not here: which request is next (`table`), what a configuration says (`plan`), runs (`served`).
//!
//! # Source
//! Triton Inference Server, "Stateful Models" and "Implicit State Management".
use crate::{check::check, queue::Left, served::Served};
use clock::Clock;
use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::Instant,
};
use table::{Refusal, Step, Table};
use xebec_core::{
    CorrelationId, InferError, InferRequest, InferResponse, ModelInfo, Permit, SequenceMark, TenantId,
    Tensor,
    metrics::ModelMetrics,
    model_config::ModelConfig,
    port::{Answer, Reply, Upstream},
};

mod clock;
#[cfg(test)]
mod crowd;
pub(crate) mod plan;
mod table;
#[cfg(test)]
#[cfg(feature = "engine-rten")]
mod tests;
mod todo;

pub(crate) use plan::Plan;

/// A stateful model.
pub(crate) struct Sequenced(Arc<Shared>);

struct Shared {
    served: Arc<Served>,
    info: ModelInfo,
    config: ModelConfig,
    plan: Plan,
    inner: Mutex<Inner>,
    clock: Arc<Clock>,
    /// Revisions that have begun sequences which callers look for here. Each is held by its own sequences.
    older: OnceLock<Vec<Weak<Shared>>>,
}

struct Inner {
    table: Table<Key, Job, State>,
    /// Itself, from when it was replaced until its last sequence has ended.
    kept: Option<Arc<Shared>>,
}

type Next = Step<Key, Job, State>;

type Key = (TenantId, CorrelationId);

/// The state inputs of the next run, in the order of the plan.
type State = Arc<[Tensor]>;

/// A request that waits for its turn.
struct Job {
    request: InferRequest,
    deadline: Option<Instant>,
    reply: Reply,
}

impl table::Job for Job {
    fn left(&self, now: Instant) -> Option<Left> {
        if self.reply.is_gone() {
            return Some(Left::Gone);
        }
        self.deadline.is_some_and(|deadline| deadline <= now).then_some(Left::Expired)
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Sequenced {
    /// Puts the layer before a model.
    ///
    /// # Errors
    /// The system has no room for the thread that ends idle sequences.
    pub(crate) fn start(served: Arc<Served>, plan: Plan) -> std::io::Result<Arc<Self>> {
        let info = plan.outward(served.info());
        let config = plan.outward_config(served.config(), &info);
        let rules = plan.rules(served.batching().queue.max_queue);
        let table = Table::new(rules, plan.initial());
        let inner = Mutex::new(Inner { table, kept: None });
        let clock = Clock::new();
        let older = OnceLock::new();
        let shared = Arc::new(Shared { served, info, config, plan, inner, clock: Arc::clone(&clock), older });
        let ticking = Arc::downgrade(&shared);
        clock.start(shared.info.name.as_str(), move || {
            if let Some(shared) = ticking.upgrade() {
                shared.step(Table::tick);
            }
        })?;
        Ok(Arc::new(Self(shared)))
    }

    /// Is to take the place of other revisions, or to stand before them: what they have begun, it ends.
    pub(crate) fn follow<'a>(&self, others: impl Iterator<Item = &'a Self>) {
        let mut older: Vec<Weak<Shared>> = Vec::new();
        for other in others {
            let further = other.0.older().map(|older| Arc::downgrade(&older));
            for one in std::iter::once(Arc::downgrade(&other.0)).chain(further) {
                if !older.iter().any(|known| known.ptr_eq(&one)) {
                    older.push(one);
                }
            }
        }
        // A revision follows once, before anybody sees it.
        let _ = self.0.older.set(older);
    }

    /// Whether it has no sequence, nor one to look after.
    pub(crate) fn is_idle(&self) -> bool {
        let is_empty = |shared: &Shared| shared.lock().table.is_empty();
        is_empty(&self.0) && self.0.older().all(|older| is_empty(&older))
    }

    /// It was replaced: it begins no sequence any more, and lives until those that it has are over.
    pub(crate) fn retire(&self) {
        let mut inner = self.0.lock();
        inner.table.retire();
        inner.kept = (!inner.table.is_empty()).then(|| Arc::clone(&self.0));
    }

    /// It is to go, if it is idle: it begins no sequence any more. Whether that is so.
    pub(crate) fn close(&self) -> bool {
        if !self.is_idle() {
            return false;
        }
        let mut inner = self.0.lock();
        let goes = inner.table.is_empty();
        if goes {
            inner.table.retire();
        }
        goes
    }
}

impl Upstream for Sequenced {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    fn config(&self) -> &ModelConfig {
        &self.0.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.0.served.labels(output)
    }

    fn metrics(&self) -> &ModelMetrics {
        self.0.served.metrics()
    }

    fn revision_of(&self, permit: &Permit, mark: &SequenceMark) -> Option<Arc<dyn Upstream>> {
        let key = (permit.tenant().clone(), mark.id.clone());
        let knows = |shared: &Shared| shared.lock().table.knows(&key);
        if mark.start || knows(&self.0) {
            return None;
        }
        let older = self.0.older().find(|older| knows(older))?;
        Some(Arc::new(Self(older)))
    }

    fn submit(&self, permit: &Permit, mut request: InferRequest, reply: Reply) {
        let shared = &self.0;
        let Some(mark) = request.sequence.clone() else {
            return reply.send(Err(shared.no_id()));
        };
        let key = (permit.tenant().clone(), mark.id);
        let checked = check(&shared.info, None, &mut request).and_then(|rows| shared.fits(&key.1, rows));
        if let Err(error) = checked {
            return reply.send(Err(error));
        }
        let deadline = shared.served.deadline_of(&request, Instant::now());
        let job = Job { request, deadline, reply };
        let flags = (mark.start, mark.end);
        let taken = shared.step(|table, now, steps| table.arrive(key.clone(), flags, job, now, steps));
        if taken && mark.start {
            // It begins anew here: nobody is to find what there was of it before.
            shared.older().for_each(|older| older.step(|table, now, steps| table.close(&key, now, steps)));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.clock.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Older revisions that are still there.
    fn older(&self) -> impl Iterator<Item = Arc<Self>> {
        self.older.get().into_iter().flatten().filter_map(Weak::upgrade)
    }

    fn no_id(&self) -> InferError {
        let model = &self.info.name;
        InferError::invalid_hint(
            format!(
                "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
            ),
            "the model is stateful: send sequence_id, and sequence_start with the first request",
        )
    }

    fn fits(&self, id: &CorrelationId, rows: u32) -> Result<(), InferError> {
        if rows != 1 {
            let model = &self.info.name;
            return Err(InferError::invalid_hint(
                format!("inference request batch-size must be 1 for '{model}', which is stateful"),
                "send one row of one sequence a request; requests of several sequences share runs by themselves",
            ));
        }
        self.plan.check_id(id)
    }

    /// Changes the table and does what follows from it, outside of its lock.
    fn step<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Table<Key, Job, State>, Instant, &mut Vec<Next>) -> T,
    ) -> T {
        let mut steps = Vec::new();
        let mut inner = self.lock();
        let outcome = change(&mut inner.table, Instant::now(), &mut steps);
        // Under the lock: what another thread finds out later must not be overwritten by what was true before.
        self.clock.set(inner.table.next_event());
        let kept = if inner.table.is_empty() { inner.kept.take() } else { None };
        drop(inner);
        todo::carry_out(steps.into_iter().map(|step| (Arc::clone(self), step)));
        drop(kept);
        outcome
    }

    fn take(self: &Arc<Self>, step: Next) {
        match step {
            Step::Run { key, job, start, end, state } => self.run(key, job, (start, end), &state),
            Step::Leave(job, refusal) => {
                let error = self.explain(&job, refusal);
                job.reply.send(Err(error));
            }
        }
    }

    fn explain(&self, job: &Job, refusal: Refusal) -> InferError {
        let model = self.info.name.to_string();
        match refusal {
            Refusal::Left(Left::Gone) => InferError::Cancelled,
            Refusal::Left(Left::Expired) => InferError::Timeout,
            Refusal::Full { limit } => InferError::QueueFull { model, limit },
            Refusal::Retired => InferError::NotResident { model },
            Refusal::NotStarted => {
                let id = job.request.sequence.as_ref().map(|mark| mark.id.to_string()).unwrap_or_default();
                InferError::invalid_hint(
                    format!(
                        "inference request for sequence {id} to model '{model}' must specify the START flag on the first request of the sequence"
                    ),
                    "it never began, has ended, or was idle for longer than max_sequence_idle_microseconds",
                )
            }
        }
    }

    fn run(self: &Arc<Self>, key: Key, job: Job, (start, end): (bool, bool), state: &[Tensor]) {
        let Job { mut request, deadline, reply } = job;
        request.inputs.extend(self.plan.controls(&key.1, start, end));
        request.inputs.extend(state.iter().cloned());
        // All come, for the state is among them; the caller gets what it asked for.
        let wanted = std::mem::take(&mut request.outputs);
        let turn = Turn { shared: Arc::clone(self), key: Some(key), reply: Some(reply), wanted };
        self.served.enqueue(request, Some(deadline), Box::new(turn));
    }

    /// Takes the state out of an answer and leaves what its caller wants.
    fn split(&self, response: &mut InferResponse, wanted: &[String]) -> Option<State> {
        let state = self.plan.state(&response.outputs)?;
        let place = |tensor: &Tensor| wanted.iter().position(|name| **name == *tensor.name);
        response.outputs.retain(|tensor| match wanted {
            [] => self.info.outputs.iter().any(|output| output.name == tensor.name),
            _ => place(tensor).is_some(),
        });
        response.outputs.sort_by_key(place);
        Some(state)
    }
}

/// The answer to a run of a sequence: keeps the state, and lets the next one run.
struct Turn {
    shared: Arc<Shared>,
    /// `None` once the run is over.
    key: Option<Key>,
    reply: Option<Reply>,
    wanted: Vec<String>,
}

impl Turn {
    fn finish(&mut self, state: Option<State>) {
        if let Some(key) = self.key.take() {
            self.shared.step(|table, now, steps| table.finish(&key, state, now, steps));
        }
    }
}

impl Answer for Turn {
    fn is_gone(&self) -> bool {
        self.reply.as_ref().is_none_or(|reply| reply.is_gone())
    }

    fn send(mut self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        let (outcome, state) = match outcome {
            Ok(mut response) => match self.shared.split(&mut response, &self.wanted) {
                Some(state) => (Ok(response), Some(state)),
                None => (Err(InferError::Internal("the run left no state".into())), None),
            },
            Err(error) => (Err(error), None),
        };
        if let Some(reply) = self.reply.take() {
            reply.send(outcome);
        }
        self.finish(state);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Dropped without an answer, the run broke: the sequence goes on from where it was.
        self.finish(None);
    }
}
