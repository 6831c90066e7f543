//! Rules of operators that move elements: reshape, transpose, join, cut, look up; and those that read shapes.
use super::{
    call::{Call, OVER_BATCH, Outcome, axes, axis, one},
    extent::Extent,
    fact::{Content, Elem, FOLLOWED, Fact},
};
use std::rc::Rc;

const NOT_FOLLOWED: &str = "has a shape that is not followed";

/// `Reshape`: rows stay apart if the axes before the batch hold as much as before, and the new axis still has it.
pub(super) fn reshape(call: &mut Call<'_>) -> Outcome {
    let (data, wanted) = (call.input(0)?, call.input(1)?);
    let touched = call.touches_batch();
    let unclear = || if touched { Err(NOT_FOLLOWED.into()) } else { one(Fact::unknown()) };
    let (Some(from), Some(wanted)) = (&data.shape, wanted.whole_numbers()) else { return unclear() };
    match (resolve(call, from, wanted), data.batch) {
        (Some(to), Some(batch)) => rechunk(from, batch, to),
        (Some(to), None) if to.iter().any(Extent::has_batch) => Err(NOT_FOLLOWED.into()),
        (Some(to), None) => one(data.reshaped(to, None)),
        (None, _) => unclear(),
    }
}

/// The extents that a wanted shape comes to.
fn resolve(call: &mut Call<'_>, from: &[Extent], wanted: &[Extent]) -> Option<Vec<Extent>> {
    let (zero, rest) = (Extent::constant(0), Extent::constant(-1));
    let zero_is_zero = call.int("allowzero", 0) != 0;
    let mut to = Vec::new();
    for (place, extent) in wanted.iter().enumerate() {
        to.push(if *extent == zero && !zero_is_zero { from.get(place)?.clone() } else { extent.clone() });
    }
    let size = Extent::product(from);
    if let Some(place) = to.iter().position(|extent| *extent == rest) {
        let others = to.iter().enumerate().filter(|(other, _)| *other != place).map(|(_, extent)| extent);
        to[place] = size.as_ref()?.over(&Extent::product(others)?)?;
    }
    if to.iter().any(Extent::is_negative) {
        return None;
    }
    for (place, extent) in to.iter_mut().enumerate().filter(|_| !zero_is_zero) {
        let copies = extent.number().is_none()
            && from.get(place) != Some(extent)
            && !size.as_ref().is_some_and(|size| extent.is_zero_only_with(size));
        // An extent of another value may be 0, which does not mean 0 here but "as it was at this place".
        if copies && (extent.has_batch() || from.get(place).is_some_and(Extent::has_batch)) {
            return None;
        } else if copies {
            *extent = call.symbols.fresh();
        }
    }
    Some(to)
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

/// `Squeeze`. Without axes it takes every extent of 1 away, which is followed only where all of them are numbers: of
/// rows, a single one would lose its axis.
pub(super) fn squeeze(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let given = call.ints_or_input("axes", 1)?;
    let (Some(shape), Some(given)) = (&data.shape, given) else {
        let numbers =
            data.shape.as_ref().filter(|shape| shape.iter().all(|extent| extent.number().is_some()));
        return match numbers {
            Some(shape) if data.batch.is_none() => {
                let left = shape.iter().filter(|extent| extent.number() != Some(1)).cloned().collect();
                one(data.reshaped(left, None))
            }
            _ if data.is_plain() => one(Fact::unknown()),
            _ => Err(NOT_FOLLOWED.into()),
        };
    };
    let axes = axes(&given, shape.len())?;
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
    one(data.reshaped(left, data.batch.map(moved)))
}

/// `Unsqueeze`.
pub(super) fn unsqueeze(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let given = call.ints_or_input("axes", 1)?;
    let (Some(shape), Some(given)) = (&data.shape, given) else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let rank = shape.len() + given.len();
    let axes = axes(&given, rank)?;
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
    one(data.reshaped(new, batch))
}

/// `Transpose`.
pub(super) fn transpose(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    let Some(shape) = &data.shape else {
        return if data.is_plain() { one(Fact::unknown()) } else { Err(NOT_FOLLOWED.into()) };
    };
    let reversed: Vec<i64> = (0..shape.len() as i64).rev().collect();
    let permutation = call.ints("perm").unwrap_or(&reversed);
    let order = axes(permutation, shape.len())?;
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
    let facts: Vec<&Fact> = call.inputs.iter().flatten().map(|fact| &**fact).collect();
    if facts.iter().all(|fact| fact.batch.is_none()) {
        return match joined(&facts) {
            Some((elem, numbers)) => one(Fact::list(elem, numbers)),
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

/// Lists of numbers behind each other; `None` if one is not followed, or they are too long together.
fn joined(facts: &[&Fact]) -> Option<(Elem, Vec<Extent>)> {
    let (elem, _) = facts.first()?.typed()?;
    let mut all = Vec::new();
    for fact in facts {
        let (_, numbers) = fact.typed().filter(|(own, _)| *own == elem && fact.rank() == Some(1))?;
        all.extend_from_slice(numbers);
        if all.len() > FOLLOWED {
            return None;
        }
    }
    Some((elem, all))
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
    if let Some((elem, numbers)) = sliced_list(call, data) {
        return one(Fact::list(elem, numbers));
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

fn sliced_list(call: &Call<'_>, data: &Fact) -> Option<(Elem, Vec<Extent>)> {
    let (elem, numbers) = data.typed().filter(|_| data.rank() == Some(1))?;
    let (starts, ends) = (call.ints_or_input("starts", 1).ok()??, call.ints_or_input("ends", 2).ok()??);
    let steps = call.optional(4).map_or(Some(vec![1]), Fact::numbers)?;
    if call.optional(3).is_some_and(|axes| axes.numbers().is_none_or(|axes| axes != [0] && axes != [-1])) {
        return None;
    }
    let ([start], [end], [1]) = (starts.as_slice(), ends.as_slice(), steps.as_slice()) else { return None };
    let len = numbers.len() as i64;
    let place =
        |raw: i64| usize::try_from((if raw < 0 { raw.saturating_add(len) } else { raw }).clamp(0, len)).ok();
    let (start, end) = (place(*start)?, place(*end)?);
    Some((elem, numbers.get(start..end.max(start))?.to_vec()))
}

/// `Gather`: of a shape, rows by constant indices along another axis, or weights by the batch's indices.
pub(super) fn gather(call: &mut Call<'_>) -> Outcome {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    if data.batch.is_none() && indices.is_plain() {
        if let Some(picked) = picked(data, indices) {
            return one(picked);
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

/// Numbers of a list, by constant indices.
fn picked(data: &Fact, indices: &Fact) -> Option<Fact> {
    let (elem, numbers) = data.typed().filter(|_| data.rank() == Some(1))?;
    let len = i64::try_from(numbers.len()).ok()?;
    let pick = |raw: &i64| {
        numbers.get(usize::try_from(if *raw < 0 { raw.checked_add(len)? } else { *raw }).ok()?).cloned()
    };
    let picked = indices.numbers()?.iter().map(pick).collect::<Option<Vec<_>>>()?;
    Some(Fact::whole(indices.shape.clone()?, elem, picked))
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
    // A -1 leaves an extent as it is in some engines and is an error in others.
    if wanted.iter().any(Extent::is_negative) {
        return if call.touches_batch() { Err(NOT_FOLLOWED.into()) } else { one(Fact::unknown()) };
    }
    let axes_with_batch: Vec<usize> = (0..wanted.len()).filter(|place| wanted[*place].has_batch()).collect();
    let batch = match (data.batch, axes_with_batch.as_slice()) {
        (_, []) => None,
        (_, [axis]) if wanted[*axis].over(&Extent::batch()).is_some_and(|rest| !rest.has_batch()) => {
            Some(*axis)
        }
        _ => return Err("lays the batch along two axes".into()),
    };
    let target = Fact { shape: Some(wanted.to_vec()), batch, sized: false, content: Content::Unknown };
    let inputs = [Some(Rc::new(data.clone().without_content())), Some(Rc::new(target))];
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
    one(Fact::list(Elem::Int64, shape.get(start..end).unwrap_or_default().to_vec()))
}

/// `Size`: their product.
pub(super) fn size(call: &mut Call<'_>) -> Outcome {
    let data = call.input(0)?;
    match data.shape.as_ref().and_then(Extent::product) {
        Some(size) => one(Fact::whole(Vec::new(), Elem::Int64, vec![size])),
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
        [] => one(filled(call, shape).unwrap_or_else(|| Fact::plain(shape.to_vec()))),
        [axis] if shape[*axis].over(&Extent::batch()).is_some_and(|rest| !rest.has_batch()) => {
            one(Fact::batched(shape.to_vec(), *axis))
        }
        _ => Err("lays the batch along two axes".into()),
    }
}

/// As many of one whole number as a small shape says. Without a value it is a real 0.
fn filled(call: &Call<'_>, shape: &[Extent]) -> Option<Fact> {
    let count = usize::try_from(Extent::product(shape)?.number()?).ok().filter(|count| *count <= FOLLOWED)?;
    let value = Fact::constant(call.tensor("value")?);
    let (elem, [number]) = value.typed()? else { return None };
    Some(Fact::whole(shape.to_vec(), elem, vec![number.clone(); count]))
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
    // With these, an axis of scale 1 is left as it is. Others crop it, shift it, or choose scales of their own.
    let mode = call.text("coordinate_transformation_mode").unwrap_or("half_pixel");
    let identity = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"].contains(&mode);
    let stretches = call.text("keep_aspect_ratio_policy").unwrap_or("stretch") == "stretch";
    if !identity || !stretches || call.has("axes") {
        return Err(NOT_FOLLOWED.into());
    }
    let (scales, sizes) = scales_and_sizes(call);
    let by_scale = match scales.map(|fact| &fact.content) {
        Some(Content::Real(scales)) => scales.len() == shape.len() && scales.get(batch) == Some(&1.0),
        _ => false,
    };
    let by_size = sizes
        .and_then(Fact::whole_numbers)
        .is_some_and(|sizes| sizes.len() == shape.len() && sizes.get(batch) == shape.get(batch));
    let by_attribute = call
        .floats("scales")
        .is_some_and(|scales| scales.len() == shape.len() && scales.get(batch) == Some(&1.0));
    if !(by_scale || by_size || by_attribute) {
        return Err("is not known to leave the batch axis as it is".into());
    }
    if call.inputs.iter().skip(1).flatten().any(|fact| fact.batch.is_some()) {
        return Err(NOT_FOLLOWED.into());
    }
    let kept = shape[batch].clone();
    let new = call.fresh_except(shape.len(), batch, kept);
    one(Fact::batched(new, batch))
}

/// Where an operator set has them; `sizes` counts only where `scales` says nothing.
fn scales_and_sizes<'a>(call: &Call<'a>) -> (Option<&'a Fact>, Option<&'a Fact>) {
    let empty = |fact: &&Fact| fact.shape.as_deref() == Some(&[Extent::constant(0)]);
    if call.node.op_type == "Upsample" || call.opset < 11 {
        return (call.optional(1), None);
    }
    let scales = call.optional(2).filter(|fact| !empty(fact));
    (scales, if scales.is_none() { call.optional(3) } else { None })
}
