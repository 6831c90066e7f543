//! Where a graph's inputs and outputs are not those that callers see: other shapes, inputs that may be left out, ragged
//! inputs, inputs made from a batch, outputs scattered over it.
//!
//! Only a model whose configuration asks for one of these has [`Edges`]; the others never come here. Invariant: a
//! request's elements stay in their order, and what is made for a batch depends on its requests' shapes alone.
//!
//! Not here: reading the configuration (`repository::complete`), runs (`runner`).
//!
//! # Source
//! Triton Inference Server, "Ragged Batching" and the comments of `model_config.proto`.
use crate::backend::BatchInput;
use std::sync::Arc;
use xebec_core::{Datatype, Tensor, tensor::element_count};

mod reshape;

#[cfg(test)]
mod tests;

pub(crate) use reshape::Reshape;

/// The edges of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edges {
    /// In the graph's order, inputs with a default last.
    pub(crate) inputs: Vec<InputEdge>,
    /// In the graph's order.
    pub(crate) outputs: Vec<OutputEdge>,
    /// Whether the first axis is the batch.
    pub(crate) batched: bool,
}

/// Where an input of the graph comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputEdge {
    pub(crate) name: Arc<str>,
    pub(crate) source: Source,
}

/// See [`InputEdge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The input of that name of each request.
    Caller {
        /// To what the graph wants, if it is not what callers give.
        reshape: Option<Reshape>,
        /// Whether requests of different shape are laid end to end.
        ragged: bool,
        /// Whether a request may leave it out.
        optional: bool,
    },
    /// Made from the shapes of another input in a batch.
    Made {
        kind: Kind,
        /// Which.
        from: Arc<str>,
        datatype: Datatype,
    },
}

/// What is made from the shapes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Elements of each request.
    Count,
    /// Elements of each request and those before it.
    Accumulated,
    /// The same, after a zero.
    AccumulatedWithZero,
    /// Nothing but its own shape: the most elements of a request.
    MaxAsShape,
    /// The shape of each row.
    ItemShape,
    /// The same in one axis.
    ItemShapeFlat,
}

/// What becomes of an output of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputEdge {
    /// To what callers see, if it is not what the graph gives.
    pub(crate) reshape: Option<Reshape>,
    /// The input by whose shapes it is cut, with its own dims, those of the batch first.
    pub(crate) scatter: Option<(Arc<str>, Vec<i64>)>,
}

/// The inputs of a run, owned where they are made.
pub(crate) struct Gathered<'a> {
    shapes: Vec<Vec<i64>>,
    parts: Vec<Vec<&'a [u8]>>,
}

impl<'a> Gathered<'a> {
    pub(crate) fn inputs(&self) -> Vec<BatchInput<'_>> {
        self.shapes.iter().zip(&self.parts).map(|(shape, parts)| BatchInput { shape, parts }).collect()
    }
}

/// Bytes that were made for a batch, by input of the graph.
pub(crate) struct Made(Vec<Option<(Vec<i64>, Vec<u8>)>>);

impl Edges {
    /// Whether a request may leave an input out.
    pub(crate) fn is_optional(&self, name: &str) -> bool {
        let edge = self.inputs.iter().find(|edge| *edge.name == *name);
        edge.is_some_and(|edge| matches!(edge.source, Source::Caller { optional: true, .. }))
    }

    /// Whether runs depend on more than the bytes of a row.
    pub(crate) fn is_ragged(&self) -> bool {
        self.inputs
            .iter()
            .any(|edge| matches!(edge.source, Source::Caller { ragged: true, .. } | Source::Made { .. }))
    }

    fn is_ragged_input(&self, name: &str) -> bool {
        let edge = self.inputs.iter().find(|edge| *edge.name == *name);
        edge.is_some_and(|edge| matches!(edge.source, Source::Caller { ragged: true, .. }))
    }

    /// Whether requests with these inputs may share a run.
    pub(crate) fn mix(&self, a: &[Tensor], b: &[Tensor]) -> bool {
        let same = |a: &Tensor, b: &Tensor| {
            a.name == b.name && (self.is_ragged_input(&a.name) || a.shape.get(1..) == b.shape.get(1..))
        };
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
    }

    /// Makes what is made for a batch of these requests, each given by its inputs.
    pub(crate) fn make(&self, requests: &[&[Tensor]]) -> Made {
        let made = |edge: &InputEdge| match &edge.source {
            Source::Caller { .. } => None,
            Source::Made { kind, from, datatype } => {
                let shapes: Vec<&[i64]> = requests
                    .iter()
                    .filter_map(|inputs| find(inputs, from))
                    .map(|tensor| &*tensor.shape)
                    .collect();
                let (shape, numbers) = kind.make(&shapes);
                Some((shape, encode(&numbers, *datatype)))
            }
        };
        Made(self.inputs.iter().map(made).collect())
    }

