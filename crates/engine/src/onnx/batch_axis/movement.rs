//! Rules of operators that move elements: reshape, transpose, join, cut, look up; and those that read shapes.
use super::{
    call::{Call, OVER_BATCH, Outcome, axis, one},
    extent::Extent,
    fact::{Content, Fact},
};

const NOT_FOLLOWED: &str = "has a shape that is not followed";

/// `Reshape`: rows stay apart if the axes before the batch hold as much as before, and the new axis still has it.
pub(super) fn reshape(call: &mut Call<'_>) -> Outcome {
    let (data, wanted) = (call.input(0)?, call.input(1)?);
    if !call.touches_batch() {
        let Some(numbers) = wanted.numbers() else { return one(Fact::unknown()) };
        if let Content::Whole(content) = &data.content
            && numbers.len() <= 1
        {
            let shape = numbers.iter().map(|_| Extent::constant(content.len() as i64)).collect();
            return one(Fact::whole(shape, content.clone()));
        }
    }
    let (Some(from), Some(wanted)) = (&data.shape, wanted.whole_numbers()) else {
        return if call.touches_batch() { Err(NOT_FOLLOWED.into()) } else { one(Fact::unknown()) };
    };
    let to = resolve(from, wanted, call.int("allowzero", 0) != 0).ok_or(NOT_FOLLOWED);
    match (to, data.batch) {
        (Ok(to), Some(batch)) => rechunk(from, batch, to),
        (Ok(to), None) if data.sized || to.iter().any(Extent::has_batch) => {
            // A value about the number of rows keeps its numbers; only a list stays one.
            if to.iter().any(Extent::has_batch) {
                Err(NOT_FOLLOWED.into())
            } else {
                one(Fact { shape: Some(to), ..data.clone() })
            }
        }
        (Ok(to), None) => one(Fact::plain(to)),
        (Err(problem), Some(_)) => Err(problem.into()),
        (Err(_), None) if data.sized => Err(NOT_FOLLOWED.into()),
        (Err(_), None) => one(Fact::unknown()),
    }
}

/// The extents that a wanted shape comes to.
fn resolve(from: &[Extent], wanted: &[Extent], zero_is_zero: bool) -> Option<Vec<Extent>> {
    let (zero, rest) = (Extent::constant(0), Extent::constant(-1));
    let mut to = Vec::new();
    for (place, extent) in wanted.iter().enumerate() {
        to.push(if *extent == zero && !zero_is_zero { from.get(place)?.clone() } else { extent.clone() });
    }
    if let Some(place) = to.iter().position(|extent| *extent == rest) {
        let others = to.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, extent)| extent);
        to[place] = Extent::product(from)?.over(&Extent::product(others)?)?;
    }
    (!to.contains(&rest)).then_some(to)
}

/// Finds the batch in a new shape of the same elements in the same order.
fn rechunk(from: &[Extent], batch: usize, to: Vec<Extent>) -> Outcome {
    let before = Extent::product(&from[..batch]).ok_or(NOT_FOLLOWED)?;
    let mut product = Extent::constant(1);
    for (place, extent) in to.iter().enumerate() {
        if extent.has_batch() {
            let alone = to.iter().filter(|extent| extent.has_batch()).count() == 1;
            let one_batch = extent.over(&Extent::batch()).is_some_and(|rest| !rest.has_batch());
            return if product == before && alone && one_batch {
                one(Fact::batched(to, place))
            } else {
                Err("folds the batch into another axis".into())
            };
        }
        product = product.times(extent).ok_or(NOT_FOLLOWED)?;
    }
    Err("folds the batch into another axis".into())
}

/// `Flatten`.
pub(super) fn flatten(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let (Some(from), Some(batch)) = (&data.shape, data.batch) else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let raw = call.int("axis", 1);
    let at = if raw == from.len() as i64 { from.len() } else { axis(raw, from.len())? };
    let halves = [Extent::product(&from[..at]), Extent::product(&from[at..])];
    let to = halves.into_iter().collect::<Option<Vec<_>>>().ok_or(NOT_FOLLOWED)?;
    rechunk(from, batch, to)
}

