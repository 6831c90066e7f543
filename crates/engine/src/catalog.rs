//! Every model of this process: loading, reloading and unloading, and finding the revision of a request.
//!
//! Reading is without locks: a change replaces what callers see of a model as a whole. Invariants: a version is routed
//! to only once it is warm; what is new is loaded before what is old goes, and if it cannot be, what is old stays; one
//! that cannot be loaded says why for as long as it is listed, and the others are served; orders for one model are
//! carried out in the order given.
//!
//! Not here: what a model is loaded from (`repository`), how a version is loaded (`build`), how it runs (`served`).
use crate::{
    aside::prepare,
    backend::{Backend, LoadError},
    cache::Cache,
    graph::{self, Members, plan::Member},
    limiter::Limiter,
    onnx::OnnxError,
    repository::{
        Candidate, RepositoryError, Scan,
        complete::{Defaults, Misfit},
        sums::SumError,
    },
    runner::Observer,
};
use arc_swap::ArcSwap;
use budget::Budget;
use entry::{Entry, Face, State};
use reason::Reason;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    error::Error,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread::JoinHandle,
};
use work::{Refusal, Task, Work};
use xebec_core::{
    InferError, ModelName, Permit, Version, VersionRef,
    metrics::{CacheMetrics, ResidentMetrics},
    port::{Control, Done, EngineReport, ModelRow, ModelState, Overrides, Router, Upstream},
    step::Steps,
};

mod budget;
mod build;
mod entry;
mod order;
mod poll;
mod reason;
mod source;
#[cfg(test)]
#[cfg(feature = "engine-rten")]
mod tests;
mod work;

pub use build::start;
pub use poll::{Poll, Poller};
pub use source::Source;

use order::Order;

/// Orders of callers that may wait.
const MOST_ORDERS: usize = 1024;

/// How models are loaded.
#[derive(Clone)]
pub struct Settings {
    /// What the flags say where a model does not.
    pub defaults: Defaults,
    /// Whether one model that cannot be served at start makes the server not ready.
    pub strict_readiness: bool,
    /// Told of every run of every model.
    pub observer: Option<Arc<dyn Observer>>,
    /// Models that are loaded at the same time.
    pub loaders: usize,
    /// Bytes that all models together may take; they are then loaded when they are asked for. No limit if `None`.
    pub memory: Option<u64>,
    /// Whether an order may bring files.
    pub uploads: bool,
    /// Bytes of answers that are kept, of models that ask for it; none if 0.
    pub cache: u64,
    /// Where runs take turns, of models that ask for it; they take none if `None`.
    pub limiter: Option<Arc<Limiter>>,
    /// Bytes of tensors that all graphs together may keep between their steps.
    pub graph_memory: u64,
    /// Built-in steps, if there are any.
    pub steps: Option<Arc<dyn Steps>>,
}

/// Where nothing else is said, graphs may keep so many bytes.
pub const GRAPH_MEMORY: u64 = 1 << 30;

impl Settings {
    /// Four loaders, no limit of memory, no files with an order, no turns.
    pub fn new(defaults: Defaults) -> Self {
        Self {
            defaults,
            strict_readiness: true,
            observer: None,
            loaders: 4,
            memory: None,
            uploads: false,
            cache: 0,
            limiter: None,
            graph_memory: GRAPH_MEMORY,
            steps: None,
        }
    }
}

/// The models of this process.
pub struct Catalog {
    core: Arc<Core>,
    loaders: Vec<JoinHandle<()>>,
}

struct Core {
    itself: Weak<Self>,
    graphs: Arc<graph::Memory>,
    backend: Arc<dyn Backend>,
    settings: Settings,
    source: Source,
    models: ArcSwap<Models>,
    work: Work<Order>,
    budget: Option<Arc<Budget>>,
    residents: ResidentMetrics,
    cache: Option<Arc<Cache>>,
    /// Counts the requests, where models are sent out of memory by when they were used last.
    clock: AtomicU64,
    loaded: AtomicBool,
    /// Models that were wanted at start and cannot be served: of them the server is not ready.
    missing: Mutex<HashSet<ModelName>>,
}

