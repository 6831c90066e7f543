//! `resize` and `letterbox`: pictures of another size.
//!
//! Both go through the convolution of `fast_image_resize`, whose filters look at every pixel that a smaller picture is made
//! of, as Pillow's do. `letterbox` keeps the proportions: the picture is scaled to fit, put into the middle, and the rest is
//! filled. Its `transform` is (scale of x, scale of y, left, top): x of the new picture is x of the old times the scale plus
//! left.
//!
//! # Source
//! Pillow, "Concepts: Filters"; Ultralytics, `LetterBox`.
use crate::{
    settings::Settings,
    values::{extent, info, made},
};
use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer,
    images::{Image, ImageRef},
};
use std::cell::RefCell;
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// Most pixels on a side that a picture is made of.
const MOST_SIDE: u32 = 8192;

/// Bytes that a thread keeps for its next picture.
const MOST_KEPT: usize = 16 << 20;

thread_local! {
    /// Keeps its memory from picture to picture.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A size to make, and how.
#[derive(Clone, Copy, Debug)]
struct Target {
    width: u32,
    height: u32,
    filter: FilterType,
}

impl Target {
    fn read(settings: &Settings<'_>) -> Result<Self, String> {
        Ok(Self {
            width: settings.number("width", None, 1..=MOST_SIDE)?,
            height: settings.number("height", None, 1..=MOST_SIDE)?,
            filter: settings.word(
                "filter",
                &[
                    ("bilinear", FilterType::Bilinear),
                    ("area", FilterType::Box),
                    ("bicubic", FilterType::CatmullRom),
                    ("lanczos", FilterType::Lanczos3),
                ],
            )?,
        })
    }

    fn outputs(self) -> TensorInfo {
        info("pixels", Datatype::Uint8, &[self.height.into(), self.width.into(), 3])
    }
}

/// The pixels of a picture and its size.
struct Source<'a> {
    pixels: &'a [u8],
    width: u32,
    height: u32,
}

impl<'a> Source<'a> {
    fn read(tensor: &'a Tensor) -> Result<Self, Unfit> {
        let (height, width) = (extent(tensor, 0), extent(tensor, 1));
        let side = |extent: usize| u32::try_from(extent).ok().filter(|extent| *extent > 0);
        let (Some(height), Some(width)) = (side(height), side(width)) else {
            return Err(Unfit(format!("'{}' has no pixels: it is {width} x {height}", tensor.name)));
        };
        Ok(Self { pixels: &tensor.data, width, height })
    }

    /// Scales it to `width` x `height`.
    ///
    /// What lies between the two passes has the width of one picture and the height of the other. Of pictures that are long
    /// and thin that may be far more than both: those are scaled in the direction first in which it is not.
    fn scaled(&self, width: u32, height: u32, filter: FilterType) -> Result<Vec<u8>, Unfit> {
        let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
        let between = area(self.width, height);
        if between > 4 * area(self.width, self.height).max(area(width, height)) && width < self.width {
            let narrow = self.scaled_at_once(width, self.height, filter)?;
            let narrow = Source { pixels: &narrow, width, height: self.height };
            return narrow.scaled_at_once(width, height, filter);
        }
        self.scaled_at_once(width, height, filter)
    }

    fn scaled_at_once(&self, width: u32, height: u32, filter: FilterType) -> Result<Vec<u8>, Unfit> {
        let wrong = |error: &dyn std::fmt::Display| Unfit(format!("the picture cannot be scaled: {error}"));
        let source = ImageRef::new(self.width, self.height, self.pixels, PixelType::U8x3)
            .map_err(|error| wrong(&error))?;
        let mut target = Image::new(width, height, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        RESIZER
            .with_borrow_mut(|resizer| {
                let outcome = resizer.resize(&source, &mut target, &options);
                if resizer.size_of_internal_buffers() > MOST_KEPT {
                    resizer.reset_internal_buffers();
                }
                outcome
            })
            .map_err(|error| wrong(&error))?;
        Ok(target.into_vec())
    }
}

pub(crate) struct Resize {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 1],
    target: Target,
}

