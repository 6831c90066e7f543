//! The classification extension: the largest elements of an output as text, in place of its numbers.
//!
//! # Source
//! Triton Inference Server, "Classification Extension". Values are written as C++'s `std::to_string` writes them.
use xebec_core::{Datatype, InferError, InferResponse, ModelInfo, Tensor};

#[cfg(test)]
mod tests;

/// How many classes are wanted, by output.
pub(crate) type Classes = Vec<(String, usize)>;

/// Replaces the outputs that are wanted as classes: BYTES `value:index`, and `:label` where there is one, the largest first. Their shape is the number of
/// classes, behind the batch axis if the model has one.
///
/// # Errors
/// An output whose elements have no order.
pub(crate) fn apply<'a>(
    response: &mut InferResponse,
    classes: &Classes,
    info: &ModelInfo,
    labels: impl Fn(&str) -> &'a [Box<str>],
) -> Result<(), InferError> {
    for (name, wanted) in classes {
        if let Some(tensor) = response.outputs.iter_mut().find(|tensor| *tensor.name == **name) {
            classify(tensor, *wanted, info.max_batch_size > 0, labels(name))?;
        }
    }
    Ok(())
}

/// Refuses what [`apply`] would, before anything is run.
pub(crate) fn check(classes: &Classes, info: &ModelInfo) -> Result<(), InferError> {
    let known = |name: &str| info.outputs.iter().find(|output| *output.name == *name);
    let mut known = classes.iter().filter_map(|(name, _)| known(name));
    known.try_for_each(|output| refuse_unordered(&output.name, output.datatype))
}

fn refuse_unordered(name: &str, datatype: Datatype) -> Result<(), InferError> {
    if !matches!(datatype, Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes) {
        return Ok(());
    }
    Err(InferError::invalid_hint(
        format!("class result not available for output '{name}' due to unsupported type '{datatype}'"),
        "leave out its parameter 'classification'",
    ))
}

fn classify(
    tensor: &mut Tensor,
    wanted: usize,
    batched: bool,
    labels: &[Box<str>],
) -> Result<(), InferError> {
    let data = &tensor.data;
    let element = tensor.datatype.size_bytes().unwrap_or(1);
    let rows = match tensor.shape.first() {
        Some(rows) if batched => usize::try_from(*rows).unwrap_or(0),
        _ => 1,
    };
    let in_row = (data.len() / element).checked_div(rows).unwrap_or(0);
    let most = wanted.min(in_row);
    refuse_unordered(&tensor.name, tensor.datatype)?;
    // Rows without elements may be as many as a model says.
    let filled = if most == 0 { 0 } else { rows };
    let mut out = Elements { bytes: Vec::new(), labels };
    let row_bytes = in_row * element;
    let each = (0..filled).map(|row| data.get(row * row_bytes..(row + 1) * row_bytes).unwrap_or_default());
    for row in each {
        match tensor.datatype {
            Datatype::Uint8 => write(&mut out, row, most, u8::from_le_bytes, |value| value.to_string()),
            Datatype::Uint16 => write(&mut out, row, most, u16::from_le_bytes, |value| value.to_string()),
            Datatype::Uint32 => write(&mut out, row, most, u32::from_le_bytes, |value| value.to_string()),
            Datatype::Uint64 => write(&mut out, row, most, u64::from_le_bytes, |value| value.to_string()),
            Datatype::Int8 => write(&mut out, row, most, i8::from_le_bytes, |value| value.to_string()),
            Datatype::Int16 => write(&mut out, row, most, i16::from_le_bytes, |value| value.to_string()),
            Datatype::Int32 => write(&mut out, row, most, i32::from_le_bytes, |value| value.to_string()),
            Datatype::Int64 => write(&mut out, row, most, i64::from_le_bytes, |value| value.to_string()),
            Datatype::Fp32 => write(&mut out, row, most, f32::from_le_bytes, |value| real(value.into())),
            Datatype::Fp64 => write(&mut out, row, most, f64::from_le_bytes, real),
            Datatype::Bool | Datatype::Fp16 | Datatype::Bf16 | Datatype::Bytes => (),
        }
    }
    tensor.shape = if batched { vec![extent(rows), extent(most)] } else { vec![extent(most)] };
    tensor.datatype = Datatype::Bytes;
    tensor.data = out.bytes.into();
    Ok(())
}

fn extent(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn real(value: f64) -> String {
    if value.is_nan() { "nan".into() } else { format!("{value:.6}") }
}

/// Elements of BYTES as they are written.
struct Elements<'a> {
    bytes: Vec<u8>,
    labels: &'a [Box<str>],
}

impl Elements<'_> {
    fn push(&mut self, value: &str, index: usize) {
        let element = match self.labels.get(index).filter(|label| !label.is_empty()) {
            Some(label) => format!("{value}:{index}:{label}"),
            None => format!("{value}:{index}"),
        };
        // A number, an index and a label are shorter than 4 GiB.
        self.bytes.extend_from_slice(&u32::try_from(element.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(element.as_bytes());
    }
}

/// Appends the `most` largest of a row as elements of BYTES. Of equal ones the first comes first; NaN comes last.
fn write<const N: usize, T: PartialOrd + Copy>(
    out: &mut Elements<'_>,
    row: &[u8],
    most: usize,
    read: impl Fn([u8; N]) -> T,
    text: impl Fn(T) -> String,
) {
    let order = |a: &(usize, T), b: &(usize, T)| {
        let nan = |value: T| value.partial_cmp(&value).is_none();
        let largest_first = b.1.partial_cmp(&a.1).unwrap_or_else(|| nan(a.1).cmp(&nan(b.1)));
        largest_first.then_with(|| a.0.cmp(&b.0))
    };
    // Never more than twice what is wanted is kept, however long the row is.
    let mut values: Vec<(usize, T)> = Vec::new();
    for one in row.as_chunks().0.iter().map(|bytes| read(*bytes)).enumerate() {
        values.push(one);
        if values.len() == 2 * most {
            values.select_nth_unstable_by(most - 1, order);
            values.truncate(most);
        }
    }
    values.sort_unstable_by(order);
    values.truncate(most);
    for (index, value) in values {
        out.push(&text(value), index);
    }
}
