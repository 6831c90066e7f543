//! How a graph is to be loaded: what runs it, over how many threads, and the engine's own settings.
//!
//! Not here: where the wishes come from (`repository::complete`), what an engine makes of them.
use super::Slot;
use std::collections::BTreeMap;
use xebec_core::resource::{Objective, Provider};

/// What a graph is loaded for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// What runs it.
    pub provider: Provider,
    /// One thread a run, or all cores on one run.
    pub objective: Objective,
    /// Threads that runs of this model share among them, in a pool of its own; by the objective if `None`.
    pub threads: Option<u32>,
    /// The engine's own settings.
    pub tuning: Tuning,
    /// Inputs with an initialiser that may be given all the same.
    pub optional: Vec<Slot>,
}

/// Settings of ONNX Runtime; the built-in engine has none and refuses them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// How far the graph is rewritten before it is run.
    pub level: Level,
    /// What runs those parts of the graph that it can, the first first; the CPU runs the rest.
    pub accelerators: Vec<Accelerator>,
    /// Threads that run branches of a graph side by side, where `parallel`.
    pub inter_threads: Option<u32>,
    /// Whether branches of a graph are run side by side.
    pub parallel: Option<bool>,
    /// Whether freed memory is kept for the next run.
    pub memory_arena: Option<bool>,
    /// Whether the memory of a run is laid out by the one before.
    pub memory_pattern: Option<bool>,
    /// Arenas that give memory back after each run, such as `cpu:0`.
    pub shrinkage: Option<String>,
    /// Further settings of a session, by ONNX Runtime's own names.
    pub entries: BTreeMap<String, String>,
}

/// How far a graph is rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Not at all.
    Disabled,
    /// Constants and what is redundant.
    Basic,
    /// Fused operators too.
    Extended,
    /// Layouts too.
    #[default]
    All,
}

/// A part of ONNX Runtime that runs operators in the CPU's place, with settings by its own names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accelerator {
    /// Which.
    pub kind: Provider,
    /// Its settings.
    pub options: BTreeMap<String, String>,
}

impl LoadOptions {
    /// All accelerators, that of the provider last.
    #[must_use]
    pub fn accelerators(&self) -> Vec<Accelerator> {
        let mut all = self.tuning.accelerators.clone();
        if self.provider != Provider::Cpu && !all.iter().any(|one| one.kind == self.provider) {
            all.push(Accelerator { kind: self.provider, options: BTreeMap::new() });
        }
        all
    }
}
