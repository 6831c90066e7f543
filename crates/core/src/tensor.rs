//! Tensors as they travel: a datatype of the Open Inference Protocol, a shape, and bytes.
//!
//! Bytes are little-endian and row-major without padding, so a tensor can be a view on a received
//! body. A `BYTES` tensor is the concatenation of its elements, each a 4-byte little-endian length
//! and that many bytes. Not here: numbers (the engine reads them), JSON (`xebec-serve`).
//!
//! # Source
//! Open Inference Protocol, "Tensor Data" and "Binary tensor data extension".
use bytes::Bytes;
use std::{fmt, str::FromStr, sync::Arc};

/// Element type of a tensor, by the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the protocol's own names")]
pub enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl Datatype {
    /// Every datatype, in the order of the protocol's table.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name, for example `FP32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes of one element; `None` for `BYTES`, whose elements carry their own length.
    pub const fn size_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text was not a datatype of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not a datatype; the datatypes are BOOL, UINT8/16/32/64, INT8/16/32/64, FP16, BF16, FP32, FP64 and BYTES"
)]
pub struct UnknownDatatype(pub String);

impl FromStr for Datatype {
    type Err = UnknownDatatype;

    fn from_str(raw: &str) -> Result<Self, Self::Err> {
        let known = match raw {
            "BOOL" => Self::Bool,
            "UINT8" => Self::Uint8,
            "UINT16" => Self::Uint16,
            "UINT32" => Self::Uint32,
            "UINT64" => Self::Uint64,
            "INT8" => Self::Int8,
            "INT16" => Self::Int16,
            "INT32" => Self::Int32,
            "INT64" => Self::Int64,
            "FP16" => Self::Fp16,
            "BF16" => Self::Bf16,
            "FP32" => Self::Fp32,
            "FP64" => Self::Fp64,
            "BYTES" => Self::Bytes,
            _ => return Err(UnknownDatatype(raw.chars().take(64).collect())),
        };
        Ok(known)
    }
}

/// A named tensor, input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name of the model's input or output.
    pub name: Arc<str>,
    /// Element type.
    pub datatype: Datatype,
    /// Extent of every axis; never negative once it is here. Empty for a scalar.
    pub shape: Vec<i64>,
    /// Elements, little-endian and row-major (see the module's text for `BYTES`).
    pub data: Bytes,
}

/// Number of elements of a shape.
///
/// Returns `None` if an extent is negative or the product passes `i64::MAX`.
pub fn element_count(shape: &[i64]) -> Option<usize> {
    // A zero anywhere makes the product zero, whatever overflows beside it: ask for that first, so that
    // [i64::MAX, i64::MAX, 0] is as refused as [i64::MAX, i64::MAX].
    let count = shape.iter().try_fold(1i64, |product, &extent| {
        if extent < 0 { None } else { product.max(1).checked_mul(extent.max(1)) }
    })?;
    let count = if shape.contains(&0) { 0 } else { count };
    usize::try_from(count).ok()
}

/// Why the bytes of a `BYTES` tensor are not its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BytesFault {
    /// A length or an element ends after the data.
    #[error("element {index} ends after the data")]
    Truncated {
        /** Which element, from 0. */
        index: usize,
    },
    /// Fewer or more elements than the shape says.
    #[error("the data holds {got} elements where the shape says {want}")]
    Count {
        /** Found. */
        got: usize,
        /** By the shape. */
        want: usize,
    },
}

/// The elements of a `BYTES` tensor's data, in order.
///
/// Yields [`BytesFault::Truncated`] once and then ends if a length points past the data.
pub fn bytes_elements(data: &[u8]) -> impl Iterator<Item = Result<&[u8], BytesFault>> {
    let mut rest = data;
    let mut index = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let element = rest.split_first_chunk::<4>().and_then(|(length, tail)| {
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            (length <= tail.len()).then(|| tail.split_at(length))
        });
        let Some((element, tail)) = element else {
            rest = &[];
            return Some(Err(BytesFault::Truncated { index }));
        };
        rest = tail;
        index += 1;
        Some(Ok(element))
    })
}

/// Checks that `data` is exactly `want` elements of a `BYTES` tensor.
///
/// # Errors
/// [`BytesFault`] naming the first element that is wrong, or the count.
pub fn check_bytes(data: &[u8], want: usize) -> Result<(), BytesFault> {
    let mut got = 0;
    for element in bytes_elements(data) {
        element?;
        got += 1;
    }
    if got == want { Ok(()) } else { Err(BytesFault::Count { got, want }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datatype_reads_back_from_its_own_name() {
        for datatype in Datatype::ALL {
            assert_eq!(datatype.as_str().parse(), Ok(datatype));
        }
        assert!("fp32".parse::<Datatype>().is_err());
    }

    #[test]
    fn a_shape_whose_product_overflows_has_no_element_count() {
        assert_eq!(element_count(&[]), Some(1));
        assert_eq!(element_count(&[2, 3]), Some(6));
        assert_eq!(element_count(&[2, 0, 3]), Some(0));
        assert_eq!(element_count(&[i64::MAX, 2]), None);
        assert_eq!(element_count(&[i64::MAX, 2, 0]), None);
        assert_eq!(element_count(&[-1]), None);
    }

    #[test]
    fn bytes_that_end_early_or_late_are_named() {
        let two = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert_eq!(check_bytes(&two, 2), Ok(()));
        assert_eq!(check_bytes(&two, 3), Err(BytesFault::Count { got: 2, want: 3 }));
        assert_eq!(check_bytes(&two[..4], 1), Err(BytesFault::Truncated { index: 0 }));
        assert_eq!(check_bytes(&[255, 255, 255, 255, 0], 1), Err(BytesFault::Truncated { index: 0 }));
        assert_eq!(check_bytes(&[1, 0], 1), Err(BytesFault::Truncated { index: 0 }));
    }
}
