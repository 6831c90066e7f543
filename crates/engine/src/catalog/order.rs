//! Carrying out orders: bring a model to what its files say, take it out, wake it, send it out of memory.
use super::{
    CatalogError, Core, Failure,
    budget::{Lease, Neighbours},
    build::Builder,
    chain,
    entry::{Asleep, Entry, Face, Loaded, State, Wanted},
    reason::Reason,
    source,
    work::Task,
};
use crate::{
    aside::give_way,
    repository::{Candidate, RepositoryError},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    time::Instant,
};
use xebec_core::{
    InferError, ModelName, Version, VersionLabels,
    port::{Done, Overrides},
};

/// What a loader is to do with a model.
pub(super) enum Order {
    /// Serve what was found.
    Serve(Box<Wanted>),
    /// Serve what is there now, with what a caller says; for a graph that waits for it, or for one of one.
    Bring(Overrides, Vec<ModelName>),
    /// Serve nothing of it any more.
    Unload,
    /// Serve nothing of it and take it off the list: it is not there any more.
    Forget,
    /// Say why it cannot be served, unless it is.
    Fault(RepositoryError),
    /// Load what is wanted and not in memory, behind the orders for these models.
    Wake(Vec<ModelName>),
}

impl Order {
    /// The one that serves a candidate.
    pub(super) fn serve(candidate: Candidate) -> Self {
        Self::Serve(Box::new(Wanted::new(candidate)))
    }

    /// Models whose earlier orders come first.
    pub(super) fn after(&self) -> Vec<ModelName> {
        match self {
            Self::Serve(wanted) => wanted.candidate.members().into_iter().collect(),
            Self::Wake(members) => members.clone(),
            _ => Vec::new(),
        }
    }
}

