//! Every model of this process: loading, and finding the revision of a request.
//!
//! Reading is without locks: a load replaces the whole map. Invariants: a version is routed to only once it is warm;
//! one that cannot be loaded says why for as long as it is listed, and the others are served.
//!
//! Not here: what a model is loaded from (`repository`), how it runs (`served`).
use crate::{
    backend::{Backend, LoadError},
    onnx::{self, OnnxError},
    repository::{
        Candidate, RepositoryError, Scan,
        complete::{self, Defaults, Misfit},
    },
    runner::Observer,
    served::Served,
};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};
use xebec_core::{
    InferError, ModelName, Permit, Version,
    port::{EngineReport, ModelRow, ModelState, Router, Upstream},
};

/// Models read and built at the same time.
const LOAD_THREADS: usize = 4;

/// How models are loaded.
#[derive(Clone)]
pub struct Settings {
    /// What the flags say where a model does not.
    pub defaults: Defaults,
    /// Whether one model that cannot be served makes the server not ready.
    pub strict_readiness: bool,
    /// Told of every run of every model.
    pub observer: Option<Arc<dyn Observer>>,
}

/// The models of this process.
pub struct Catalog {
    backend: Arc<dyn Backend>,
    settings: Settings,
    models: ArcSwap<Models>,
    loaded: AtomicBool,
    stopped: AtomicBool,
}

type Models = HashMap<ModelName, BTreeMap<Option<Version>, State>>;

#[derive(Clone)]
enum State {
    Loading,
    Ready(Arc<Served>),
    Unavailable(String),
}

/// A version could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Its file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /** File. */
        path: PathBuf,
        /** Why. */
        source: std::io::Error,
    },
    /// It is not an ONNX model, or one with faults.
    #[error("{}", path.display())]
    Onnx {
        /** File. */
        path: PathBuf,
        /** What is wrong. */
        source: OnnxError,
    },
    /// Its configuration does not fit.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The engine refused it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something of ours or of the engine broke over it.
    #[error("the engine panicked while it loaded the model; the log has the place")]
    Panic,
    /// It could not even be tried.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// One model that is not served.
#[derive(Debug)]
pub struct Failure {
    /// Name.
    pub model: ModelName,
    /// Which version, if one could be named.
    pub version: Option<Version>,
    /// Why, with every cause.
    pub reason: String,
}

impl Catalog {
    /// A catalog without models, which is not ready until [`Self::load`] is over.
    pub fn new(backend: Arc<dyn Backend>, settings: Settings) -> Self {
        let models = ArcSwap::from_pointee(Models::new());
        Self { backend, settings, models, loaded: AtomicBool::new(false), stopped: AtomicBool::new(false) }
    }

    /// Ends a load that goes on in another thread: what has not begun is left out, and is no failure.
    pub fn stop_loading(&self) {
        self.stopped.store(true, SeqCst);
    }

    /// Loads everything that a scan found, a few at a time, and returns what could not be. `progress` is told of each
    /// version that is done.
    pub fn load(&self, scan: Scan, progress: &(dyn Fn(&ModelName, Version) + Sync)) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (model, error) in scan.faults {
            let reason = chain(&error);
            tracing::error!(%model, error = %reason, "model is not served");
            self.set(&model, None, State::Unavailable(reason.clone()));
            failures.push(Failure { model, version: None, reason });
        }
        let work: Vec<(Candidate, Version)> = scan
            .candidates
            .into_iter()
            .flat_map(|candidate| {
                let versions: Vec<Version> = candidate.versions.keys().copied().collect();
                versions.into_iter().map(move |version| (candidate.clone(), version))
            })
            .collect();
        for (candidate, version) in &work {
            self.set(&candidate.name, Some(*version), State::Loading);
        }
        let (next, failed) = (Mutex::new(work.iter()), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..LOAD_THREADS.min(work.len()) {
                scope.spawn(|| {
                    while let Some((candidate, version)) = take(&next).filter(|_| !self.stopped.load(SeqCst))
                    {
                        if let Some(failure) = self.load_one(candidate, *version) {
                            failed.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                        progress(&candidate.name, *version);
                    }
                });
            }
        });
        failures.append(&mut failed.into_inner().unwrap_or_else(PoisonError::into_inner));
        failures.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        self.loaded.store(true, SeqCst);
        failures
    }

    fn load_one(&self, candidate: &Candidate, version: Version) -> Option<Failure> {
        let started = Instant::now();
        let name = &candidate.name;
        // A panic of an engine over one file must not take the other models down.
        let started_or_panicked =
            catch_unwind(AssertUnwindSafe(|| start(&*self.backend, candidate, version, &self.settings)));
        match started_or_panicked.unwrap_or(Err(CatalogError::Panic)) {
            Ok(served) => {
                let load_us = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
                served.metrics().load_us.set(load_us);
                self.set(name, Some(version), State::Ready(Arc::new(served)));
                None
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(model = %name, version = version.get(), error = %reason, "model is not served");
                self.set(name, Some(version), State::Unavailable(reason.clone()));
                Some(Failure { model: name.clone(), version: Some(version), reason })
            }
        }
    }

    fn set(&self, name: &ModelName, version: Option<Version>, state: State) {
        self.models.rcu(|models| {
            let mut models = Models::clone(models);
            models.entry(name.clone()).or_default().insert(version, state.clone());
            models
        });
    }
}

