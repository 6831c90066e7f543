//! Carrying out orders: bring a model to what its files say, take it out, wake it, send it out of memory.
use super::{
    CatalogError, Core, Failure,
    build::Builder,
    chain,
    entry::{Entry, Face, Loaded, State, Wanted},
    source,
    work::Task,
};
use crate::repository::{Candidate, RepositoryError};
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
};
use xebec_core::{InferError, ModelName, Version, port::Overrides};

/// What a loader is to do with a model.
pub(super) enum Order {
    /// Serve what a scan found.
    Load(Box<Candidate>),
    /// Serve what is there now, with what a caller says.
    Bring(Overrides),
    /// Serve nothing of it any more.
    Unload,
    /// Serve nothing of it and take it off the list: it is not there any more.
    Forget,
    /// Say why it cannot be served, unless it is.
    Fault(RepositoryError),
    /// Load what is wanted and not in memory.
    Wake,
}

impl Core {
    /// Carries out orders until it is time to end.
    pub(super) fn work(&self) {
        while let Some(Task { model, order, done }) = self.work.take() {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(&model, order)));
            self.work.finish(&model);
            done(outcome.unwrap_or_else(|_| Err(InferError::Internal("a load panicked".into()))));
        }
    }

    fn carry_out(&self, name: &ModelName, order: Order) -> Result<(), InferError> {
        match order {
            Order::Load(candidate) => self.bring(name, Wanted { candidate: *candidate, files: None }),
            Order::Bring(overrides) => {
                let wanted = self.source.find(name, &overrides, self.settings.uploads);
                let wanted = wanted.inspect_err(|error| self.note(name, &error.to_string()))?;
                self.bring(name, wanted)
            }
            Order::Unload => self.unload(name),
            Order::Forget => {
                let outcome = self.unload(name);
                self.forget(name);
                outcome
            }
            Order::Fault(error) => {
                self.note(name, &chain(&error));
                Ok(())
            }
            Order::Wake => self.wake_up(name),
        }
    }

    /// Loads what is new, then lets go of what is old. What cannot be loaded leaves in place what was served before.
    fn bring(&self, name: &ModelName, wanted: Wanted) -> Result<(), InferError> {
        let Some(entry) = self.entries(std::iter::once(name)).pop() else { return Ok(()) };
        let before = entry.face.load_full();
        entry.begin(&wanted.candidate);
        let (mut fresh, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for version in wanted.candidate.versions.keys() {
            let kept = before
                .ready()
                .find(|(ready, loaded)| ready == version && loaded.is_of(&wanted.candidate, *version));
            if kept.is_some() {
                continue;
            }
            match self.build(&entry, &wanted, *version) {
                Ok(loaded) => {
                    loaded.follow(&before, *version);
                    fresh.insert(*version, Arc::new(loaded));
                }
                Err(error) => drop(failed.insert(*version, error)),
            }
        }
        entry.publish(&wanted.candidate, &fresh, &failed);
        entry.retire_replaced(&before);
        *entry.wanted() = Some(wanted);
        self.make_room(&entry);
        match failed.first_key_value() {
            None => {
                self.missing().remove(name);
                Ok(())
            }
            Some((version, error)) => Err(source::refused(name, *version, error)),
        }
    }

    fn build(&self, entry: &Arc<Entry>, wanted: &Wanted, version: Version) -> Result<Loaded, CatalogError> {
        let (backend, settings, budget) = (&*self.backend, &self.settings, self.budget.as_ref());
        let evict = || self.evict(entry);
        let (cache, aside) = (self.cache.as_ref(), self.loaded.load(SeqCst));
        let builder = Builder { backend, settings, budget, cache, entry, wanted, aside, evict: &evict };
        let built = builder.build(version);
        let outcome = if built.is_ok() { &self.residents.loads } else { &self.residents.failed_loads };
        outcome.add(1);
        if let Err(error) = &built {
            let (model, reason) = (&entry.name, chain(error));
            tracing::error!(%model, version = version.get(), error = %reason, "model is not served");
        }
        built
    }

    fn unload(&self, name: &ModelName) -> Result<(), InferError> {
        let failed =
            |reason: &str| InferError::UnloadFailed { model: name.to_string(), reason: reason.into() };
        let entry = self.entry(name).ok_or_else(|| failed("it is not in the model repository"))?;
        *entry.wanted() = None;
        let before = entry.face.load_full();
        entry.update(|face| {
            face.note.clear();
            face.versions.retain(|_, state| !matches!(state, State::Loading));
            for state in face.versions.values_mut() {
                *state = match state {
                    State::Ready(_) | State::Unloading => State::Unloading,
                    _ => State::Unavailable("it was unloaded".to_owned()),
                };
            }
        });
        before.ready().for_each(|(_, loaded)| loaded.leave());
        self.missing().remove(name);
        Ok(())
    }

    fn wake_up(&self, name: &ModelName) -> Result<(), InferError> {
        let Some(entry) = self.entry(name) else { return Ok(()) };
        if !entry.face.load().is_asleep() {
            return Ok(());
        }
        let wanted = entry.wanted().clone();
        self.touch(&entry);
        wanted.map_or(Ok(()), |wanted| self.bring(name, wanted))
    }

    /// Says why a model is not served, or why its reload was not done.
    fn note(&self, name: &ModelName, reason: &str) {
        let Some(entry) = self.entry(name) else { return };
        tracing::error!(model = %name, error = reason, "model was not loaded");
        entry.update(|face| {
            if face.ready().next().is_some() {
                face.note = format!("the last reload failed: {reason}");
            } else {
                face.fault = Some(reason.to_owned());
            }
        });
    }

    /// Sends others out of memory until the models fit into it again: an estimate may have been too low.
    fn make_room(&self, keep: &Entry) {
        while self.budget.as_ref().is_some_and(|budget| budget.is_over()) && self.evict(keep) {}
    }

    /// Sends the model out of memory that was used longest ago; whether there was one.
    fn evict(&self, keep: &Entry) -> bool {
        let models = self.models.load();
        let others = models.values().filter(|entry| entry.name != keep.name);
        let resident = others.filter(|entry| {
            let face = entry.face.load();
            let mut ready = face.ready().peekable();
            // A sequence that has begun is lost with its model.
            ready.peek().is_some() && ready.all(|(_, loaded)| loaded.is_idle())
        });
        let Some(oldest) = resident.min_by_key(|entry| entry.used.load(Relaxed)) else { return false };
        let before = oldest.face.load_full();
        oldest.update(|face| {
            for state in face.versions.values_mut().filter(|state| matches!(state, State::Ready(_))) {
                *state = State::Asleep;
            }
        });
        before.ready().for_each(|(_, loaded)| loaded.leave());
        self.residents.evictions.add(1);
        tracing::info!(model = %oldest.name, "model goes out of memory");
        true
    }
}

