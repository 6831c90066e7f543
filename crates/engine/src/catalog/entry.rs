//! A model of the catalog: which of its versions are served, from which files, and who waits for it.
//!
//! What callers see is a [`Face`], read without a lock and replaced as a whole. Only a loader that has the model's
//! order changes it, but for an eviction, which any loader may do.
use crate::{
    graph::plan::Member,
    repository::{Candidate, config::Idle, stamp::Stamp},
    runner::BROKEN,
    sequence::Sequenced,
    served::Served,
};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use xebec_core::{
    InferError, InferRequest, ModelInfo, ModelName, Permit, Version, VersionLabels,
    metrics::{Bounds, ModelMetrics},
    model::TensorInfo,
    model_config::ModelConfig,
    port::{Done, Extent, ModelRow, ModelState, Reply, Upstream},
};

use super::{CatalogError, budget::Lease, order::Built, reason::Reason};

/// Most callers that wait until a model is back in memory.
const MOST_WAITING: usize = 1024;

/// Versions that are not there any more, and whose counters are kept.
const MOST_GONE: usize = 8;

/// One model.
pub(super) struct Entry {
    pub(super) name: ModelName,
    pub(super) face: ArcSwap<Face>,
    /// When a request came last, by the catalog's count.
    pub(super) used: AtomicU64,
    metrics: Mutex<BTreeMap<Version, Arc<ModelMetrics>>>,
    waiting: Mutex<Vec<Done>>,
    /// What was last said to have no effect.
    idle: Mutex<Vec<Idle>>,
}

/// What versions are loaded from.
pub(super) struct Wanted {
    pub(super) candidate: Candidate,
    /// Files that came with an order, gone with the last that uses them.
    pub(super) _files: Option<TempDir>,
}

/// What callers see of a model.
#[derive(Clone, Default)]
pub(super) struct Face {
    pub(super) versions: BTreeMap<Version, State>,
    /// What the owner calls some of them.
    pub(super) labels: VersionLabels,
    /// Why nothing could be tried, if so.
    pub(super) fault: Option<Reason>,
    /// Why the last reload was not done, if so.
    pub(super) note: String,
}

/// What there is of a version.
#[derive(Clone)]
pub(super) enum State {
    Loading,
    Ready(Arc<Loaded>),
    /// Served, but not in memory: the next request loads it.
    Asleep(Asleep),
    Unloading,
    Unavailable(Reason),
}

/// A version that is to be loaded when it is asked for. It knows itself from what: not from the newest files, of which
/// a reload may have failed, but from those by which it was served.
#[derive(Clone)]
pub(super) struct Asleep {
    pub(super) wanted: Arc<Wanted>,
    /// What it was when it was in memory, if it ever was.
    memory: Option<Arc<Remembered>>,
    trouble: Option<Trouble>,
}

/// What callers may read of a version that is not in memory.
pub(super) struct Remembered {
    info: ModelInfo,
    config: ModelConfig,
    /// Of each output that has any.
    labels: BTreeMap<String, Box<[Box<str>]>>,
    headers: Box<[Box<str>]>,
    extent: Extent,
    metrics: Arc<ModelMetrics>,
}

impl Remembered {
    pub(super) fn of(upstream: &dyn Upstream, metrics: Arc<ModelMetrics>) -> Self {
        let labels =
            |output: &TensorInfo| Some((output.name.to_string(), upstream.labels(&output.name).into()));
        let mut labels: BTreeMap<String, Box<[Box<str>]>> =
            upstream.info().outputs.iter().filter_map(labels).collect();
        labels.retain(|_, labels| !labels.is_empty());
        Self {
            info: upstream.info().clone(),
            config: upstream.config().clone(),
            labels,
            headers: upstream.headers().into(),
            extent: upstream.extent(),
            metrics,
        }
    }
}

impl Upstream for Remembered {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn labels(&self, output: &str) -> &[Box<str>] {
        self.labels.get(output).map(|labels| &**labels).unwrap_or_default()
    }

    fn metrics(&self) -> &ModelMetrics {
        &self.metrics
    }

    fn headers(&self) -> &[Box<str>] {
        &self.headers
    }

    fn extent(&self) -> Extent {
        self.extent
    }

    fn submit(&self, _: &Permit, _: InferRequest, reply: Reply) {
        reply.send(Err(InferError::NotResident { model: self.info.name.to_string() }));
    }
}

/// A load that failed for a reason that may pass.
#[derive(Clone)]
struct Trouble {
    reason: Reason,
    pause: Duration,
    /// Until then nothing is tried.
    until: Instant,
}

