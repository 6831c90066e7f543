//! A model that serves: warmed up, measured, and behind the queue that fits it.
//!
//! A model whose run is tiny is run [inline](crate::inline) on the I/O cores; a larger one has
//! [instance threads](crate::instance). Invariants: requests share a run only if the graph keeps rows apart and a
//! trial run of two rows gave two; every request is answered, also those that wait when the model is dropped.
//!
//! Not here: files and configuration (`repository`), what the graph says (`onnx`).
use crate::{
    backend::{LoadError, LoadOptions, Model, Stream},
    check::{check, of_no_sequence},
    edges::Edges,
    inline::Inline,
    instance::Pool,
    limiter::{Limit, Limiter, Seat},
    order::Order,
    queue::{Level, Rules},
    repository::complete::Labels,
    request::Pending,
    runner::{Facts, Observer, Runner, Session},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use trial::Measured;
use xebec_core::{
    InferError, InferRequest, ModelInfo, Permit, Tensor,
    metrics::ModelMetrics,
    model_config::{ModelConfig, model_config::SchedulingChoice},
    port::{Reply, Upstream},
    resource::Objective,
};

mod trial;

#[cfg(test)]
pub(crate) mod tests;

/// An inline run may hold up its I/O core for so long.
const LONGEST_INLINE_RUN: Duration = Duration::from_millis(1);

/// How a model is to be served.
#[derive(Clone)]
pub struct Plan {
    /// What callers see.
    pub info: ModelInfo,
    /// Its whole configuration.
    pub config: ModelConfig,
    /// How requests become batches.
    pub batching: Batching,
    /// What lies between callers' tensors and the graph's, if anything does.
    pub edges: Option<Arc<Edges>>,
    /// Labels of classes.
    pub labels: Labels,
    /// What is run before the model is ready, beside the trial on zeros.
    pub warmups: Vec<Warmup>,
    /// Runs side by side, exactly; a tiny model then has instance threads too. By the number of cores if `None`.
    pub instances: Option<u32>,
    /// What runs of the instances take, group by group with the number of its instances; `None` if that is nothing.
    pub(crate) limits: Vec<(u32, Option<Limit>)>,
    /// Where they take it, if anywhere.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// I/O cores of this process.
    pub cores: u32,
    /// What its graph is loaded for.
    pub load: LoadOptions,
    /// A run that takes less is not worth waking a thread for: it is run inline.
    pub inline_below: Duration,
    /// Told of every run.
    pub observer: Option<Arc<dyn Observer>>,
    /// Where its requests are counted.
    pub metrics: Arc<ModelMetrics>,
    /// Dropped when the last of the model's memory has gone.
    pub guard: Option<Guard>,
}

/// Something whose end is an event for somebody.
pub type Guard = Arc<dyn Send + Sync>;

/// How requests of different callers become one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most rows of a run; 1 if requests never share one.
    pub max_rows: u32,
    /// Rows of a run that are not waited on any longer; none if any number is as good.
    pub preferred: Vec<u32>,
    /// How long a busy instance waits for company.
    pub max_delay: Duration,
    /// How requests wait, where there are no priorities.
    pub queue: QueuePolicy,
    /// Levels of requests, if some go before others.
    pub priorities: Option<Priorities>,
    /// Whether answers go out in the order of their requests.
    pub preserve_ordering: bool,
    /// Why requests must not share a run, if so.
    pub mixes: Result<(), String>,
}

/// A request that is run before a model is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// For messages.
    pub name: String,
    /// How often it is run on each stream.
    pub count: u32,
    /// In the model's order.
    pub inputs: Vec<Tensor>,
}

/// How requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Most requests that wait.
    pub max_queue: usize,
    /// Longest wait of a request.
    pub timeout: Option<Duration>,
    /// Whether a request may ask for a shorter one.
    pub timeout_override: bool,
    /// Who has waited too long waits on, behind the others, instead of being refused.
    pub waits_on: bool,
}

/// Requests of a lower level go before those of a higher one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priorities {
    /// The policy of each level, that of level 1 first.
    pub levels: Vec<QueuePolicy>,
    /// The level, from 1, of a request that names none.
    pub default: usize,
}

impl Batching {
    /// The policy of a level, from 0.
    fn policy(&self, level: usize) -> &QueuePolicy {
        self.priorities.as_ref().and_then(|all| all.levels.get(level)).unwrap_or(&self.queue)
    }

