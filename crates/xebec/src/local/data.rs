//! Requests to run a model on: from a file, or by chance.
//!
//! JSON holds v2 infer requests, as they are. CSV and NPZ hold rows, which are cut into requests of so many rows.
//!
//! Not here: the NPZ format (`npz`).
use super::{npz, slots};
use crate::{
    infer::lines,
    inputs::{self, Input, Slot},
};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::path::Path;
use xebec_core::{ModelInfo, Tensor, tensor::element_count};

/// A file of data larger than this is refused unread.
const MOST_BYTES: u64 = 2 << 30;

/// Requests, each a list of inputs.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) all: Vec<Vec<Tensor>>,
    /// What they are, for people.
    pub(crate) what: String,
}

/// How rows become requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Rows of a request.
    pub(crate) rows: i64,
    /// Extent of the other free axes of random inputs.
    pub(crate) free: i64,
    /// Random requests that are made without a file.
    pub(crate) count: u64,
}

/// Reads requests for a model from a file, or makes random ones.
///
/// # Errors
/// The file is none of the formats, or does not fit the model.
pub(crate) fn read(file: Option<&Path>, info: &ModelInfo, cut: Cut) -> anyhow::Result<Requests> {
    let Some(file) = file else { return random(info, cut) };
    let named = || format!("in {}", file.display());
    let size = file.metadata().with_context(|| format!("cannot read {}", file.display()))?.len();
    ensure!(size <= MOST_BYTES, "{} has {size} bytes; at most {MOST_BYTES} are read", file.display());
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let all = match extension {
        "json" => requests(&text(file)?, info).with_context(named)?,
        "csv" => rows_of_csv(&text(file)?, info, cut).with_context(named)?,
        "npz" => rows_of_npz(&std::fs::read(file)?, info, cut).with_context(named)?,
        _ => bail!("{}: data is a .json, .csv or .npz file", file.display()),
    };
    ensure!(!all.is_empty(), "{} holds no data", file.display());
    let what = format!("{} requests of {}", all.len(), file.display());
    Ok(Requests { all, what })
}

fn text(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn random(info: &ModelInfo, cut: Cut) -> anyhow::Result<Requests> {
    let slots = slots(info);
    let one = |seed| -> anyhow::Result<Vec<Tensor>> {
        inputs::random(&slots, cut.rows, cut.free, seed)?.iter().map(Input::tensor).collect()
    };
    let all = (0..cut.count).map(one).collect::<anyhow::Result<Vec<_>>>()?;
    let what =
        format!("{} random requests (floats 0 to 1, whole numbers 0 and 1), which mean nothing", all.len());
    Ok(Requests { all, what })
}

/// One v2 request, or a list of them.
fn requests(text: &str, info: &ModelInfo) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let body: Value = serde_json::from_str(text).context("the file is not JSON")?;
    let all = match &body {
        Value::Array(all) => all.as_slice(),
        one => std::slice::from_ref(one),
    };
    let request = |(index, body): (usize, &Value)| -> anyhow::Result<Vec<Tensor>> {
        let given = inputs::of_request(body)?;
        let tensors = given.iter().map(Input::tensor).collect::<anyhow::Result<Vec<_>>>()?;
        fit(tensors, info).with_context(|| format!("request {}", index + 1))
    };
    all.iter().enumerate().map(request).collect()
}

/// Brings a request's inputs into the model's order.
fn fit(mut given: Vec<Tensor>, info: &ModelInfo) -> anyhow::Result<Vec<Tensor>> {
    let mut tensors = Vec::new();
    for input in &info.inputs {
        let at = given.iter().position(|tensor| tensor.name == input.name);
        let tensor = given.swap_remove(at.with_context(|| format!("there is no input '{}'", input.name))?);
        ensure!(
            tensor.datatype == input.datatype,
            "input '{}' is {}, and the model takes {}",
            input.name,
            tensor.datatype,
            input.datatype
        );
        ensure!(
            input.accepts(&tensor.shape),
            "input '{}' has shape {:?}, and the model takes {:?}",
            input.name,
            tensor.shape,
            input.shape
        );
        tensors.push(tensor);
    }
    ensure!(given.is_empty(), "the model has no input '{}'", given.first().map_or("", |tensor| &tensor.name));
    Ok(tensors)
}

fn rows_of_csv(text: &str, info: &ModelInfo, cut: Cut) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let slots = slots(info);
    let [slot] = slots.as_slice() else {
        bail!("the model has {} inputs and CSV holds one: use .npz or .json", slots.len());
    };
    let rows: Vec<Vec<Value>> = serde_json::from_value(lines(text)?)?;
    let batched = has_rows(slot);
    let size = if batched { cut.rows.max(1) } else { 1 };
    let chunks = rows.chunks(usize::try_from(size).unwrap_or(1));
    let request = |chunk: &[Vec<Value>]| -> anyhow::Result<Vec<Tensor>> {
        let width = chunk.first().map_or(0, Vec::len);
        ensure!(chunk.iter().all(|row| row.len() == width), "its lines are not of one length");
        let mut shape = inner(slot, width, batched)?;
        if batched {
            shape.insert(0, i64::try_from(chunk.len())?);
        }
        let values = chunk.concat();
        Ok(vec![Input { name: slot.name.clone(), datatype: slot.datatype, shape, values }.tensor()?])
    };
    chunks.map(request).collect()
}

/// Whether the first axis of an input counts rows.
fn has_rows(slot: &Slot) -> bool {
    slot.shape.first() == Some(&-1)
}

