//! Who has taken how much of what, and who is next: a state machine without lock or thread.
//!
//! A seat stands for one instance. Seats that wait are served by their pass, the lowest first, and by arrival where
//! passes are equal. A run adds the seat's priority to its pass, so that one of priority 2 gets half of the turns of one of
//! priority 1; a seat that did not wait for a while begins at the pass that was served last, and brings no turns with it
//! that it had saved up. What somebody waits for is not given to those behind: many small runs never keep a large one out.
//!
//! Invariants: nobody gets what is not there; everybody who waits gets a turn after a bounded number of others.
//!
//! # Source
//! Triton Inference Server, "Rate Limiter". For the order: Goyal et al. 1996, "Start-time Fair Queueing".
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Where a resource is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Once for the whole server.
    Global,
    /// Once for each device, of which this is one; the processor counts as device 0.
    Device(i32),
}

/// A resource in its place.
pub(crate) type Key = (Arc<str>, Scope);

/// What an instance takes for the length of a run, and how often it is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Each resource once.
    pub(crate) needs: Vec<(Key, u32)>,
    /// At least 1; of two that always wait, one of 2 gets half of the turns of one of 1.
    pub(crate) priority: u32,
}

/// How much there is of a resource, as the operator says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Name.
    pub name: String,
    /// How much.
    pub count: u32,
    /// On which device; on each one if `None`.
    pub device: Option<i32>,
}

/// One instance's place at the limiter.
pub(crate) type Id = u64;

/// An instance could never run, or its resources contradict those of another model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// It needs more than there is. In Triton's words.
    #[error(
        "Resource count for \"{name}\" is limited to {has} which will prevent scheduling of one or more model instances, the minimum required count is {needs}; write --rate-limit-resource {name}:{needs}, or lower the count in instance_group.rate_limiter"
    )]
    TooMuch { name: Arc<str>, has: u32, needs: u32 },
    /// It is counted in two ways. In Triton's words.
    #[error(
        "Resource \"{name}\" is present as both global and device-specific resource in the model configuration: of model '{owner}' and of another; write global in both, or in neither"
    )]
    TwoScopes { name: Arc<str>, owner: Arc<str> },
}

#[derive(Debug)]
struct Seat {
    owner: Arc<str>,
    limit: Limit,
    pass: u128,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Idle,
    /// Since when, in arrivals.
    Waits(u64),
    Runs,
}

#[derive(Debug, Default)]
struct Stock {
    has: u32,
    taken: u32,
}

/// All seats and all resources.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    declared: Vec<Declared>,
    seats: BTreeMap<Id, Seat>,
    stocks: HashMap<Key, Stock>,
    waiting: BTreeSet<(u128, u64, Id)>,
    next_id: Id,
    arrivals: u64,
    /// The pass that was served last.
    now: u128,
}

impl Ledger {
    /// What is not declared there is as much of as the most that an instance needs.
    pub(crate) fn new(declared: Vec<Declared>) -> Self {
        Self { declared, ..Self::default() }
    }

    /// Adds an instance of a model.
    ///
    /// # Errors
    /// It could never run.
    pub(crate) fn join(&mut self, owner: &Arc<str>, limit: Limit) -> Result<Id, Unfit> {
        for ((name, scope), needs) in &limit.needs {
            if let Some(has) = self.declared(name, *scope).filter(|has| has < needs) {
                return Err(Unfit::TooMuch { name: Arc::clone(name), has, needs: *needs });
            }
            // A new revision of a model may count differently from the one whose place it takes.
            let others = self.seats.values().filter(|seat| seat.owner != *owner);
            for seat in others {
                let mut known = seat.limit.needs.iter().map(|(key, _)| key);
                if known.any(|(other, at)| other == name && is_global(*at) != is_global(*scope)) {
                    return Err(Unfit::TwoScopes { name: Arc::clone(name), owner: Arc::clone(&seat.owner) });
                }
            }
        }
        let id = self.next_id;
        self.next_id += 1;
        let keys: Vec<Key> = limit.needs.iter().map(|(key, _)| key.clone()).collect();
        let seat = Seat { owner: Arc::clone(owner), limit, pass: self.now, standing: Standing::Idle };
        self.seats.insert(id, seat);
        keys.iter().for_each(|key| self.count(key));
        Ok(id)
    }

