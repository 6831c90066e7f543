//! The original and its copy, loaded side by side in the engine that serves.
use super::loss::Loss;
use crate::local::{Graph, Local};
use anyhow::Context as _;
use std::path::Path;
use xebec_core::{Datatype, Tensor};
use xebec_engine::{
    backend::{BatchInput, Stream},
    onnx::Batchability,
    repository::Candidate,
};

/// One of the two.
pub(super) struct Half {
    stream: Box<dyn Stream>,
    /// Name and datatype of each output.
    pub(super) outputs: Vec<(String, Datatype)>,
    /// Whether requests of different callers may share a run.
    pub(super) shares: Batchability,
    /// With external data.
    pub(super) bytes: u64,
}

/// Both.
pub(super) struct Pair {
    pub(super) original: Half,
    pub(super) copy: Half,
    /// Whether the first axis of every input is free.
    pub(super) has_rows: bool,
}

impl Pair {
    /// Loads the copy of a candidate beside it.
    ///
    /// # Errors
    /// The engine refuses one of them.
    pub(super) fn load(local: &Local, candidate: &Candidate, copy: &Path) -> anyhow::Result<Self> {
        let original = local.graph(candidate)?;
        let has_rows = original.info.inputs.iter().all(|input| input.shape.first() == Some(&-1));
        let mut other = candidate.clone();
        let version = crate::local::newest(candidate)?;
        other.versions = [(version, copy.to_owned())].into();
        other.root = copy.parent().unwrap_or(copy).to_owned();
        let copy = local.graph(&other).context("the copy does not load")?;
        Ok(Self { original: Half::new(original)?, copy: Half::new(copy)?, has_rows })
    }

    /// Runs both on all requests and compares their answers.
    ///
    /// # Errors
    /// A run fails, or the answers cannot be compared.
    pub(super) fn compare(&mut self, requests: &[Vec<Tensor>]) -> anyhow::Result<Vec<Loss>> {
        let mut losses: Vec<Loss> = self.original.outputs.iter().map(|(name, _)| Loss::new(name)).collect();
        for (number, inputs) in requests.iter().enumerate() {
            let which = || format!("request {}", number + 1);
            self.original.run(inputs).with_context(|| format!("{} of the original", which()))?;
            self.copy.run(inputs).with_context(|| format!("{} of the copy", which()))?;
            for (index, loss) in losses.iter_mut().enumerate() {
                let (a, b) = (self.original.stream.output(index), self.copy.stream.output(index));
                let datatype = |half: &Half| half.outputs.get(index).map(|(_, datatype)| *datatype);
                let (of_a, of_b) =
                    datatype(&self.original).zip(datatype(&self.copy)).context("an output is gone")?;
                loss.add(of_a, (a.shape, a.data), (of_b, b.shape, b.data)).map_err(anyhow::Error::msg)?;
            }
        }
        Ok(losses)
    }
}

impl Half {
    fn new(graph: Graph) -> anyhow::Result<Self> {
        let outputs = graph.info.outputs.iter().map(|output| (output.name.to_string(), output.datatype));
        let (outputs, stream) = (outputs.collect(), graph.model.own_stream()?);
        Ok(Self { stream, outputs, shares: graph.shares, bytes: graph.bytes })
    }

    pub(super) fn run(&mut self, inputs: &[Tensor]) -> anyhow::Result<()> {
        let parts: Vec<[&[u8]; 1]> = inputs.iter().map(|tensor| [&tensor.data[..]]).collect();
        let both = inputs.iter().zip(&parts);
        let batch: Vec<BatchInput<'_>> =
            both.map(|(tensor, parts)| BatchInput { shape: &tensor.shape, parts }).collect();
        self.stream.run(&batch)?;
        Ok(())
    }
}
