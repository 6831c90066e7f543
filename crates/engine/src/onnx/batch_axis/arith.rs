//! Rules of operators that compute: elementwise, products, reductions, quantisation.
use super::{
    call::{Call, OVER_BATCH, Outcome, axis, one},
    extent::Extent,
    fact::{Content, Fact},
};

/// Operators that take their inputs element by element, with broadcasting.
pub(super) fn elementwise(call: &mut Call<'_>) -> Outcome {
    let inputs: Vec<&Fact> = call.inputs.iter().flatten().collect();
    let batched = inputs.iter().any(|fact| fact.batch.is_some());
    let sized = inputs.iter().any(|fact| fact.sized);
    if batched && sized {
        return Err("computes with the number of rows".into());
    }
    let Some(ranks) = inputs.iter().map(|fact| fact.rank()).collect::<Option<Vec<usize>>>() else {
        if batched {
            return Err("meets a value of unknown rank".into());
        }
        return one(Fact { sized, ..Fact::unknown() });
    };
    let rank = ranks.into_iter().max().unwrap_or(0);
    let place = common_batch(&inputs)?;
    let mut shape = Vec::with_capacity(rank);
    for from_end in (0..rank).rev() {
        shape.push(broadcast(call, &inputs, from_end, place == Some(from_end))?);
    }
    let content = content(call.node.op_type.as_str(), &inputs);
    let sized = match &content {
        Content::Whole(numbers) => numbers.iter().any(Extent::has_batch),
        _ => sized,
    };
    one(Fact { shape: Some(shape), batch: place.map(|from_end| rank - 1 - from_end), sized, content })
}

/// Where, counted from the end, the batch is in all inputs that have one.
fn common_batch(inputs: &[&Fact]) -> Result<Option<usize>, String> {
    let mut found = None;
    for fact in inputs {
        let (Some(rank), Some(axis)) = (fact.rank(), fact.batch) else { continue };
        let from_end = rank - 1 - axis;
        if found.is_some_and(|other| other != from_end) {
            return Err("lays the batch along two axes".into());
        }
        found = Some(from_end);
    }
    Ok(found)
}

/// The extent that inputs have together, `from_end` axes from the end.
fn broadcast(call: &mut Call<'_>, inputs: &[&Fact], from_end: usize, batch: bool) -> Result<Extent, String> {
    let one = Extent::constant(1);
    let mut found: Option<Extent> = None;
    for fact in inputs {
        let shape = fact.shape.as_deref().unwrap_or_default();
        let Some(extent) = shape.len().checked_sub(from_end + 1).and_then(|place| shape.get(place)) else {
            continue;
        };
        if *extent == one {
            continue;
        }
        match &found {
            None => found = Some(extent.clone()),
            Some(other) if other == extent => (),
            Some(_) if batch => {
                return Err("meets a value with as many rows as only some batches have".into());
            }
            // One of the two is 1 in each run, or the run fails: what remains is not known, but no batch is in it.
            Some(_) => found = Some(call.symbols.fresh()),
        }
    }
    let extent = found.unwrap_or(one);
    if batch && !extent.has_batch() {
        return Err("meets a value with as many rows as only some batches have".into());
    }
    Ok(extent)
}

/// Follows arithmetic on shapes.
fn content(op: &str, inputs: &[&Fact]) -> Content {
    let followed = || -> Option<Vec<Extent>> {
        let lists: Vec<&[Extent]> = inputs.iter().map(|fact| fact.whole_numbers()).collect::<Option<_>>()?;
        let len = lists.iter().map(|list| list.len()).max()?;
        let at = |list: &[Extent], index: usize| list.get(if list.len() == 1 { 0 } else { index }).cloned();
        (0..len)
            .map(|index| {
                let numbers: Vec<Extent> = lists.iter().map(|list| at(list, index)).collect::<Option<_>>()?;
                whole(op, &numbers)
            })
            .collect()
    };
    followed().map_or(Content::Unknown, Content::Whole)
}

fn whole(op: &str, numbers: &[Extent]) -> Option<Extent> {
    match (op, numbers) {
        ("Identity" | "Cast", [a]) => Some(a.clone()),
        ("Neg", [a]) => a.times(&Extent::constant(-1)),
        ("Mul", [a, b]) => a.times(b),
        ("Div", [a, b]) => {
            a.over(b).or_else(|| Some(Extent::constant(a.number()?.checked_div(b.number()?)?)))
        }
        ("Add", [a, b]) => a.plus(b),
        ("Sub", [a, b]) => a.minus(b),
        ("Equal", [a, b]) => a.differs_from(b).map(|differs| Extent::constant(i64::from(!differs))),
        ("Where", [condition, a, b]) => {
            condition.number().map(|condition| if condition == 0 { b.clone() } else { a.clone() })
        }
        ("Max", [a, b]) => Some(Extent::constant(a.number()?.max(b.number()?))),
        ("Min", [a, b]) => Some(Extent::constant(a.number()?.min(b.number()?))),
        _ => None,
    }
}