impl Resize {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let target = Target::read(settings)?;
        Ok(Self {
            inputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3])],
            outputs: [target.outputs()],
            target,
        })
    }
}

impl Step for Resize {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [pixels] = inputs else { return Err(Unfit("it takes one picture".into())) };
        let Target { width, height, filter } = self.target;
        let scaled = Source::read(pixels)?.scaled(width, height, filter)?;
        Ok(vec![made(&[height as usize, width as usize, 3], scaled)])
    }
}

pub(crate) struct Letterbox {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 2],
    target: Target,
    fill: u8,
    scale_up: bool,
}

impl Letterbox {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let target = Target::read(settings)?;
        Ok(Self {
            inputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3])],
            outputs: [target.outputs(), info("transform", Datatype::Fp32, &[4])],
            target,
            // The grey that detectors of this family are trained with.
            fill: settings.number("fill", Some(114), 0..=255)?,
            scale_up: settings.flag("scale_up", true)?,
        })
    }
}

/// Where a picture lies in a box: its size, and its left upper corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    width: u32,
    height: u32,
    left: u32,
    top: u32,
}

/// Fits `width` x `height` into the middle of `into`.
fn place(width: u32, height: u32, into: (u32, u32), scale_up: bool) -> Place {
    let ratio = (f64::from(into.0) / f64::from(width)).min(f64::from(into.1) / f64::from(height));
    let ratio = if scale_up { ratio } else { ratio.min(1.0) };
    // A picture of extreme proportions keeps a pixel.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the box")]
    let scaled = |side: u32, most: u32| ((f64::from(side) * ratio).round() as u32).clamp(1, most);
    let (width, height) = (scaled(width, into.0), scaled(height, into.1));
    Place { width, height, left: (into.0 - width) / 2, top: (into.1 - height) / 2 }
}

impl Step for Letterbox {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [pixels] = inputs else { return Err(Unfit("it takes one picture".into())) };
        let source = Source::read(pixels)?;
        let Target { width, height, filter } = self.target;
        let at = place(source.width, source.height, (width, height), self.scale_up);
        let scaled = if (at.width, at.height) == (source.width, source.height) {
            source.pixels.to_vec()
        } else {
            source.scaled(at.width, at.height, filter)?
        };
        let boxed = if (at.width, at.height) == (width, height) { scaled } else { self.framed(&scaled, at) };
        #[expect(clippy::cast_precision_loss, reason = "sides have far fewer than 24 bits")]
        let transform = vec![
            at.width as f32 / source.width as f32,
            at.height as f32 / source.height as f32,
            at.left as f32,
            at.top as f32,
        ];
        Ok(vec![made(&[height as usize, width as usize, 3], boxed), made(&[4], transform)])
    }
}

impl Letterbox {
    fn framed(&self, scaled: &[u8], at: Place) -> Vec<u8> {
        let row = self.target.width as usize * 3;
        let mut boxed = vec![self.fill; row * self.target.height as usize];
        let (left, width) = (at.left as usize * 3, at.width as usize * 3);
        let rows = boxed.chunks_exact_mut(row).skip(at.top as usize);
        for (to, from) in rows.zip(scaled.chunks_exact(width)) {
            to[left..left + width].copy_from_slice(from);
        }
        boxed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_keeps_its_proportions_in_the_middle_of_the_box() {
        let at = |width, height, scale_up| place(width, height, (640, 640), scale_up);
        assert_eq!(at(1280, 720, true), Place { width: 640, height: 360, left: 0, top: 140 });
        assert_eq!(at(100, 200, true), Place { width: 320, height: 640, left: 160, top: 0 });
        assert_eq!(at(100, 200, false), Place { width: 100, height: 200, left: 270, top: 220 });
        assert_eq!(at(1, 65535, true), Place { width: 1, height: 640, left: 319, top: 0 });
        assert_eq!(at(640, 640, true), Place { width: 640, height: 640, left: 0, top: 0 });
    }
}