impl Core {
    /// Carries out orders until it is time to end.
    pub(super) fn work(&self) {
        while let Some(Task { model, order, done, .. }) = self.work.take() {
            // At start there is nobody to give way to.
            if self.loaded.load(SeqCst) && self.backend.leaves_threads_to_the_nursery() {
                give_way();
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(&model, order)));
            let outcome = outcome.unwrap_or_else(|_| Err(InferError::Internal("a load panicked".into())));
            match outcome {
                Ok(Carried::Out) => self.finish(&model, done, Ok(())),
                Ok(Carried::On(wanted, members, path)) => self.split(&model, wanted, members, path, done),
                Err(error) => self.finish(&model, done, Err(error)),
            }
        }
    }

    fn finish(&self, model: &ModelName, done: Done, outcome: Result<(), InferError>) {
        self.work.finish(model);
        done(outcome);
    }

    /// Has the members of a graph loaded first, and behind them the graph.
    fn split(
        &self,
        model: &ModelName,
        wanted: Box<Wanted>,
        members: Vec<ModelName>,
        path: Vec<ModelName>,
        done: Done,
    ) {
        let bring = |member: ModelName| {
            let order = Order::Bring(Overrides::default(), path.clone());
            // What goes wrong stands in the list of models, and the graph says of which member.
            Task { model: member, after: Vec::new(), order, done: Box::new(|_| ()) as Done }
        };
        let order = Order::Serve(wanted);
        let graph = Task { model: model.clone(), after: order.after(), order, done };
        let left = self.work.put_first(members.into_iter().map(bring).chain([graph]).collect());
        self.work.finish(model);
        left.into_iter().for_each(|task| (task.done)(Err(InferError::Draining)));
    }

    fn carry_out(&self, name: &ModelName, order: Order) -> Result<Carried, InferError> {
        match order {
            Order::Serve(wanted) => self.bring(name, *wanted),
            Order::Bring(overrides, mut path) => {
                let wanted = self.source.find(name, &overrides, self.settings.uploads);
                let wanted = wanted.inspect_err(|error| self.note(name, &error.to_string()))?;
                path.push(name.clone());
                // Who comes around is told so when it is loaded.
                let mut members = self.unloaded_members(&wanted.candidate);
                members.retain(|member| !path.contains(member));
                if !members.is_empty() {
                    return Ok(Carried::On(Box::new(wanted), members, path));
                }
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
            Order::Wake(_) => self.wake_up(name),
        }
        .map(|()| Carried::Out)
    }

    /// Loads what is new, then lets go of what is old. What cannot be loaded leaves in place what was served before.
    fn bring(&self, name: &ModelName, wanted: Wanted) -> Result<(), InferError> {
        let Some(entry) = self.entries(std::iter::once(name)).pop() else { return Ok(()) };
        let wanted = Arc::new(wanted);
        let before = entry.begin(&wanted.candidate);
        let kept = |version: Version| {
            before.ready().any(|(ready, loaded)| ready == version && loaded.is_of(&wanted, version))
        };
        let missing = wanted.candidate.versions.keys().copied().filter(|version| !kept(*version));
        let missing = missing.map(|version| (version, Arc::clone(&wanted))).collect();
        // What it holds must be free to go.
        drop(before);
        let built = self.build_all(&entry, missing);
        let before = entry.publish(&wanted.candidate, &built);
        entry.retire_replaced(&before);
        match built.iter().find_map(Built::error) {
            None => {
                self.missing().remove(name);
                self.plan_again(name);
                Ok(())
            }
            Some((version, error)) => Err(source::refused(name, version, error)),
        }
    }

    /// Loads the newest first: where there is no room for all, it is the one that most requests are for.
    fn build_all(&self, entry: &Arc<Entry>, missing: Vec<(Version, Arc<Wanted>)>) -> Vec<Built> {
        let mut all = Vec::new();
        for (version, wanted) in missing.iter().rev() {
            let built = self.build(entry, &all, wanted, *version);
            all.insert(0, built);
        }
        all
    }

    fn build(&self, entry: &Arc<Entry>, done: &[Built], wanted: &Arc<Wanted>, version: Version) -> Built {
        let (backend, settings, budget) = (&*self.backend, &self.settings, self.budget.as_ref());
        let cache = self.cache.as_ref();
        let around = &Around { core: self, entry, done };
        let core = Some(self);
        let builder = Builder { backend, settings, budget, cache, entry, wanted, around, core };
        let built = builder.build(version);
        let outcome = if built.is_ok() { &self.residents.loads } else { &self.residents.failed_loads };
        outcome.add(1);
        if let Err(error) = &built {
            let (model, reason) = (&entry.name, chain(error));
            tracing::error!(%model, version = version.get(), error = %reason, "model is not served");
        }
        let outcome = built.map(|loaded| {
            loaded.follow(&entry.face.load(), version, &wanted.candidate.labels);
            Arc::new(loaded)
        });
        Built { version, wanted: Arc::clone(wanted), outcome }
    }

    fn unload(&self, name: &ModelName) -> Result<(), InferError> {
        let failed =
            |reason: &str| InferError::UnloadFailed { model: name.to_string(), reason: reason.into() };
        let entry = self.entry(name).ok_or_else(|| failed("it is not in the model repository"))?;
        let before = entry.update(|face| {
            face.note.clear();
            face.versions.retain(|_, state| !matches!(state, State::Loading));
            for state in face.versions.values_mut() {
                *state = match state {
                    State::Ready(_) | State::Unloading => State::Unloading,
                    _ => State::Unavailable(Reason::plain("it was unloaded")),
                };
            }
        });
        before.ready().for_each(|(_, loaded)| loaded.leave());
        self.missing().remove(name);
        Ok(())
    }

    /// Loads what is asleep, each version from what it was served from. It went well if anything is served: a caller
    /// that wants another version is told by its route.
    fn wake_up(&self, name: &ModelName) -> Result<(), InferError> {
        let Some(entry) = self.entry(name) else { return Ok(()) };
        self.touch(&entry);
        let built = self.build_all(&entry, entry.to_wake(Instant::now()));
        entry.update(|face| built.iter().for_each(|built| face.settle(built, Instant::now())));
        match built.iter().rev().find_map(Built::error) {
            Some((_, error))
                if built.iter().all(|built| built.outcome.is_err())
                    && (error.is_for_room() || !entry.face.load().serves()) =>
            {
                Err(source::not_woken(name, error))
            }
            _ => Ok(()),
        }
    }

    /// Says why a model is not served, or why its reload was not done.
    fn note(&self, name: &ModelName, reason: &str) {
        let Some(entry) = self.entry(name) else { return };
        tracing::error!(model = %name, error = reason, "model was not loaded");
        entry.update(|face| {
            if face.ready().next().is_some() || face.asleep().next().is_some() {
                face.note = format!("the last reload failed: {reason}");
            } else {
                face.fault = Some(Reason::of_folder(reason.to_owned()));
            }
        });
    }

    /// Sends the model out of memory that was used longest ago; whether there was one.
    fn evict(&self, keep: &Entry) -> bool {
        let models = self.models.load();
        loop {
            let others = models.values().filter(|entry| entry.name != keep.name);
            let resident = others.filter(|entry| entry.face.load().may_go());
            let Some(oldest) = resident.min_by_key(|entry| entry.used.load(Relaxed)) else { return false };
            if self.send_out(oldest) {
                return true;
            }
        }
    }

    /// Sends a model out of memory; whether anything of it went.
    fn send_out(&self, entry: &Entry) -> bool {
        let before = entry.face.load_full();
        // A sequence may have begun meanwhile: what it is in stays.
        let going: Vec<_> =
            before.ready().filter(|(_, loaded)| loaded.close()).map(|(_, loaded)| loaded).collect();
        entry.update(|face| {
            for state in face.versions.values_mut() {
                if let State::Ready(loaded) = state
                    && going.iter().any(|going| Arc::ptr_eq(going, loaded))
                {
                    *state = State::Asleep(Asleep::after(loaded));
                }
            }
        });
        if going.is_empty() {
            return false;
        }
        going.iter().for_each(|loaded| loaded.leave());
        self.residents.evictions.add(1);
        tracing::info!(model = %entry.name, "model goes out of memory");
        true
    }
}