impl Loaded {
    /// Ends what an older revision has begun: the same version before, or else the newest before it.
    fn follow(&self, before: &Face, version: Version) {
        let older = before.ready().rfind(|(other, _)| *other <= version);
        let older = older.or_else(|| before.ready().next_back());
        if let Some(sequenced) = &self.sequenced
            && let Some(older) = older.and_then(|(_, loaded)| loaded.sequenced.clone())
        {
            sequenced.follow(older);
        }
    }

    /// Whether it can be sent out of memory without losing anything.
    fn is_idle(&self) -> bool {
        self.sequenced.as_ref().is_none_or(|sequenced| sequenced.is_idle())
    }

    /// Its memory is on the way back.
    fn leave(&self) {
        self.lease.iter().for_each(|lease| lease.leave());
    }
}

impl Entry {
    /// Shows what is being loaded that was not there before.
    pub(super) fn begin(&self, candidate: &Candidate) {
        self.update(|face| {
            face.fault = None;
            for version in candidate.versions.keys() {
                let state = face.versions.entry(*version).or_insert(State::Loading);
                if matches!(state, State::Unavailable(_) | State::Unloading) {
                    *state = State::Loading;
                }
            }
        });
    }

    /// Shows what a load came to.
    fn publish(
        &self,
        candidate: &Candidate,
        fresh: &BTreeMap<Version, Arc<Loaded>>,
        failed: &BTreeMap<Version, CatalogError>,
    ) {
        self.update(|face| {
            face.note.clear();
            for (version, loaded) in fresh {
                face.versions.insert(*version, State::Ready(Arc::clone(loaded)));
            }
            for (version, error) in failed {
                match face.versions.get(version) {
                    Some(State::Ready(_)) => {
                        face.note = format!("the last reload of version {version} failed: {}", chain(error));
                    }
                    // The next request may find room.
                    Some(State::Asleep) if matches!(error, CatalogError::NoMemory) => (),
                    _ => drop(face.versions.insert(*version, State::Unavailable(chain(error)))),
                }
            }
            let wanted = |version: &Version| candidate.versions.contains_key(version);
            if failed.is_empty() {
                face.versions.retain(|version, _| wanted(version));
            } else {
                // What was served before goes on until all that is new is there.
                face.versions.retain(|version, state| wanted(version) || matches!(state, State::Ready(_)));
            }
        });
    }

    /// Lets go of what was served before and is not any more.
    fn retire_replaced(&self, before: &Face) {
        let now = self.face.load();
        let gone = before.ready().filter(|(version, loaded)| {
            !now.ready().any(|(other, kept)| other == *version && Arc::ptr_eq(kept, loaded))
        });
        gone.for_each(|(_, loaded)| loaded.leave());
    }

    /// Is wanted, and is loaded when it is asked for.
    pub(super) fn fall_asleep(&self, candidate: Candidate) {
        self.update(|face| {
            face.fault = None;
            for version in candidate.versions.keys() {
                face.versions.insert(*version, State::Asleep);
            }
        });
        *self.wanted() = Some(Wanted { candidate, files: None });
    }

    /// Versions that are not served, each with its reason.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let face = self.face.load();
        let failed = face.versions.iter().filter_map(|(version, state)| match state {
            State::Unavailable(reason) => Some((Some(*version), reason.clone())),
            _ => None,
        });
        let failure = |(version, reason)| Failure { model: self.name.clone(), version, reason };
        failed.map(failure).collect()
    }
}