/// After a failure that may pass, and doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// A version in memory.
pub(super) struct Loaded {
    /// What callers talk to.
    pub(super) upstream: Arc<dyn Upstream>,
    /// The model itself; `None` of a graph, which is of other models.
    pub(super) served: Option<Arc<Served>>,
    /// The layer of a stateful model.
    pub(super) sequenced: Option<Arc<Sequenced>>,
    /// What stays of it when it goes out of memory.
    pub(super) remembered: Arc<Remembered>,
    /// What it was loaded from.
    pub(super) wanted: Arc<Wanted>,
    pub(super) stamp: Stamp,
    pub(super) lease: Option<Arc<Lease>>,
}

impl Loaded {
    /// Whether a panic in a run has left it unable to answer.
    pub(super) fn is_broken(&self) -> bool {
        self.served.as_ref().is_some_and(|served| served.is_broken())
    }

    /// Whether it would be loaded from the same files in the same way.
    pub(super) fn is_of(&self, wanted: &Wanted, version: Version) -> bool {
        // A graph is of what its members are now, and costs little to be planned again.
        let is_graph = !wanted.candidate.members().is_empty();
        !is_graph && !self.is_broken() && self.wanted.is_same(wanted, version) && self.stamp.is_current()
    }
}

impl Wanted {
    pub(super) fn new(candidate: Candidate) -> Self {
        Self { candidate, _files: None }
    }

    /// Whether `other` has the same file of a version, to be served in the same way.
    fn is_same(&self, other: &Self, version: Version) -> bool {
        let Candidate { root, versions, config, batching, resources, .. } = &self.candidate;
        let other = &other.candidate;
        *root == other.root
            && *config == other.config
            && *batching == other.batching
            && *resources == other.resources
            && versions.get(&version) == other.versions.get(&version)
    }
}

impl Asleep {
    /// One that was never in memory.
    pub(super) fn new(wanted: Arc<Wanted>) -> Self {
        Self { wanted, memory: None, trouble: None }
    }

    /// One that goes out of memory.
    pub(super) fn after(loaded: &Loaded) -> Self {
        let memory = Some(Arc::clone(&loaded.remembered));
        Self { wanted: Arc::clone(&loaded.wanted), memory, trouble: None }
    }

    /// Whether it is known what it is.
    pub(super) fn was_loaded(&self) -> bool {
        self.memory.is_some()
    }

    /// Whether a load may be tried.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.until <= now)
    }

    /// What becomes of it when its load fails.
    fn fail(&self, error: &CatalogError, now: Instant) -> State {
        if error.is_for_room() {
            // The next request may find room, in the place of another version if need be.
            return State::Asleep(self.clone());
        }
        let reason = Reason::of(error);
        if !error.may_pass() {
            return State::Unavailable(reason);
        }
        let before = self.trouble.as_ref();
        let pause = before.map_or(FIRST_PAUSE, |trouble| (2 * trouble.pause).min(LONGEST_PAUSE));
        let trouble = Some(Trouble { reason, pause, until: now + pause });
        State::Asleep(Self { trouble, ..self.clone() })
    }
}

impl State {
    /// Whether requests get there, if only when it is back in memory.
    pub(super) fn serves(&self) -> bool {
        match self {
            Self::Ready(loaded) => !loaded.is_broken(),
            Self::Asleep(asleep) => asleep.trouble.is_none() || asleep.may_try(Instant::now()),
            Self::Loading | Self::Unloading | Self::Unavailable(_) => false,
        }
    }

    /// What it is of, if it is a graph.
    pub(super) fn parts(&self) -> BTreeSet<Member> {
        match self {
            Self::Ready(loaded) => loaded.wanted.candidate.parts(),
            Self::Asleep(asleep) => asleep.wanted.candidate.parts(),
            Self::Loading | Self::Unloading | Self::Unavailable(_) => BTreeSet::new(),
        }
    }

    /// What takes its requests, if it is in memory.
    pub(super) fn upstream(&self) -> Option<Arc<dyn Upstream>> {
        match self {
            Self::Ready(loaded) => Some(Arc::clone(&loaded.upstream)),
            _ => None,
        }
    }

    /// What can be read of it, in memory or not.
    pub(super) fn described(&self) -> Option<Arc<dyn Upstream>> {
        match self {
            Self::Asleep(asleep) => asleep.memory.clone().map(|memory| memory as Arc<dyn Upstream>),
            _ => self.upstream(),
        }
    }
}