/// How an order was carried out.
enum Carried {
    Out,
    /// It waits for these members of the graph that it is for; the graphs for which that one is loaded, with itself.
    On(Box<Wanted>, Vec<ModelName>, Vec<ModelName>),
}

/// What is in memory while a version of a model is built, after others of the same order.
struct Around<'a> {
    core: &'a Core,
    entry: &'a Entry,
    done: &'a [Built],
}

impl Neighbours for Around<'_> {
    fn beside(&self) -> u64 {
        let staying = |loaded: &Arc<Loaded>| loaded.lease.as_deref().map_or(0, Lease::staying);
        let served: u64 = self.entry.face.load().ready().map(|(_, loaded)| staying(loaded)).sum();
        let built: u64 = self.done.iter().filter_map(|built| built.outcome.as_ref().ok()).map(staying).sum();
        served + built
    }

    fn send_siblings(&self) -> bool {
        self.entry.face.load_full().may_give_way() && self.core.send_out(self.entry)
    }

    fn send_other(&self) -> bool {
        self.core.evict(self.entry)
    }
}

/// What the load of a version came to.
pub(super) struct Built {
    pub(super) version: Version,
    pub(super) wanted: Arc<Wanted>,
    pub(super) outcome: Result<Arc<Loaded>, CatalogError>,
}

impl Built {
    fn error(&self) -> Option<(Version, &CatalogError)> {
        self.outcome.as_ref().err().map(|error| (self.version, error))
    }
}

