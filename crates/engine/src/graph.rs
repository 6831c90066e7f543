//! A graph of models behind one name: a request runs through its steps, each of which is a request to a model.
//!
//! A graph is an [`Upstream`] like a model. What it is of is asked for with every step, so that a reload of a member is a
//! reload of the graph, and each member batches as usual. Tensors go from step to step by reference, and steps that do not
//! need each other run side by side. Invariants: the first error ends a request, and what of it waits is not run any more;
//! all steps have one deadline, one trace and one tenant; what the graphs of a process keep between steps is bounded.
//!
//! Not here: whether a graph makes sense ([`plan`]), what can run when ([`progress`]).
use crate::{
    check::{check, of_no_sequence},
    later::{Tiny, later, settled},
    repository::complete::Labels,
    workers,
};
use plan::{Plan, Step};
use progress::Progress;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};
use xebec_core::{
    InferError, InferRequest, InferResponse, ModelInfo, Permit, Tensor, Timings, VersionRef,
    metrics::ModelMetrics,
    model_config::{ModelConfig, ModelEnsembling, model_config::SchedulingChoice},
    port::{Answer, Done, Extent, Reply, Upstream},
};

pub(crate) mod choice;
pub(crate) mod node;
pub(crate) mod plan;
pub(crate) mod progress;
#[cfg(test)]
mod tests;

/// Most graphs within each other, when they are loaded.
pub(crate) const DEEPEST: u32 = 16;

/// And when they are run: a member may have been reloaded as a deeper one since.
const DEEPEST_RUN: u16 = 64;

/// Most runs of models for one request.
pub(crate) const MOST_RUNS: u32 = 4096;

/// How often a member is brought back that is sent out of memory again before it is used.
const WAKES: u32 = 4;

/// What a configuration says of a graph, if it makes one.
pub(crate) fn scheduling(config: &ModelConfig) -> Option<&ModelEnsembling> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(graph)) => Some(graph),
        _ => None,
    }
}

/// Where the members of graphs are found, as a protocol finds a model: see [`xebec_core::port::Router`].
pub(crate) trait Members: Send + Sync {
    /// The revision that a step is for.
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError>;

    /// Brings a member back into memory.
    fn wake(&self, permit: &Permit, done: Done);
}

/// What all graphs of a process keep between steps.
#[derive(Debug)]
pub struct Memory {
    most: u64,
    used: AtomicU64,
}

impl Memory {
    /// For so many bytes.
    #[must_use]
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, used: AtomicU64::new(0) })
    }

    /// Bytes that are kept, and the most that may be.
    pub fn usage(&self) -> (u64, u64) {
        (self.used.load(Relaxed), self.most)
    }
}

/// What of it one request keeps.
struct Hold {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Hold {
    /// Keeps so many bytes from now on; whether there is room.
    fn set(&mut self, bytes: u64) -> bool {
        let used = if bytes >= self.bytes {
            let more = bytes - self.bytes;
            self.memory.used.fetch_add(more, Relaxed) + more
        } else {
            self.memory.used.fetch_sub(self.bytes - bytes, Relaxed);
            0
        };
        self.bytes = bytes;
        used <= self.memory.most
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// A graph that is served.
pub(crate) struct Graph(Arc<Shared>);

struct Shared {
    info: ModelInfo,
    config: ModelConfig,
    plan: Plan,
    labels: Labels,
    headers: Vec<Box<str>>,
    extent: Extent,
    metrics: Arc<ModelMetrics>,
    members: Weak<dyn Members>,
    memory: Arc<Memory>,
}

/// What it takes to serve a graph.
pub(crate) struct Parts {
    pub(crate) info: ModelInfo,
    pub(crate) config: ModelConfig,
    pub(crate) plan: Plan,
    pub(crate) labels: Labels,
    /// Those that its members look at.
    pub(crate) headers: Vec<Box<str>>,
    pub(crate) extent: Extent,
    pub(crate) metrics: Arc<ModelMetrics>,
    /// Where its members are.
    pub(crate) members: Weak<dyn Members>,
    pub(crate) memory: Arc<Memory>,
}

impl Graph {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { info, config, plan, labels, headers, extent, metrics, members, memory } = parts;
        Self(Arc::new(Shared { info, config, plan, labels, headers, extent, metrics, members, memory }))
    }
}

impl Upstream for Graph {
    fn info(&self) -> &ModelInfo {
        &self.0.info
    }

    fn config(&self) -> &ModelConfig {
        &self.0.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.0.labels.get(output).map(|labels| &**labels).unwrap_or_default()
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.0.metrics
    }

