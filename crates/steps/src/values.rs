//! Numbers in tensors, and tensors of numbers.
use bytemuck::{NoUninit, Pod, pod_collect_to_vec, try_cast_slice};
use bytes::Bytes;
use std::{borrow::Cow, sync::Arc};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Unfit},
    tensor::bytes_elements,
};

// Elements are little-endian on the wire, and are read as they lie.
#[cfg(not(target_endian = "little"))]
compile_error!("tensors are read in place, which wants a little-endian machine");

/// An input or output of a step.
pub(crate) fn info(name: &str, datatype: Datatype, shape: &[i64]) -> TensorInfo {
    TensorInfo { name: Arc::from(name), datatype, shape: shape.to_vec() }
}

/// The elements of a tensor; without a copy where its bytes lie as elements must.
pub(crate) fn elements<T: Pod>(tensor: &Tensor) -> Cow<'_, [T]> {
    match try_cast_slice(&tensor.data) {
        Ok(there) => Cow::Borrowed(there),
        Err(_) => Cow::Owned(pod_collect_to_vec(&tensor.data)),
    }
}

/// The only element of a tensor of BYTES.
pub(crate) fn only_bytes(tensor: &Tensor) -> Result<&[u8], Unfit> {
    let mut all = bytes_elements(&tensor.data);
    match (all.next(), all.next()) {
        (Some(Ok(one)), None) => Ok(one),
        _ => Err(Unfit(format!("'{}' is not one element", tensor.name))),
    }
}

/// An extent of a tensor; 0 where there is none.
pub(crate) fn extent(tensor: &Tensor, axis: usize) -> usize {
    tensor.shape.get(axis).and_then(|extent| usize::try_from(*extent).ok()).unwrap_or(0)
}

/// A vector as the bytes of a tensor, without a copy.
struct Owned<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// An output with these elements.
pub(crate) fn made<T: NoUninit + Send>(shape: &[usize], elements: Vec<T>) -> Made {
    debug_assert_eq!(shape.iter().product::<usize>(), elements.len(), "{shape:?}");
    Made { shape: extents(shape), data: Bytes::from_owner(Owned(elements)) }
}

/// An output whose elements are these bytes.
pub(crate) fn made_raw(shape: &[usize], data: Bytes) -> Made {
    Made { shape: extents(shape), data }
}

/// An output of BYTES with one element.
pub(crate) fn made_bytes(element: &[u8]) -> Made {
    made_texts([element].into_iter())
}

/// An output of BYTES with these elements.
pub(crate) fn made_texts<'a>(all: impl Iterator<Item = &'a [u8]>) -> Made {
    let (mut data, mut count) = (Vec::new(), 0);
    for element in all {
        data.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        data.extend_from_slice(element);
        count += 1;
    }
    Made { shape: vec![count], data: data.into() }
}

fn extents(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)).collect()
}