    /// Brings the requests' inputs together. `None` if a shape is not what the configuration says, which a checked
    /// request's never is.
    pub(crate) fn gather<'a>(&self, requests: &[&'a [Tensor]], made: &'a Made) -> Option<Gathered<'a>> {
        let mut all = Gathered { shapes: Vec::new(), parts: Vec::new() };
        for (edge, made) in self.inputs.iter().zip(&made.0) {
            let (shape, parts) = match (&edge.source, made) {
                (Source::Caller { reshape, ragged, .. }, _) => {
                    let given = requests.iter().filter_map(|inputs| find(inputs, &edge.name));
                    let given: Vec<&Tensor> = given.collect();
                    let parts = given.iter().map(|tensor| &*tensor.data).collect();
                    (self.whole(&given, reshape.as_ref(), *ragged)?, parts)
                }
                (Source::Made { .. }, Some((shape, bytes))) => (shape.clone(), vec![bytes.as_slice()]),
                (Source::Made { .. }, None) => return None,
            };
            all.shapes.push(shape);
            all.parts.push(parts);
        }
        Some(all)
    }

    /// The shape of an input of a whole batch; that of nothing if nobody gives it.
    fn whole(&self, given: &[&Tensor], reshape: Option<&Reshape>, ragged: bool) -> Option<Vec<i64>> {
        let Some(first) = given.first() else { return Some(Vec::new()) };
        if ragged {
            let count = |tensor: &&Tensor| element_count(&tensor.shape);
            let total: usize = given.iter().map(count).sum::<Option<usize>>()?;
            return Some(vec![i64::try_from(total).ok()?]);
        }
        if !self.batched {
            return match reshape {
                Some(reshape) => reshape.apply(&first.shape),
                None => Some(first.shape.clone()),
            };
        }
        let rows: i64 = given.iter().filter_map(|tensor| tensor.shape.first()).sum();
        let row = first.shape.get(1..).unwrap_or_default();
        let row = match reshape {
            Some(reshape) => reshape.apply(row)?,
            None => row.to_vec(),
        };
        Some(std::iter::once(rows).chain(row).collect())
    }

    /// An output's shape as its caller sees it.
    pub(crate) fn outward(&self, output: usize, shape: Vec<i64>) -> Option<Vec<i64>> {
        let reshape = self.outputs.get(output).and_then(|edge| edge.reshape.as_ref());
        let Some(reshape) = reshape else { return Some(shape) };
        let (batch, row) = shape.split_at_checked(usize::from(self.batched))?;
        Some(batch.iter().copied().chain(reshape.apply(row)?).collect())
    }

    /// The shape of each request's part of an output that is cut by an input's shapes; `None` if it is cut by rows.
    pub(crate) fn scattered(&self, output: usize, requests: &[&[Tensor]]) -> Option<Vec<Vec<i64>>> {
        let (source, dims) = self.outputs.get(output)?.scatter.as_ref()?;
        let of_request = |inputs: &&[Tensor]| {
            let shape = find(inputs, source).map(|tensor| tensor.shape.as_slice()).unwrap_or_default();
            let extent = |(index, extent): (usize, &i64)| match extent {
                -1 => shape.get(index).copied().unwrap_or(0),
                fixed => *fixed,
            };
            dims.iter().enumerate().map(extent).collect()
        };
        Some(requests.iter().map(of_request).collect())
    }
}

fn find<'a>(inputs: &'a [Tensor], name: &str) -> Option<&'a Tensor> {
    inputs.iter().find(|tensor| *tensor.name == *name)
}

impl Kind {
    /// Shape and numbers, from the shapes of one input of a batch, those of the batch axis first.
    fn make(self, shapes: &[&[i64]]) -> (Vec<i64>, Vec<i64>) {
        let counts = || shapes.iter().map(|shape| shape.iter().product::<i64>());
        let one_axis = |numbers: Vec<i64>| (vec![extent(numbers.len())], numbers);
        let accumulated = || {
            counts().scan(0, |sum, count| {
                *sum += count;
                Some(*sum)
            })
        };
        let items = || -> Vec<i64> {
            let of_request = |shape: &&[i64]| {
                let (rows, row) = shape.split_first().map_or((0, &[][..]), |(rows, row)| (*rows, row));
                row.repeat(usize::try_from(rows).unwrap_or(0))
            };
            shapes.iter().flat_map(of_request).collect()
        };
        match self {
            Self::Count => one_axis(counts().collect()),
            Self::Accumulated => one_axis(accumulated().collect()),
            Self::AccumulatedWithZero => one_axis(std::iter::once(0).chain(accumulated()).collect()),
            Self::MaxAsShape => {
                let most = counts().max().unwrap_or(0);
                (vec![most], vec![0; usize::try_from(most).unwrap_or(0)])
            }
            Self::ItemShape => {
                let rows = shapes.iter().filter_map(|shape| shape.first()).sum();
                let rank = shapes.first().map_or(0, |shape| shape.len().saturating_sub(1));
                (vec![rows, extent(rank)], items())
            }
            Self::ItemShapeFlat => one_axis(items()),
        }
    }
}

fn extent(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Numbers as elements of a datatype; only INT32, INT64 and FP32 are configured.
fn encode(numbers: &[i64], datatype: Datatype) -> Vec<u8> {
    match datatype {
        Datatype::Int64 => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        #[expect(clippy::cast_precision_loss, reason = "what Triton does with a count as a real number")]
        Datatype::Fp32 => numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect(),
        _ => numbers
            .iter()
            .flat_map(|number| i32::try_from(*number).unwrap_or(i32::MAX).to_le_bytes())
            .collect(),
    }
}