/// `QuantizeLinear` and `DequantizeLinear`: scales are weights, and per axis never along the batch.
pub(super) fn quantise(call: &mut Call<'_>) -> Outcome {
    call.rest_is_plain(1)?;
    let data = call.input(0)?;
    if let (Some(batch), Some(rank)) = (data.batch, data.rank()) {
        let per_tensor = call
            .input(1)?
            .shape
            .as_ref()
            .is_some_and(|shape| Extent::product(shape) == Some(Extent::constant(1)));
        let along = axis(call.int("axis", 1), rank).ok();
        if !per_tensor && (along == Some(batch) || call.input(1)?.rank() != Some(1)) {
            return Err(OVER_BATCH.into());
        }
    }
    one(data.clone().without_content())
}

/// A range over the whole tensor is taken, the rows of all callers included.
pub(super) fn dynamic(call: &mut Call<'_>) -> Outcome {
    if call.touches_batch() {
        Err("takes its range over the whole batch".into())
    } else {
        Ok(call.plain_outputs())
    }
}

/// Matrix products of inputs `a` and `b`; the others are weights.
pub(super) fn matmul(call: &mut Call<'_>, a: usize, b: usize) -> Outcome {
    let others = call.inputs.iter().enumerate().filter(|(index, _)| *index != a && *index != b);
    if !others.filter_map(|(_, fact)| fact.as_ref()).all(Fact::is_plain) {
        return Err("takes the batch where scales belong".into());
    }
    let (left, right) = (call.input(a)?, call.input(b)?);
    if left.sized || right.sized {
        return Err("computes with the number of rows".into());
    }
    if left.is_plain() && right.is_plain() {
        return Ok(call.plain_outputs());
    }
    let (Some(ls), Some(rs)) = (&left.shape, &right.shape) else {
        return Err("meets a value of unknown rank".into());
    };
    let (lr, rr) = (ls.len(), rs.len());
    if lr < 2 || rr == 0 || (rr == 1 && right.batch.is_some()) {
        return Err(OVER_BATCH.into());
    }
    if left.batch == Some(lr - 1) || (rr >= 2 && right.batch == Some(rr - 2)) {
        return Err("sums over the batch axis".into());
    }
    if rr == 1 {
        let axis = left.batch.ok_or(OVER_BATCH)?;
        return one(Fact::batched(ls[..lr - 1].to_vec(), axis));
    }
    let rows_of_both = (left.batch == Some(lr - 2) && right.batch.is_some())
        || (right.batch == Some(rr - 1) && left.batch.is_some());
    if rows_of_both {
        return Err("multiplies rows with rows".into());
    }
    // The last two axes are the matrices'; those before broadcast, counted from the end like these.
    let blank = |shape: &[Extent], keep: [bool; 2]| {
        let mut shape = shape.to_vec();
        let rank = shape.len();
        for (back, keep) in [2, 1].into_iter().zip(keep) {
            if !keep {
                shape[rank - back] = Extent::constant(1);
            }
        }
        shape
    };
    let left = Fact { shape: Some(blank(ls, [true, false])), ..left.clone() };
    let right = Fact { shape: Some(blank(rs, [false, true])), ..right.clone() };
    let inputs = [Some(left), Some(right)];
    elementwise(&mut Call { inputs: &inputs, node: call.node, opset: call.opset, symbols: call.symbols })
}

/// `Gemm`: rows of A are the samples; B is a weight, C a weight or as batched as A.
pub(super) fn gemm(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    if call.int("transA", 0) != 0 || batch != 0 {
        return Err("sums over the batch axis".into());
    }
    let weight = call.input(1)?;
    let columns = weight.shape.as_ref().and_then(|shape| shape.get(usize::from(call.int("transB", 0) == 0)));
    let columns = columns.cloned().ok_or("has a weight of unknown shape")?;
    if !weight.is_plain() {
        return Err("takes the batch where weights belong".into());
    }
    let product = Some(Fact::batched(vec![shape[0].clone(), columns], 0));
    let inputs = [product, call.optional(2).cloned()];
    elementwise(&mut Call { inputs: &inputs, node: call.node, opset: call.opset, symbols: call.symbols })
        .map(|facts| facts.into_iter().map(|fact| fact.map(Fact::without_content)).collect())
}

