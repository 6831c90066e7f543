//! A checked request on its way through a queue.
use crate::{
    edges::Edges,
    order::Place,
    queue::{Job, Left},
};
use std::{sync::Arc, time::Instant};
use xebec_core::{InferError, InferResponse, Tensor, port::Reply, trace::Traced};

/// A request that fits its model and waits for a run.
pub(crate) struct Pending {
    /// The caller's mark.
    pub(crate) id: String,
    /// In the model's order.
    pub(crate) inputs: Vec<Tensor>,
    /// Names of the wanted outputs; empty means all.
    pub(crate) outputs: Vec<String>,
    /// Extent of the batch axis; 1 for a model without one.
    pub(crate) rows: u32,
    /// Whether it may share a run with others of its shape.
    pub(crate) mixes: bool,
    /// What lies between its tensors and the graph's, if anything does.
    pub(crate) edges: Option<Arc<Edges>>,
    /// When it was submitted.
    pub(crate) arrived: Instant,
    /// When it must have been started.
    pub(crate) deadline: Option<Instant>,
    /// Its place in the queue, from 0; lower ones come first.
    pub(crate) level: usize,
    /// Whether it has waited too long and waits on.
    pub(crate) late: bool,
    /// Its trace, if it is traced.
    pub(crate) trace: Option<Arc<Traced>>,
    /// Where the answer goes.
    pub(crate) reply: Reply,
    /// Its place in the order of answers, where they keep one.
    pub(crate) place: Option<Place>,
}

impl Pending {
    /// Ends it with the outcome of its run.
    pub(crate) fn answer(self, outcome: Result<InferResponse, InferError>) {
        match self.place {
            Some(place) => place.give(self.reply, outcome),
            None => self.reply.send(outcome),
        }
    }

    /// Ends it without a run, at once: there is nothing to keep in order.
    pub(crate) fn refuse(self, error: InferError) {
        self.reply.send(Err(error));
    }

    /// Ends it without a run, because it left the queue.
    pub(crate) fn leave(self, left: Left) {
        self.refuse(match left {
            Left::Expired => InferError::Timeout,
            Left::Gone => InferError::Cancelled,
        });
    }
}

impl Job for Pending {
    fn rows(&self) -> u32 {
        self.rows
    }

    fn row_bytes(&self) -> u64 {
        let bytes: usize = self.inputs.iter().map(|tensor| tensor.data.len()).sum();
        bytes as u64 / u64::from(self.rows.max(1))
    }

    fn mixes_with(&self, other: &Self) -> bool {
        let same = |a: &Tensor, b: &Tensor| a.shape.get(1..) == b.shape.get(1..);
        if let Some(edges) = &self.edges {
            return self.mixes && other.mixes && edges.mix(&self.inputs, &other.inputs);
        }
        self.mixes && other.mixes && self.inputs.iter().zip(&other.inputs).all(|(a, b)| same(a, b))
    }

    fn is_gone(&self) -> bool {
        self.reply.is_gone()
    }

    fn arrived(&self) -> Instant {
        self.arrived
    }

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn level(&self) -> usize {
        self.level
    }

    fn is_late(&self) -> bool {
        self.late
    }

    fn go_on_waiting(&mut self) {
        (self.late, self.deadline) = (true, None);
    }
}
