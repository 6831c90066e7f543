//! `scale_boxes`: from the picture that a model saw back to the one that the caller sent.
use crate::values::{elements, extent, info, made};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// Undoes the `transform` of `letterbox`, and cuts boxes at the edges of the picture.
pub(crate) struct ScaleBoxes {
    inputs: [TensorInfo; 3],
    outputs: [TensorInfo; 1],
}

impl ScaleBoxes {
    pub(crate) fn open() -> Self {
        Self {
            inputs: [
                info("boxes", Datatype::Fp32, &[-1, 4]),
                info("transform", Datatype::Fp32, &[4]),
                info("pixels", Datatype::Uint8, &[-1, -1, 3]),
            ],
            outputs: [info("boxes", Datatype::Fp32, &[-1, 4])],
        }
    }
}

impl Step for ScaleBoxes {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [boxes, transform, pixels] = inputs else {
            return Err(Unfit("it takes boxes, a transform and the picture".into()));
        };
        #[expect(clippy::cast_precision_loss, reason = "sides have far fewer than 24 bits")]
        let (height, width) = (extent(pixels, 0) as f32, extent(pixels, 1) as f32);
        let transform = elements::<f32>(transform);
        let &[scale_x, scale_y, left, top] = &*transform else {
            return Err(Unfit("'transform' is not four numbers".into()));
        };
        if !(scale_x > 0.0 && scale_y > 0.0 && scale_x.is_finite() && scale_y.is_finite()) {
            return Err(Unfit(format!(
                "'transform' {transform:?} does not scale: it is (scale of x, scale of y, left, top)"
            )));
        }
        let boxes = elements::<f32>(boxes);
        let (boxes, _) = boxes.as_chunks::<4>();
        let x = |value: f32| ((value - left) / scale_x).clamp(0.0, width);
        let y = |value: f32| ((value - top) / scale_y).clamp(0.0, height);
        let back: Vec<f32> = boxes.iter().flat_map(|&[a, b, c, d]| [x(a), y(b), x(c), y(d)]).collect();
        Ok(vec![made(&[boxes.len(), 4], back)])
    }
}
