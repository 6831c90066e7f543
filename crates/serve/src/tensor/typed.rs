//! Typed contents of gRPC (`InferTensorContents`) to bytes.
use bytes::Bytes;
use xebec_core::{Datatype, InferError};
use xebec_net::wire::inference::InferTensorContents;

/// The bytes of typed contents. Narrow integers travel in 32 bits and are checked.
pub(crate) fn bytes(name: &str, datatype: Datatype, contents: InferTensorContents) -> Result<Bytes, InferError> {
    let c = contents;
    let field = field_of(datatype).ok_or_else(|| {
        InferError::invalid_hint(
            format!("input '{name}': {datatype} has no typed contents in gRPC"),
            "send it in raw_input_contents",
        )
    })?;
    let filled = [
        ("bool_contents", c.bool_contents.len()),
        ("int_contents", c.int_contents.len()),
        ("int64_contents", c.int64_contents.len()),
        ("uint_contents", c.uint_contents.len()),
        ("uint64_contents", c.uint64_contents.len()),
        ("fp32_contents", c.fp32_contents.len()),
        ("fp64_contents", c.fp64_contents.len()),
        ("bytes_contents", c.bytes_contents.len()),
    ];
    if let Some((other, _)) = filled.iter().find(|(other, len)| *len > 0 && *other != field) {
        return Err(InferError::invalid_hint(
            format!("input '{name}' of {datatype} has its elements in {other}"),
            format!("put them into {field}"),
        ));
    }
    let out: Vec<u8> = match datatype {
        Datatype::Bool => c.bool_contents.into_iter().map(u8::from).collect(),
        Datatype::Int8 => narrow(name, datatype, c.int_contents, |x| i8::try_from(x).map(i8::to_le_bytes))?,
        Datatype::Int16 => narrow(name, datatype, c.int_contents, |x| i16::try_from(x).map(i16::to_le_bytes))?,
        Datatype::Int32 => flat(c.int_contents, i32::to_le_bytes),
        Datatype::Int64 => flat(c.int64_contents, i64::to_le_bytes),
        Datatype::Uint8 => narrow(name, datatype, c.uint_contents, |x| u8::try_from(x).map(u8::to_le_bytes))?,
        Datatype::Uint16 => narrow(name, datatype, c.uint_contents, |x| u16::try_from(x).map(u16::to_le_bytes))?,
        Datatype::Uint32 => flat(c.uint_contents, u32::to_le_bytes),
        Datatype::Uint64 => flat(c.uint64_contents, u64::to_le_bytes),
        Datatype::Fp32 => flat(c.fp32_contents, f32::to_le_bytes),
        Datatype::Fp64 => flat(c.fp64_contents, f64::to_le_bytes),
        _ => strings(&c.bytes_contents),
    };
    Ok(out.into())
}

const fn field_of(datatype: Datatype) -> Option<&'static str> {
    Some(match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

fn flat<T, const N: usize>(elements: Vec<T>, bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = Vec::with_capacity(elements.len() * N);
    elements.into_iter().for_each(|element| out.extend_from_slice(&bytes(element)));
    out
}

fn narrow<T: Copy + std::fmt::Display, E, const N: usize>(
    name: &str,
    datatype: Datatype,
    elements: Vec<T>,
    bytes: impl Fn(T) -> Result<[u8; N], E>,
) -> Result<Vec<u8>, InferError> {
    let mut out = Vec::with_capacity(elements.len() * N);
    for (index, element) in elements.into_iter().enumerate() {
        let element = bytes(element)
            .map_err(|_| InferError::invalid(format!("input '{name}' element {index}: {element} does not fit {datatype}")))?;
        out.extend_from_slice(&element);
    }
    Ok(out)
}

fn strings(elements: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(elements.iter().map(|element| element.len() + 4).sum());
    for element in elements {
        // A message is below 4 GiB, so an element in it is too.
        out.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(element);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_integers_are_checked_and_other_fields_are_refused() {
        let ints = |int_contents| InferTensorContents { int_contents, ..InferTensorContents::default() };
        assert_eq!(bytes("x", Datatype::Int8, ints(vec![-1, 127])).unwrap(), vec![255, 127]);
        let error = bytes("x", Datatype::Int8, ints(vec![0, 300])).unwrap_err();
        assert_eq!(error.to_string(), "input 'x' element 1: 300 does not fit INT8");
        let error = bytes("x", Datatype::Fp32, ints(vec![1])).unwrap_err();
        assert_eq!(error.to_string(), "input 'x' of FP32 has its elements in int_contents");
        let error = bytes("x", Datatype::Fp16, ints(vec![1])).unwrap_err();
        assert_eq!(error.hint().as_deref(), Some("send it in raw_input_contents"));
    }

    #[test]
    fn strings_get_their_length_before_them() {
        let contents =
            InferTensorContents { bytes_contents: vec![Bytes::from("ab"), Bytes::new()], ..InferTensorContents::default() };
        assert_eq!(bytes("x", Datatype::Bytes, contents).unwrap(), vec![2, 0, 0, 0, b'a', b'b', 0, 0, 0, 0]);
    }
}
