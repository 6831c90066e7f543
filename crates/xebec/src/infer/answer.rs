//! An answer of a model: its tensors, and their elements as text, as JSON and as numbers.
//!
//! Not here: what they mean (`found`).
use crate::inputs;
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use half::{bf16, f16};
use serde_json::{Number, Value, json};
use xebec_core::{
    Datatype, Tensor,
    tensor::{bytes_elements, check_bytes, element_count},
};

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) model: String,
    pub(super) version: String,
    pub(super) outputs: Vec<Tensor>,
}

impl Answer {
    /// Reads an answer of its JSON and the binary tensors behind it.
    ///
    /// # Errors
    /// A tensor does not fit its shape, or is not all there.
    pub(super) fn read(head: &Value, mut rest: Bytes) -> anyhow::Result<Self> {
        let text = |key: &str| head[key].as_str().unwrap_or_default().to_owned();
        let outputs = head["outputs"].as_array().context("the answer has no outputs")?;
        let outputs = outputs.iter().map(|output| {
            let name = output["name"].as_str().context("an output of the answer has no name")?;
            tensor(name, output, &mut rest).with_context(|| format!("in output '{name}' of the answer"))
        });
        let outputs = outputs.collect::<anyhow::Result<_>>()?;
        Ok(Self { model: text("model_name"), version: text("model_version"), outputs })
    }

    /// An output by its name.
    pub(super) fn output(&self, name: &str) -> Option<&Tensor> {
        self.outputs.iter().find(|output| *output.name == *name)
    }

    /// The answer as JSON, without what is no text.
    pub(super) fn json(&self) -> Value {
        let output = |tensor: &Tensor| {
            let data: Vec<Value> = cells(tensor).iter().map(Cell::json).collect();
            json!({"name": &*tensor.name, "datatype": tensor.datatype.as_str(), "shape": tensor.shape, "data": data})
        };
        let outputs: Vec<Value> = self.outputs.iter().map(output).collect();
        json!({"model_name": self.model, "model_version": self.version, "outputs": outputs})
    }
}

fn tensor(name: &str, output: &Value, rest: &mut Bytes) -> anyhow::Result<Tensor> {
    let Some(size) = output["parameters"]["binary_data_size"].as_u64() else {
        return inputs::one(output)?.tensor();
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= rest.len());
    let data = rest.split_to(size.context("it ends before its data")?);
    let datatype: Datatype = output["datatype"].as_str().unwrap_or_default().parse()?;
    let shape: Vec<i64> = serde_json::from_value(output["shape"].clone()).context("it has no shape")?;
    let count = element_count(&shape).context("its shape cannot be")?;
    match datatype.size_bytes() {
        Some(bytes) => {
            ensure!(Some(data.len()) == count.checked_mul(bytes), "its data does not fit its shape")
        }
        None => check_bytes(&data, count)?,
    }
    Ok(Tensor { name: name.into(), datatype, shape, data })
}

/// An element of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cell {
    /// The shortest decimal that is this number and no other of its datatype.
    Number(String),
    Flag(bool),
    Text(String),
    /// So many bytes that are no text.
    Bytes(usize),
}

impl Cell {
    /// As text, for people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Number(text) | Self::Text(text) => text.clone(),
            Self::Flag(flag) => flag.to_string(),
            Self::Bytes(bytes) => format!("({bytes} bytes)"),
        }
    }

    /// As JSON; what is no number there (NaN, infinity) is null.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Number(text) => text.parse().map_or(Value::Null, |number: Number| json!(number)),
            Self::Flag(flag) => json!(flag),
            Self::Text(_) | Self::Bytes(_) => json!(self.shown()),
        }
    }
}

/// The elements of a tensor.
pub(super) fn cells(tensor: &Tensor) -> Vec<Cell> {
    macro_rules! numbers {
        ($kind:ty) => {
            each(&tensor.data, |bytes| Cell::Number(<$kind>::from_le_bytes(bytes).to_string()))
        };
    }
    match tensor.datatype {
        Datatype::Bool => tensor.data.iter().map(|byte| Cell::Flag(*byte != 0)).collect(),
        Datatype::Uint8 => numbers!(u8),
        Datatype::Uint16 => numbers!(u16),
        Datatype::Uint32 => numbers!(u32),
        Datatype::Uint64 => numbers!(u64),
        Datatype::Int8 => numbers!(i8),
        Datatype::Int16 => numbers!(i16),
        Datatype::Int32 => numbers!(i32),
        Datatype::Int64 => numbers!(i64),
        Datatype::Fp16 => numbers!(f16),
        Datatype::Bf16 => numbers!(bf16),
        Datatype::Fp32 => numbers!(f32),
        Datatype::Fp64 => numbers!(f64),
        Datatype::Bytes => {
            let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
                Ok(text) => Cell::Text(text.to_owned()),
                Err(_) => Cell::Bytes(bytes.len()),
            };
            bytes_elements(&tensor.data).flatten().map(text).collect()
        }
    }
}

/// The numbers of a tensor; `None` if it is one of texts.
pub(super) fn numbers(tensor: &Tensor) -> Option<Vec<f64>> {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let numbers = match tensor.datatype {
        Datatype::Fp32 => each(&tensor.data, |bytes| f64::from(f32::from_le_bytes(bytes))),
        Datatype::Fp64 => each(&tensor.data, f64::from_le_bytes),
        Datatype::Int64 => each(&tensor.data, |bytes| i64::from_le_bytes(bytes) as f64),
        Datatype::Bytes => return None,
        _ => cells(tensor).iter().map(|cell| cell.shown().parse().unwrap_or(f64::NAN)).collect(),
    };
    Some(numbers)
}

