//! Follows the folders of models: what is new or changed is loaded, what has gone is unloaded.
//!
//! A change is acted on when two looks, [`SETTLE`] apart, show the same: a folder that is being copied, or changes all
//! the time, is left for the next round. Invariant: a round costs two scans, however often files change.
use super::{Catalog, Core, Order, members_first};
use crate::repository::{Candidate, Scan, stamp::Stamp};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use xebec_core::{InferError, ModelName};

/// A change must stand still for so long.
const SETTLE: Duration = Duration::from_millis(200);

/// What a look at the folders showed.
#[derive(Default)]
pub struct Poll(HashMap<ModelName, Seen>);

/// A thread that follows the folders, until this is dropped.
pub struct Poller {
    stop: Option<mpsc::SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A model as it was seen.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Model(Box<Candidate>, Vec<Stamp>),
    Fault(String),
}

impl Poll {
    /// Notes what a scan found, which is about to be loaded.
    pub fn new(scan: &Scan) -> Self {
        let models = scan.candidates.iter().map(|candidate| {
            let stamps = candidate.versions.keys().map(|version| candidate.stamp(*version));
            let seen = Seen::Model(Box::new(candidate.clone()), stamps.collect());
            (candidate.name.clone(), seen)
        });
        let faults = scan.faults.iter().map(|(name, error)| (name.clone(), Seen::Fault(super::chain(error))));
        Self(models.chain(faults).collect())
    }

    /// The models that differ in `now`, or have gone.
    fn changed(&self, now: &Self) -> BTreeSet<ModelName> {
        let differs = |(name, seen): &(&ModelName, &Seen)| self.0.get(*name) != Some(*seen);
        let new = now.0.iter().filter(differs).map(|(name, _)| name.clone());
        let gone = self.0.keys().filter(|name| !now.0.contains_key(*name)).cloned();
        new.chain(gone).collect()
    }

    /// Takes over what `now` shows of a model.
    fn take(&mut self, name: &ModelName, now: &Self) {
        match now.0.get(name) {
            Some(seen) => drop(self.0.insert(name.clone(), seen.clone())),
            None => drop(self.0.remove(name)),
        }
    }
}

impl Catalog {
    /// Follows the folders from now on, a round each time `every` has passed. `seen` is what was loaded at start.
    ///
    /// # Errors
    /// The system has no room for the thread.
    pub fn follow(&self, seen: Poll, every: Duration) -> std::io::Result<Poller> {
        let core = Arc::clone(&self.core);
        let (stop, stopped) = mpsc::sync_channel(0);
        let follow = move || follow(&core, seen, every, &stopped);
        let thread = std::thread::Builder::new().name("poll".into()).spawn(follow)?;
        Ok(Poller { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.stop.take();
        // A panic there was reported by the hook.
        self.thread.take().map(|thread| thread.join());
    }
}

fn follow(core: &Core, mut seen: Poll, every: Duration, stopped: &mpsc::Receiver<()>) {
    let pause = |time| stopped.recv_timeout(time) == Err(mpsc::RecvTimeoutError::Timeout);
    while pause(every) {
        let Some((first, _)) = look(core) else { continue };
        // A model in memory may have changed in a file that a look does not see: external data.
        let stale = core.stale();
        if seen.changed(&first).is_empty() && stale.is_empty() {
            continue;
        }
        if !pause(SETTLE) {
            return;
        }
        let Some((second, scan)) = look(core) else { continue };
        let moving = first.changed(&second);
        // Each once: what is told apart below is what is there and what has gone.
        let mut settled: BTreeSet<ModelName> = seen.changed(&second).into_iter().chain(stale).collect();
        settled.retain(|name| !moving.contains(name));
        act(core, &settled, scan);
        settled.iter().for_each(|name| seen.take(name, &second));
    }
}

fn look(core: &Core) -> Option<(Poll, Scan)> {
    match core.source.scan() {
        Ok(scan) => Some((Poll::new(&scan), scan)),
        Err(error) => {
            let error = super::chain(&error);
            tracing::warn!(%error, "the model repository cannot be read: what is served stays as it is");
            None
        }
    }
}

/// Gives the orders that bring `names` to what a scan found, and waits until they are carried out.
fn act(core: &Core, names: &BTreeSet<ModelName>, scan: Scan) {
    let (tell, told) = mpsc::sync_channel::<()>(0);
    // With a model come the graphs of it, also those that could not be served without it.
    let (candidates, mut names) = (members_first(scan.candidates), names.clone());
    for found in &candidates {
        if found.members().iter().any(|member| names.contains(member)) {
            names.insert(found.name.clone());
        }
    }
    let candidates = candidates.into_iter().filter(|found| names.contains(&found.name));
    let mut orders: Vec<(ModelName, Order)> =
        candidates.map(|candidate| (candidate.name.clone(), Order::serve(candidate))).collect();
    let found: HashSet<ModelName> = orders.iter().map(|(name, _)| name.clone()).collect();
    let mut faults: HashMap<_, _> = scan.faults.into_iter().collect();
    for name in names.iter().filter(|name| !found.contains(*name)) {
        let order = faults.remove(name).map_or(Order::Forget, |error| {
            core.entries(std::iter::once(name));
            Order::Fault(error)
        });
        orders.push((name.clone(), order));
    }
    for (name, order) in orders {
        let tell = tell.clone();
        // What went wrong has been logged and stands in the list of models.
        let done = Box::new(move |_: Result<(), InferError>| drop(tell));
        core.put(name, order, done, usize::MAX);
    }
    drop(tell);
    // Ends when the last order has dropped its end.
    let _ = told.recv();
}

impl Core {
    /// Models in memory whose files are not what they were loaded from.
    fn stale(&self) -> Vec<ModelName> {
        let models = self.models.load();
        let stale = |face: &super::Face| face.ready().any(|(_, loaded)| !loaded.stamp.is_current());
        let entries = models.values().filter(|entry| stale(&entry.face.load()));
        entries.map(|entry| entry.name.clone()).collect()
    }
}