type Models = HashMap<ModelName, Arc<Entry>>;

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
    /// A file is not what its owner said it is.
    #[error(transparent)]
    Sums(#[from] SumError),
    /// Its files were replaced again and again while they were read.
    #[error("{} was replaced each time it was read: write a new file beside it and rename it over the old one", path.display())]
    Replaced {
        /** File. */
        path: PathBuf,
    },
    /// It needs more memory than all models together may have.
    #[error("it needs about {bytes} bytes{}", too_large(*beside, *limit))]
    TooLarge {
        /** By the size of its files. */
        bytes: u64,
        /** Of its model's other versions, which cannot go. */
        beside: u64,
        /** Of all models. */
        limit: u64,
    },
    /// The memory for models is taken by others, which are in use.
    #[error("there is no memory: all models that are loaded are in use; raise --model-memory-budget")]
    NoMemory,
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

impl CatalogError {
    /// Whether it is for what else is in memory now.
    const fn is_for_room(&self) -> bool {
        matches!(self, Self::NoMemory | Self::TooLarge { beside: 1.., .. })
    }

    /// Whether the same files may be loaded a moment later.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Read { .. }
            | Self::Sums(SumError::Read { .. })
            | Self::Replaced { .. }
            | Self::NoMemory
            | Self::Load(LoadError::Threads { .. } | LoadError::Replaced { .. })
            | Self::Repository(RepositoryError::Read { .. }) => true,
            Self::Onnx { .. }
            | Self::Misfit(_)
            | Self::Sums(_)
            | Self::TooLarge { .. }
            | Self::Load(_)
            | Self::Panic
            | Self::Repository(_) => false,
        }
    }
}