/// The extents of one row of `width` values.
fn inner(slot: &Slot, width: usize, batched: bool) -> anyhow::Result<Vec<i64>> {
    let mut shape: Vec<i64> = slot.shape.iter().skip(usize::from(batched)).copied().collect();
    let known: i64 = shape.iter().filter(|extent| **extent >= 0).product();
    let width = i64::try_from(width)?;
    match shape.iter_mut().filter(|extent| **extent < 0).collect::<Vec<_>>().as_mut_slice() {
        [free] if known > 0 => **free = width / known,
        [] => (),
        _ => bail!("input '{}' has more than one free extent: use .npz or .json", slot.name),
    }
    ensure!(
        element_count(&shape) == usize::try_from(width).ok(),
        "a line has {width} numbers, and a row of input '{}' is {:?}",
        slot.name,
        slot.shape
    );
    Ok(shape)
}

fn rows_of_npz(bytes: &[u8], info: &ModelInfo, cut: Cut) -> anyhow::Result<Vec<Vec<Tensor>>> {
    let arrays = npz::read(bytes)?;
    let mut whole = Vec::new();
    for input in &info.inputs {
        let found = arrays.iter().find(|array| *array.name == *input.name);
        whole.push(found.cloned().with_context(|| {
            let names: Vec<&str> = arrays.iter().map(|array| &*array.name).collect();
            format!("there is no array '{}'; its arrays are {}", input.name, names.join(", "))
        })?);
    }
    let batched = info.inputs.iter().all(|input| input.shape.first() == Some(&-1));
    if !batched {
        return Ok(vec![fit(whole, info)?]);
    }
    let rows = whole.first().and_then(|tensor| tensor.shape.first().copied()).unwrap_or(0);
    ensure!(
        whole.iter().all(|tensor| tensor.shape.first() == Some(&rows)),
        "its arrays have not as many rows each"
    );
    let size = cut.rows.max(1);
    let mut all = Vec::new();
    let mut from = 0;
    while from < rows {
        let to = rows.min(from + size);
        let part = whole.iter().map(|tensor| slice(tensor, from, to)).collect::<Option<Vec<_>>>();
        all.push(fit(part.context("an array is shorter than its shape")?, info)?);
        from = to;
    }
    Ok(all)
}

/// Rows `from` to `to` of a tensor of numbers.
pub(crate) fn slice(tensor: &Tensor, from: i64, to: i64) -> Option<Tensor> {
    let rows = *tensor.shape.first()?;
    let width = tensor.data.len().checked_div(usize::try_from(rows).ok()?)?;
    let (begin, end) = (usize::try_from(from).ok()? * width, usize::try_from(to).ok()? * width);
    let mut shape = tensor.shape.clone();
    *shape.first_mut()? = to - from;
    (end <= tensor.data.len()).then(|| Tensor {
        shape,
        data: tensor.data.slice(begin..end),
        ..tensor.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_core::{Datatype, ModelName, Version, model::TensorInfo};

    const CUT: Cut = Cut { rows: 2, free: 1, count: 3 };

    fn info(inputs: &[(&str, Datatype, &[i64])]) -> ModelInfo {
        let tensor = |(name, datatype, shape): &(&str, Datatype, &[i64])| TensorInfo {
            name: (*name).into(),
            datatype: *datatype,
            shape: shape.to_vec(),
        };
        ModelInfo {
            name: ModelName::parse("m").unwrap(),
            version: Version::FIRST,
            platform: String::new(),
            max_batch_size: 8,
            inputs: inputs.iter().map(tensor).collect(),
            outputs: vec![],
        }
    }

    fn shapes(requests: &[Vec<Tensor>]) -> Vec<Vec<i64>> {
        requests.iter().map(|inputs| inputs[0].shape.clone()).collect()
    }

    #[test]
    fn lines_become_requests_of_so_many_rows_and_a_wrong_width_is_told() {
        let info = info(&[("x", Datatype::Fp32, &[-1, 2])]);
        let all = rows_of_csv("a,b\n1,2\n3,4\n5,6\n", &info, CUT).unwrap();
        assert_eq!(shapes(&all), [vec![2, 2], vec![1, 2]]);
        assert_eq!(&all[1][0].data[..4], 5f32.to_le_bytes());
        let error = rows_of_csv("1,2,3\n", &info, CUT).unwrap_err().to_string();
        assert!(error.contains("3 numbers") && error.contains("'x'"), "{error}");
    }

    #[test]
    fn requests_as_json_are_taken_in_the_models_order_and_must_fit() {
        let info = info(&[("a", Datatype::Int64, &[-1, 1]), ("b", Datatype::Fp32, &[-1, 2])]);
        let b = r#"{"name": "b", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}"#;
        let a = r#"{"name": "a", "datatype": "INT64", "shape": [1, 1], "data": [7]}"#;
        let text = format!(r#"[{{"inputs": [{b}, {a}]}}, {{"inputs": [{a}, {b}]}}]"#);
        let all = requests(&text, &info).unwrap();
        assert_eq!((all.len(), &*all[0][0].name, &*all[0][1].name), (2, "a", "b"));
        let error = format!("{:#}", requests(&format!(r#"{{"inputs": [{a}]}}"#), &info).unwrap_err());
        assert!(error.contains("request 1") && error.contains("no input 'b'"), "{error}");
        let wrong = text.replace("INT64", "INT32");
        assert!(format!("{:#}", requests(&wrong, &info).unwrap_err()).contains("takes INT64"));
    }

    #[test]
    fn without_a_file_the_same_requests_are_made_every_time_and_differ_from_each_other() {
        let info = info(&[("x", Datatype::Fp32, &[-1, 8])]);
        let (one, two) = (random(&info, CUT).unwrap(), random(&info, CUT).unwrap());
        assert_eq!((one.all.len(), &one.all), (3, &two.all));
        assert_ne!(one.all[0], one.all[1]);
        assert!(one.what.contains("random"));
    }
}
