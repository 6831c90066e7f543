//! A model of the catalog: which of its versions are served, from which files, and who waits for it.
//!
//! What callers see is a [`Face`], read without a lock and replaced as a whole. Only a loader that has the model's
//! order changes it, but for an eviction, which any loader may do.
use crate::{repository::Candidate, repository::stamp::Stamp, sequence::Sequenced, served::Served};
use arc_swap::ArcSwap;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tempfile::TempDir;
use xebec_core::{
    InferError, ModelName, Version,
    metrics::ModelMetrics,
    port::{Done, ModelRow, ModelState, Upstream},
};

use super::budget::Lease;

/// Most callers that wait until a model is back in memory.
const MOST_WAITING: usize = 1024;

/// One model.
pub(super) struct Entry {
    pub(super) name: ModelName,
    pub(super) face: ArcSwap<Face>,
    /// When a request came last, by the catalog's count.
    pub(super) used: AtomicU64,
    wanted: Mutex<Option<Wanted>>,
    metrics: Mutex<BTreeMap<Version, Arc<ModelMetrics>>>,
    waiting: Mutex<Vec<Done>>,
}

/// What the model is to be loaded from.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) candidate: Candidate,
    /// Files that came with an order, gone with the last that uses them.
    pub(super) files: Option<Arc<TempDir>>,
}

/// What callers see of a model.
#[derive(Clone, Default)]
pub(super) struct Face {
    pub(super) versions: BTreeMap<Version, State>,
    /// Why nothing could be tried, if so.
    pub(super) fault: Option<String>,
    /// Why the last reload was not done, if so.
    pub(super) note: String,
}

/// What there is of a version.
#[derive(Clone)]
pub(super) enum State {
    Loading,
    Ready(Arc<Loaded>),
    /// Wanted and known, but not in memory.
    Asleep,
    Unloading,
    Unavailable(String),
}

/// A version in memory.
pub(super) struct Loaded {
    /// What callers talk to.
    pub(super) upstream: Arc<dyn Upstream>,
    /// The model itself.
    pub(super) served: Arc<Served>,
    /// The layer of a stateful model.
    pub(super) sequenced: Option<Arc<Sequenced>>,
    /// What it was loaded from.
    pub(super) candidate: Candidate,
    pub(super) stamp: Stamp,
    pub(super) lease: Option<Arc<Lease>>,
    /// Held until the version goes.
    pub(super) _files: Option<Arc<TempDir>>,
}

impl Loaded {
    /// Whether `candidate` would be loaded from the same files in the same way.
    pub(super) fn is_of(&self, candidate: &Candidate, version: Version) -> bool {
        let Candidate { root, versions, config, batching, resources, .. } = &self.candidate;
        *root == candidate.root
            && *config == candidate.config
            && *batching == candidate.batching
            && *resources == candidate.resources
            && versions.get(&version) == candidate.versions.get(&version)
            && self.stamp.is_current()
    }
}

impl Entry {
    pub(super) fn new(name: ModelName) -> Self {
        Self {
            name,
            face: ArcSwap::default(),
            used: AtomicU64::new(0),
            wanted: Mutex::default(),
            metrics: Mutex::default(),
            waiting: Mutex::default(),
        }
    }

    /// Changes the face. `change` may be called several times.
    pub(super) fn update(&self, change: impl Fn(&mut Face)) {
        self.face.rcu(|face| {
            let mut face = Face::clone(face);
            change(&mut face);
            face
        });
    }

    pub(super) fn wanted(&self) -> MutexGuard<'_, Option<Wanted>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted of a version, over all its loads.
    pub(super) fn metrics(&self, version: Version) -> Arc<ModelMetrics> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(metrics.entry(version).or_default())
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
        let row = |version, state| ModelRow { name: self.name.clone(), version, state };
        if face.versions.is_empty() {
            return vec![row(None, ModelState::Unavailable(face.reason()))];
        }
        let each = face.versions.iter().map(|(version, state)| row(Some(*version), face.state(state)));
        each.collect()
    }
}

impl Face {
    fn state(&self, state: &State) -> ModelState {
        match state {
            State::Loading => ModelState::Loading,
            State::Ready(_) => ModelState::Ready { note: self.note.clone() },
            State::Asleep => {
                ModelState::Ready { note: "not in memory: the next request loads it".to_owned() }
            }
            State::Unloading => ModelState::Unloading,
            State::Unavailable(reason) => ModelState::Unavailable(reason.clone()),
        }
    }

    /// Why nothing is served.
    pub(super) fn reason(&self) -> String {
        let said = self.versions.values().rev().find_map(|state| match state {
            State::Unavailable(reason) => Some(reason.clone()),
            State::Loading => Some("it is still being loaded".to_owned()),
            State::Unloading => Some("it is being unloaded".to_owned()),
            State::Ready(_) | State::Asleep => None,
        });
        let fault = || self.fault.clone();
        said.or_else(fault).unwrap_or_else(|| "it has not been loaded".to_owned())
    }

    /// Versions in memory.
    pub(super) fn ready(&self) -> impl DoubleEndedIterator<Item = (Version, &Arc<Loaded>)> {
        self.versions.iter().filter_map(|(version, state)| match state {
            State::Ready(loaded) => Some((*version, loaded)),
            _ => None,
        })
    }

    /// Whether something that is wanted is not in memory.
    pub(super) fn is_asleep(&self) -> bool {
        self.versions.values().any(|state| matches!(state, State::Asleep))
    }
}