fn too_large(beside: u64, limit: u64) -> String {
    let (besides, or) = match beside {
        0 => (String::new(), ""),
        _ => (format!(" beside the {beside} of the model's other versions"), ", or unload it first"),
    };
    format!("{besides}, and all models together may have {limit}: raise --model-memory-budget{or}")
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
    ///
    /// # Errors
    /// The system has no room for the loaders' threads.
    pub fn new(backend: Arc<dyn Backend>, source: Source, settings: Settings) -> std::io::Result<Self> {
        let core = Arc::new_cyclic(|itself| Core {
            itself: Weak::clone(itself),
            graphs: graph::Memory::new(settings.graph_memory),
            backend,
            source,
            models: ArcSwap::default(),
            work: Work::new(),
            budget: settings.memory.map(Budget::new),
            residents: ResidentMetrics::default(),
            cache: (settings.cache > 0).then(|| Cache::new(settings.cache)),
            clock: AtomicU64::new(0),
            loaded: AtomicBool::new(false),
            missing: Mutex::default(),
            settings,
        });
        prepare()?;
        let loader = |index: usize| {
            let core = Arc::clone(&core);
            std::thread::Builder::new().name(format!("loader-{index}")).spawn(move || core.work())
        };
        let loaders = (0..core.settings.loaders.max(1)).map(loader).collect::<Result<_, _>>()?;
        Ok(Self { core, loaders })
    }

    /// Ends the loaders: what has not begun is left out, and is no failure.
    pub fn stop_loading(&self) {
        for task in self.core.work.stop() {
            (task.done)(Err(InferError::Draining));
        }
    }

    /// Lists what a scan found, loads what `wanted` says of it, a few at a time, and returns what could not be.
    /// `progress` is told of each model that is done. With a limit of memory nothing is loaded before it is asked for.
    pub fn load(
        &self,
        scan: Scan,
        wanted: &dyn Fn(&ModelName) -> bool,
        progress: &dyn Fn(&ModelName),
    ) -> Vec<Failure> {
        let core = &self.core;
        let mut failures = core.list_faults(scan.faults, wanted);
        let candidates = members_first(scan.candidates);
        let wanted = &with_members(&candidates, wanted);
        let entries = core.entries(candidates.iter().map(|candidate| &candidate.name));
        // Room for all: nobody waits to tell.
        let (tell, told) = mpsc::sync_channel(entries.len());
        for (entry, candidate) in entries.iter().zip(candidates) {
            if !wanted.contains(&candidate.name) {
                continue;
            }
            if core.budget.is_some() {
                entry.fall_asleep(candidate);
                continue;
            }
            entry.begin(&candidate);
            let (tell, name) = (tell.clone(), entry.name.clone());
            let done = Box::new(move |outcome| drop(tell.send((name, outcome))));
            core.put(entry.name.clone(), Order::serve(candidate), done, usize::MAX);
        }
        drop(tell);
        for (name, outcome) in told {
            progress(&name);
            if outcome.is_err_and(|error: InferError| error != InferError::Draining) {
                failures.extend(core.entry(&name).iter().flat_map(|entry| entry.failures()));
            }
        }
        failures.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        core.missing().extend(failures.iter().map(|failure| failure.model.clone()));
        core.loaded.store(true, SeqCst);
        failures
    }

    /// What models have taken and given back.
    pub fn residents(&self) -> &ResidentMetrics {
        &self.core.residents
    }

    /// What is kept of answers; `None` if none are.
    pub fn cache(&self) -> Option<&CacheMetrics> {
        self.core.cache.as_ref().map(|cache| cache.metrics())
    }

    /// Bytes of tensors that graphs keep between their steps, and the most that may be.
    pub fn graph_memory(&self) -> (u64, u64) {
        self.core.graphs.usage()
    }

    /// Most bytes that models may take, and those that they take; `None` without a limit.
    pub fn memory(&self) -> Option<(u64, u64)> {
        self.core.budget.as_ref().map(|budget| budget.usage())
    }

    /// The layer of a stateful model's newest version.
    #[cfg(all(test, feature = "engine-rten"))]
    pub(crate) fn sequenced(&self, name: &str) -> Option<Arc<crate::sequence::Sequenced>> {
        let entry = self.core.entry(&ModelName::parse(name).ok()?)?;
        entry.face.load().ready().next_back().and_then(|(_, loaded)| loaded.sequenced.clone())
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.stop_loading();
        // A panic of a loader was reported by the hook.
        self.loaders.drain(..).for_each(|loader| drop(loader.join()));
    }
}