impl Loaded {
    /// Ends what older revisions have begun: the same version before, or else the newest before it, and the versions
    /// from which a label has come here.
    fn follow(&self, before: &Face, version: Version, labels: &VersionLabels) {
        let Some(sequenced) = &self.sequenced else { return };
        let own = before.ready().rfind(|(other, _)| *other <= version);
        let own = own.or_else(|| before.ready().next_back()).map(|(other, _)| other);
        let come = before.labels.iter().filter(|(label, _)| labels.get(*label) == Some(&version));
        let from = own.into_iter().chain(come.map(|(_, from)| *from));
        let older = from.filter_map(|from| before.ready().find(|(other, _)| *other == from));
        sequenced.follow(older.filter_map(|(_, loaded)| loaded.sequenced.as_deref()));
    }

    /// Whether no sequence has begun that would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.sequenced.as_ref().is_none_or(|sequenced| sequenced.is_idle())
    }

    /// Makes sure that nothing begins in it any more; not if something has.
    fn close(&self) -> bool {
        self.sequenced.as_ref().is_none_or(|sequenced| sequenced.close())
    }

    /// Another takes its place: it ends what it has begun.
    fn retire(&self) {
        self.sequenced.iter().for_each(|sequenced| sequenced.retire());
        self.leave();
    }

    /// Its memory is on the way back.
    fn leave(&self) {
        self.lease.iter().for_each(|lease| lease.leave());
    }
}

impl Entry {
    /// Shows what is being loaded that was not there before. Returns the face before.
    pub(super) fn begin(&self, candidate: &Candidate) -> Arc<Face> {
        self.update(|face| {
            face.fault = None;
            for version in candidate.versions.keys() {
                let state = face.versions.entry(*version).or_insert(State::Loading);
                if matches!(state, State::Unavailable(_) | State::Unloading) {
                    *state = State::Loading;
                }
            }
        })
    }

    /// Versions that may be loaded again, and from what.
    fn to_wake(&self, now: Instant) -> Vec<(Version, Arc<Wanted>)> {
        let face = self.face.load();
        let may_try = face.asleep().filter(|(_, asleep)| asleep.may_try(now));
        may_try.map(|(version, asleep)| (version, Arc::clone(&asleep.wanted))).collect()
    }

    /// Shows what a load came to. Returns the face before.
    fn publish(&self, candidate: &Candidate, built: &[Built]) -> Arc<Face> {
        let all = built.iter().all(|built| built.outcome.is_ok());
        self.update(|face| {
            // A load that fails changes no label; without any before it, those that can be honoured are.
            if all || !face.serves() {
                face.labels.clone_from(&candidate.labels);
            }
            face.note.clear();
            built.iter().for_each(|built| face.settle(built, Instant::now()));
            // What was served before goes on until all that is new is there.
            face.versions.retain(|version, state| {
                let served = matches!(state, State::Ready(_) | State::Asleep(_));
                candidate.versions.contains_key(version) || (served && !all)
            });
        })
    }

    /// Lets go of what was served before and is not any more.
    fn retire_replaced(&self, before: &Face) {
        let now = self.face.load();
        let gone = before.ready().filter(|(version, loaded)| {
            !now.ready().any(|(other, kept)| other == *version && Arc::ptr_eq(kept, loaded))
        });
        gone.for_each(|(_, loaded)| loaded.retire());
    }

    /// Is wanted, and is loaded when it is asked for.
    pub(super) fn fall_asleep(&self, candidate: Candidate) {
        let wanted = Arc::new(Wanted::new(candidate));
        self.update(|face| {
            face.fault = None;
            for version in wanted.candidate.versions.keys() {
                face.versions.insert(*version, State::Asleep(Asleep::new(Arc::clone(&wanted))));
            }
            face.labels.clone_from(&wanted.candidate.labels);
        });
    }

    /// Versions that are not served, each with its reason.
    pub(super) fn failures(&self) -> Vec<Failure> {
        let face = self.face.load();
        let failed = face.versions.iter().filter_map(|(version, state)| match state {
            State::Unavailable(reason) => Some((Some(*version), reason.full.clone())),
            _ => None,
        });
        let failure = |(version, reason)| Failure { model: self.name.clone(), version, reason };
        failed.map(failure).collect()
    }
}