/// `Squeeze` with axes that are given.
pub(super) fn squeeze(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let axes = call.ints_or_input("axes", 1)?;
    let (Some(shape), Some(axes)) = (&data.shape, axes) else {
        if let (Content::Whole(numbers), [_]) = (&data.content, data.shape.as_deref().unwrap_or_default()) {
            return one(Fact::whole(Vec::new(), numbers.clone()));
        }
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let axes = axes.into_iter().map(|raw| axis(raw, shape.len())).collect::<Result<Vec<_>, _>>()?;
    if data.batch.is_some_and(|batch| axes.contains(&batch)) {
        return Err(OVER_BATCH.into());
    }
    let left = shape
        .iter()
        .enumerate()
        .filter(|(place, _)| !axes.contains(place))
        .map(|(_, extent)| extent.clone())
        .collect();
    let moved = |batch: usize| batch - axes.iter().filter(|axis| **axis < batch).count();
    one(Fact { shape: Some(left), batch: data.batch.map(moved), ..data.clone() })
}

/// `Unsqueeze`.
pub(super) fn unsqueeze(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let axes = call.ints_or_input("axes", 1)?;
    let (Some(shape), Some(axes)) = (&data.shape, axes) else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let rank = shape.len() + axes.len();
    let axes = axes.into_iter().map(|raw| axis(raw, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut old = shape.iter().enumerate();
    let (mut new, mut batch) = (Vec::new(), None);
    for place in 0..rank {
        if axes.contains(&place) {
            new.push(Extent::constant(1));
        } else if let Some((from, extent)) = old.next() {
            if data.batch == Some(from) {
                batch = Some(place);
            }
            new.push(extent.clone());
        }
    }
    one(Fact { shape: Some(new), batch, ..data.clone() })
}

/// `Transpose`.
pub(super) fn transpose(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let Some(shape) = &data.shape else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let reversed: Vec<i64> = (0..shape.len() as i64).rev().collect();
    let permutation = call.ints("perm").unwrap_or(&reversed);
    let order = permutation.iter().map(|raw| axis(*raw, shape.len())).collect::<Result<Vec<_>, _>>()?;
    if order.len() != shape.len() {
        return Err(NOT_FOLLOWED.into());
    }
    let new = order.iter().map(|from| shape[*from].clone()).collect();
    let batch = data.batch.and_then(|batch| order.iter().position(|from| *from == batch));
    if data.sized {
        return Err("computes with the number of rows".into());
    }
    one(Fact { shape: Some(new), batch, sized: false, content: Content::Unknown })
}

/// `Concat`: of shapes, or of values that all have the batch at one axis, along another.
pub(super) fn concat(call: &mut Call<'_>) -> Outcome {
    let facts: Vec<&Fact> = call.inputs.iter().flatten().collect();
    if facts.iter().all(|fact| fact.batch.is_none()) {
        let lists: Option<Vec<&[Extent]>> =
            facts.iter().map(|fact| fact.whole_numbers().filter(|_| fact.rank() == Some(1))).collect();
        return match lists {
            Some(lists) => one(Fact::list(lists.concat())),
            None if facts.iter().any(|fact| fact.sized) => Err("computes with the number of rows".into()),
            None => {
                let rank = facts.first().and_then(|fact| fact.rank());
                let extents = rank.map(|rank| (0..rank).map(|_| call.symbols.fresh()).collect());
                one(extents.map_or_else(Fact::unknown, Fact::plain))
            }
        };
    }
    let (first, batch) =
        facts.iter().find_map(|fact| Some((fact.shape.clone()?, fact.batch?))).ok_or(NOT_FOLLOWED)?;
    let along = axis(call.int("axis", 0), first.len())?;
    if along == batch {
        return Err("joins along the batch axis".into());
    }
    let mut sum = Some(Extent::constant(0));
    for fact in &facts {
        let shape = fact.shape.as_ref().filter(|shape| shape.len() == first.len()).ok_or(NOT_FOLLOWED)?;
        if fact.batch != Some(batch) || shape[batch] != first[batch] {
            return Err("joins rows with a value that has as many rows as only some batches have".into());
        }
        sum = sum.and_then(|sum| sum.plus(&shape[along]));
    }
    let mut shape = first;
    shape[along] = sum.unwrap_or_else(|| call.symbols.fresh());
    one(Fact::batched(shape, batch))
}

/// `Split`.
pub(super) fn split(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    let along = axis(call.int("axis", 0), shape.len())?;
    if along == batch {
        return Err("splits the batch axis".into());
    }
    let parts = call.node.output.len();
    let given = call.ints_or_input("split", 1)?;
    let even = shape[along].over(&Extent::constant(parts as i64));
    let mut outputs = Vec::new();
    for part in 0..parts {
        let mut shape = shape.to_vec();
        let extent = match &given {
            Some(given) => given.get(part).copied().map(Extent::constant),
            None => even.clone(),
        };
        shape[along] = extent.unwrap_or_else(|| call.symbols.fresh());
        outputs.push(Ok(Fact::batched(shape, batch)));
    }
    Ok(outputs)
}

/// `Slice`: of a shape, or along axes that are not the batch.
pub(super) fn slice(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    if data.batch.is_none() && !call.touches_batch() || data.sized {
        return slice_plain(call, data);
    }
    call.rest_is_plain(1).map_err(|_| "cuts by the number of rows")?;
    let (shape, batch) = call.batched(0)?;
    let axes = match call.ints_or_input("axes", 3)? {
        Some(axes) => axes.into_iter().map(|raw| axis(raw, shape.len())).collect::<Result<Vec<_>, _>>()?,
        None => (0..shape.len()).collect(),
    };
    if axes.contains(&batch) {
        return Err("cuts the batch axis".into());
    }
    let mut shape = shape.to_vec();
    for along in axes {
        shape[along] = call.symbols.fresh();
    }
    one(Fact::batched(shape, batch))
}

/// Slices a value without rows: numbers are followed in a list, extents elsewhere are not.
fn slice_plain(call: &mut Call<'_>, data: &Fact) -> Outcome {
    if let Some(numbers) = sliced_list(call, data) {
        return one(Fact::list(numbers));
    }
    if data.sized {
        return Err("computes with the number of rows".into());
    }
    let Some(mut shape) = data.shape.clone() else { return one(Fact::unknown()) };
    let axes = match call.ints_or_input("axes", 3) {
        Ok(Some(axes)) => {
            axes.into_iter().map(|raw| axis(raw, shape.len())).collect::<Result<Vec<_>, _>>()?
        }
        _ => (0..shape.len()).collect(),
    };
    for along in axes {
        shape[along] = call.symbols.fresh();
    }
    one(Fact::plain(shape))
}

fn sliced_list(call: &Call<'_>, data: &Fact) -> Option<Vec<Extent>> {
    let numbers = data.whole_numbers().filter(|_| data.rank() == Some(1))?;
    let (starts, ends) = (call.ints_or_input("starts", 1).ok()??, call.ints_or_input("ends", 2).ok()??);
    let steps = call.optional(4).map_or(Some(vec![1]), Fact::numbers)?;
    let ([start], [end], [1]) = (starts.as_slice(), ends.as_slice(), steps.as_slice()) else { return None };
    let len = numbers.len() as i64;
    let place =
        |raw: i64| usize::try_from((if raw < 0 { raw.saturating_add(len) } else { raw }).clamp(0, len)).ok();
    numbers.get(place(*start)?..place(*end)?).map(<[Extent]>::to_vec)
}

/// `Gather`: of a shape, rows by constant indices along another axis, or weights by the batch's indices.
pub(super) fn gather(call: &mut Call<'_>) -> Outcome {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    if data.batch.is_none() && indices.is_plain() {
        if let (Some(numbers), Some(1), Some(picked), Some(shape)) =
            (data.whole_numbers(), data.rank(), indices.numbers(), &indices.shape)
        {
            let len = numbers.len() as i64;
            let pick = |raw: &i64| {
                numbers.get(usize::try_from(if *raw < 0 { raw + len } else { *raw }).ok()?).cloned()
            };
            if let Some(picked) = picked.iter().map(pick).collect::<Option<Vec<_>>>() {
                return one(Fact::whole(shape.clone(), picked));
            }
        }
        if data.sized {
            return Err("computes with the number of rows".into());
        }
    }
    if !call.touches_batch() {
        return one(lookup_shape(data, indices, call.int("axis", 0)).map_or_else(Fact::unknown, Fact::plain));
    }
    if data.sized || indices.sized || (data.batch.is_some() && indices.batch.is_some()) {
        return Err("looks rows up by other rows".into());
    }
    let shape = lookup_shape(data, indices, call.int("axis", 0)).ok_or("meets a value of unknown rank")?;
    let along = axis(call.int("axis", 0), data.rank().unwrap_or(0))?;
    let batch = match (data.batch, indices.batch) {
        (Some(batch), _) if batch == along => return Err("picks from the batch axis".into()),
        (Some(batch), _) if batch < along => batch,
        (Some(batch), _) => batch - 1 + indices.rank().unwrap_or(0),
        (None, Some(batch)) => along + batch,
        (None, None) => return Err(OVER_BATCH.into()),
    };
    one(Fact::batched(shape, batch))
}

fn lookup_shape(data: &Fact, indices: &Fact, raw: i64) -> Option<Vec<Extent>> {
    let (data, indices) = (data.shape.as_ref()?, indices.shape.as_ref()?);
    let along = axis(raw, data.len()).ok()?;
    Some([&data[..along], indices, &data[along + 1..]].concat())
}

/// `GatherElements` along an axis that is not the batch, by indices of the same rows.
pub(super) fn gather_elements(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let ((data, batch), (indices, other)) = (call.batched(0)?, call.batched(1)?);
    let along = axis(call.int("axis", 0), data.len())?;
    if batch != other || along == batch || data.len() != indices.len() || data[batch] != indices[batch] {
        return Err(OVER_BATCH.into());
    }
    one(Fact::batched(indices.to_vec(), batch))
}

/// `Expand`: rows to more columns, or weights to as many rows as the batch has.
pub(super) fn expand(call: &mut Call<'_>) -> Outcome {
    let (data, wanted) = (call.input(0)?, call.input(1)?);
    if data.sized {
        return Err("computes with the number of rows".into());
    }
    let wanted = match wanted.whole_numbers() {
        Some(wanted) => wanted,
        None if call.touches_batch() => return Err(NOT_FOLLOWED.into()),
        None => return one(Fact::unknown()),
    };
    let axes_with_batch: Vec<usize> = (0..wanted.len()).filter(|place| wanted[*place].has_batch()).collect();
    let batch = match (data.batch, axes_with_batch.as_slice()) {
        (_, []) => None,
        (_, [axis]) if wanted[*axis].over(&Extent::batch()).is_some_and(|rest| !rest.has_batch()) => {
            Some(*axis)
        }
        _ => return Err("lays the batch along two axes".into()),
    };
    let target = Fact { shape: Some(wanted.to_vec()), batch, sized: false, content: Content::Unknown };
    let inputs = [Some(data.clone()), Some(target)];
    let mut both = Call { inputs: &inputs, node: call.node, opset: call.opset, symbols: call.symbols };
    super::arith::elementwise(&mut both)
}

/// `Tile` along axes that are not the batch, or of weights to rows.
pub(super) fn tile(call: &mut Call<'_>) -> Outcome {
    let (data, repeats) = (call.input(0)?, call.input(1)?);
    if !call.touches_batch() {
        return one(Fact::unknown());
    }
    let (Some(shape), Some(repeats)) = (&data.shape, repeats.whole_numbers()) else {
        return Err(NOT_FOLLOWED.into());
    };
    if data.sized || repeats.len() != shape.len() {
        return Err(NOT_FOLLOWED.into());
    }
    let rows: Vec<usize> = (0..repeats.len()).filter(|place| repeats[*place].has_batch()).collect();
    let batch = match (data.batch, rows.as_slice()) {
        (Some(batch), []) if repeats[batch] == Extent::constant(1) => batch,
        (None, [axis]) if shape[*axis] == Extent::constant(1) && repeats[*axis].is_batch() => *axis,
        _ => return Err("repeats along the batch axis".into()),
    };
    let new =
        shape.iter().zip(repeats).map(|(extent, times)| extent.times(times)).collect::<Option<Vec<_>>>();
    one(Fact::batched(new.ok_or(NOT_FOLLOWED)?, batch))
}

/// `Pad`, not along the batch.
pub(super) fn pad(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    let pads = call.ints_or_input("pads", 1)?.ok_or("has no pads")?;
    if call.optional(3).is_some() || pads.len() != 2 * shape.len() {
        return Err(NOT_FOLLOWED.into());
    }
    if pads[batch] != 0 || pads[batch + shape.len()] != 0 {
        return Err("pads the batch axis".into());
    }
    let kept = shape[batch].clone();
    let new = call.fresh_except(shape.len(), batch, kept);
    one(Fact::batched(new, batch))
}

/// `Shape`: the extents themselves.
pub(super) fn shape(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let Some(shape) = &data.shape else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let len = shape.len() as i64;
    let place =
        |raw: i64| usize::try_from((if raw < 0 { raw + len } else { raw }).clamp(0, len)).unwrap_or(0);
    let (start, end) = (place(call.int("start", 0)), place(call.int("end", len)));
    one(Fact::list(shape.get(start..end).unwrap_or_default().to_vec()))
}

/// `Size`: their product.
pub(super) fn size(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    match data.shape.as_ref().and_then(|shape| Extent::product(shape)) {
        Some(size) => one(Fact::whole(Vec::new(), vec![size])),
        None if data.is_plain() => one(Fact::unknown()),
        None => Err(NOT_FOLLOWED.into()),
    }
}

/// `ConstantOfShape`: the same number everywhere, so rows too if there are as many.
pub(super) fn constant_of_shape(call: &mut Call<'_>) -> Outcome {
    let wanted = call.input(0)?;
    let Some(shape) = wanted.whole_numbers() else {
        return if wanted.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let rows: Vec<usize> = (0..shape.len()).filter(|place| shape[*place].has_batch()).collect();
    match rows.as_slice() {
        [] => {
            let count = Extent::product(shape)
                .and_then(|count| count.number())
                .filter(|count| (0..=64).contains(count));
            let value = call.tensor("value").map(Fact::constant);
            let number = match &value {
                None => Some(Extent::constant(0)),
                Some(fact) => fact.whole_numbers().and_then(|numbers| numbers.first().cloned()),
            };
            match (count, number) {
                (Some(count), Some(number)) => {
                    one(Fact::whole(shape.to_vec(), vec![number; usize::try_from(count).unwrap_or(0)]))
                }
                _ => one(Fact::plain(shape.to_vec())),
            }
        }
        [axis] if shape[*axis].over(&Extent::batch()).is_some_and(|rest| !rest.has_batch()) => {
            one(Fact::batched(shape.to_vec(), *axis))
        }
        _ => Err("lays the batch along two axes".into()),
    }
}

/// `Range`, of numbers that do not depend on the batch.
pub(super) fn range(call: &mut Call<'_>) -> Outcome {
    if call.touches_batch() {
        return Err("counts the rows".into());
    }
    let extent = call.symbols.fresh();
    one(Fact::plain(vec![extent]))
}

/// `OneHot` of the batch's indices.
pub(super) fn one_hot(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    let at = axis(call.int("axis", -1), shape.len() + 1)?;
    let mut new = shape.to_vec();
    new.insert(at, call.symbols.fresh());
    one(Fact::batched(new, if at <= batch { batch + 1 } else { batch }))
}

/// `Resize` and `Upsample`, not along the batch.
pub(super) fn resize(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (shape, batch) = call.batched(0)?;
    let keeps = |fact: &Fact| match &fact.content {
        Content::Real(scales) => scales.len() == shape.len() && scales.get(batch) == Some(&1.0),
        Content::Whole(sizes) => sizes.len() == shape.len() && sizes.get(batch) == shape.get(batch),
        Content::Unknown => false,
    };
    let by_attribute = call.floats("scales").is_some_and(|scales| scales.get(batch) == Some(&1.0));
    if !by_attribute && !call.inputs.iter().skip(1).flatten().any(keeps) {
        return Err("is not known to leave the batch axis as it is".into());
    }
    let others = call.inputs.iter().skip(1).flatten().any(|fact| fact.batch.is_some());
    if others || call.has("axes") {
        return Err(NOT_FOLLOWED.into());
    }
    let kept = shape[batch].clone();
    let new = call.fresh_except(shape.len(), batch, kept);
    one(Fact::batched(new, batch))
}