impl Entry {
    pub(super) fn new(name: ModelName) -> Self {
        Self {
            name,
            face: ArcSwap::default(),
            used: AtomicU64::new(0),
            metrics: Mutex::default(),
            waiting: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    /// Changes the face, and returns the one before. `change` may be called several times.
    pub(super) fn update(&self, change: impl Fn(&mut Face)) -> Arc<Face> {
        self.face.rcu(|face| {
            let mut face = Face::clone(face);
            change(&mut face);
            face
        })
    }

    /// What is counted of a version, over all its loads; anew where its histograms have other bounds now. It may come back
    /// when it was gone, unless many newer ones were there since.
    pub(super) fn metrics(&self, version: Version, bounds: &Bounds) -> Arc<ModelMetrics> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let face = self.face.load();
        let gone = |other: &&Version| !face.versions.contains_key(other) && **other != version;
        let too_many: Vec<Version> = metrics.keys().rev().filter(gone).skip(MOST_GONE).copied().collect();
        too_many.iter().for_each(|gone| drop(metrics.remove(gone)));
        let known = metrics.entry(version).or_default();
        if known.bounds() != bounds {
            *known = Arc::new(ModelMetrics::new(bounds.clone()));
        }
        Arc::clone(known)
    }

    /// What of a configuration has no effect and was not said at the last load: a model may come and go often.
    pub(super) fn news(&self, idle: Vec<Idle>) -> Vec<Idle> {
        let mut said = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let news = idle.iter().filter(|one| !said.contains(one)).cloned().collect();
        *said = idle;
        news
    }

    /// What it is of, if it is a graph that is not in memory.
    pub(super) fn members(&self) -> Vec<ModelName> {
        let face = self.face.load();
        let mut all: Vec<ModelName> =
            face.asleep().flat_map(|(_, asleep)| asleep.wanted.candidate.members()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Notes a request.
    pub(super) fn touch(&self, now: u64) {
        self.used.store(now, Relaxed);
    }

    /// Notes somebody who waits for the model; whether it is the first one, who has to give the order.
    ///
    /// # Errors
    /// Too many wait: they are told by the caller.
    pub(super) fn wait(&self, done: Done) -> Result<bool, Done> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST_WAITING {
            return Err(done);
        }
        waiting.push(done);
        Ok(waiting.len() == 1)
    }

    /// Tells all who wait.
    pub(super) fn tell(&self, outcome: &Result<(), InferError>) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(|done| done(outcome.clone()));
    }

    /// Why too many wait.
    pub(super) fn too_many(&self) -> InferError {
        InferError::QueueFull { model: self.name.to_string(), limit: MOST_WAITING }
    }

    /// Its rows in the list of models.
    pub(super) fn rows(&self) -> Vec<ModelRow> {
        let face = self.face.load();
        let row = |version, state| {
            let labels = face.labels.iter().filter(|(_, named)| Some(**named) == version);
            let labels = labels.map(|(label, _)| label.clone()).collect();
            ModelRow { name: self.name.clone(), version, labels, state }
        };
        if face.versions.is_empty() {
            return vec![row(None, ModelState::Unavailable(face.reason().full))];
        }
        let each = face.versions.iter().map(|(version, state)| row(Some(*version), face.state(state)));
        each.collect()
    }
}

impl Face {
    fn state(&self, state: &State) -> ModelState {
        match state {
            State::Loading => ModelState::Loading,
            State::Ready(loaded) if loaded.is_broken() => ModelState::Unavailable(BROKEN.to_owned()),
            State::Ready(_) => ModelState::Ready { note: self.note.clone() },
            State::Asleep(Asleep { trouble: Some(trouble), .. }) => {
                ModelState::Unavailable(trouble.reason.full.clone())
            }
            State::Asleep(_) => {
                let mut note = "not in memory: the next request loads it".to_owned();
                if !self.note.is_empty() {
                    note = format!("{note}; {}", self.note);
                }
                ModelState::Ready { note }
            }
            State::Unloading => ModelState::Unloading,
            State::Unavailable(reason) => ModelState::Unavailable(reason.full.clone()),
        }
    }

    /// Why nothing is served.
    pub(super) fn reason(&self) -> Reason {
        let said = self.versions.values().rev().find_map(|state| match state {
            State::Unavailable(reason) => Some(reason.clone()),
            State::Asleep(asleep) => asleep.trouble.as_ref().map(|trouble| trouble.reason.clone()),
            State::Loading => Some(Reason::plain("it is still being loaded")),
            State::Unloading => Some(Reason::plain("it is being unloaded")),
            State::Ready(loaded) => loaded.is_broken().then(|| Reason::plain(BROKEN)),
        });
        let fault = || self.fault.clone();
        said.or_else(fault).unwrap_or_else(|| Reason::plain("it has not been loaded"))
    }

