//! The settings of traces in force: of all models, and of those that have their own.
//!
//! Read without a lock for every call; changed one after the other. Invariant: a setting that a model has not of its own
//! is that of all models, the count of traces that are left included.
use arc_swap::ArcSwap;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use xebec_core::{
    ModelName,
    trace::{Change, TraceChanges, TraceSettings},
};

/// Most models with settings of their own.
const MOST_MODELS: usize = 10_000;

/// Settings in force for some calls.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) on: bool,
    pub(super) rate: u32,
    pub(super) log_frequency: u32,
    left: Option<Arc<AtomicU64>>,
}

impl Scope {
    fn new(settings: TraceSettings) -> Self {
        let TraceSettings { on, rate, count, log_frequency } = settings;
        Self { on, rate, log_frequency, left: count.map(|count| Arc::new(AtomicU64::new(count))) }
    }

    /// Takes one of the traces that are left.
    pub(super) fn take_one(&self) -> bool {
        let take = |left: &AtomicU64| left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        self.left.as_deref().is_none_or(take)
    }

    fn told(&self) -> TraceSettings {
        let count = self.left.as_ref().map(|left| left.load(Relaxed));
        TraceSettings { on: self.on, rate: self.rate, count, log_frequency: self.log_frequency }
    }
}

/// What a model has of its own.
#[derive(Clone, Debug, Default)]
struct Own {
    on: Option<bool>,
    rate: Option<u32>,
    log_frequency: Option<u32>,
    left: Option<Option<Arc<AtomicU64>>>,
}

fn change<T>(to: &mut Option<T>, change: Change<T>) {
    match change {
        Change::Keep => (),
        Change::Clear => *to = None,
        Change::Set(value) => *to = Some(value),
    }
}

impl Own {
    fn apply(&mut self, changes: TraceChanges) {
        change(&mut self.on, changes.on);
        change(&mut self.rate, changes.rate);
        change(&mut self.log_frequency, changes.log_frequency);
        change(
            &mut self.left,
            match changes.count {
                Change::Keep => Change::Keep,
                Change::Clear => Change::Clear,
                Change::Set(count) => Change::Set(count.map(|count| Arc::new(AtomicU64::new(count)))),
            },
        );
    }

    fn is_empty(&self) -> bool {
        let Self { on, rate, log_frequency, left } = self;
        on.is_none() && rate.is_none() && log_frequency.is_none() && left.is_none()
    }

    /// These, and those of all models where there are none.
    fn over(&self, all: &Scope) -> Scope {
        Scope {
            on: self.on.unwrap_or(all.on),
            rate: self.rate.unwrap_or(all.rate),
            log_frequency: self.log_frequency.unwrap_or(all.log_frequency),
            left: self.left.clone().unwrap_or_else(|| all.left.clone()),
        }
    }
}

#[derive(Clone, Debug)]
struct State {
    all: Scope,
    models: HashMap<ModelName, (Own, Scope)>,
}

impl State {
    fn of(&self, model: &ModelName) -> &Scope {
        // Almost always no model has any.
        if self.models.is_empty() {
            return &self.all;
        }
        self.models.get(model).map_or(&self.all, |(_, scope)| scope)
    }
}

/// All settings.
#[derive(Debug)]
pub(super) struct Kept {
    start: TraceSettings,
    state: ArcSwap<State>,
    changing: Mutex<()>,
}

impl Kept {
    pub(super) fn new(start: TraceSettings) -> Self {
        let state = State { all: Scope::new(start), models: HashMap::new() };
        Self { start, state: ArcSwap::from_pointee(state), changing: Mutex::new(()) }
    }

    /// Looks at what is in force for a model.
    pub(super) fn with<R>(&self, model: &ModelName, look: impl FnOnce(&Scope) -> R) -> R {
        look(self.state.load().of(model))
    }

    pub(super) fn told(&self, model: Option<&ModelName>) -> TraceSettings {
        let state = self.state.load();
        model.map_or(&state.all, |model| state.of(model)).told()
    }

    pub(super) fn apply(
        &self,
        model: Option<&ModelName>,
        changes: TraceChanges,
    ) -> Result<TraceSettings, String> {
        let _one_by_one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.state.load());
        match model {
            Some(model) => {
                let mut own = state.models.remove(model).map(|(own, _)| own).unwrap_or_default();
                own.apply(changes);
                if !own.is_empty() {
                    if state.models.len() >= MOST_MODELS {
                        return Err(format!("{MOST_MODELS} models have trace settings of their own already"));
                    }
                    let scope = own.over(&state.all);
                    state.models.insert(model.clone(), (own, scope));
                }
            }
            None => {
                let Scope { on, rate, log_frequency, left } = state.all;
                let mut own = Own {
                    on: Some(on),
                    rate: Some(rate),
                    log_frequency: Some(log_frequency),
                    left: Some(left),
                };
                own.apply(changes);
                state.all = own.over(&Scope::new(self.start));
                let all = &state.all;
                state.models.values_mut().for_each(|(own, scope)| *scope = own.over(all));
            }
        }
        self.state.store(Arc::new(state));
        Ok(self.told(model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: TraceSettings = TraceSettings { on: true, rate: 100, count: None, log_frequency: 0 };

    fn name(text: &str) -> ModelName {
        ModelName::parse(text).unwrap()
    }

    #[test]
    fn a_models_settings_lie_over_those_of_all_and_clearing_takes_them_away() {
        let kept = Kept::new(START);
        let (a, b) = (name("a"), name("b"));
        let set = TraceChanges { rate: Change::Set(5), ..TraceChanges::default() };
        assert_eq!(kept.apply(Some(&a), set), Ok(TraceSettings { rate: 5, ..START }));
        assert_eq!(kept.told(Some(&b)), START);
        let all = TraceChanges { rate: Change::Set(7), on: Change::Set(false), ..TraceChanges::default() };
        kept.apply(None, all).unwrap();
        assert_eq!(kept.told(Some(&a)), TraceSettings { rate: 5, on: false, ..START });
        assert_eq!(kept.told(Some(&b)), TraceSettings { rate: 7, on: false, ..START });
        let clear = TraceChanges { rate: Change::Clear, ..TraceChanges::default() };
        assert_eq!(kept.apply(Some(&a), clear), Ok(TraceSettings { rate: 7, on: false, ..START }));
        let clear = TraceChanges { rate: Change::Clear, on: Change::Clear, ..TraceChanges::default() };
        assert_eq!(kept.apply(None, clear), Ok(START));
        assert!(kept.state.load().models.is_empty());
    }

    #[test]
    fn a_count_is_taken_down_to_zero_and_a_model_without_its_own_shares_that_of_all() {
        let kept = Kept::new(START);
        let (a, b) = (name("a"), name("b"));
        kept.apply(None, TraceChanges { count: Change::Set(Some(2)), ..TraceChanges::default() }).unwrap();
        kept.apply(Some(&a), TraceChanges { rate: Change::Set(1), ..TraceChanges::default() }).unwrap();
        assert!(kept.with(&a, Scope::take_one) && kept.with(&b, Scope::take_one));
        assert!(!kept.with(&a, Scope::take_one) && !kept.with(&b, Scope::take_one));
        assert_eq!(kept.told(None).count, Some(0));
        kept.apply(Some(&a), TraceChanges { count: Change::Set(None), ..TraceChanges::default() }).unwrap();
        assert!(kept.with(&a, Scope::take_one) && !kept.with(&b, Scope::take_one));
    }
}
