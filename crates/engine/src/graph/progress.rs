//! How far a request has come in a graph: which tensors are there, which steps can run, when it is over.
//!
//! No input or output, so that any order of events can be tried. Invariants: a step begins once, when the last tensor
//! that it needs is there; a tensor is kept until the last step that needs it has ended, and to the end if it is an output
//! that is wanted; steps that nothing wanted comes of are left out.
use super::plan::{Plan, Step, Wire};
use std::sync::Arc;
use xebec_core::{InferError, Tensor};

/// See the module's text.
pub(crate) struct Progress {
    tensors: Vec<Slot>,
    steps: Vec<State>,
    /// Wanted outputs, in the order in which they were asked for.
    wanted: Vec<usize>,
    /// Wanted outputs that are not there yet.
    missing: usize,
    bytes: u64,
}

/// A tensor, and for how many it is kept: steps, and the answer.
struct Slot {
    tensor: Option<Tensor>,
    keepers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing wanted comes of it.
    LeftOut,
    /// So many of its tensors are missing.
    Waits(usize),
    Begun,
}

impl Progress {
    /// At the beginning. `inputs` are in the order of the graph's inputs, `wanted` are tensors.
    pub(crate) fn new(plan: &Plan, inputs: Vec<Tensor>, wanted: Vec<usize>) -> Self {
        let needed = plan.needed(&wanted);
        let keepers = |(at, wire): (usize, &Wire)| {
            wire.users.iter().filter(|user| needed[**user]).count() + usize::from(wanted.contains(&at))
        };
        let mut tensors: Vec<Slot> = plan
            .tensors
            .iter()
            .enumerate()
            .map(|wire| Slot { tensor: None, keepers: keepers(wire) })
            .collect();
        let steps = plan.steps.iter().zip(&needed).map(|(step, needed)| {
            let made = |at: &usize| plan.tensors[*at].maker.is_some();
            let mut all: Vec<usize> = step.inputs.iter().map(|(_, at)| *at).filter(made).collect();
            all.sort_unstable();
            all.dedup();
            if *needed { State::Waits(all.len()) } else { State::LeftOut }
        });
        let steps = steps.collect();
        for (at, tensor) in plan.inputs.iter().zip(inputs) {
            tensors[*at].tensor = Some(tensor).filter(|_| tensors[*at].keepers > 0);
        }
        let missing = wanted.len();
        Self { tensors, steps, wanted, missing, bytes: 0 }
    }

    /// Steps that can begin without any other.
    pub(crate) fn first(&self) -> Vec<usize> {
        let free = |state: &State| *state == State::Waits(0);
        self.steps.iter().enumerate().filter(|(_, state)| free(state)).map(|(at, _)| at).collect()
    }

    /// Begins a step: its inputs by the member's names, and the outputs of it that anybody needs.
    pub(crate) fn begin(&mut self, plan: &Plan, step: usize) -> (Vec<Tensor>, Vec<String>) {
        self.steps[step] = State::Begun;
        let Step { inputs, outputs, .. } = &plan.steps[step];
        let mut given = Vec::with_capacity(inputs.len());
        for (name, at) in inputs {
            if let Some(tensor) = &self.tensors[*at].tensor {
                given.push(Tensor { name: Arc::clone(name), ..tensor.clone() });
            }
        }
        let kept = outputs.iter().filter(|(_, at)| self.tensors[*at].keepers > 0);
        (given, kept.map(|(name, _)| name.to_string()).collect())
    }

    fn let_go(&mut self, plan: &Plan, at: usize) {
        let slot = &mut self.tensors[at];
        slot.keepers = slot.keepers.saturating_sub(1);
        if slot.keepers == 0
            && let Some(tensor) = slot.tensor.take()
            && plan.tensors[at].maker.is_some()
        {
            self.bytes -= tensor.data.len() as u64;
        }
    }

    /// Takes what a step has made. Returns the steps that can begin now.
    ///
    /// # Errors
    /// An output is missing: the member is not what it was when the graph was checked.
    pub(crate) fn end(
        &mut self,
        plan: &Plan,
        step: usize,
        made: Vec<Tensor>,
    ) -> Result<Vec<usize>, InferError> {
        let mut free = Vec::new();
        let Step { member, inputs, outputs } = &plan.steps[step];
        // A step that takes a tensor twice is one of those for whom it is kept. While it waits or runs, the model has it.
        let mut all: Vec<usize> = inputs.iter().map(|(_, at)| *at).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().for_each(|at| self.let_go(plan, at));
        for (name, at) in outputs {
            if self.tensors[*at].keepers == 0 {
                continue;
            }
            let Some(tensor) = made.iter().find(|tensor| *tensor.name == **name) else {
                return Err(InferError::Internal(format!(
                    "model '{}' has made no output '{name}'",
                    member.name
                )));
            };
            let wire = &plan.tensors[*at];
            self.bytes += tensor.data.len() as u64;
            self.tensors[*at].tensor = Some(Tensor { name: Arc::clone(&wire.called), ..tensor.clone() });
            self.missing -= usize::from(self.wanted.contains(at));
            for user in &wire.users {
                if let State::Waits(missing) = &mut self.steps[*user] {
                    *missing -= 1;
                    if *missing == 0 {
                        free.push(*user);
                    }
                }
            }
        }
        Ok(free)
    }

    /// Bytes of tensors that were made and are kept.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Lets go of everything: it is over.
    pub(crate) fn clear(&mut self) {
        self.tensors.iter_mut().for_each(|slot| slot.tensor = None);
        self.bytes = 0;
    }

    /// The answer, once everything that is wanted is there.
    pub(crate) fn answer(&mut self) -> Option<Vec<Tensor>> {
        if self.missing > 0 {
            return None;
        }
        let tensors = &mut self.tensors;
        Some(self.wanted.iter().filter_map(|at| tensors[*at].tensor.take()).collect())
    }
}