/// The texts of a tensor; `None` if it is not one, or not all of it is text.
pub(super) fn texts(tensor: &Tensor) -> Option<Vec<&str>> {
    let text = |element: Result<_, _>| element.ok().and_then(|bytes| std::str::from_utf8(bytes).ok());
    let texts = || bytes_elements(&tensor.data).map(text).collect();
    (tensor.datatype == Datatype::Bytes).then(texts).flatten()
}

pub(super) fn each<const N: usize, T>(data: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

/// The elements of a tensor as JSON, nested as its shape says.
pub(super) fn nested(tensor: &Tensor) -> Value {
    let mut level: Vec<Value> = cells(tensor).iter().map(Cell::json).collect();
    for extent in tensor.shape.iter().skip(1).rev() {
        let width = usize::try_from(*extent).unwrap_or(0).max(1);
        level = level.chunks(width).map(|row| json!(row)).collect();
    }
    match (tensor.shape.is_empty(), level.pop()) {
        (true, Some(only)) => only,
        (_, last) => level.into_iter().chain(last).collect(),
    }
}

/// An answer with its bare NaN and Infinity as strings: servers of the protocol write them, and JSON has no such numbers.
pub(super) fn with_strings(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut quoted) = (text, false);
    while let Some(first) = rest.chars().next() {
        let bare =
            ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !quoted && rest.starts_with(word));
        let taken = match bare {
            Some(word) => {
                out.push_str(&format!("\"{word}\""));
                word.len()
            }
            None => {
                // An escaped quote ends no string.
                let length = if quoted && first == '\\' {
                    rest.chars().take(2).map(char::len_utf8).sum()
                } else {
                    first.len_utf8()
                };
                quoted ^= first == '"';
                out.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tensor of numbers.
    pub(crate) fn reals(name: &str, shape: &[i64], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { name: name.into(), datatype: Datatype::Fp32, shape: shape.to_vec(), data: data.into() }
    }

    /// A tensor of whole numbers.
    pub(crate) fn wholes(name: &str, values: &[i64]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let shape = vec![i64::try_from(values.len()).unwrap()];
        Tensor { name: name.into(), datatype: Datatype::Int64, shape, data: data.into() }
    }

    /// A tensor of texts.
    pub(crate) fn words(name: &str, shape: &[i64], values: &[&[u8]]) -> Tensor {
        let element = |text: &&[u8]| [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text].concat();
        let data: Vec<u8> = values.iter().flat_map(element).collect();
        Tensor { name: name.into(), datatype: Datatype::Bytes, shape: shape.to_vec(), data: data.into() }
    }

    pub(crate) fn answer(outputs: Vec<Tensor>) -> Answer {
        Answer { model: "m".into(), version: "1".into(), outputs }
    }

    #[test]
    fn binary_tensors_are_read_behind_the_json_and_must_fit_their_shapes() {
        let head = |shape: Value, size: usize| {
            json!({"model_name": "m", "model_version": "2", "outputs": [
                {"name": "j", "datatype": "INT32", "shape": [2], "data": [1, 2]},
                {"name": "y", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}]})
        };
        let bytes = Bytes::from_static(&[0, 0, 0, 63]);
        let read = Answer::read(&head(json!([1, 1]), 4), bytes.clone()).unwrap();
        assert_eq!((read.version.as_str(), numbers(&read.outputs[1])), ("2", Some(vec![0.5])));
        assert_eq!(cells(read.output("j").unwrap()), ["1", "2"].map(|text| Cell::Number(text.into())));
        let said =
            |shape, size| format!("{:#}", Answer::read(&head(shape, size), bytes.clone()).unwrap_err());
        assert!(said(json!([2]), 4).contains("'y'") && said(json!([2]), 4).contains("does not fit"));
        assert!(said(json!([1]), 5).contains("ends before"), "{}", said(json!([1]), 5));
    }

    #[test]
    fn numbers_are_written_as_short_as_their_datatype_allows() {
        let tensor = reals("y", &[4], &[0.1, 1.0, f32::NAN, f32::NEG_INFINITY]);
        let shown: Vec<String> = cells(&tensor).iter().map(Cell::shown).collect();
        assert_eq!(shown, ["0.1", "1", "NaN", "-inf"]);
        assert_eq!(nested(&tensor), json!([0.1, 1, null, null]));
    }

    #[test]
    fn elements_are_nested_as_the_shape_says() {
        assert_eq!(nested(&reals("y", &[2, 1, 2], &[1., 2., 3., 4.5])), json!([[[1, 2]], [[3, 4.5]]]));
        assert_eq!(nested(&reals("y", &[], &[0.5])), json!(0.5));
        assert_eq!(nested(&reals("y", &[0, 4], &[])), json!([]));
    }

    #[test]
    fn what_is_no_text_is_told_by_its_size() {
        let tensor = words("y", &[2], &[b"ok", &[0xff, 0xd8]]);
        assert_eq!(nested(&tensor), json!(["ok", "(2 bytes)"]));
        assert_eq!(texts(&tensor), None);
    }

    #[test]
    fn numbers_that_json_has_not_are_read_outside_of_strings_alone() {
        let text = r#"{"a": [NaN, -Infinity, Infinity, 1], "b": "NaN \" NaN \\", "c": NaN}"#;
        let value: Value = serde_json::from_str(&with_strings(text)).unwrap();
        assert_eq!(value["a"], json!(["NaN", "-Infinity", "Infinity", 1]));
        assert_eq!((&value["b"], &value["c"]), (&json!("NaN \" NaN \\"), &json!("NaN")));
    }
}
