//! What is known of a value: its shape, where its batch is, and small whole numbers in it.
use super::extent::Extent;
use crate::onnx::generated::{TensorProto, tensor_proto::DataLocation, tensor_proto::DataType};
use std::rc::Rc;

/// What a rule says of an output: a fact, or why rows are mixed in it.
pub(super) type Seen = Result<Fact, String>;

/// The same, as it is kept: a value may be read by many nodes, and none of them copies it.
pub(super) type Known = Result<Rc<Fact>, Rc<str>>;

/// Contents longer than this are not followed: shapes are short.
pub(super) const FOLLOWED: usize = 64;
/// Values with more axes are not followed: ONNX Runtime's own operators end long before.
pub(super) const MOST_AXES: usize = 32;

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

/// Numbers of a value, row-major, as many as its shape says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Unknown,
    /// Whole numbers that may have symbols.
    Whole(Elem, Vec<Extent>),
    Real(Vec<f64>),
}

/// Element types whose numbers are followed. The others round or wrap in ways that shapes never need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elem {
    Int64,
    Int32,
    Bool,
}

impl Elem {
    /// The one with ONNX's number.
    pub(super) fn of(number: i64) -> Option<Self> {
        match DataType::try_from(i32::try_from(number).ok()?) {
            Ok(DataType::Int64) => Some(Self::Int64),
            Ok(DataType::Int32) => Some(Self::Int32),
            Ok(DataType::Bool) => Some(Self::Bool),
            _ => None,
        }
    }

    /// Whether a number is the same in this type, in every run.
    fn holds(self, number: &Extent) -> bool {
        match (self, number.number()) {
            (Self::Int64, _) => true,
            (Self::Int32, Some(number)) => i32::try_from(number).is_ok(),
            // No extent of a request passes 31 bits, but a product of some might.
            (Self::Int32, None) => number.is_symbol(),
            (Self::Bool, number) => matches!(number, Some(0 | 1)),
        }
    }
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
        if dims.len() > MOST_AXES {
            return Self::unknown();
        }
        Self::plain(dims.iter().copied().map(Extent::constant).collect())
    }

    /// Whole numbers in a value of `shape`; forgotten if they are too many, or not as many as it says.
    pub(super) fn whole(shape: Vec<Extent>, elem: Elem, numbers: Vec<Extent>) -> Self {
        let sized = numbers.iter().any(Extent::has_batch);
        let count = Extent::product(&shape).and_then(|count| count.number());
        let followed = numbers.len() <= FOLLOWED
            && count == i64::try_from(numbers.len()).ok()
            && numbers.iter().all(|number| elem.holds(number));
        let content = if followed { Content::Whole(elem, numbers) } else { Content::Unknown };
        Self { shape: Some(shape), batch: None, sized, content }
    }

    /// A list of whole numbers.
    pub(super) fn list(elem: Elem, numbers: Vec<Extent>) -> Self {
        let len = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
        Self::whole(vec![Extent::constant(len)], elem, numbers)
    }

    pub(super) fn constant(tensor: &TensorProto) -> Self {
        match content(tensor) {
            Content::Whole(elem, numbers) => {
                Self::whole(tensor.dims.iter().copied().map(Extent::constant).collect(), elem, numbers)
            }
            content => Self { content, ..Self::of_shape(&tensor.dims) },
        }
    }

    /// Whether nothing of it depends on the batch, neither rows nor their number.
    pub(super) fn is_plain(&self) -> bool {
        self.batch.is_none() && !self.sized
    }

    pub(super) fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// Whether it certainly is one element.
    pub(super) fn is_one_element(&self) -> bool {
        self.shape.as_ref().is_some_and(|shape| Extent::product(shape) == Some(Extent::constant(1)))
    }

    /// Its whole numbers, with their type.
    pub(super) fn typed(&self) -> Option<(Elem, &[Extent])> {
        match &self.content {
            Content::Whole(elem, numbers) if *elem != Elem::Bool => Some((*elem, numbers)),
            _ => None,
        }
    }

    pub(super) fn whole_numbers(&self) -> Option<&[Extent]> {
        self.typed().map(|(_, numbers)| numbers)
    }

    /// Its content as numbers without symbols.
    pub(super) fn numbers(&self) -> Option<Vec<i64>> {
        self.whole_numbers()?.iter().map(Extent::number).collect()
    }

    /// Whether it is a constant that says no.
    pub(super) fn is_false(&self) -> bool {
        match &self.content {
            Content::Whole(Elem::Bool, truths) => matches!(truths.as_slice(), [no] if no.number() == Some(0)),
            _ => false,
        }
    }

    /// The same value with nothing known of its numbers.
    pub(super) fn without_content(mut self) -> Self {
        self.content = Content::Unknown;
        self
    }

    /// The same numbers in the same order, in another shape.
    pub(super) fn reshaped(&self, shape: Vec<Extent>, batch: Option<usize>) -> Self {
        let content = match &self.content {
            Content::Whole(elem, numbers) => Self::whole(shape.clone(), *elem, numbers.clone()).content,
            _ => Content::Unknown,
        };
        Self { shape: Some(shape), batch, sized: self.sized, content }
    }
}

fn content(tensor: &TensorProto) -> Content {
    let count = tensor.dims.iter().try_fold(1i64, |product, dim| product.checked_mul(*dim));
    let Some(count) = count.and_then(|count| usize::try_from(count).ok()).filter(|count| *count <= FOLLOWED)
    else {
        return Content::Unknown;
    };
    // What an external tensor holds inline, the engine never reads.
    if tensor.data_location == DataLocation::External as i32 || tensor.dims.len() > MOST_AXES {
        return Content::Unknown;
    }
    let raw = &tensor.raw_data;
    let numbers: Vec<i64> = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Float) => return reals(tensor, count),
        Ok(DataType::Int64) if raw.is_empty() => tensor.int64_data.iter().copied().take(count + 1).collect(),
        Ok(DataType::Int64) => read(raw, count, i64::from_le_bytes),
        Ok(DataType::Int32 | DataType::Bool) if raw.is_empty() => {
            tensor.int32_data.iter().copied().map(i64::from).take(count + 1).collect()
        }
        Ok(DataType::Int32) => read(raw, count, |bytes| i64::from(i32::from_le_bytes(bytes))),
        Ok(DataType::Bool) => read(raw, count, |[byte]: [u8; 1]| i64::from(byte)),
        _ => return Content::Unknown,
    };
    match Elem::of(i64::from(tensor.data_type)) {
        Some(elem) if numbers.len() == count => {
            Content::Whole(elem, numbers.into_iter().map(Extent::constant).collect())
        }
        _ => Content::Unknown,
    }
}

fn reals(tensor: &TensorProto, count: usize) -> Content {
    let numbers: Vec<f64> = if tensor.raw_data.is_empty() {
        tensor.float_data.iter().copied().map(f64::from).take(count + 1).collect()
    } else {
        read(&tensor.raw_data, count, |bytes| f64::from(f32::from_le_bytes(bytes)))
    };
    if numbers.len() == count { Content::Real(numbers) } else { Content::Unknown }
}

/// The numbers of raw data, at most one more than are wanted.
fn read<const N: usize, T>(raw: &[u8], count: usize, convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    raw.as_chunks().0.iter().copied().take(count + 1).map(convert).collect()
}

/// Gives out unknowns.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    next: u64,
}

impl Symbols {
    /// One that is equal to nothing else.
    pub(super) fn fresh(&mut self) -> Extent {
        self.next += 1;
        Extent::symbol(self.next)
    }
}
