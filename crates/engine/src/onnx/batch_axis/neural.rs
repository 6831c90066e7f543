//! Rules of layers: normalisation, convolution, recurrence, attention, and the classic learners of `ai.onnx.ml`.
use super::{
    call::{Call, OVER_BATCH, Outcome, axes, axis, one},
    extent::Extent,
    fact::Fact,
};

/// Same shape out as in, the rest of the inputs being weights; needs the batch at axis `at`.
pub(super) fn per_sample(call: &mut Call<'_>, at: usize) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    if batch != at {
        return Err(format!("has the batch at axis {batch} and not {at}"));
    }
    let kept = shape[batch].clone();
    let same = !matches!(call.node.op_type.as_str(), "DepthToSpace" | "SpaceToDepth");
    let new = if same { shape.to_vec() } else { call.fresh_except(shape.len(), batch, kept) };
    one(Fact::batched(new, batch))
}

/// Works along one axis, which must not be the batch's.
pub(super) fn along_axis(call: &mut Call<'_>, default: i64) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    if axis(call.int("axis", default), shape.len())? == batch {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// `Trilu`: a triangle of the last two axes.
pub(super) fn triangle(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    call.rest_is_plain(1)?;
    match (data.rank(), data.batch) {
        (Some(rank), Some(batch)) if batch + 2 >= rank => Err(OVER_BATCH.into()),
        _ if data.sized => Err("computes with the number of rows".into()),
        _ => one(data.clone().without_content()),
    }
}

/// `Softmax` and its kin. Before operator set 13 they flatten everything from the axis on.
pub(super) fn softmax(call: &mut Call<'_>) -> Outcome {
    if call.opset >= 13 { along_axis(call, -1) } else { from_axis(call, 1) }
}

/// Works over all axes from one on, which must lie behind the batch.
fn from_axis(call: &mut Call<'_>, default: i64) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    if axis(call.int("axis", default), shape.len())? <= batch {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// `LayerNormalization` and its kin.
pub(super) fn layer_norm(call: &mut Call<'_>) -> Outcome {
    from_axis(call, -1)
}

/// The sum of two inputs, normalised over the last axis.
pub(super) fn skip_layer_norm(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(2)?;
    let ((shape, batch), (other, at)) = (call.batched(0)?, call.batched(1)?);
    if batch + 1 >= shape.len() || at != batch || shape.len() != other.len() || shape[batch] != other[batch] {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// With given statistics a channel is scaled; in training mode they are the batch's own.
pub(super) fn batch_norm(call: &mut Call<'_>) -> Outcome {
    if call.touches_batch() && (call.int("training_mode", 0) != 0 || call.node.output.len() > 1) {
        return Err("takes its statistics from the batch".into());
    }
    per_sample(call, 0)
}

pub(super) fn mean_variance(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    if axes(call.ints("axes").unwrap_or(&[0, 2, 3]), shape.len())?.contains(&batch) {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// Identity unless it is told to train.
pub(super) fn dropout(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    if call.optional(2).is_some_and(|training| !training.is_false()) {
        return Err("may draw random numbers".into());
    }
    one(data.clone().without_content())
}

/// Convolutions and pools: samples at axis 0, weights everywhere else.
pub(super) fn convolution(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    if batch != 0 {
        return Err(format!("has the batch at axis {batch} and not 0"));
    }
    let new = call.fresh_except(shape.len(), 0, shape[0].clone());
    // The second output of MaxPool counts elements from the start of the whole batch: it gets no fact.
    one(Fact::batched(new, 0))
}

/// `LSTM`, `GRU`, `RNN`: samples at axis 1, or 0 in the other layout.
pub(super) fn recurrent(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let first = call.int("layout", 0) != 0;
    let (shape, batch) = call.batched(0)?;
    let (at, state) = if first { (0, 0) } else { (1, 1) };
    if batch != at || shape.len() != 3 {
        return Err(OVER_BATCH.into());
    }
    for index in 1..call.inputs.len() {
        let Some(fact) = call.optional(index) else { continue };
        // X, W, R, B, sequence_lens, initial_h, initial_c, P
        let wanted = match index {
            4 => Some(0),
            5 | 6 => Some(state),
            _ => None,
        };
        // A state that is a weight would be each row's by its place in a run.
        if fact.sized || fact.batch != wanted {
            return Err("takes the batch where weights belong, or weights where it belongs".into());
        }
    }
    let rows = shape[batch].clone();
    let whole = if first { 0 } else { 2 };
    let sequence = Fact::batched(call.fresh_except(4, whole, rows.clone()), whole);
    let last = Fact::batched(call.fresh_except(3, state, rows), state);
    Ok(vec![Ok(sequence), Ok(last.clone()), Ok(last)])
}

/// Attention over each sample's own sequence: all that has the batch has exactly it, at axis 0.
pub(super) fn attention(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, _) = call.batched(0)?;
    // Lists of other lengths mean something else: twice the batch is all ends, then all starts.
    let by_sample =
        |fact: &Fact| fact.batch == Some(0) && fact.shape.as_ref().is_some_and(|shape| shape[0].is_batch());
    if shape.len() != 3 || !by_sample(call.input(0)?) {
        return Err(OVER_BATCH.into());
    }
    let weights: &[usize] = if call.node.op_type == "Attention" { &[1, 2] } else { &[3] };
    for (index, fact) in call.inputs.iter().enumerate().skip(1) {
        let Some(fact) = fact else { continue };
        let for_all = index == 5
            && fact.is_plain()
            && fact.shape.as_ref().is_some_and(|shape| shape.len() == 4 && shape[0] == Extent::constant(1));
        if !(if weights.contains(&index) { fact.is_plain() } else { by_sample(fact) || for_all }) {
            return Err(OVER_BATCH.into());
        }
    }
    let new = call.fresh_except(3, 0, shape[0].clone());
    one(Fact::batched(new, 0))
}

/// Labels and scores of each row.
pub(super) fn classifier(call: &mut Call<'_>) -> Outcome {
    let Some(rows) = rows(call)? else { return Ok(call.plain_outputs()) };
    let scores = Fact::batched(vec![rows.clone(), call.symbols.fresh()], 0);
    Ok(vec![Ok(Fact::batched(vec![rows], 0)), Ok(scores)])
}

/// Values of each row.
pub(super) fn regressor(call: &mut Call<'_>) -> Outcome {
    let Some(rows) = rows(call)? else { return Ok(call.plain_outputs()) };
    let columns = call.symbols.fresh();
    one(Fact::batched(vec![rows, columns], 0))
}

/// Each row, column by column.
pub(super) fn feature_wise(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    // A list of features without rows would be normalised or scaled as one row.
    let by_element = call.node.op_type == "LabelEncoder" || call.node.op_type == "Binarizer";
    if batch != 0 || (shape.len() < 2 && !by_element) {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// Picks columns by constant indices.
pub(super) fn feature_extractor(call: &mut Call<'_>) -> Outcome {
    call.rest_is_plain(1)?;
    let Some(rows) = rows(call)? else { return Ok(call.plain_outputs()) };
    let columns = call.symbols.fresh();
    one(Fact::batched(vec![rows, columns], 0))
}

/// The rows of a matrix whose first axis is the batch; `None` if the batch is not in it.
fn rows(call: &Call<'_>) -> Result<Option<Extent>, String> {
    if !call.touches_batch() {
        return Ok(None);
    }
    match call.batched(0)? {
        ([rows, _], 0) => Ok(Some(rows.clone())),
        _ => Err(OVER_BATCH.into()),
    }
}