impl Core {
    fn missing(&self) -> MutexGuard<'_, HashSet<ModelName>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, name: &ModelName) -> Option<Arc<Entry>> {
        self.models.load().get(name).cloned()
    }

    /// The entries of these names, made where they are missing, all in one change.
    fn entries<'a>(&self, names: impl Iterator<Item = &'a ModelName>) -> Vec<Arc<Entry>> {
        let names: Vec<_> = names.collect();
        self.models.rcu(|models| {
            if names.iter().all(|name| models.contains_key(*name)) {
                return Arc::clone(models);
            }
            let mut models = Models::clone(models);
            for name in &names {
                models.entry((*name).clone()).or_insert_with(|| Arc::new(Entry::new((*name).clone())));
            }
            Arc::new(models)
        });
        let models = self.models.load();
        names.iter().filter_map(|name| models.get(*name).cloned()).collect()
    }

    /// Takes a model off the list.
    fn forget(&self, name: &ModelName) {
        self.models.rcu(|models| {
            let mut models = Models::clone(models);
            models.remove(name);
            models
        });
    }

    /// Notes models that cannot even be tried.
    fn list_faults(
        &self,
        faults: Vec<(ModelName, RepositoryError)>,
        wanted: &dyn Fn(&ModelName) -> bool,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (model, error) in faults {
            let reason = chain(&error);
            for entry in self.entries(std::iter::once(&model)) {
                entry.update(|face| {
                    face.fault = Some(Reason::of_folder(reason.clone()));
                });
            }
            if wanted(&model) {
                tracing::error!(%model, error = %reason, "model is not served");
                failures.push(Failure { model, version: None, reason });
            }
        }
        failures
    }

    /// Puts an order behind the others, or tells at once why not.
    fn put(&self, model: ModelName, order: Order, done: Done, most: usize) {
        let after = order.after();
        if let Err((task, why)) = self.work.put(Task { model, after, order, done }, most) {
            (task.done)(Err(match why {
                Refusal::Full => InferError::QueueFull { model: task.model.to_string(), limit: most },
                Refusal::Stopped => InferError::Draining,
            }));
        }
    }

    /// A member of a graph that is being loaded, as it is served now.
    fn member(&self, Member { name, version }: &Member) -> Result<Arc<dyn Upstream>, Misfit> {
        let missing = |why: String| Misfit::new(format!("its member {why}"));
        let entry = self.entry(name);
        let entry = entry.ok_or_else(|| missing(format!("'{name}' is not in the model repository")))?;
        let face = entry.face.load();
        let wanted = version.map_or(VersionRef::Newest, VersionRef::Number);
        let state = choose(&entry, &face, wanted).map_err(|error| {
            let why = error.hint().map(|hint| format!(": {hint}")).unwrap_or_default();
            let of = version.map(|version| format!(" in version {version}")).unwrap_or_default();
            missing(format!("'{name}' is not served{of}{why}"))
        })?;
        state.described().ok_or_else(|| missing(format!("'{name}' is not in memory")))
    }

    /// Why a request to a graph would find no answer though the graph is served: what it is of, or what that is of.
    fn lack(&self, graph: &State) -> Option<Reason> {
        let (mut left, mut seen) = (graph.parts(), BTreeSet::new());
        while let Some(member) = left.pop_first() {
            let face = self.entry(&member.name).map(|entry| entry.face.load_full());
            let state = face.as_ref().and_then(|face| match member.version {
                None => face.served().next_back().map(|(_, state)| state),
                Some(version) => {
                    face.state_of(version).map(|(_, state)| state).filter(|state| state.serves())
                }
            });
            let Some(state) = state else {
                let of = member.version.map(|version| format!(" in version {version}")).unwrap_or_default();
                return Some(Reason::plain(format!("its member '{}' is not served{of}", member.name)));
            };
            let parts = state.parts();
            seen.insert(member);
            left.extend(parts.into_iter().filter(|part| !seen.contains(part)));
        }
        None
    }

    /// Refuses a graph that is a part of itself by way of others, as they are served now.
    fn check_cycle(&self, candidate: &Candidate) -> Result<(), Misfit> {
        let members = |name: &ModelName| -> BTreeSet<ModelName> {
            let entry = self.entry(name);
            entry.map(|entry| entry.face.load().made_of()).unwrap_or_default()
        };
        let (mut way, mut done) = (vec![(candidate.name.clone(), candidate.members())], HashSet::new());
        while let Some((at, left)) = way.last_mut() {
            let Some(member) = left.pop_first() else {
                done.insert(at.clone());
                way.pop();
                continue;
            };
            if member == candidate.name {
                let around: Vec<String> = way
                    .iter()
                    .map(|(name, _)| name)
                    .chain([&member])
                    .map(|name| format!("'{name}'"))
                    .collect();
                return Err(Misfit::new(format!("the graphs have a cycle: {}", around.join(" -> "))));
            }
            if !done.contains(&member) && !way.iter().any(|(open, _)| *open == member) {
                let next = members(&member);
                way.push((member, next));
            }
        }
        Ok(())
    }

    /// Has graphs that are loaded planned again of which a model is a member: it may be another now.
    fn plan_again(&self, member: &ModelName) {
        for entry in self.models.load().values() {
            let face = entry.face.load();
            let of_it = face.ready().find(|(_, loaded)| loaded.wanted.candidate.members().contains(member));
            let Some((_, loaded)) = of_it else { continue };
            let order = Order::serve(loaded.wanted.candidate.clone());
            self.put(entry.name.clone(), order, Box::new(|_| ()), usize::MAX);
        }
    }

    /// Whether a member of a graph is served but was never loaded, because there was no room for it.
    fn lacks_room_for(&self, candidate: &Candidate) -> bool {
        let served = |entry: Arc<Entry>| entry.face.load().served().next().is_some();
        self.unloaded_members(candidate).iter().filter_map(|name| self.entry(name)).any(served)
    }

    /// Members of a graph that have never been loaded.
    fn unloaded_members(&self, candidate: &Candidate) -> Vec<ModelName> {
        let unknown = |name: &ModelName| {
            self.entry(name)
                .is_none_or(|entry| !entry.face.load().served().any(|(_, state)| state.described().is_some()))
        };
        candidate.members().into_iter().filter(unknown).collect()
    }

    /// Gives the order that brings a model back into memory, behind those for `after`. What a graph is of comes first, if it
    /// was never there: only then is it known. One after the other, because there may be room for one alone.
    fn put_wake(&self, entry: &Arc<Entry>, mut after: Vec<ModelName>) {
        for name in entry.members() {
            let is_unknown =
                |member: &Arc<Entry>| member.face.load().asleep().any(|(_, asleep)| !asleep.was_loaded());
            if let Some(member) = self.entry(&name).filter(is_unknown)
                && matches!(member.wait(Box::new(|_| ())), Ok(true))
            {
                self.put_wake(&member, after.clone());
            }
            after.push(name);
        }
        let tell = Arc::clone(entry);
        let done = Box::new(move |outcome| tell.tell(&outcome));
        self.put(entry.name.clone(), Order::Wake(after), done, usize::MAX);
    }

    fn touch(&self, entry: &Entry) {
        if self.budget.is_some() {
            entry.touch(self.clock.fetch_add(1, Relaxed) + 1);
        }
    }
}

