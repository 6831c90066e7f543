//! Rules of operators that compute: elementwise, products, reductions, quantisation.
use super::{
    call::{Call, OVER_BATCH, Outcome, axes, axis, one},
    extent::Extent,
    fact::{Content, Elem, Fact},
};
use std::rc::Rc;

/// Operators that take their inputs element by element, with broadcasting.
pub(super) fn elementwise(call: &mut Call<'_>) -> Outcome {
    let inputs: Vec<&Fact> = call.inputs.iter().flatten().map(Rc::as_ref).collect();
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
    one(match arithmetic(call, &inputs) {
        Some((elem, numbers)) => Fact::whole(shape, elem, numbers),
        None => Fact {
            shape: Some(shape),
            batch: place.map(|from_end| rank - 1 - from_end),
            sized,
            content: Content::Unknown,
        },
    })
}

/// `CastLike`: only the type is the second input's.
pub(super) fn cast_like(call: &mut Call<'_>) -> Outcome {
    one(call.input(0)?.clone().without_content())
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

/// Follows arithmetic on shapes: whole numbers of one type, in scalars and in lists that are as long as each other or
/// hold one number. Values of more axes broadcast in ways that no shape needs.
fn arithmetic(call: &Call<'_>, inputs: &[&Fact]) -> Option<(Elem, Vec<Extent>)> {
    let lists = inputs.iter().map(|fact| match &fact.content {
        Content::Whole(elem, numbers) if fact.rank()? <= 1 => Some((*elem, numbers.as_slice())),
        _ => None,
    });
    let lists: Vec<(Elem, &[Extent])> = lists.collect::<Option<_>>()?;
    let op = call.node.op_type.as_str();
    let elems: Vec<Elem> = lists.iter().map(|(elem, _)| *elem).collect();
    let elem = result(op, &elems, call.int("to", 0))?;
    let len = lists.iter().map(|(_, list)| list.len()).max()?;
    let at = |list: &[Extent], index: usize| match list {
        [only] => Some(only.clone()),
        _ if list.len() == len => list.get(index).cloned(),
        _ => None,
    };
    let numbers = (0..len).map(|index| {
        let numbers: Vec<Extent> = lists.iter().map(|(_, list)| at(list, index)).collect::<Option<_>>()?;
        whole(op, &numbers)
    });
    Some((elem, numbers.collect::<Option<_>>()?))
}

/// The type of the numbers that come out; `None` if they are not followed.
fn result(op: &str, inputs: &[Elem], to: i64) -> Option<Elem> {
    match (op, inputs) {
        ("Identity", [elem]) => Some(*elem),
        // A cast to another type rounds, wraps, or forgets all but whether a number is 0.
        ("Cast", [Elem::Int32 | Elem::Int64]) => Elem::of(to).filter(|to| *to != Elem::Bool),
        ("Where", [Elem::Bool, a, b]) if a == b => Some(*a),
        (_, [Elem::Bool, ..]) => None,
        ("Equal", [a, b]) if a == b => Some(Elem::Bool),
        ("Neg", [elem]) => Some(*elem),
        ("Mul" | "Div" | "Add" | "Sub" | "Max" | "Min", [a, b]) if a == b => Some(*a),
        _ => None,
    }
}

/// The number that comes out; `None` also where it is too large.
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
        let scale = call.input(1)?;
        let beside = axis(call.int("axis", 1), rank).is_ok_and(|along| along != batch);
        if !(scale.is_one_element() || (beside && scale.rank() == Some(1))) {
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
    let (left, right) = (call.input(a)?, call.input(b)?);
    for index in (0..call.inputs.len()).filter(|index| *index != a && *index != b) {
        let Some(scale) = call.optional(index) else { continue };
        if !scale.is_plain() {
            return Err("takes the batch where scales belong".into());
        }
        // Scales of each column of a weight are fine; those of each row would be the batch's, by its place in a run.
        let first_of_weight = if call.node.op_type == "MatMulInteger" { 3 } else { b + 1 };
        let of_weight = right.is_plain() && (first_of_weight..=b + 2).contains(&index);
        if !(of_weight || scale.is_one_element() || (left.is_plain() && right.is_plain())) {
            return Err("scales each row by its place in the batch".into());
        }
    }
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
    let left = Fact { shape: Some(blank(ls, [true, false])), ..left.clone() }.without_content();
    let right = Fact { shape: Some(blank(rs, [false, true])), ..right.clone() }.without_content();
    let inputs = [Some(Rc::new(left)), Some(Rc::new(right))];
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
    let product = Fact::batched(vec![shape[0].clone(), columns], 0);
    let inputs = [Some(Rc::new(product)), call.inputs.get(2).cloned().flatten()];
    elementwise(&mut Call { inputs: &inputs, node: call.node, opset: call.opset, symbols: call.symbols })
}

/// `Einsum` with written letters and result: the batch's letter must be everywhere the batch is, and in the result.
pub(super) fn einsum(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    let (terms, result) = equation(call).ok_or("has an equation that is not followed")?;
    let mut letters = Letters::default();
    for (index, term) in terms.iter().enumerate() {
        letters.read(call, index, term)?;
    }
    let letter = letters.batch.ok_or(OVER_BATCH)?;
    let place = result.iter().position(|other| *other == letter).ok_or("sums over the batch axis")?;
    let repeated =
        terms.iter().chain([&result]).any(|term| term.iter().filter(|other| **other == letter).count() > 1);
    let everywhere = terms.iter().enumerate().all(|(index, term)| {
        !term.contains(&letter) || call.optional(index).is_some_and(|fact| fact.batch.is_some())
    });
    if repeated || !everywhere {
        return Err(OVER_BATCH.into());
    }
    let extent = |letter: &char| letters.extents.iter().find(|(known, _)| known == letter);
    let shape: Option<Vec<Extent>> =
        result.iter().map(|letter| extent(letter).map(|(_, extent)| extent.clone())).collect();
    one(Fact::batched(shape.ok_or("has an equation that is not followed")?, place))
}

/// The letters of each input and of the result.
fn equation(call: &Call<'_>) -> Option<(Vec<Vec<char>>, Vec<char>)> {
    let equation: String = call.text("equation")?.split_whitespace().collect();
    let (terms, result) = equation.split_once("->")?;
    let letters = |term: &str| -> Option<Vec<char>> {
        term.chars().map(|letter| letter.is_ascii_alphabetic().then_some(letter)).collect()
    };
    let terms: Vec<Vec<char>> = terms.split(',').map(letters).collect::<Option<_>>()?;
    (terms.len() == call.inputs.len()).then_some((terms, letters(result)?))
}

/// What the letters of an equation stand for.
#[derive(Default)]
struct Letters {
    batch: Option<char>,
    extents: Vec<(char, Extent)>,
}

impl Letters {
    fn read(&mut self, call: &mut Call<'_>, index: usize, term: &[char]) -> Result<(), String> {
        let fact = call.input(index)?;
        if fact.sized {
            return Err("computes with the number of rows".into());
        }
        let shape = fact.shape.as_ref().filter(|shape| shape.len() == term.len());
        let shape = shape.ok_or("meets a value of unknown rank")?;
        if let Some(axis) = fact.batch {
            if self.batch.is_some_and(|letter| letter != term[axis]) {
                return Err("lays the batch along two axes".into());
            }
            self.batch = Some(term[axis]);
        }
        for (letter, extent) in term.iter().zip(shape) {
            match self.extents.iter_mut().find(|(known, _)| known == letter) {
                None => self.extents.push((*letter, extent.clone())),
                Some((_, known)) if known == extent => (),
                Some((_, known)) if known.has_batch() || extent.has_batch() => return Err(OVER_BATCH.into()),
                // ONNX Runtime broadcasts a letter of extent 1: which of the two it is, is not known.
                Some((_, known)) => *known = call.symbols.fresh(),
            }
        }
        Ok(())
    }
}

/// Reductions over axes that are not the batch.
pub(super) fn reduce(call: &mut Call<'_>) -> Outcome {
    if !call.touches_batch() {
        return Ok(call.plain_outputs());
    }
    call.rest_is_plain(1)?;
    let (shape, batch) = call.batched(0)?;
    let given = call.ints_or_input("axes", 1)?.unwrap_or_default();
    if given.is_empty() {
        let kept = call.int("noop_with_empty_axes", 0) != 0;
        return if kept { one(Fact::batched(shape.to_vec(), batch)) } else { Err(OVER_BATCH.into()) };
    }
    removed(shape, batch, &axes(&given, shape.len())?, call.int("keepdims", 1) != 0)
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
    let numbers = call.input(1)?.numbers();
    let Some([along]) = numbers.as_deref() else { return Err("has an axis that is not constant".into()) };
    if axis(*along, shape.len())? == batch {
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