/// `Einsum` with written letters and result: the batch's letter must be everywhere the batch is, and in the result.
pub(super) fn einsum(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let equation: String = call.text("equation").unwrap_or_default().split_whitespace().collect();
    let (terms, result) = equation.split_once("->").ok_or("has no written result")?;
    let terms: Vec<Vec<char>> = terms.split(',').map(|term| term.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    if equation.contains('.') || terms.len() != call.inputs.len() {
        return Err("has an equation that is not followed".into());
    }
    let mut letter = None;
    let mut extents: Vec<(char, Extent)> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let fact = call.input(index)?;
        if fact.sized {
            return Err("computes with the number of rows".into());
        }
        let shape = fact
            .shape
            .as_ref()
            .filter(|shape| shape.len() == term.len())
            .ok_or("meets a value of unknown rank")?;
        if let Some(axis) = fact.batch {
            if letter.is_some_and(|letter| letter != term[axis]) {
                return Err("lays the batch along two axes".into());
            }
            letter = Some(term[axis]);
        }
        for (letter, extent) in term.iter().zip(shape) {
            match extents.iter().find(|(known, _)| known == letter) {
                Some((_, known)) if known == extent => (),
                Some((_, known)) if known.has_batch() || extent.has_batch() => return Err(OVER_BATCH.into()),
                _ => extents.push((*letter, extent.clone())),
            }
        }
    }
    let letter = letter.ok_or(OVER_BATCH)?;
    let place = result.iter().position(|other| *other == letter).ok_or("sums over the batch axis")?;
    let repeated =
        terms.iter().chain([&result]).any(|term| term.iter().filter(|other| **other == letter).count() > 1);
    let everywhere = terms.iter().enumerate().all(|(index, term)| {
        !term.contains(&letter) || call.optional(index).is_some_and(|fact| fact.batch.is_some())
    });
    if repeated || !everywhere {
        return Err(OVER_BATCH.into());
    }
    let extent =
        |letter: &char| extents.iter().find(|(known, _)| known == letter).map(|(_, extent)| extent.clone());
    let shape = result
        .iter()
        .map(extent)
        .collect::<Option<Vec<_>>>()
        .ok_or("has an equation that is not followed")?;
    one(Fact::batched(shape, place))
}

/// Reductions over axes that are not the batch.
pub(super) fn reduce(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    let axes = call.ints_or_input("axes", 1)?.unwrap_or_default();
    if axes.is_empty() {
        let kept = call.int("noop_with_empty_axes", 0) != 0;
        return if kept { one(Fact::batched(shape.to_vec(), batch)) } else { Err(OVER_BATCH.into()) };
    }
    let axes = axes.into_iter().map(|raw| axis(raw, shape.len())).collect::<Result<Vec<_>, _>>()?;
    removed(shape, batch, &axes, call.int("keepdims", 1) != 0)
}

/// Removes axes, or keeps them with extent 1.
fn removed(shape: &[Extent], batch: usize, axes: &[usize], keep: bool) -> Outcome {
    if axes.contains(&batch) {
        return Err(OVER_BATCH.into());
    }
    let mut left = Vec::new();
    for (place, extent) in shape.iter().enumerate() {
        match (axes.contains(&place), keep) {
            (false, _) => left.push(extent.clone()),
            (true, true) => left.push(Extent::constant(1)),
            (true, false) => (),
        }
    }
    let before = if keep { 0 } else { axes.iter().filter(|axis| **axis < batch).count() };
    one(Fact::batched(left, batch - before))
}

/// `ArgMax`, `ArgMin`.
pub(super) fn arg(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    let along = axis(call.int("axis", 0), shape.len())?;
    removed(shape, batch, &[along], call.int("keepdims", 1) != 0)
}

/// `CumSum` along an axis that is a constant.
pub(super) fn cumulative(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    let along = call
        .input(1)?
        .numbers()
        .and_then(|numbers| numbers.first().copied())
        .ok_or("has an axis that is not constant")?;
    if axis(along, shape.len())? == batch {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(shape.to_vec(), batch))
}

/// `TopK`: as many of each row.
pub(super) fn top_k(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    let along = axis(call.int("axis", -1), shape.len())?;
    if along == batch {
        return Err(OVER_BATCH.into());
    }
    let mut shape = shape.to_vec();
    shape[along] = call.symbols.fresh();
    let fact = Fact::batched(shape, batch);
    Ok(vec![Ok(fact.clone()), Ok(fact)])
}