    fn headers(&self) -> &[Box<str>] {
        &self.0.headers
    }

    fn extent(&self) -> Extent {
        self.0.extent
    }

    fn submit(&self, permit: &Permit, mut request: InferRequest, reply: Reply) {
        let Shared { info, plan, .. } = &*self.0;
        if permit.depth() >= DEEPEST_RUN {
            return reply
                .send(Err(InferError::Internal(format!("graphs are {DEEPEST_RUN} deep within each other"))));
        }
        let checked = of_no_sequence(info, &request).and_then(|()| check(info, None, &mut request));
        if let Err(error) = checked {
            return reply.send(Err(error));
        }
        let inputs = std::mem::take(&mut request.inputs);
        let mut wanted: Vec<usize> = match request.outputs.as_slice() {
            [] => plan.outputs.clone(),
            names => names.iter().filter_map(|name| plan.output(&info.outputs, name)).collect(),
        };
        let mut seen = Vec::new();
        wanted.retain(|at| {
            !seen.contains(at) && {
                seen.push(*at);
                true
            }
        });
        let progress = Progress::new(plan, inputs, wanted);
        let first = progress.first();
        let hold = Hold { memory: Arc::clone(&self.0.memory), bytes: 0 };
        let flow = Arc::new(Flow {
            graph: Arc::clone(&self.0),
            permit: permit.for_member(&info.name),
            request,
            began: Instant::now(),
            over: AtomicBool::new(false),
            state: Mutex::new(State { progress, hold, reply: Some(reply) }),
        });
        // Whoever submits may be in the middle of a turn: what tiny members are asked is one batch at its end.
        settled(Tiny::AtTurn, || flow.begin_all(&first));
    }
}

/// A request on its way through a graph.
struct Flow {
    graph: Arc<Shared>,
    permit: Permit,
    /// Without its inputs.
    request: InferRequest,
    began: Instant,
    /// It has been answered.
    over: AtomicBool,
    state: Mutex<State>,
}

struct State {
    progress: Progress,
    hold: Hold,
    reply: Option<Reply>,
}

impl Flow {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs steps whose tensors are there. The last of them may be done here and now; what the others are to do must not
    /// wait for it, nor it for them.
    fn begin_all(self: &Arc<Self>, free: &[usize]) {
        for (at, step) in free.iter().enumerate() {
            self.begin(*step, at + 1 == free.len());
        }
    }

    fn begin(self: &Arc<Self>, step: usize, last: bool) {
        let mut state = self.lock();
        if state.reply.is_none() {
            return;
        }
        let State { progress, hold, .. } = &mut *state;
        let (inputs, outputs) = progress.begin(&self.graph.plan, step);
        hold.set(progress.bytes());
        drop(state);
        self.find(Asking { step, last, inputs, outputs }, 0);
    }

    /// Finds the member of a step and gives it its request.
    fn find(self: &Arc<Self>, asking: Asking, wakes: u32) {
        let step = asking.step;
        let Step { member, .. } = &self.graph.plan.steps[step];
        let Some(router) = self.graph.members.upgrade() else { return self.end(Err(InferError::Draining)) };
        let permit = self.permit.for_member(&member.name);
        let version = member.version.map_or(VersionRef::Newest, VersionRef::Number);
        match router.route(&permit, version) {
            Ok(upstream) if upstream.works_here() && !asking.last => {
                let (flow, again) = (Arc::clone(self), move |flow: &Arc<Self>, permit: &Permit| {
                    flow.submit(asking, permit, upstream);
                });
                let given = workers::give(Box::new(move || again(&flow, &permit)));
                given.unwrap_or_else(|work| work());
            }
            Ok(upstream) if !asking.last => {
                workers::in_passing(|| self.submit(asking, &permit, upstream));
            }
            Ok(upstream) => self.submit(asking, &permit, upstream),
            Err(InferError::NotResident { model }) if wakes >= WAKES => {
                self.fail(InferError::NoModelMemory { model });
            }
            Err(InferError::NotResident { .. }) => {
                let flow = Arc::clone(self);
                let woken = move |outcome: Result<(), InferError>| {
                    later(move || match outcome {
                        Ok(()) => flow.find(asking, wakes + 1),
                        Err(error) => flow.fail(error),
                    });
                };
                router.wake(&permit, Box::new(woken));
            }
            Err(error) => self.fail(error),
        }
    }