    /// Takes over what a load came to. One that failed leaves in place what was served before.
    pub(super) fn settle(&mut self, built: &Built, now: Instant) {
        let error = match &built.outcome {
            Ok(loaded) => {
                self.versions.insert(built.version, State::Ready(Arc::clone(loaded)));
                return;
            }
            Err(error) => error,
        };
        let next = match self.versions.get(&built.version) {
            Some(State::Asleep(asleep)) if asleep.wanted.is_same(&built.wanted, built.version) => {
                asleep.fail(error, now)
            }
            Some(State::Ready(_) | State::Asleep(_)) => {
                let (version, reason) = (built.version, super::chain(error));
                self.note = format!("the last reload of version {version} failed: {reason}");
                return;
            }
            _ => State::Unavailable(Reason::of(error)),
        };
        self.versions.insert(built.version, next);
    }

    /// Whether there is a version that serves.
    pub(super) fn serves(&self) -> bool {
        self.versions.values().any(State::serves)
    }

    /// Versions that answer, perhaps after they were brought back into memory.
    pub(super) fn served(&self) -> impl DoubleEndedIterator<Item = (Version, &State)> {
        let served = self.versions.iter().map(|(version, state)| (*version, state));
        served.filter(|(_, state)| state.serves())
    }

    /// A version, whatever its state.
    pub(super) fn state_of(&self, version: Version) -> Option<(Version, &State)> {
        self.versions.get(&version).map(|state| (version, state))
    }

    /// What a caller may ask for, in words.
    pub(super) fn known(&self) -> String {
        let versions: Vec<String> = self.served().map(|(version, _)| version.to_string()).collect();
        let labels: Vec<String> =
            self.labels.iter().map(|(label, version)| format!("{label} ({version})")).collect();
        let of = |what: &str, all: &[String]| match all {
            [] => String::new(),
            [one] => format!("{what} {one}"),
            all => format!("{what}s {}", all.join(", ")),
        };
        match (of("version", &versions), of("label", &labels)) {
            (versions, _) if versions.is_empty() => "no version that is ready".to_owned(),
            (versions, labels) if labels.is_empty() => versions,
            (versions, labels) => format!("{versions}, and {labels}"),
        }
    }

    /// Versions in memory.
    pub(super) fn ready(&self) -> impl DoubleEndedIterator<Item = (Version, &Arc<Loaded>)> {
        self.versions.iter().filter_map(|(version, state)| match state {
            State::Ready(loaded) => Some((*version, loaded)),
            _ => None,
        })
    }

    /// Members of what is served, if it is a graph.
    pub(super) fn made_of(&self) -> BTreeSet<ModelName> {
        self.versions.values().flat_map(State::parts).map(|member| member.name).collect()
    }

    /// Versions that a request loads.
    pub(super) fn asleep(&self) -> impl Iterator<Item = (Version, &Asleep)> {
        self.versions.iter().filter_map(|(version, state)| match state {
            State::Asleep(asleep) => Some((*version, asleep)),
            _ => None,
        })
    }

    /// Whether it can be sent out of memory without losing anything: a sequence that has begun, or what serves because
    /// the files that have taken the place of its own could not be loaded.
    pub(super) fn may_go(&self) -> bool {
        self.may_all(|loaded| loaded.is_idle() && (self.note.is_empty() || loaded.stamp.is_current()))
    }

    /// Whether it can make room for a version of its own, which may be of files that have taken the place of its.
    pub(super) fn may_give_way(&self) -> bool {
        self.may_all(|loaded| loaded.is_idle() && loaded.stamp.is_current())
    }

    fn may_all(&self, may: impl Fn(&Loaded) -> bool) -> bool {
        let mut ready = self.ready().peekable();
        // A graph takes no room.
        ready.peek().is_some() && ready.all(|(_, loaded)| loaded.served.is_some() && may(loaded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_versions_that_are_gone_are_kept_of_the_last_few_alone() {
        let entry = Entry::new(ModelName::parse("m").unwrap());
        let version = |number: u64| Version::parse(&number.to_string()).unwrap();
        for number in 1..=100 {
            entry.update(|face| {
                face.versions.clear();
                face.versions.insert(version(1), State::Loading);
                face.versions.insert(version(number), State::Loading);
            });
            entry.metrics(version(number), &Bounds::default()).executions.add(number);
        }
        let kept: Vec<u64> = entry.metrics.lock().unwrap().keys().map(|version| version.get()).collect();
        assert_eq!(kept, [1, 92, 93, 94, 95, 96, 97, 98, 99, 100]);
        assert_eq!(
            [1, 95].map(|number| entry.metrics(version(number), &Bounds::default()).executions.get()),
            [1, 95]
        );
    }
}
