//! A model in every arrangement that is tried, loaded once for each number of threads, and the clock of the search.
//!
//! An arrangement stays loaded between its slices: a model learns while it serves which batches are fast.
//!
//! Not here: which arrangement is next (`search`), the load (`load`).
use super::{
    arranged,
    load::{Generator, Load, Stretch},
    record::Slice,
    search::Measure,
    space::{Arrangement, Point},
};
use crate::local::Local;
use indicatif::ProgressBar;
use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use xebec_core::{Tensor, port::EngineReport};
use xebec_engine::{
    backend::{Backend, LoadError, LoadOptions, Model},
    onnx,
    repository::Candidate,
    served::Served,
};

/// Requests that a slice should see answered, so that its p99 says something.
const ANSWERS: f64 = 400.0;
/// Turns of all requests in flight that a slice should see.
const TURNS: f64 = 8.0;
/// Bounds of a slice.
const SHORTEST: Duration = Duration::from_millis(150);
const LONGEST: Duration = Duration::from_millis(2500);
/// Share of a slice that is not measured, before it.
const WARM_UP: f64 = 0.2;
/// Arrangements that are kept loaded.
const MOST_LOADED: usize = 128;

/// Loads a graph once for each way of loading it.
struct Once {
    inner: Arc<dyn Backend>,
    loaded: Mutex<Vec<(LoadOptions, Arc<dyn Model>)>>,
}

impl Backend for Once {
    fn report(&self) -> EngineReport {
        self.inner.report()
    }

    fn load(
        &self,
        path: &Path,
        graph: &onnx::Model,
        options: LoadOptions,
    ) -> Result<Arc<dyn Model>, LoadError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, model)) = loaded.iter().find(|(known, _)| *known == options) {
            return Ok(Arc::clone(model));
        }
        let model = self.inner.load(path, graph, options.clone())?;
        loaded.push((options, Arc::clone(&model)));
        Ok(model)
    }
}

/// What the search measures with.
pub(super) struct House {
    local: Local,
    candidate: Candidate,
    requests: Arc<[Vec<Tensor>]>,
    generator: Generator,
    served: HashMap<Arrangement, Arc<Served>>,
    /// What is known of a point: requests a second and microseconds of the median.
    pace: HashMap<Point, (f64, f64)>,
    rate: Option<f64>,
    began: Instant,
    time: Option<Duration>,
    stop: Arc<AtomicBool>,
    bar: ProgressBar,
}

impl House {
    /// A house for one model. `stop` ends the search.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn new(
        local: Local,
        candidate: Candidate,
        requests: Vec<Vec<Tensor>>,
        rate: Option<f64>,
        stop: Arc<AtomicBool>,
    ) -> anyhow::Result<Self> {
        let local = local.behind(|inner| Arc::new(Once { inner, loaded: Mutex::default() }));
        let generator = Generator::start(local.settings.defaults.cores.max(1))?;
        Ok(Self {
            local,
            candidate,
            requests: requests.into(),
            generator,
            served: HashMap::new(),
            pace: HashMap::new(),
            rate,
            began: Instant::now(),
            time: None,
            stop,
            bar: ProgressBar::hidden(),
        })
    }

    /// Starts the clock; without a time only the signal ends the search.
    pub(super) fn start_clock(&mut self, time: Option<Duration>, bar: ProgressBar) {
        (self.began, self.time, self.bar) = (Instant::now(), time, bar);
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// The model in an arrangement; the second value says whether it was just loaded.
    ///
    /// # Errors
    /// It cannot be served so.
    pub(super) fn served(&mut self, arrangement: Arrangement) -> anyhow::Result<(Arc<Served>, bool)> {
        if let Some(served) = self.served.get(&arrangement) {
            return Ok((Arc::clone(served), false));
        }
        if self.served.len() >= MOST_LOADED {
            self.served.clear();
        }
        let served = self.local.serve(&arranged(&self.candidate, arrangement))?;
        self.served.insert(arrangement, Arc::clone(&served));
        Ok((served, true))
    }

    /// Whether a slice of this length ends before time is up, with what its last requests take.
    fn has_time_for(&self, length: Duration) -> bool {
        self.time.is_none_or(|time| self.began.elapsed() + length.mul_f64(1.0 + 2.0 * WARM_UP) <= time)
    }

    /// How long a slice of a point has to be.
    fn length(&self, point: Point) -> Duration {
        let Some((per_second, p50_us)) = self.pace.get(&point) else { return SHORTEST };
        let seconds = (ANSWERS / per_second.max(1.0)).max(TURNS * p50_us / 1e6);
        Duration::from_secs_f64(seconds.min(LONGEST.as_secs_f64())).max(SHORTEST)
    }

    fn stretch(
        &self,
        served: &Arc<Served>,
        point: Point,
        warm_up: Duration,
        measure: Duration,
    ) -> anyhow::Result<Slice> {
        let load = self.rate.map_or(Load::Closed(point.load), Load::Open);
        let (served, requests) = (Arc::clone(served), Arc::clone(&self.requests));
        self.generator.run(&Stretch { served, requests, load, warm_up, measure })
    }
}

impl Measure for House {
    fn slice(&mut self, point: Point) -> anyhow::Result<Option<Slice>> {
        if self.stopped() || !self.has_time_for(SHORTEST) {
            return Ok(None);
        }
        let (served, _) = self.served(point.arrangement)?;
        if !self.pace.contains_key(&point) {
            // The first look tells how long a slice has to be, and warms up.
            let first = self.stretch(&served, point, SHORTEST / 2, SHORTEST)?;
            #[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes fit a double")]
            let p50_us = first.latencies.value_at_quantile(0.5) as f64 / 1000.0;
            self.pace.insert(point, (first.per_second, p50_us));
        }
        let length = self.length(point);
        if !self.has_time_for(length) {
            return Ok(None);
        }
        let slice = self.stretch(&served, point, length.mul_f64(WARM_UP), length)?;
        self.bar.set_position(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX));
        Ok(Some(slice))
    }

    fn left(&self) -> f64 {
        let share = |time: Duration| 1.0 - self.began.elapsed().as_secs_f64() / time.as_secs_f64();
        self.time.map_or(1.0, share).max(0.0)
    }

    fn doing(&mut self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}
