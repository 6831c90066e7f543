//! An answer as JSON, with binary tensors behind it where they are wanted.
//!
//! NaN and the infinities are written as `NaN`, `Infinity` and `-Infinity`, as Triton writes them: Python's parser
//! reads them, strict ones do not, and the binary form has no such question.
use super::Binary;
use crate::memory::tensors::Placed;
use bytes::Bytes;
use xebec_core::{Datatype, InferError, InferResponse, ModelInfo, Tensor, tensor::bytes_elements};

/// Writes an answer; returns the length of its JSON if binary tensors follow.
pub(crate) fn response(
    info: &ModelInfo,
    id: &str,
    response: &InferResponse,
    binary: &Binary,
    placed: &[Placed],
) -> Result<(Bytes, Option<usize>), InferError> {
    let mut out = Vec::with_capacity(capacity(response));
    out.push(b'{');
    if !id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        string(&mut out, id);
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    string(&mut out, info.name.as_str());
    out.extend_from_slice(b",\"model_version\":\"");
    out.extend_from_slice(itoa::Buffer::new().format(info.version.get()).as_bytes());
    out.extend_from_slice(b"\",\"outputs\":[");
    let mut blobs: Vec<&Bytes> = Vec::new();
    for (index, tensor) in response.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        head(&mut out, tensor);
        if let Some(placed) = placed.iter().find(|placed| *placed.output == *tensor.name) {
            place(&mut out, placed);
        } else if binary.wants(&tensor.name) {
            out.extend_from_slice(b"\"parameters\":{\"binary_data_size\":");
            out.extend_from_slice(itoa::Buffer::new().format(tensor.data.len()).as_bytes());
            out.extend_from_slice(b"}}");
            blobs.push(&tensor.data);
        } else {
            out.extend_from_slice(b"\"data\":[");
            elements(&mut out, tensor)?;
            out.extend_from_slice(b"]}");
        }
    }
    out.extend_from_slice(b"]}");
    if blobs.is_empty() {
        return Ok((out.into(), None));
    }
    let json_length = out.len();
    blobs.into_iter().for_each(|blob| out.extend_from_slice(blob));
    Ok((out.into(), Some(json_length)))
}

/// Where in shared memory an output lies.
fn place(out: &mut Vec<u8>, placed: &Placed) {
    out.extend_from_slice(b"\"parameters\":{\"shared_memory_region\":");
    string(out, &placed.region);
    out.extend_from_slice(b",\"shared_memory_byte_size\":");
    whole(out, placed.byte_size);
    if placed.offset > 0 {
        out.extend_from_slice(b",\"shared_memory_offset\":");
        whole(out, placed.offset);
    }
    out.extend_from_slice(b"}}");
}

fn capacity(response: &InferResponse) -> usize {
    // A number of JSON takes about three times the bytes of a 32-bit one.
    let data: usize = response.outputs.iter().map(|tensor| 128 + tensor.data.len() * 3).sum();
    256 + data
}

fn head(out: &mut Vec<u8>, tensor: &Tensor) {
    out.extend_from_slice(b"{\"name\":");
    string(out, &tensor.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(tensor.datatype.as_str().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    joined(out, tensor.shape.iter(), |out, extent| whole(out, **extent));
    out.extend_from_slice(b"],");
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Writing a str into memory has no error to give.
    let _ = serde_json::to_writer(&mut *out, text);
}

fn whole(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn joined<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, write: impl Fn(&mut Vec<u8>, &T)) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, &item);
    }
}

fn fixed<const N: usize>(out: &mut Vec<u8>, data: &[u8], write: impl Fn(&mut Vec<u8>, [u8; N])) {
    joined(out, data.as_chunks::<N>().0.iter(), |out, bytes| write(out, **bytes));
}

fn elements(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), InferError> {
    let data = &tensor.data;
    match tensor.datatype {
        Datatype::Bool => fixed::<1>(out, data, |out, [flag]| {
            out.extend_from_slice(if flag == 0 { b"false" } else { b"true" })
        }),
        Datatype::Uint8 => fixed(out, data, |out, bytes| whole(out, u8::from_le_bytes(bytes))),
        Datatype::Uint16 => fixed(out, data, |out, bytes| whole(out, u16::from_le_bytes(bytes))),
        Datatype::Uint32 => fixed(out, data, |out, bytes| whole(out, u32::from_le_bytes(bytes))),
        Datatype::Uint64 => fixed(out, data, |out, bytes| whole(out, u64::from_le_bytes(bytes))),
        Datatype::Int8 => fixed(out, data, |out, bytes| whole(out, i8::from_le_bytes(bytes))),
        Datatype::Int16 => fixed(out, data, |out, bytes| whole(out, i16::from_le_bytes(bytes))),
        Datatype::Int32 => fixed(out, data, |out, bytes| whole(out, i32::from_le_bytes(bytes))),
        Datatype::Int64 => fixed(out, data, |out, bytes| whole(out, i64::from_le_bytes(bytes))),
        Datatype::Fp32 => fixed(out, data, |out, bytes| real(out, f32::from_le_bytes(bytes))),
        Datatype::Fp64 => fixed(out, data, |out, bytes| real(out, f64::from_le_bytes(bytes))),
        Datatype::Bytes => return strings(out, tensor),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(InferError::invalid_hint(
                format!("output '{}' is {}, which has no form in JSON", tensor.name, tensor.datatype),
                "ask for it as binary data: outputs[].parameters.binary_data = true",
            ));
        }
    }
    Ok(())
}

fn real<F: zmij::Float + Into<f64> + Copy>(out: &mut Vec<u8>, number: F) {
    let wide: f64 = number.into();
    if wide.is_finite() {
        out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if wide > 0.0 { b"Infinity".as_slice() } else { b"-Infinity" });
    }
}

fn strings(out: &mut Vec<u8>, tensor: &Tensor) -> Result<(), InferError> {
    for (index, element) in bytes_elements(&tensor.data).enumerate() {
        let text = element.ok().and_then(|element| std::str::from_utf8(element).ok()).ok_or_else(|| {
            InferError::invalid_hint(
                format!("output '{}' element {index} is not UTF-8, so it has no form in JSON", tensor.name),
                "ask for it as binary data: outputs[].parameters.binary_data = true",
            )
        })?;
        if index > 0 {
            out.push(b',');
        }
        string(out, text);
    }
    Ok(())
}