    /// The level, from 0, that a request asks for. As in Triton, 0 and what is no level are the model's default.
    fn level(&self, asked: u64) -> usize {
        let Some(Priorities { levels, default }) = &self.priorities else { return 0 };
        let asked = usize::try_from(asked).unwrap_or(usize::MAX);
        let level = if (1..=levels.len()).contains(&asked) { asked } else { *default };
        level.saturating_sub(1)
    }

    /// Whether a request asks for a level that there is not.
    fn is_stray(&self, asked: u64) -> bool {
        let levels = self.priorities.as_ref().map_or(0, |all| all.levels.len());
        asked > levels as u64
    }
}

/// One loaded revision of a model.
pub struct Served {
    facts: Arc<Facts>,
    config: ModelConfig,
    batching: Batching,
    labels: Labels,
    order: Option<Arc<Order>>,
    /// Told once of a request whose priority is no level.
    stray_priority: Once,
    engine: Engine,
}

enum Engine {
    Inline(Arc<Inline>),
    Pool(Pool),
}

impl Served {
    /// Warms a model up, measures it, and starts what it needs.
    ///
    /// # Errors
    /// The engine has no room for the streams or the system none for the threads.
    pub fn start(model: Arc<dyn Model>, plan: Plan) -> Result<Self, LoadError> {
        Self::start_within(model, plan, |_| Ok(()))
    }

    /// As [`Self::start`]. `room` is asked for so many copies of the weights before more than one of them is made.
    ///
    /// # Errors
    /// As there, or there is no room.
    pub(crate) fn start_within<E: From<LoadError>>(
        model: Arc<dyn Model>,
        plan: Plan,
        room: impl FnOnce(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let Plan { info, mut config, mut batching, edges, labels, warmups, instances, .. } = plan;
        let Plan { cores, load, inline_below, observer, metrics, guard, limits, limiter, .. } = plan;
        let seats = seats(&info, &limits, limiter.as_ref())?;
        let facts = Arc::new(Facts {
            info: Arc::new(info),
            metrics,
            edges,
            observer,
            broken: AtomicBool::new(false),
        });
        let (mut first, measured) = try_out(&*model, &facts, batching.max_rows)?;
        trial::warm_up_as_told(&mut *first, &facts, &warmups)?;
        if let (Ok(()), Err(reason)) = (&batching.mixes, &measured.two_rows) {
            tracing::warn!(model = %facts.info.name, %reason, "requests will not share runs");
            batching.mixes = Err(reason.clone());
        }
        if batching.mixes.is_err() {
            batching.max_rows = 1;
            // What callers are told is what is done.
            if let Some(SchedulingChoice::DynamicBatching(said)) = &mut config.scheduling_choice {
                said.preferred_batch_size.clear();
            }
            if batching.priorities.is_none() && !batching.preserve_ordering {
                config.scheduling_choice = None;
            }
        }
        let tiny = load.objective == Objective::Throughput
            && instances.is_none()
            && seats.is_empty()
            && load.threads.is_none_or(|threads| threads == 1)
            && load.accelerators().is_empty()
            && has_one_size(&facts.info)
            && facts.edges.as_ref().is_none_or(|edges| !edges.is_ragged())
            && measured.one_row.is_some_and(|run| run < inline_below);
        let starting = Starting { model, facts: Arc::clone(&facts), cores: cores.max(1), warmups, guard };
        let engine = if tiny {
            let longest = measured.largest.unwrap_or(measured.one_row.unwrap_or_default());
            batching.max_rows = rows_within(LONGEST_INLINE_RUN, batching.max_rows, longest);
            room(starting.cores as usize)?;
            starting.inline(first, &batching)?
        } else {
            starting.pool(&batching, instances, load.objective, seats)?
        };
        tracing::info!(
            model = %facts.info.name,
            version = facts.info.version.get(),
            class = if tiny { "inline" } else { "queued" },
            run_us = measured.one_row.map(|run| run.as_micros()),
            rows_a_run = batching.max_rows,
            alone = batching.mixes.as_ref().err(),
            "model is ready"
        );
        let order = batching.preserve_ordering.then(Order::new);
        Ok(Self { facts, config, batching, labels, order, stray_priority: Once::new(), engine })
    }

    /// How its requests become batches, as found out at start.
    pub fn batching(&self) -> &Batching {
        &self.batching
    }

    /// How many copies of its weights are in memory.
    pub fn sessions(&self) -> usize {
        match &self.engine {
            Engine::Inline(inline) => inline.lanes(),
            Engine::Pool(_) => 1,
        }
    }

    /// Whether a panic in a run has left it unable to answer.
    pub(crate) fn is_broken(&self) -> bool {
        self.facts.broken.load(Relaxed)
    }

    /// Whether its requests run on the thread that submits them.
    pub fn is_inline(&self) -> bool {
        matches!(self.engine, Engine::Inline(_))
    }

    /// When a request without a level of its own must have been started.
    pub(crate) fn deadline_of(&self, request: &InferRequest, arrived: Instant) -> Option<Instant> {
        self.deadline(self.batching.level(request.priority), request.timeout, arrived)
    }

    fn deadline(&self, level: usize, asked: Option<Duration>, arrived: Instant) -> Option<Instant> {
        let policy = self.batching.policy(level);
        let asked = asked.filter(|_| policy.timeout_override);
        let timeout = match (asked, policy.timeout) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        };
        arrived.checked_add(timeout?)
    }