/// Makes one version of a candidate ready. Tools that measure a model without a catalog begin here too.
///
/// # Errors
/// Its file, its configuration or the engine's refusal.
pub fn start(
    backend: &dyn Backend,
    candidate: &Candidate,
    version: Version,
    settings: &Settings,
) -> Result<Served, CatalogError> {
    let path = candidate.versions.get(&version).map(PathBuf::as_path).unwrap_or(Path::new(""));
    let bytes = std::fs::read(path).map_err(|source| CatalogError::Read { path: path.to_owned(), source })?;
    let onnx = |source| CatalogError::Onnx { path: path.to_owned(), source };
    let graph = onnx::Model::parse(bytes.into()).map_err(onnx)?;
    graph.check_external(path.parent().unwrap_or(&candidate.root)).map_err(onnx)?;
    let mut plan = complete::plan(candidate, version, &graph, &settings.defaults)?;
    plan.observer.clone_from(&settings.observer);
    let model = backend.load(path, &graph, plan.load.clone())?;
    // The parsed file is as large as the model: it goes before warm-up makes its own memory.
    drop(graph);
    Ok(Served::start(model, plan)?)
}

fn take<'a, T>(work: &Mutex<std::slice::Iter<'a, T>>) -> Option<&'a T> {
    work.lock().unwrap_or_else(PoisonError::into_inner).next()
}

/// An error with every cause, in one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unknown(permit: &Permit) -> InferError {
    InferError::UnknownModel { model: permit.model().map(ToString::to_string).unwrap_or_default() }
}

impl Router for Catalog {
    fn route(&self, permit: &Permit, version: Option<Version>) -> Result<Arc<dyn Upstream>, InferError> {
        let models = self.models.load();
        let name = permit.model().ok_or_else(|| unknown(permit))?;
        let versions = models.get(name).ok_or_else(|| unknown(permit))?;
        let Some(wanted) = version else {
            let newest = versions.values().rev().find_map(|state| match state {
                State::Ready(served) => Some(Arc::clone(served)),
                _ => None,
            });
            return newest
                .map(|served| served as Arc<dyn Upstream>)
                .ok_or_else(|| InferError::NoVersions { model: name.to_string(), reason: reason(versions) });
        };
        match versions.get(&Some(wanted)) {
            Some(State::Ready(served)) => Ok(Arc::clone(served) as Arc<dyn Upstream>),
            Some(_) => Err(InferError::VersionNotReady { model: name.to_string(), version: wanted.get() }),
            None => Err(InferError::UnknownVersion { model: name.to_string(), version: wanted.to_string() }),
        }
    }

    fn versions(&self, permit: &Permit) -> Vec<Version> {
        let models = self.models.load();
        let versions = permit.model().and_then(|name| models.get(name));
        let ready = versions.into_iter().flatten().filter(|(_, state)| matches!(state, State::Ready(_)));
        ready.filter_map(|(version, _)| *version).collect()
    }

    fn models(&self) -> Vec<ModelRow> {
        let models = self.models.load();
        let row = |name: &ModelName, version: Option<Version>, state: &State| ModelRow {
            name: name.clone(),
            version,
            state: match state {
                State::Loading => ModelState::Loading,
                State::Ready(_) => ModelState::Ready,
                State::Unavailable(reason) => ModelState::Unavailable(reason.clone()),
            },
        };
        let all = models.iter().flat_map(|(name, versions)| {
            versions.iter().map(move |(version, state)| row(name, *version, state))
        });
        let mut rows: Vec<ModelRow> = all.collect();
        rows.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        rows
    }

    fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        let models = self.models.load();
        let ready = models.values().flat_map(BTreeMap::values).filter_map(|state| match state {
            State::Ready(served) => Some(Arc::clone(served) as Arc<dyn Upstream>),
            _ => None,
        });
        let mut all: Vec<_> = ready.collect();
        all.sort_by(|a, b| (&a.info().name, a.info().version).cmp(&(&b.info().name, b.info().version)));
        all
    }

    fn ready(&self) -> bool {
        let models = self.models.load();
        let mut states = models.values().flat_map(BTreeMap::values);
        self.loaded.load(SeqCst)
            && (!self.settings.strict_readiness || states.all(|state| matches!(state, State::Ready(_))))
    }

    fn engine(&self) -> EngineReport {
        self.backend.report()
    }
}

fn reason(versions: &BTreeMap<Option<Version>, State>) -> String {
    let said = versions.values().rev().find_map(|state| match state {
        State::Unavailable(reason) => Some(reason.clone()),
        State::Loading => Some("it is still being loaded".to_owned()),
        State::Ready(_) => None,
    });
    said.unwrap_or_default()
}
