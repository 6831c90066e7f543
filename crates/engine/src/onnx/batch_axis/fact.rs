//! What is known of a value: its shape, where its batch is, and small whole numbers in it.
use super::extent::Extent;
use crate::onnx::generated::{TensorProto, tensor_proto::DataType};
use std::collections::HashMap;

/// A fact, or why rows are mixed in the value.
pub(super) type Seen = Result<Fact, String>;

/// Contents longer than this are not followed: shapes are short.
const FOLLOWED: i64 = 64;

/// What is known of one value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fact {
    /// Extents; `None` if not even the rank is known.
    pub(super) shape: Option<Vec<Extent>>,
    /// The axis whose chunks are the samples'; no other extent has the batch in it.
    pub(super) batch: Option<usize>,
    /// Its numbers depend on how many rows the batch has.
    pub(super) sized: bool,
    /// Its numbers.
    pub(super) content: Content,
}

/// Numbers of a value, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Unknown,
    /// Whole numbers that may have symbols.
    Whole(Vec<Extent>),
    Real(Vec<f64>),
}

impl Fact {
    pub(super) fn batched(shape: Vec<Extent>, axis: usize) -> Self {
        Self { shape: Some(shape), batch: Some(axis), sized: false, content: Content::Unknown }
    }

    pub(super) fn plain(shape: Vec<Extent>) -> Self {
        Self { shape: Some(shape), batch: None, sized: false, content: Content::Unknown }
    }

    /// A value without anything of the batch in it, and nothing else known.
    pub(super) fn unknown() -> Self {
        Self { shape: None, batch: None, sized: false, content: Content::Unknown }
    }

    pub(super) fn of_shape(dims: &[i64]) -> Self {
        Self::plain(dims.iter().copied().map(Extent::constant).collect())
    }

    /// Whole numbers in a value of `shape`.
    pub(super) fn whole(shape: Vec<Extent>, numbers: Vec<Extent>) -> Self {
        let sized = numbers.iter().any(Extent::has_batch);
        Self { shape: Some(shape), batch: None, sized, content: Content::Whole(numbers) }
    }

    /// A list of whole numbers.
    pub(super) fn list(numbers: Vec<Extent>) -> Self {
        let len = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
        Self::whole(vec![Extent::constant(len)], numbers)
    }

    pub(super) fn constant(tensor: &TensorProto) -> Self {
        Self { content: content(tensor), ..Self::of_shape(&tensor.dims) }
    }

    /// Whether nothing of it depends on the batch, neither rows nor their number.
    pub(super) fn is_plain(&self) -> bool {
        self.batch.is_none() && !self.sized
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    pub(super) fn whole_numbers(&self) -> Option<&[Extent]> {
        match &self.content {
            Content::Whole(numbers) => Some(numbers),
            _ => None,
        }
    }

    /// Its content as numbers without symbols.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.whole_numbers()?.iter().map(Extent::number).collect()
    }

    /// The same value with nothing known of its numbers.
    pub(super) fn without_content(mut self) -> Self {
        self.content = Content::Unknown;
        self
    }
}

fn content(tensor: &TensorProto) -> Content {
    let count = tensor.dims.iter().try_fold(1i64, |product, dim| product.checked_mul(*dim));
    if !count.is_some_and(|count| (0..=FOLLOWED).contains(&count)) {
        return Content::Unknown;
    }
    let raw = &tensor.raw_data;
    let whole = |numbers: Vec<i64>| Content::Whole(numbers.into_iter().map(Extent::constant).collect());
    let content = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int64) if raw.is_empty() => whole(tensor.int64_data.clone()),
        Ok(DataType::Int64) => whole(read(raw, i64::from_le_bytes)),
        Ok(DataType::Int32 | DataType::Bool) if raw.is_empty() => {
            whole(tensor.int32_data.iter().copied().map(i64::from).collect())
        }
        Ok(DataType::Int32) => whole(read(raw, |bytes| i64::from(i32::from_le_bytes(bytes)))),
        Ok(DataType::Bool) => whole(raw.iter().map(|byte| i64::from(*byte)).collect()),
        Ok(DataType::Float) if raw.is_empty() => {
            Content::Real(tensor.float_data.iter().copied().map(f64::from).collect())
        }
        Ok(DataType::Float) => Content::Real(read(raw, |bytes| f64::from(f32::from_le_bytes(bytes)))),
        _ => Content::Unknown,
    };
    let len = match &content {
        Content::Unknown => return content,
        Content::Whole(numbers) => numbers.len(),
        Content::Real(numbers) => numbers.len(),
    };
    if i64::try_from(len).ok() == count { content } else { Content::Unknown }
}

fn read<const N: usize, T>(raw: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks().0.iter().copied().map(convert).collect()
}

/// Gives out unknowns.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    next: u32,
    named: HashMap<String, u32>,
}

impl Symbols {
    /// One that is equal to nothing else.
    pub(super) fn fresh(&mut self) -> Extent {
        self.next += 1;
        Extent::symbol(self.next)
    }

    /// The one of that name.
    pub(super) fn named(&mut self, name: &str) -> Extent {
        let next = &mut self.next;
        let symbol = self.named.entry(name.to_owned()).or_insert_with(|| {
            *next += 1;
            *next
        });
        Extent::symbol(*symbol)
    }
}