    fn note_stray(&self, asked: u64) {
        self.stray_priority.call_once(|| {
            let model = &self.facts.info.name;
            tracing::warn!(%model, asked, "a request asks for a priority that is no level of its model, and has the default");
        });
    }

    fn refuse(&self, pending: Pending) {
        let limit = self.batching.policy(pending.level).max_queue;
        pending.refuse(InferError::QueueFull { model: self.facts.info.name.to_string(), limit });
    }
}

/// A stream that has been warmed up, and what its trial runs showed.
fn try_out(
    model: &dyn Model,
    facts: &Facts,
    max_rows: u32,
) -> Result<(Box<dyn Stream>, Measured), LoadError> {
    let mut stream = model.own_stream()?;
    match catch_unwind(AssertUnwindSafe(|| trial::run(&mut *stream, facts, max_rows))) {
        Ok(measured) => Ok((stream, measured)),
        // Zeros need not fit a model, and a stream that panicked may be in any state.
        Err(_) => Ok((model.own_stream()?, Measured::FAILED)),
    }
}

/// The median time of a run of so many rows of zeros, on a stream that nobody else uses.
///
/// # Errors
/// Why there is none.
pub(crate) fn cost(model: &dyn Model, plan: &Plan, rows: u32) -> Result<Duration, String> {
    let metrics = Arc::new(ModelMetrics::default());
    let info = Arc::new(plan.info.clone());
    let facts =
        Facts { info, metrics, edges: plan.edges.clone(), observer: None, broken: AtomicBool::new(false) };
    let mut stream = model.own_stream().map_err(|error| error.to_string())?;
    let run = || trial::cost(&mut *stream, &facts, rows);
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err("the engine panicked over zeros".into()))
}

/// Whether all that a row can be is of one size, so that what one run took says what the next will take.
fn has_one_size(info: &ModelInfo) -> bool {
    let batch_axes = usize::from(info.max_batch_size > 0);
    info.inputs.iter().all(|input| {
        let extents = input.shape.iter().skip(batch_axes);
        input.datatype.size_bytes().is_some() && extents.into_iter().all(|extent| *extent >= 0)
    })
}

/// Rows that fit into `limit` if `max_rows` take `measured`; at least 1.
fn rows_within(limit: Duration, max_rows: u32, measured: Duration) -> u32 {
    if measured <= limit {
        return max_rows;
    }
    let share = limit.as_nanos() * u128::from(max_rows) / measured.as_nanos().max(1);
    u32::try_from(share).unwrap_or(1).clamp(1, max_rows.max(1))
}

/// What is at hand once the model was measured.
struct Starting {
    model: Arc<dyn Model>,
    facts: Arc<Facts>,
    cores: u32,
    guard: Option<Guard>,
    warmups: Vec<Warmup>,
}

impl Starting {
    fn runner(&self, session: Session, stream: Box<dyn Stream>) -> Runner {
        Runner::new(Arc::clone(&self.facts), Arc::clone(&self.model), session, stream)
    }

    fn inline(self, first: Box<dyn Stream>, batching: &Batching) -> Result<Engine, LoadError> {
        let mut runners = vec![self.runner(Session::Own, first)];
        for _ in 1..self.cores {
            let mut stream = self.model.own_stream()?;
            // The first lane has shown that zeros fit the model; here only the memory counts.
            let _ = trial::warm_up(&mut *stream, &self.facts);
            trial::warm_up_as_told(&mut *stream, &self.facts, &self.warmups)?;
            runners.push(self.runner(Session::Own, stream));
        }
        let inline = Inline::new(Arc::clone(&self.facts), rules(batching, 1), runners, self.guard);
        Ok(Engine::Inline(Arc::new(inline)))
    }

