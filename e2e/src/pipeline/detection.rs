//! Pictures to boxes.
use super::{Folder, Model, Opens, environment, run};
use crate::generate::root;
use serde_json::{Value, json};
use std::{path::Path, sync::Arc};
use xebec_core::{Datatype, Tensor, step::Step};

/// The steps of `examples/object-detection`, and its detector.
pub struct Detection {
    decode: Arc<dyn Step>,
    fit: Arc<dyn Step>,
    numbers: Arc<dyn Step>,
    boxes: Arc<dyn Step>,
    best: Arc<dyn Step>,
    back: Arc<dyn Step>,
    detector: Model,
}

/// What was seen in a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Left, top, right and bottom of each, in pixels of the picture.
    pub boxes: Vec<f32>,
    /// A score of each.
    pub scores: Vec<f32>,
    /// What each is.
    pub classes: Vec<i64>,
}

impl Seen {
    /// A line for the judge of the example.
    pub fn line(&self, scene: u64) -> Value {
        let boxes: Vec<&[f32]> = self.boxes.chunks(4).collect();
        json!({"scene": scene, "boxes": boxes, "scores": self.scores, "classes": self.classes})
    }
}

impl Detection {
    /// Opens a detector with these settings of its steps: of `yolo_decode` and of `nms`.
    ///
    /// # Errors
    /// The library of the engine or the detector cannot be loaded.
    pub fn open(model: &Path, score: &str, iou: &str) -> anyhow::Result<Self> {
        let opens = Opens(Folder(root()));
        Ok(Self {
            decode: opens.step("image_decode", &[])?,
            fit: opens.step("letterbox", &[("width", "640"), ("height", "640")])?,
            numbers: opens.step("normalise", &[])?,
            boxes: opens.step("yolo_decode", &[("score", score)])?,
            best: opens.step("nms", &[("iou", iou)])?,
            back: opens.step("scale_boxes", &[])?,
            detector: Model::open(&environment()?, model)?,
        })
    }

    /// Looks at a file.
    ///
    /// # Errors
    /// It is no picture, or the detector is not what it was.
    pub fn see(&mut self, file: &[u8]) -> anyhow::Result<Seen> {
        let length = u32::try_from(file.len())?.to_le_bytes();
        let data = [&length, file].concat().into();
        let image = Tensor { name: "image".into(), datatype: Datatype::Bytes, shape: vec![1], data };
        let [pixels] = run(&*self.decode, &[&image])?;
        let [small, transform] = run(&*self.fit, &[&pixels])?;
        let [tensor] = run(&*self.numbers, &[&small])?;
        let output = self.detector.run(&[("images", &tensor)])?;
        let [boxes, scores, classes] = run(&*self.boxes, &[&output])?;
        let [boxes, scores, classes] = run(&*self.best, &[&boxes, &scores, &classes])?;
        let [boxes] = run(&*self.back, &[&boxes, &transform, &pixels])?;
        Ok(Seen {
            boxes: bytemuck::pod_collect_to_vec(&boxes.data),
            scores: bytemuck::pod_collect_to_vec(&scores.data),
            classes: bytemuck::pod_collect_to_vec(&classes.data),
        })
    }
}
