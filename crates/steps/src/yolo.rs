//! `yolo_decode`: what a detector of the YOLO family says becomes boxes, scores and classes.
//!
//! - `v5`: [1, N, 5 + C], each (centre x, centre y, width, height, objectness, C classes); the score is objectness times class.
//! - `v8`, also of v9 and v11: [1, 4 + C, N], the same without objectness and column by column.
//! - `v10`: [1, N, 6], each (left, top, right, bottom, score, class), of which the model has left out overlaps itself.
//!
//! Each place of the model gives one box, of its best class; those below `score` are left out, and of the others at most
//! `most` are kept, the best.
//!
//! # Source
//! Ultralytics, "Export" and `ops.non_max_suppression`; Wang et al. 2024, "YOLOv10".
use crate::{
    nms::check_finite,
    settings::Settings,
    values::{elements, extent, info, made},
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    V5,
    V8,
    V10,
}

pub(crate) struct Decode {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 3],
    layout: Layout,
    score: f32,
    most: usize,
}

impl Decode {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let layout =
            settings.word("layout", &[("v8", Layout::V8), ("v5", Layout::V5), ("v10", Layout::V10)])?;
        let last = if layout == Layout::V10 { 6 } else { -1 };
        Ok(Self {
            inputs: [info("output", Datatype::Fp32, &[1, -1, last])],
            outputs: [
                info("boxes", Datatype::Fp32, &[-1, 4]),
                info("scores", Datatype::Fp32, &[-1]),
                info("classes", Datatype::Int64, &[-1]),
            ],
            layout,
            score: settings.number("score", Some(0.25), 0.0..=1.0)?,
            most: settings.number("most", Some(30_000), 1..=1_000_000)?,
        })
    }

    fn found(&self, output: &Tensor) -> Result<Vec<Found>, Unfit> {
        let (first, second) = (extent(output, 1), extent(output, 2));
        let numbers = elements::<f32>(output);
        let few = |fields: usize, least: usize| {
            Unfit(format!(
                "'output' has shape {:?}: {fields} numbers of a place, and this layout has {least} at least; see setting 'layout'",
                output.shape
            ))
        };
        let found = match self.layout {
            Layout::V8 if first < 5 => return Err(few(first, 5)),
            Layout::V5 if second < 6 => return Err(few(second, 6)),
            Layout::V8 => self.by_columns(&numbers, first - 4, second),
            Layout::V5 => numbers.chunks_exact(second).filter_map(|place| self.of_place(place)).collect(),
            Layout::V10 => numbers.as_chunks::<6>().0.iter().filter_map(|place| self.of_box(place)).collect(),
        };
        Ok(found)
    }

    /// Whether a score is to be kept. What is no number is, to be told.
    fn counts(&self, score: f32) -> bool {
        score.is_nan() || score >= self.score
    }

    fn by_columns(&self, numbers: &[f32], classes: usize, places: usize) -> Vec<Found> {
        if places == 0 {
            return Vec::new();
        }
        // Row by row through memory: a model has some 80 classes and 8,400 places.
        let row = |at: usize| &numbers[at * places..(at + 1) * places];
        let (mut best, mut class) = (row(4).to_vec(), vec![0_u32; places]);
        for at in 1..classes {
            let number = u32::try_from(at).unwrap_or(u32::MAX);
            for ((best, class), score) in best.iter_mut().zip(&mut class).zip(row(4 + at)) {
                if *score > *best {
                    (*best, *class) = (*score, number);
                }
            }
        }
        let (x, y, width, height) = (row(0), row(1), row(2), row(3));
        let chosen = best.iter().enumerate().filter(|(_, score)| self.counts(**score));
        let one = |(at, score): (usize, &f32)| Found {
            edges: edges(x[at], y[at], width[at], height[at]),
            score: *score,
            class: class[at].into(),
        };
        chosen.map(one).collect()
    }

    fn of_place(&self, place: &[f32]) -> Option<Found> {
        let &[x, y, width, height, object, ref classes @ ..] = place else { return None };
        let mut best = (0, f32::NEG_INFINITY);
        for (at, score) in classes.iter().enumerate() {
            if *score > best.1 {
                best = (at, *score);
            }
        }
        let score = object * best.1;
        let class = i64::try_from(best.0).unwrap_or(i64::MAX);
        self.counts(score).then(|| Found { edges: edges(x, y, width, height), score, class })
    }

    fn of_box(&self, &[left, top, right, bottom, score, class]: &[f32; 6]) -> Option<Found> {
        #[expect(clippy::cast_possible_truncation, reason = "a whole number as a float; a cast saturates")]
        let class = class.round() as i64;
        self.counts(score).then_some(Found { edges: [left, top, right, bottom], score, class })
    }
}

struct Found {
    edges: [f32; 4],
    score: f32,
    class: i64,
}

/// From the middle and the size to the edges.
fn edges(x: f32, y: f32, width: f32, height: f32) -> [f32; 4] {
    let (half_width, half_height) = (width / 2.0, height / 2.0);
    [x - half_width, y - half_height, x + half_width, y + half_height]
}

impl Step for Decode {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [output] = inputs else { return Err(Unfit("it takes the output of a detector".into())) };
        let mut found = self.found(output)?;
        if found.len() > self.most {
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            found.truncate(self.most);
        }
        let boxes: Vec<[f32; 4]> = found.iter().map(|one| one.edges).collect();
        let scores: Vec<f32> = found.iter().map(|one| one.score).collect();
        check_finite(&boxes, &scores)?;
        let count = found.len();
        Ok(vec![
            made(&[count, 4], boxes.into_flattened()),
            made(&[count], scores),
            made(&[count], found.iter().map(|one| one.class).collect()),
        ])
    }
}
