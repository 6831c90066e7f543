//! Whether a request fits its model, in the words that clients of the Triton dialect match on.
//!
//! Invariant: a request that passes has the model's inputs in the model's order, but for optional ones, each with the bytes that its shape
//! says, and the same number of rows in each. A request that is right costs no allocation.
//!
//! Not here: values (only the engine knows whether an index is out of range).
use crate::edges::Edges;
use xebec_core::{
    Datatype, InferError, InferRequest, ModelInfo, Tensor,
    error::dims_text,
    model::TensorInfo,
    tensor::{check_bytes, element_count},
};

/// Checks `request` and brings its inputs into the model's order; optional ones may be missing. Returns its rows: 1 for a model without batch axis.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn check(
    info: &ModelInfo,
    edges: Option<&Edges>,
    request: &mut InferRequest,
) -> Result<u32, InferError> {
    order(info, edges, &mut request.inputs)?;
    if request.inputs.len() == info.inputs.len() {
        for (tensor, want) in request.inputs.iter().zip(&info.inputs) {
            check_tensor(info, tensor, want)?;
        }
    } else {
        for tensor in &request.inputs {
            let want = info.inputs.iter().find(|want| want.name == tensor.name);
            want.map_or(Ok(()), |want| check_tensor(info, tensor, want))?;
        }
    }
    check_outputs(info, &request.outputs)?;
    request.inputs.iter_mut().for_each(true_is_one);
    rows(info, &request.inputs)
}

/// Makes every BOOL that is not 0 a 1. Raw bytes may be any; an engine's compiler counts on there being no other than these two.
fn true_is_one(tensor: &mut Tensor) {
    if tensor.datatype == Datatype::Bool && tensor.data.iter().any(|byte| *byte > 1) {
        let ones: Vec<u8> = tensor.data.iter().map(|byte| u8::from(*byte != 0)).collect();
        tensor.data = ones.into();
    }
}

/// Refuses a request of a sequence, where there is no state.
///
/// # Errors
/// It is of one.
pub(crate) fn of_no_sequence(info: &ModelInfo, request: &InferRequest) -> Result<(), InferError> {
    if request.sequence.is_none() {
        return Ok(());
    }
    Err(InferError::invalid_hint(
        format!("model '{}' is not stateful: a request to it is of no sequence", info.name),
        "leave sequence_id, sequence_start and sequence_end out",
    ))
}

fn order(info: &ModelInfo, edges: Option<&Edges>, inputs: &mut [Tensor]) -> Result<(), InferError> {
    for place in 0..inputs.len() {
        let Some(tensor) = inputs.get(place) else { break };
        if !info.inputs.iter().any(|want| want.name == tensor.name) {
            return Err(InferError::UnexpectedInput {
                input: tensor.name.to_string(),
                model: info.name.to_string(),
                known: names(info.inputs.iter().map(|input| &*input.name)),
            });
        }
        if inputs[..place].iter().any(|earlier| earlier.name == inputs[place].name) {
            return Err(InferError::invalid(format!(
                "input '{}' already exists in request",
                inputs[place].name
            )));
        }
    }
    if inputs.len() != info.inputs.len() {
        let given = |name: &str| inputs.iter().any(|tensor| *tensor.name == *name);
        let mut absent = info.inputs.iter().filter(|want| !given(&want.name));
        if inputs.is_empty() || !absent.all(|want| edges.is_some_and(|edges| edges.is_optional(&want.name))) {
            return Err(missing(info, inputs));
        }
        inputs.sort_by_key(|tensor| info.inputs.iter().position(|want| want.name == tensor.name));
        return Ok(());
    }
    // As many as wanted, all known, none twice: now each has its place.
    for (place, want) in info.inputs.iter().enumerate() {
        if let Some(from) = inputs.iter().position(|tensor| *tensor.name == *want.name) {
            inputs.swap(place, from);
        }
    }
    Ok(())
}

fn missing(info: &ModelInfo, inputs: &[Tensor]) -> InferError {
    let given = |name: &str| inputs.iter().any(|tensor| *tensor.name == *name);
    InferError::InputCount {
        model: info.name.to_string(),
        want: info.inputs.len(),
        got: inputs.len(),
        given: list(inputs.iter().map(|tensor| &*tensor.name)),
        missing: list(info.inputs.iter().map(|want| &*want.name).filter(|name| !given(name))),
    }
}

/// As Triton writes it: `['a','b']`.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    format!("[{}]", quoted.join(","))
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    quoted.join(", ")
}

