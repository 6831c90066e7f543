//! `softmax`, `top_k`, `merge`, `rerank`, `diversify` and `difference`: lists of candidates and their scores.
use crate::{
    settings::Settings,
    values::{elements, extent, info, made},
};
use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{HashMap, HashSet},
    ops::RangeInclusive,
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// How many may be asked for.
const MOST: RangeInclusive<usize> = 1..=1_000_000;

/// `softmax`: of each row, numbers that add up to 1.
pub(crate) struct Softmax {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 1],
}

impl Softmax {
    pub(crate) fn open() -> Self {
        let slot = |name: &str| info(name, Datatype::Fp32, &[-1, -1]);
        Self { inputs: [slot("logits")], outputs: [slot("probabilities")] }
    }
}

impl Step for Softmax {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [logits] = inputs else { return Err(Unfit("it takes rows of numbers".into())) };
        let (rows, width) = (extent(logits, 0), extent(logits, 1));
        let mut all = elements::<f32>(logits).into_owned();
        for (at, row) in all.chunks_exact_mut(width.max(1)).enumerate() {
            // The largest is taken off first: a power of a large number has no end. What is left out is -infinity.
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if !most.is_finite() || row.iter().any(|value| value.is_nan()) {
                return Err(Unfit(format!(
                    "row {at} of 'logits' has no probabilities: it has NaN or infinity, or nothing but -infinity"
                )));
            }
            row.iter_mut().for_each(|value| *value = (*value - most).exp());
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|value| *value /= sum);
        }
        Ok(vec![made(&[rows, width], all)])
    }
}

/// `top_k`: of candidates with scores the best, with their ids; equal ones in their order.
pub(crate) struct TopK {
    inputs: [TensorInfo; 2],
    outputs: [TensorInfo; 2],
    most: usize,
}

impl TopK {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let slots = || [info("ids", Datatype::Int64, &[-1]), info("scores", Datatype::Fp32, &[-1])];
        Ok(Self { inputs: slots(), outputs: slots(), most: settings.number("k", None, MOST)? })
    }
}

impl Step for TopK {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids, scores] = inputs else { return Err(Unfit("it takes ids and scores".into())) };
        let (ids, scores) = candidates(ids, scores)?;
        Ok(listed(&ids, &scores, &best(&scores, self.most)))
    }
}

/// Which of two scores comes first: the larger, then the one that stood first.
pub(crate) fn better(a: f32, a_at: usize, b: f32, b_at: usize) -> Ordering {
    b.total_cmp(&a).then(a_at.cmp(&b_at))
}

/// Refuses numbers that are none.
pub(crate) fn finite(name: &str, numbers: &[f32]) -> Result<(), Unfit> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(at) => Err(Unfit(format!("'{name}' is no number at {at}"))),
        None => Ok(()),
    }
}

/// Ids, and a score for each.
type Candidates<'a> = (Cow<'a, [i64]>, Cow<'a, [f32]>);

/// Reads them.
fn candidates<'a>(ids: &'a Tensor, scores: &'a Tensor) -> Result<Candidates<'a>, Unfit> {
    let name = &scores.name;
    let (ids, scores) = (elements::<i64>(ids), elements::<f32>(scores));
    as_many(&ids, scores.len(), name)?;
    finite(name, &scores)?;
    Ok((ids, scores))
}

fn as_many(ids: &[i64], others: usize, name: &str) -> Result<(), Unfit> {
    if ids.len() == others {
        return Ok(());
    }
    Err(Unfit(format!("there are {} ids and {others} of '{name}'; each id has one", ids.len())))
}

/// Places of the best scores, best first.
fn best(scores: &[f32], most: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let better = |a: &usize, b: &usize| better(scores[*a], *a, scores[*b], *b);
    if order.len() > most {
        order.select_nth_unstable_by(most - 1, better);
        order.truncate(most);
    }
    order.sort_unstable_by(better);
    order
}

/// Candidates in an order.
fn listed(ids: &[i64], scores: &[f32], order: &[usize]) -> Vec<Made> {
    vec![
        made(&[order.len()], order.iter().map(|at| ids[*at]).collect()),
        made(&[order.len()], order.iter().map(|at| scores[*at]).collect()),
    ]
}

/// `merge`: of two lists one, best first; an id that is in both has its better score.
pub(crate) struct Merge {
    inputs: [TensorInfo; 4],
    outputs: [TensorInfo; 2],
    most: usize,
}