    fn pool(
        self,
        batching: &Batching,
        instances: Option<u32>,
        objective: Objective,
        seats: Vec<Option<Seat>>,
    ) -> Result<Engine, LoadError> {
        let instances = instances.unwrap_or(objective.instances(self.cores)).max(1);
        let mut runners = Vec::new();
        let mut seats = seats.into_iter();
        for _ in 0..instances {
            let mut stream = self.model.shared_stream()?;
            trial::warm_up_as_told(&mut *stream, &self.facts, &self.warmups)?;
            runners.push((self.runner(Session::Shared, stream), seats.next().flatten()));
        }
        let pool = Pool::start(Arc::clone(&self.facts), rules(batching, instances), runners, self.guard);
        pool.map(Engine::Pool).map_err(|source| LoadError::Threads { message: source.to_string() })
    }
}

/// The places of a model's instances at the limiter, in their order.
///
/// # Errors
/// One could never run.
fn seats(
    info: &ModelInfo,
    limits: &[(u32, Option<Limit>)],
    limiter: Option<&Arc<Limiter>>,
) -> Result<Vec<Option<Seat>>, LoadError> {
    let Some(limiter) = limiter else { return Ok(Vec::new()) };
    let model: Arc<str> = info.name.as_str().into();
    let all = limits.iter().flat_map(|(count, limit)| (0..*count).map(move |_| limit.clone()));
    let seat = |limit: Option<Limit>| limit.map(|limit| Seat::take(limiter, &model, limit)).transpose();
    all.map(seat)
        .collect::<Result<_, _>>()
        .map_err(|unfit| LoadError::Resources { message: unfit.to_string() })
}

fn rules(batching: &Batching, instances: u32) -> Rules {
    let level = |policy: &QueuePolicy| Level { max_queue: policy.max_queue, waits_on: policy.waits_on };
    let levels = match &batching.priorities {
        Some(priorities) => priorities.levels.iter().map(level).collect(),
        None => [level(&batching.queue)].into(),
    };
    let mut preferred = batching.preferred.clone();
    preferred.retain(|size| *size <= batching.max_rows);
    preferred.sort_unstable();
    Rules {
        max_rows: batching.max_rows,
        max_delay: batching.max_delay,
        preferred: preferred.into(),
        levels,
        instances,
        concurrent: true,
    }
}

impl Upstream for Served {
    fn info(&self) -> &ModelInfo {
        &self.facts.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.labels.get(output).map(|labels| &**labels).unwrap_or_default()
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.facts.metrics
    }

    fn submit(&self, _: &Permit, request: InferRequest, reply: Reply) {
        if let Err(error) = of_no_sequence(&self.facts.info, &request) {
            return reply.send(Err(error));
        }
        self.enqueue(request, None, reply);
    }
}

impl Served {
    /// Takes a request, checked by nobody yet. A deadline that was given takes the place of the model's own.
    pub(crate) fn enqueue(&self, mut request: InferRequest, deadline: Option<Option<Instant>>, reply: Reply) {
        let rows = match check(&self.facts.info, self.facts.edges.as_deref(), &mut request) {
            Ok(rows) => rows,
            Err(error) => return reply.send(Err(error)),
        };
        let level = self.batching.level(request.priority);
        if self.batching.is_stray(request.priority) {
            self.note_stray(request.priority);
        }
        let arrived = Instant::now();
        let pending = Pending {
            deadline: deadline.unwrap_or_else(|| self.deadline(level, request.timeout, arrived)),
            level,
            late: false,
            id: request.id,
            inputs: request.inputs,
            outputs: request.outputs,
            rows,
            mixes: self.batching.mixes.is_ok(),
            edges: self.facts.edges.clone(),
            arrived,
            trace: request.trace,
            reply,
            place: self.order.as_ref().map(Order::take),
        };
        let outcome = match &self.engine {
            Engine::Inline(inline) => inline.submit(pending),
            Engine::Pool(pool) => pool.submit(pending),
        };
        if let Err(pending) = outcome {
            self.refuse(pending);
        }
    }
}