fn check_tensor(info: &ModelInfo, tensor: &Tensor, want: &TensorInfo) -> Result<(), InferError> {
    let name = &tensor.name;
    if tensor.datatype != want.datatype {
        return Err(InferError::WrongDatatype {
            input: name.to_string(),
            model: info.name.to_string(),
            got: tensor.datatype,
            want: want.datatype,
        });
    }
    if info.max_batch_size > 0 && tensor.shape.is_empty() {
        return Err(InferError::invalid(format!(
            "input '{name}' has no shape but model requires batch dimension for '{}'",
            info.name
        )));
    }
    if !want.accepts(&tensor.shape) {
        return Err(InferError::WrongShape {
            input: name.to_string(),
            model: info.name.to_string(),
            want: dims_text(&want.shape),
            got: dims_text(&tensor.shape),
        });
    }
    check_size(tensor)
}

fn check_size(tensor: &Tensor) -> Result<(), InferError> {
    let Tensor { name, datatype, shape, data } = tensor;
    let dims = || dims_text(shape);
    let Some(count) = element_count(shape) else {
        let message =
            format!("input '{name}' has shape {}, which is negative or holds more than can be", dims());
        return Err(InferError::invalid_hint(
            message,
            "every extent is 0 or more, and their product fits 63 bits",
        ));
    };
    let Some(size) = datatype.size_bytes() else {
        return check_bytes(data, count).map_err(|fault| {
            InferError::invalid_hint(
                format!("input '{name}' of BYTES with shape {}: {fault}", dims()),
                "each element is a 4-byte little-endian length and that many bytes",
            )
        });
    };
    if count.checked_mul(size) == Some(data.len()) {
        return Ok(());
    }
    let want =
        count.checked_mul(size).map_or_else(|| "more than memory holds".to_owned(), |want| want.to_string());
    Err(InferError::invalid(format!(
        "input '{name}' has {} bytes of data, but shape {} of {datatype} needs {want}",
        data.len(),
        dims()
    )))
}

fn check_outputs(info: &ModelInfo, outputs: &[String]) -> Result<(), InferError> {
    let unknown = outputs.iter().find(|name| !info.outputs.iter().any(|output| *output.name == ***name));
    match unknown {
        None => Ok(()),
        Some(output) => Err(InferError::UnexpectedOutput {
            output: output.clone(),
            model: info.name.to_string(),
            known: names(info.outputs.iter().map(|output| &*output.name)),
        }),
    }
}