impl Merge {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let ids = |name| info(name, Datatype::Int64, &[-1]);
        let scores = |name| info(name, Datatype::Fp32, &[-1]);
        Ok(Self {
            inputs: [ids("ids_a"), scores("scores_a"), ids("ids_b"), scores("scores_b")],
            outputs: [ids("ids"), scores("scores")],
            most: settings.number("k", None, MOST)?,
        })
    }
}

impl Step for Merge {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids_a, scores_a, ids_b, scores_b] = inputs else {
            return Err(Unfit("it takes two lists of ids and scores".into()));
        };
        let ((ids_a, scores_a), (ids_b, scores_b)) =
            (candidates(ids_a, scores_a)?, candidates(ids_b, scores_b)?);
        let (ids, scores) = ([&*ids_a, &*ids_b].concat(), [&*scores_a, &*scores_b].concat());
        let mut order = best(&scores, scores.len().max(1));
        let mut seen = HashSet::new();
        order.retain(|at| seen.insert(ids[*at]));
        order.truncate(self.most);
        Ok(listed(&ids, &scores, &order))
    }
}

/// `rerank`: by the sum of two scores, each with its weight.
pub(crate) struct Rerank {
    inputs: [TensorInfo; 3],
    outputs: [TensorInfo; 2],
    weight: f32,
    prior_weight: f32,
    most: usize,
}

impl Rerank {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let scores = |name| info(name, Datatype::Fp32, &[-1]);
        let ids = || info("ids", Datatype::Int64, &[-1]);
        Ok(Self {
            inputs: [ids(), scores("scores"), scores("prior")],
            outputs: [ids(), scores("scores")],
            weight: settings.number("weight", Some(1.0), -1e6..=1e6)?,
            prior_weight: settings.number("prior_weight", Some(1.0), -1e6..=1e6)?,
            most: settings.number("k", None, MOST)?,
        })
    }
}

impl Step for Rerank {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids, scores, prior] = inputs else {
            return Err(Unfit("it takes ids, scores and prior".into()));
        };
        let (ids, scores) = candidates(ids, scores)?;
        let prior = elements::<f32>(prior);
        as_many(&ids, prior.len(), "prior")?;
        let both = scores.iter().zip(prior.iter());
        let sums: Vec<f32> =
            both.map(|(score, prior)| self.weight * score + self.prior_weight * prior).collect();
        finite("prior", &sums)?;
        Ok(listed(&ids, &sums, &best(&sums, self.most)))
    }
}

/// `diversify`: the best, but so many of each group at most; who was left out fills up what would stay empty.
pub(crate) struct Diversify {
    inputs: [TensorInfo; 3],
    outputs: [TensorInfo; 2],
    most: usize,
    per_group: usize,
}

impl Diversify {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let ids = |name| info(name, Datatype::Int64, &[-1]);
        let scores = || info("scores", Datatype::Fp32, &[-1]);
        Ok(Self {
            inputs: [ids("ids"), scores(), ids("groups")],
            outputs: [ids("ids"), scores()],
            most: settings.number("k", None, MOST)?,
            per_group: settings.number("per_group", None, MOST)?,
        })
    }
}

impl Step for Diversify {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids, scores, groups] = inputs else {
            return Err(Unfit("it takes ids, scores and groups".into()));
        };
        let (ids, scores) = candidates(ids, scores)?;
        let groups = elements::<i64>(groups);
        as_many(&ids, groups.len(), "groups")?;
        let mut counts: HashMap<i64, usize> = HashMap::new();
        let order = best(&scores, scores.len().max(1));
        let (mut taken, left): (Vec<usize>, Vec<usize>) = order.into_iter().partition(|at| {
            let count = counts.entry(groups[*at]).or_default();
            *count += 1;
            *count <= self.per_group
        });
        taken.truncate(self.most);
        let room = self.most - taken.len();
        taken.extend(left.into_iter().take(room));
        Ok(listed(&ids, &scores, &taken))
    }
}

/// `difference`: candidates that are not among others, in their order, each once.
pub(crate) struct Difference {
    inputs: [TensorInfo; 2],
    outputs: [TensorInfo; 1],
}

impl Difference {
    pub(crate) fn open() -> Self {
        let slot = |name: &str| info(name, Datatype::Int64, &[-1]);
        Self { inputs: [slot("ids"), slot("seen")], outputs: [slot("ids")] }
    }
}

impl Step for Difference {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [ids, seen] = inputs else { return Err(Unfit("it takes ids and those that were seen".into())) };
        let mut gone: HashSet<i64> = elements::<i64>(seen).iter().copied().collect();
        let left: Vec<i64> = elements::<i64>(ids).iter().copied().filter(|id| gone.insert(*id)).collect();
        Ok(vec![made(&[left.len()], left)])
    }
}