    fn submit(self: &Arc<Self>, asking: Asking, permit: &Permit, upstream: Arc<dyn Upstream>) {
        let Asking { step, inputs, outputs, .. } = asking;
        let timeout = match self.request.timeout.map(|timeout| timeout.checked_sub(self.began.elapsed())) {
            None => None,
            Some(Some(left)) => Some(left),
            Some(None) => return self.fail(InferError::Timeout),
        };
        let rows = rows(upstream.info(), &inputs);
        let request = InferRequest {
            id: self.request.id.clone(),
            inputs,
            outputs,
            timeout,
            priority: self.request.priority,
            sequence: None,
            streamed: self.request.streamed,
            headers: self.request.headers.clone(),
            received: self.request.received,
            trace: self.request.trace.clone(),
        };
        let asked = Asked { upstream: Arc::clone(&upstream), rows, began: Instant::now() };
        let slot = Slot { flow: Arc::clone(self), step, asked: Some(asked) };
        upstream.submit(permit, request, Box::new(slot));
    }

    /// Takes what a step came to.
    fn done(self: &Arc<Self>, step: usize, asked: &Asked, outcome: Result<InferResponse, InferError>) {
        asked.count(&self.permit, &outcome);
        let made = match outcome {
            Ok(response) => response.outputs,
            Err(error) => return self.fail(error),
        };
        let mut state = self.lock();
        let State { progress, hold, reply } = &mut *state;
        if reply.is_none() {
            return;
        }
        let free = match progress.end(&self.graph.plan, step, made) {
            Ok(free) => free,
            Err(error) => {
                drop(state);
                return self.fail(error);
            }
        };
        if !hold.set(progress.bytes()) {
            drop(state);
            return self.fail(InferError::NoGraphMemory);
        }
        let answer = progress.answer();
        drop(state);
        if let Some(outputs) = answer {
            let timings = Timings {
                compute_infer: self.began.elapsed(),
                began: Some(self.began),
                ..Timings::default()
            };
            return self.end(Ok(InferResponse { outputs, timings }));
        }
        self.begin_all(&free);
    }

    fn fail(&self, error: InferError) {
        let graph = self.graph.info.name.to_string();
        self.end(Err(match error {
            // Nobody is to be told of these in other words.
            InferError::Cancelled | InferError::Timeout | InferError::DeadlineExceeded => error,
            error => InferError::InGraph { graph, error: Box::new(error) },
        }));
    }

    /// Answers, once.
    fn end(&self, outcome: Result<InferResponse, InferError>) {
        self.over.store(true, SeqCst);
        let mut state = self.lock();
        let State { progress, hold, reply } = &mut *state;
        // Members that still run keep this, but nothing of what was made for them.
        progress.clear();
        hold.set(0);
        let reply = reply.take();
        drop(state);
        if let Some(reply) = reply {
            reply.send(outcome);
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst) || self.lock().reply.as_ref().is_none_or(|reply| reply.is_gone())
    }
}

/// What a step is to be asked.
struct Asking {
    step: usize,
    /// Whether it may be done here and now.
    last: bool,
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
}

/// A request to a member.
struct Asked {
    upstream: Arc<dyn Upstream>,
    rows: u64,
    began: Instant,
}

impl Asked {
    /// Counts it with the member, as a request of a caller's is counted.
    fn count(&self, permit: &Permit, outcome: &Result<InferResponse, InferError>) {
        let (metrics, took) = (self.upstream.metrics().tenant(permit.tenant()), self.began.elapsed());
        match outcome {
            Ok(response) => {
                let durations = (Duration::ZERO, Duration::ZERO, took);
                metrics.succeed(self.rows, &response.timings, Instant::now(), durations);
            }
            Err(error) => metrics.fail(error.failure_reason(), took),
        }
    }
}

/// Where the answer of a step goes.
struct Slot {
    flow: Arc<Flow>,
    step: usize,
    /// Until it is answered.
    asked: Option<Asked>,
}

impl Slot {
    fn give(&mut self, outcome: Result<InferResponse, InferError>) {
        let Some(asked) = self.asked.take() else { return };
        let (flow, step) = (Arc::clone(&self.flow), self.step);
        later(move || flow.done(step, &asked, outcome));
    }
}

impl Answer for Slot {
    fn is_gone(&self) -> bool {
        self.flow.is_over()
    }

    fn send(mut self: Box<Self>, outcome: Result<InferResponse, InferError>) {
        self.give(outcome);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give(Err(InferError::Internal("the model ended without an answer".into())));
    }
}

/// Rows of a request to a model.
fn rows(info: &ModelInfo, inputs: &[Tensor]) -> u64 {
    let first = inputs.first().and_then(|tensor| tensor.shape.first()).copied();
    if info.max_batch_size == 0 { 1 } else { first.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(1) }
}
