//! `nms`: of boxes that overlap, the one with the best score.
//!
//! Boxes are taken from the best score to the worst, equal ones in their order; one that overlaps with a box that was kept
//! by more than the threshold is left out. Only boxes of the same class are compared, unless told otherwise. Work is bounded
//! by what is kept: every box is compared with kept ones alone.
//!
//! # Source
//! torchvision, `ops.nms` and `ops.batched_nms`.
use crate::{
    settings::Settings,
    values::{elements, info, made},
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

pub(crate) struct Nms {
    inputs: [TensorInfo; 3],
    outputs: [TensorInfo; 3],
    rules: Rules,
}

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Most of two boxes' union that they may share.
    pub(crate) iou: f32,
    /// Least score.
    pub(crate) score: f32,
    /// Most boxes.
    pub(crate) most: usize,
    /// Boxes of different classes do not compete.
    pub(crate) by_class: bool,
}

impl Nms {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let slots = || {
            [
                info("boxes", Datatype::Fp32, &[-1, 4]),
                info("scores", Datatype::Fp32, &[-1]),
                info("classes", Datatype::Int64, &[-1]),
            ]
        };
        let rules = Rules {
            iou: settings.number("iou", Some(0.45), 0.0..=1.0)?,
            score: settings.number("score", Some(0.0), 0.0..=1.0)?,
            most: settings.number("top_k", Some(300), 1..=3_000)?,
            by_class: settings.flag("by_class", true)?,
        };
        Ok(Self { inputs: slots(), outputs: slots(), rules })
    }
}

/// Boxes that are looked through, each beside those that are kept.
const MOST_BOXES: usize = 200_000;

/// Places of the boxes that are kept, best first.
pub(crate) fn kept(boxes: &[[f32; 4]], scores: &[f32], classes: &[i64], rules: Rules) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len()).filter(|at| scores[*at] >= rules.score).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut kept: Vec<usize> = Vec::new();
    for at in order {
        let rivals = kept.iter().filter(|other| !rules.by_class || classes[**other] == classes[at]);
        if rivals.into_iter().all(|other| iou(&boxes[*other], &boxes[at]) <= rules.iou) {
            kept.push(at);
            if kept.len() == rules.most {
                break;
            }
        }
    }
    kept
}

/// What two boxes share of their union; 0 where there is none.
fn iou(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |of: &[f32; 4]| (of[2] - of[0]) * (of[3] - of[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    let union = area(a) + area(b) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

impl Step for Nms {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [boxes, scores, classes] = inputs else {
            return Err(Unfit("it takes boxes, scores and classes".into()));
        };
        let (boxes, scores, classes) =
            (elements::<f32>(boxes), elements::<f32>(scores), elements::<i64>(classes));
        let (boxes, _) = boxes.as_chunks::<4>();
        if boxes.len() != scores.len() || scores.len() != classes.len() {
            return Err(Unfit(format!(
                "there are {} boxes, {} scores and {} classes; each box has one of both",
                boxes.len(),
                scores.len(),
                classes.len()
            )));
        }
        if boxes.len() > MOST_BOXES {
            return Err(Unfit(format!("there are {} boxes, and {MOST_BOXES} are the most", boxes.len())));
        }
        check_finite(boxes, &scores)?;
        let kept = kept(boxes, &scores, &classes, self.rules);
        let places = kept.iter();
        Ok(vec![
            made(&[kept.len(), 4], places.clone().flat_map(|at| boxes[*at]).collect()),
            made(&[kept.len()], places.clone().map(|at| scores[*at]).collect()),
            made(&[kept.len()], places.map(|at| classes[*at]).collect()),
        ])
    }
}

/// # Errors
/// A box or a score is no number.
pub(crate) fn check_finite(boxes: &[[f32; 4]], scores: &[f32]) -> Result<(), Unfit> {
    let wrong = boxes
        .iter()
        .zip(scores)
        .position(|(edges, score)| !score.is_finite() || edges.iter().any(|edge| !edge.is_finite()));
    match wrong {
        Some(at) => Err(Unfit(format!(
            "box {at} is {:?} with score {}; boxes and scores are numbers",
            boxes[at], scores[at]
        ))),
        None => Ok(()),
    }
}