fn rows(info: &ModelInfo, inputs: &[Tensor]) -> Result<u32, InferError> {
    if info.max_batch_size == 0 {
        return Ok(1);
    }
    let mut extents = inputs.iter().map(|tensor| tensor.shape.first().copied().unwrap_or(0));
    let Some(rows) = extents.next() else { return Ok(1) };
    if let Some(place) = extents.position(|extent| extent != rows) {
        let name = inputs.get(place + 1).map_or("", |tensor| &*tensor.name);
        return Err(InferError::invalid(format!(
            "input '{name}' batch size does not match other inputs for '{}'",
            info.name
        )));
    }
    match u32::try_from(rows) {
        Ok(0) => Err(InferError::invalid_hint(
            format!("inference request for '{}' has no rows: its batch axis is 0", info.name),
            "send at least one row",
        )),
        Ok(rows) if rows <= info.max_batch_size => Ok(rows),
        _ => Err(InferError::BatchTooLarge { limit: info.max_batch_size, model: info.name.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::time::Instant;
    use xebec_core::{ModelName, Version};

    fn info(max_batch_size: u32, inputs: &[(&str, Datatype, &[i64])]) -> ModelInfo {
        let tensor = |(name, datatype, shape): &(&str, Datatype, &[i64])| TensorInfo {
            name: (*name).into(),
            datatype: *datatype,
            shape: shape.to_vec(),
        };
        ModelInfo {
            name: ModelName::parse("m").unwrap(),
            version: Version::FIRST,
            platform: "onnxruntime_onnx".into(),
            max_batch_size,
            inputs: inputs.iter().map(tensor).collect(),
            outputs: vec![tensor(&("y", Datatype::Fp32, &[-1, 2]))],
        }
    }

    fn tensor(name: &str, datatype: Datatype, shape: &[i64], bytes: usize) -> Tensor {
        Tensor { name: name.into(), datatype, shape: shape.to_vec(), data: Bytes::from(vec![0; bytes]) }
    }

    fn request(inputs: Vec<Tensor>, outputs: &[&str]) -> InferRequest {
        InferRequest {
            id: "7".into(),
            inputs,
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
            timeout: None,
            priority: 0,
            sequence: None,
            streamed: false,
            headers: Vec::new(),
            received: Instant::now(),
            trace: None,
        }
    }

    #[test]
    fn a_bool_of_another_byte_than_0_is_1() {
        let info = info(0, &[("flags", Datatype::Bool, &[4]), ("x", Datatype::Uint8, &[1])]);
        let with = |name, datatype, bytes: &[u8]| Tensor {
            data: Bytes::copy_from_slice(bytes),
            ..tensor(name, datatype, &[i64::try_from(bytes.len()).unwrap()], 0)
        };
        let flags = with("flags", Datatype::Bool, &[0, 1, 37, 255]);
        let mut request = request(vec![flags, with("x", Datatype::Uint8, &[37])], &[]);
        assert_eq!(check(&info, None, &mut request), Ok(1));
        assert_eq!((&*request.inputs[0].data, &*request.inputs[1].data), (&[0, 1, 1, 1][..], &[37][..]));
    }

    fn ask(info: &ModelInfo, inputs: Vec<Tensor>, outputs: &[&str]) -> Result<u32, String> {
        let mut request = request(inputs, outputs);
        check(info, None, &mut request).map_err(|error| error.message_for("7"))
    }

    const F: Datatype = Datatype::Fp32;

    #[test]
    fn a_right_request_has_its_rows_and_its_inputs_in_order() {
        let info = info(8, &[("a", F, &[-1, 2]), ("b", F, &[-1])]);
        let inputs = vec![tensor("b", F, &[3], 12), tensor("a", F, &[3, 2], 24)];
        let mut request = InferRequest {
            id: String::new(),
            inputs,
            outputs: vec![],
            timeout: None,
            priority: 0,
            sequence: None,
            streamed: false,
            headers: Vec::new(),
            received: Instant::now(),
            trace: None,
        };
        assert_eq!(check(&info, None, &mut request), Ok(3));
        assert_eq!(&*request.inputs[0].name, "a");
    }

    #[test]
    fn every_fault_is_named_in_tritons_words() {
        let one = info(8, &[("a", F, &[-1, 2])]);
        let two = info(8, &[("a", F, &[-1, 2]), ("b", F, &[-1, 2])]);
        let good = |name| tensor(name, F, &[1, 2], 8);
        let cases = [
            (
                ask(&two, vec![good("a")], &[]),
                "[request id: 7] expected 2 inputs but got 1 inputs for model 'm'. Got inputs ['a'], but missing required inputs ['b']. Please provide all required inputs.",
            ),
            (ask(&one, vec![good("x")], &[]), "[request id: 7] unexpected inference input 'x' for model 'm'"),
            (ask(&two, vec![good("a"), good("a")], &[]), "input 'a' already exists in request"),
            (
                ask(&one, vec![tensor("a", Datatype::Int32, &[1, 2], 8)], &[]),
                "[request id: 7] inference input 'a' data-type is 'INT32', but model 'm' expects 'FP32'",
            ),
            (
                ask(&one, vec![tensor("a", F, &[2], 8)], &[]),
                "[request id: 7] unexpected shape for input 'a' for model 'm'. Expected [-1,2], got [2]",
            ),
            (
                ask(&one, vec![tensor("a", F, &[], 4)], &[]),
                "input 'a' has no shape but model requires batch dimension for 'm'",
            ),
            (
                ask(&one, vec![tensor("a", F, &[9, 2], 72)], &[]),
                "[request id: 7] inference request batch-size must be <= 8 for 'm'",
            ),
            (
                ask(&one, vec![tensor("a", F, &[0, 2], 0)], &[]),
                "inference request for 'm' has no rows: its batch axis is 0",
            ),
            (
                ask(&one, vec![tensor("a", F, &[1, 2], 7)], &[]),
                "input 'a' has 7 bytes of data, but shape [1,2] of FP32 needs 8",
            ),
            (
                ask(&one, vec![tensor("a", F, &[-1, 2], 8)], &[]),
                "input 'a' has shape [-1,2], which is negative or holds more than can be",
            ),
            (
                ask(&two, vec![good("a"), tensor("b", F, &[2, 2], 16)], &[]),
                "input 'b' batch size does not match other inputs for 'm'",
            ),
            (ask(&one, vec![good("a")], &["z"]), "unexpected inference output 'z' for model 'm'"),
        ];
        for (got, want) in cases {
            assert_eq!(got, Err(want.to_owned()));
        }
    }

    #[test]
    fn a_shape_whose_product_overflows_is_refused() {
        let info = info(0, &[("a", F, &[-1, -1])]);
        let huge = [i64::MAX, 3];
        let text = ask(&info, vec![tensor("a", F, &huge, 0)], &[]).unwrap_err();
        assert!(text.contains("holds more than can be"), "{text}");
        let text = ask(&info, vec![tensor("a", F, &[1 << 31, 1 << 31], 0)], &[]).unwrap_err();
        assert!(text.contains("needs"), "{text}");
    }

    #[test]
    fn strings_are_counted() {
        let info = info(0, &[("a", Datatype::Bytes, &[-1])]);
        let text = ask(&info, vec![tensor("a", Datatype::Bytes, &[2], 4)], &[]).unwrap_err();
        assert_eq!(
            text,
            "input 'a' of BYTES with shape [2]: the data holds 1 elements where the shape says 2"
        );
        assert_eq!(ask(&info, vec![tensor("a", Datatype::Bytes, &[1], 4)], &[]), Ok(1));
    }
}