/// Candidates in an order in which every graph comes behind what it is of.
fn members_first(candidates: Vec<Candidate>) -> Vec<Candidate> {
    fn place(
        name: &ModelName,
        left: &mut BTreeMap<ModelName, Candidate>,
        order: &mut Vec<Candidate>,
        depth: u32,
    ) {
        let Some(candidate) = left.remove(name) else { return };
        // What is deeper is refused when it is loaded, in whatever order.
        if depth <= graph::DEEPEST {
            candidate.members().iter().for_each(|member| place(member, left, order, depth + 1));
        }
        order.push(candidate);
    }
    let names: Vec<ModelName> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let mut left = candidates.into_iter().map(|candidate| (candidate.name.clone(), candidate)).collect();
    let mut order = Vec::new();
    names.iter().for_each(|name| place(name, &mut left, &mut order, 0));
    order
}

/// Those that are wanted, and what they are of. `candidates` have members first.
fn with_members(candidates: &[Candidate], wanted: &dyn Fn(&ModelName) -> bool) -> HashSet<ModelName> {
    let mut all = HashSet::new();
    for candidate in candidates.iter().rev() {
        if wanted(&candidate.name) || all.contains(&candidate.name) {
            all.insert(candidate.name.clone());
            all.extend(candidate.members());
        }
    }
    all
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

/// Longest text of a caller that stands in an error.
const SHOWN: usize = 64;

/// The version that is asked for.
fn choose<'a>(entry: &Entry, face: &'a Face, wanted: VersionRef<'_>) -> Result<&'a State, InferError> {
    let model = || entry.name.to_string();
    let unknown =
        |version: String| InferError::UnknownVersion { model: model(), version, known: face.known() };
    let (version, state) = match wanted {
        // The newest that is served, though an older one may be in memory.
        VersionRef::Newest => face
            .served()
            .next_back()
            .ok_or_else(|| InferError::NoVersions { model: model(), reason: face.reason().public })?,
        VersionRef::Number(number) => face.state_of(number).ok_or_else(|| unknown(number.to_string()))?,
        VersionRef::Label(label) => {
            let number = face.labels.get(label);
            let shown = || label.chars().filter(|letter| !letter.is_control()).take(SHOWN).collect();
            number.and_then(|number| face.state_of(*number)).ok_or_else(|| unknown(shown()))?
        }
    };
    match state {
        state if state.serves() => Ok(state),
        _ => Err(InferError::VersionNotReady { model: model(), version: version.get() }),
    }
}

impl Members for Core {
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let models = self.models.load();
        let entry = permit.model().and_then(|name| models.get(name)).ok_or_else(|| unknown(permit))?;
        self.touch(entry);
        let upstream = choose(entry, &entry.face.load(), version)?.upstream();
        upstream.ok_or_else(|| InferError::NotResident { model: entry.name.to_string() })
    }

    fn wake(&self, permit: &Permit, done: Done) {
        let Some(entry) = permit.model().and_then(|name| self.entry(name)) else {
            return done(Err(unknown(permit)));
        };
        match entry.wait(done) {
            Ok(true) => self.put_wake(&entry, Vec::new()),
            Ok(false) => (),
            Err(done) => done(Err(entry.too_many())),
        }
    }
}