    /// Takes an instance away that has no turn, and says who runs now.
    pub(crate) fn leave(&mut self, id: Id) -> Vec<Id> {
        let Some(seat) = self.seats.remove(&id) else { return Vec::new() };
        if let Standing::Waits(since) = seat.standing {
            self.waiting.remove(&(seat.pass, since, id));
        }
        seat.limit.needs.iter().for_each(|(key, _)| self.count(key));
        self.serve()
    }

    /// An instance wants to run; says who runs now, perhaps it.
    pub(crate) fn want(&mut self, id: Id) -> Vec<Id> {
        let Some(seat) = self.seats.get_mut(&id) else { return Vec::new() };
        if seat.standing != Standing::Idle {
            return Vec::new();
        }
        seat.pass = seat.pass.max(self.now);
        seat.standing = Standing::Waits(self.arrivals);
        self.waiting.insert((seat.pass, self.arrivals, id));
        self.arrivals += 1;
        self.serve()
    }

    /// An instance's turn is over; one in which nothing ran is not counted. Says who runs now.
    pub(crate) fn give_back(&mut self, id: Id, ran: bool) -> Vec<Id> {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.standing == Standing::Runs) else {
            return Vec::new();
        };
        seat.standing = Standing::Idle;
        if ran {
            seat.pass += u128::from(seat.limit.priority.max(1));
        }
        for (key, count) in &seat.limit.needs {
            if let Some(stock) = self.stocks.get_mut(key) {
                stock.taken -= count;
            }
        }
        self.serve()
    }

    /// Whether it is an instance's turn.
    pub(crate) fn runs(&self, id: Id) -> bool {
        self.seats.get(&id).is_some_and(|seat| seat.standing == Standing::Runs)
    }

    /// What the operator says there is: as Triton reads it, a global resource is that of any device.
    fn declared(&self, name: &str, scope: Scope) -> Option<u32> {
        let counts = self.declared.iter().filter(|declared| {
            let here = match (scope, declared.device) {
                (Scope::Global, _) | (_, None) => true,
                (Scope::Device(own), Some(device)) => own == device,
            };
            declared.name == name && here
        });
        counts.map(|declared| declared.count).max()
    }

    /// Counts anew how much there is of a resource.
    fn count(&mut self, key: &Key) {
        let needs = self.seats.values().flat_map(|seat| &seat.limit.needs);
        let Some(most) = needs.filter(|(other, _)| other == key).map(|(_, count)| *count).max() else {
            self.stocks.remove(key);
            return;
        };
        let has = self.declared(&key.0, key.1).unwrap_or(most);
        self.stocks.entry(key.clone()).or_default().has = has;
    }

    /// Gives out turns in order.
    fn serve(&mut self) -> Vec<Id> {
        // What those in front leave over, also those who cannot have it yet.
        let mut over: HashMap<&Key, u32> = HashMap::new();
        let mut served = Vec::new();
        for (pass, since, id) in &self.waiting {
            let Some(seat) = self.seats.get(id) else { continue };
            let mut fits = true;
            for (key, count) in &seat.limit.needs {
                let free = |stock: &Stock| stock.has.saturating_sub(stock.taken);
                let over = over.entry(key).or_insert_with(|| self.stocks.get(key).map_or(0, free));
                fits &= *over >= *count;
                *over = over.saturating_sub(*count);
            }
            if fits {
                served.push((*pass, *since, *id));
            }
        }
        for turn in &served {
            self.waiting.remove(turn);
            self.now = self.now.max(turn.0);
            let Some(seat) = self.seats.get_mut(&turn.2) else { continue };
            seat.standing = Standing::Runs;
            for (key, count) in &seat.limit.needs {
                if let Some(stock) = self.stocks.get_mut(key) {
                    stock.taken += count;
                }
            }
        }
        served.into_iter().map(|(_, _, id)| id).collect()
    }
}

fn is_global(scope: Scope) -> bool {
    scope == Scope::Global
}

#[cfg(test)]
mod tests;
