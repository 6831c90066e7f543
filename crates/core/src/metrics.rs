//! Counters and histograms of a model, as plain atomics: engine and protocols write, `xebec-net` prints.
//!
//! Names and helps of everything printed stand in [`names`]. Histograms are in seconds. Not here: text formats.
//!
//! Invariant: nothing here waits for a lock, and of what is not traced nothing locks or allocates once a tenant is known,
//! so recording can stand on the hot path.
use crate::{TenantId, Timings, error::FailureReason, trace::SpanContext};
use exemplar::Exemplars;
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

mod exemplar;
pub mod names;

pub use exemplar::Exemplar;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Sets it.
    pub fn set(&self, n: i64) {
        self.0.store(n, Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The last time of something. It costs no look at the clock: who sets it has one.
#[derive(Debug, Default)]
pub struct Moment(AtomicU64);

impl Moment {
    fn base() -> Instant {
        static BASE: OnceLock<Instant> = OnceLock::new();
        // The first time that is set may lie just before it and then counts as it: microseconds.
        *BASE.get_or_init(Instant::now)
    }

    /// It happened at `at`.
    pub fn set(&self, at: Instant) {
        self.0.store(nanoseconds(at.saturating_duration_since(Self::base())).max(1), Relaxed);
    }

    /// Milliseconds since the epoch by the system's clock as it goes now; 0 if it never happened.
    pub fn epoch_milliseconds(&self) -> u64 {
        let at = self.0.load(Relaxed);
        if at == 0 {
            return 0;
        }
        let ago = Self::base().elapsed().saturating_sub(Duration::from_nanos(at));
        let then = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(ago);
        u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Upper bounds of the buckets of a latency histogram whose model asks for no others, in microseconds; one more bucket takes
/// the rest.
///
/// From the cost of one row of a tiny model to the longest wait anybody accepts, about four to a decade.
pub const BUCKETS_MICROSECONDS: [u64; 24] = [
    5, 10, 20, 40, 60, 100, 200, 400, 600, 1_000, 2_000, 4_000, 6_000, 10_000, 20_000, 40_000, 60_000,
    100_000, 200_000, 400_000, 1_000_000, 2_500_000, 10_000_000, 60_000_000,
];

/// A latency histogram.
#[derive(Debug)]
pub struct Histogram {
    /// Those of [`BUCKETS_MICROSECONDS`] if `None`.
    bounds: Option<Arc<[u64]>>,
    buckets: Box<[AtomicU64]>,
    sum_nanoseconds: AtomicU64,
    exemplars: Exemplars,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Histogram {
    /// With the upper bounds of its buckets in microseconds, rising; the usual ones if `None`.
    pub fn new(bounds: Option<Arc<[u64]>>) -> Self {
        let buckets = bounds.as_ref().map_or(BUCKETS_MICROSECONDS.len(), |bounds| bounds.len()) + 1;
        let buckets = (0..buckets).map(|_| AtomicU64::default()).collect();
        Self { bounds, buckets, sum_nanoseconds: AtomicU64::default(), exemplars: Exemplars::default() }
    }

    /// Upper bounds of its buckets but the last one, in microseconds.
    pub fn bounds(&self) -> &[u64] {
        self.bounds.as_deref().unwrap_or(&BUCKETS_MICROSECONDS)
    }

    fn bucket(&self, nanoseconds: u64) -> usize {
        self.bounds().partition_point(|bound| bound * 1000 < nanoseconds)
    }

    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        let nanoseconds = nanoseconds(duration);
        if let Some(bucket) = self.buckets.get(self.bucket(nanoseconds)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// Keeps a traced duration as the example of its bucket. It is observed besides.
    pub fn exemplify(&self, exemplar: Exemplar) {
        self.exemplars.keep(self.bucket(nanoseconds(exemplar.duration)), self.buckets.len(), exemplar);
    }

    /// The example of a bucket, by its place in [`Self::counts`].
    pub fn exemplar(&self, bucket: usize) -> Option<Exemplar> {
        self.exemplars.get(bucket)
    }

    /// Counts per bucket, not cumulated, the unbounded one last.
    pub fn counts(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect()
    }

    /// Sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_nanoseconds.load(Relaxed)).as_secs_f64()
    }
}

/// The phases of a request that have a histogram each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Bytes to tensors.
    Decode,
    /// Waiting for a batch.
    Queue,
    /// Gathering, running and cutting the batch.
    Compute,
    /// Tensors to bytes.
    Encode,
    /// From the last byte read to the answer handed to the connection.
    Total,
}

impl Phase {
    /// All phases, in the order of the metrics page.
    pub const ALL: [Self; 5] = [Self::Decode, Self::Queue, Self::Compute, Self::Encode, Self::Total];

    /// The family of its histograms.
    pub const fn family(self) -> &'static names::Family {
        match self {
            Self::Decode => &names::DECODE_SECONDS,
            Self::Queue => &names::WAIT_SECONDS,
            Self::Compute => &names::COMPUTE_SECONDS,
            Self::Encode => &names::ENCODE_SECONDS,
            Self::Total => &names::TOTAL_SECONDS,
        }
    }
}

/// Bounds of the histograms of each phase, as of [`Histogram::new`], in the order of [`Phase::ALL`].
pub type Bounds = [Option<Arc<[u64]>>; 5];

/// What one tenant did with one model version.
#[derive(Debug, Default)]
pub struct TenantMetrics {
    /// Requests answered.
    pub success: Counter,
    /// Requests failed, by [`FailureReason`] (rejected, canceled, backend, other).
    failure: [Counter; 4],
    /// Sum of the durations of failed requests, in nanoseconds.
    pub failed_ns: Counter,
    /// When a request was last answered.
    pub last_answer: Moment,
    /// Rows run.
    pub rows: Counter,
    /// Sum of request durations, in nanoseconds.
    pub request_ns: Counter,
    /// Sum of queue times, in nanoseconds.
    pub queue_ns: Counter,
    /// Sum of input times, in nanoseconds.
    pub compute_input_ns: Counter,
    /// Sum of run times, in nanoseconds.
    pub compute_infer_ns: Counter,
    /// Sum of output times, in nanoseconds.
    pub compute_output_ns: Counter,
    /// Requests that an answer was kept for, and others.
    pub cache: CacheCounts,
    phases: [Histogram; 5],
}

impl TenantMetrics {
    fn new(bounds: &Bounds) -> Self {
        Self { phases: bounds.clone().map(Histogram::new), ..Self::default() }
    }

    /// The counter of failures for `reason`.
    pub fn failure(&self, reason: FailureReason) -> &Counter {
        let [rejected, canceled, backend, other] = &self.failure;
        match reason {
            FailureReason::Rejected => rejected,
            FailureReason::Canceled => canceled,
            FailureReason::Backend => backend,
            FailureReason::Other => other,
        }
    }

    /// The histogram of `phase`.
    pub fn phase(&self, phase: Phase) -> &Histogram {
        let [decode, queue, compute, encode, total] = &self.phases;
        match phase {
            Phase::Decode => decode,
            Phase::Queue => queue,
            Phase::Compute => compute,
            Phase::Encode => encode,
            Phase::Total => total,
        }
    }

    /// Records a request that failed `after` so long.
    pub fn fail(&self, reason: FailureReason, after: Duration) {
        self.failure(reason).add(1);
        self.failed_ns.add(nanoseconds(after));
    }

    /// How many failed, for whatever reason.
    pub fn failures(&self) -> u64 {
        self.failure.iter().map(Counter::get).sum()
    }

    /// Keeps a traced request as the example of its buckets; the durations are as in [`Self::succeed`].
    pub fn exemplify(
        &self,
        span: SpanContext,
        timings: &Timings,
        (decode, encode, total): (Duration, Duration, Duration),
    ) {
        let at = SystemTime::now();
        let compute = timings.compute_input + timings.compute_infer + timings.compute_output;
        let all = [
            (Phase::Total, total),
            (Phase::Decode, decode),
            (Phase::Queue, timings.queue),
            (Phase::Compute, compute),
            (Phase::Encode, encode),
        ];
        // Of a kept answer only the whole is observed.
        for (phase, duration) in all.into_iter().take(if timings.cached { 1 } else { 5 }) {
            self.phase(phase).exemplify(Exemplar { span, duration, at });
        }
    }

    /// Records a request of `rows` rows that was answered now, at `done`, and whose whole way took `total`.
    pub fn succeed(
        &self,
        rows: u64,
        timings: &Timings,
        done: Instant,
        (decode, encode, total): (Duration, Duration, Duration),
    ) {
        self.success.add(1);
        self.last_answer.set(done);
        self.request_ns.add(nanoseconds(total));
        if timings.cached {
            self.phase(Phase::Total).observe(total);
            return;
        }
        self.rows.add(rows);
        self.queue_ns.add(nanoseconds(timings.queue));
        self.compute_input_ns.add(nanoseconds(timings.compute_input));
        self.compute_infer_ns.add(nanoseconds(timings.compute_infer));
        self.compute_output_ns.add(nanoseconds(timings.compute_output));
        self.phase(Phase::Decode).observe(decode);
        self.phase(Phase::Queue).observe(timings.queue);
        self.phase(Phase::Compute)
            .observe(timings.compute_input + timings.compute_infer + timings.compute_output);
        self.phase(Phase::Encode).observe(encode);
        self.phase(Phase::Total).observe(total);
    }
}

/// Everything counted of one model version.
#[derive(Debug, Default)]
pub struct ModelMetrics {
    /// Runs of the engine; below the number of requests where batching helped.
    pub executions: Counter,
    /// The same by rows of the run, with what they took.
    pub batches: BatchSizes,
    /// Requests that wait.
    pub pending: Gauge,
    /// Time the load took, warm-up included, in microseconds.
    pub load_us: Gauge,
    bounds: Bounds,
    tenants: TenantList,
}

impl ModelMetrics {
    /// With these bounds of its histograms.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Bounds of its histograms.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The part of one tenant, made at its first request.
    ///
    /// Holding a permit for it, a tenant is known to the registry: no label comes from a caller's text.
    pub fn tenant(&self, tenant: &TenantId) -> &TenantMetrics {
        self.tenants.get(tenant, &self.bounds)
    }

    /// Every tenant seen so far.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &TenantMetrics)> {
        self.tenants.iter()
    }
}

/// Requests to a model whose answers are kept.
#[derive(Debug, Default)]
pub struct CacheCounts {
    /// Answered without a run of their own.
    pub hits: Counter,
    /// Looking those up, in nanoseconds.
    pub hit_ns: Counter,
    /// Run.
    pub misses: Counter,
    /// Looking those up, in nanoseconds.
    pub miss_ns: Counter,
}

impl CacheCounts {
    /// One that was answered without a run of its own; looking it up took so long.
    pub fn hit(&self, took: Duration) {
        self.hits.add(1);
        self.hit_ns.add(nanoseconds(took));
    }

    /// One that had to run; looking it up took so long.
    pub fn miss(&self, took: Duration) {
        self.misses.add(1);
        self.miss_ns.add(nanoseconds(took));
    }
}

/// What is kept of answers, of all models.
#[derive(Debug, Default)]
pub struct CacheMetrics {
    /// Memory of the answers.
    pub bytes: Gauge,
    /// Answers.
    pub entries: Gauge,
    /// Answers that went to make room.
    pub evictions: Counter,
}

/// What models have come into memory and gone.
#[derive(Debug, Default)]
pub struct ResidentMetrics {
    /// Versions loaded.
    pub loads: Counter,
    /// Versions that could not be.
    pub failed_loads: Counter,
    /// Models sent out of memory to make room.
    pub evictions: Counter,
}

/// Runs of so many rows.
#[derive(Debug, Default)]
pub struct BatchStats {
    /// How many.
    pub runs: Counter,
    /// Sum of input times, in nanoseconds.
    pub input_ns: Counter,
    /// Sum of run times, in nanoseconds.
    pub infer_ns: Counter,
    /// Sum of output times, in nanoseconds.
    pub output_ns: Counter,
}

/// Powers of two up to which sizes are told apart; larger runs are not listed.
const DOUBLINGS: usize = 13;

/// Runs by their rows, from 1 to 8191. Room is made by doublings, when a run needs it.
#[derive(Debug, Default)]
pub struct BatchSizes([OnceLock<Box<[BatchStats]>>; DOUBLINGS]);

impl BatchSizes {
    /// Records a run of `rows` rows.
    pub fn record(&self, rows: u64, timings: &Timings) {
        let Some(doubling) = rows.checked_ilog2() else { return };
        let Some(chunk) = self.0.get(doubling as usize) else { return };
        let chunk = chunk.get_or_init(|| (0..1_u64 << doubling).map(|_| BatchStats::default()).collect());
        let Some(stats) = usize::try_from(rows - (1 << doubling)).ok().and_then(|at| chunk.get(at)) else {
            return;
        };
        stats.runs.add(1);
        stats.input_ns.add(nanoseconds(timings.compute_input));
        stats.infer_ns.add(nanoseconds(timings.compute_infer));
        stats.output_ns.add(nanoseconds(timings.compute_output));
    }

    /// Sizes that were run, the smallest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &BatchStats)> {
        let chunks = self.0.iter().filter_map(OnceLock::get).flat_map(|chunk| {
            let first = chunk.len() as u64;
            (first..).zip(chunk.iter())
        });
        chunks.filter(|(_, stats)| stats.runs.get() > 0)
    }
}

/// A list that only grows and is read without a lock: almost always it has one entry.
#[derive(Debug, Default)]
struct TenantList(OnceLock<Box<TenantNode>>);

#[derive(Debug)]
struct TenantNode {
    tenant: TenantId,
    metrics: TenantMetrics,
    next: TenantList,
}

impl TenantList {
    fn get(&self, tenant: &TenantId, bounds: &Bounds) -> &TenantMetrics {
        let mut list = self;
        loop {
            let node = list.0.get_or_init(|| {
                Box::new(TenantNode {
                    tenant: tenant.clone(),
                    metrics: TenantMetrics::new(bounds),
                    next: Self::default(),
                })
            });
            if node.tenant == *tenant {
                return &node.metrics;
            }
            list = &node.next;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&TenantId, &TenantMetrics)> {
        let first = self.0.get();
        std::iter::successors(first, |node| node.next.0.get()).map(|node| (&node.tenant, &node.metrics))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_counts_below_it_and_one_past_all_bounds_counts_last() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(5));
        histogram.observe(Duration::from_nanos(5001));
        histogram.observe(Duration::from_secs(3600));
        let counts = histogram.counts();
        assert_eq!((counts[0], counts[1], counts[24]), (1, 1, 1));
        assert!((histogram.sum_seconds() - 3_600.000_010_001).abs() < 1e-9);
    }

    #[test]
    fn a_model_has_the_bounds_that_it_asks_for_and_each_tenant_of_it() {
        let mut bounds = Bounds::default();
        bounds[4] = Some([1000, 5000].into());
        let metrics = ModelMetrics::new(bounds);
        for tenant in ["a", "b"] {
            let tenant = metrics.tenant(&TenantId::parse(tenant).unwrap());
            let total = tenant.phase(Phase::Total);
            [1, 2, 5, 6].iter().for_each(|ms| total.observe(Duration::from_millis(*ms)));
            assert_eq!((total.bounds(), total.counts()), (&[1000, 5000][..], vec![1, 2, 1]));
            assert_eq!(tenant.phase(Phase::Queue).bounds(), BUCKETS_MICROSECONDS);
        }
    }

    #[test]
    fn a_bucket_keeps_the_newest_example_and_a_kept_answer_is_one_of_the_whole_alone() {
        let number = |span| SpanContext {
            trace: crate::trace::TraceId::new(1).unwrap(),
            span: crate::trace::SpanId::new(span).unwrap(),
        };
        let metrics = TenantMetrics::default();
        let took = |us| (Duration::from_micros(us), Duration::from_micros(us), Duration::from_micros(us));
        let shown = |phase, bucket| metrics.phase(phase).exemplar(bucket).map(|kept| kept.span);
        assert_eq!(shown(Phase::Total, 0), None);
        metrics.exemplify(number(1), &Timings::default(), took(7));
        metrics.exemplify(number(2), &Timings::default(), took(8));
        metrics.exemplify(number(3), &Timings { cached: true, ..Timings::default() }, took(9));
        metrics.exemplify(number(4), &Timings::default(), took(100_000_000));
        assert_eq!((shown(Phase::Total, 1), shown(Phase::Decode, 1)), (Some(number(3)), Some(number(2))));
        assert_eq!((shown(Phase::Queue, 0), shown(Phase::Total, 24)), (Some(number(4)), Some(number(4))));
        assert_eq!(shown(Phase::Total, 0), None);
    }

    #[test]
    fn a_moment_is_told_by_the_systems_clock() {
        let moment = Moment::default();
        assert_eq!(moment.epoch_milliseconds(), 0);
        let now = || u64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
        let before = now();
        moment.set(Instant::now());
        let (told, after) = (moment.epoch_milliseconds(), now());
        // Two clocks are read one after the other.
        assert!((before.saturating_sub(1000)..=after).contains(&told), "{before} {told} {after}");
    }

    #[test]
    fn runs_are_told_apart_by_their_rows() {
        let batches = BatchSizes::default();
        let timings = Timings { compute_infer: Duration::from_micros(3), ..Timings::default() };
        for rows in [1, 7, 8, 8191, 8, 0, 8192, u64::MAX] {
            batches.record(rows, &timings);
        }
        let seen: Vec<_> = batches.iter().map(|(rows, s)| (rows, s.runs.get(), s.infer_ns.get())).collect();
        assert_eq!(seen, [(1, 1, 3000), (7, 1, 3000), (8, 2, 6000), (8191, 1, 3000)]);
    }

    #[test]
    fn tenants_keep_their_own_numbers() {
        let metrics = ModelMetrics::default();
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        metrics.tenant(&a).success.add(1);
        metrics.tenant(&b).success.add(2);
        metrics.tenant(&a).success.add(1);
        let seen: Vec<_> = metrics.tenants().map(|(id, m)| (id.as_str(), m.success.get())).collect();
        assert_eq!(seen, [("a", 2), ("b", 2)]);
    }
}