impl Router for Catalog {
    fn route(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        self.core.route(permit, version)
    }

    fn describe(&self, permit: &Permit, version: VersionRef<'_>) -> Result<Arc<dyn Upstream>, InferError> {
        let models = self.core.models.load();
        let entry = permit.model().and_then(|name| models.get(name)).ok_or_else(|| unknown(permit))?;
        let described = choose(entry, &entry.face.load(), version)?.described();
        described.ok_or_else(|| InferError::NotResident { model: entry.name.to_string() })
    }

    fn probe(&self, permit: &Permit, version: VersionRef<'_>) -> Result<(), InferError> {
        let models = self.core.models.load();
        let entry = permit.model().and_then(|name| models.get(name)).ok_or_else(|| unknown(permit))?;
        let face = entry.face.load();
        let state = choose(entry, &face, version)?;
        let lacks =
            |reason: Reason| InferError::NoVersions { model: entry.name.to_string(), reason: reason.public };
        self.core.lack(state).map_or(Ok(()), |reason| Err(lacks(reason)))
    }

    fn wake(&self, permit: &Permit, done: Done) {
        self.core.wake(permit, done);
    }

    fn versions(&self, permit: &Permit) -> Vec<Version> {
        let Some(entry) = permit.model().and_then(|name| self.core.entry(name)) else { return Vec::new() };
        entry.face.load().served().map(|(version, _)| version).collect()
    }

    fn models(&self) -> Vec<ModelRow> {
        let mut rows = Vec::new();
        for entry in self.core.models.load().values() {
            let face = entry.face.load();
            let lack = |row: &ModelRow| self.core.lack(face.state_of(row.version?)?.1);
            rows.extend(entry.rows().into_iter().map(|row| match lack(&row) {
                Some(reason) if row.state.is_ready() => {
                    ModelRow { state: ModelState::Unavailable(reason.full), ..row }
                }
                _ => row,
            }));
        }
        rows.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        rows
    }

    fn upstreams(&self) -> Vec<Arc<dyn Upstream>> {
        let models = self.core.models.load();
        let mut all = Vec::new();
        for entry in models.values() {
            all.extend(entry.face.load().versions.values().filter_map(State::described));
        }
        all.sort_by(|a, b| (&a.info().name, a.info().version).cmp(&(&b.info().name, b.info().version)));
        all
    }

    fn ready(&self) -> bool {
        self.core.loaded.load(SeqCst)
            && (!self.core.settings.strict_readiness || self.core.missing().is_empty())
    }

    fn engine(&self) -> EngineReport {
        self.core.backend.report()
    }
}

impl Control for Catalog {
    fn load(&self, permit: &Permit, overrides: Overrides, done: Done) {
        match permit.model() {
            Some(name) => self.core.put(name.clone(), Order::Bring(overrides, Vec::new()), done, MOST_ORDERS),
            None => done(Err(unknown(permit))),
        }
    }

    fn unload(&self, permit: &Permit, done: Done) {
        match permit.model() {
            Some(name) => self.core.put(name.clone(), Order::Unload, done, MOST_ORDERS),
            None => done(Err(unknown(permit))),
        }
    }
}
