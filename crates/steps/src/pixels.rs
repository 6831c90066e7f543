//! `normalise`, `crop` and `draw`: what is done to pixels before and behind a model.
use crate::{
    settings::Settings,
    values::{elements, extent, info, made, made_bytes},
};
use image::{
    ExtendedColorType, ImageEncoder as _,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};

/// How the numbers of a picture lie in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Colour by colour.
    Planes,
    /// Pixel by pixel.
    Pixels,
}

/// `normalise`: bytes of pixels become the numbers that a model takes, (byte x scale - mean) / std by colour.
pub(crate) struct Normalise {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 1],
    layout: Layout,
    /// The number for every byte, of each colour as it comes out.
    tables: Box<[[f32; 256]; 3]>,
    /// Blue comes first.
    bgr: bool,
}

impl Normalise {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        let layout = settings.word("layout", &[("nchw", Layout::Planes), ("nhwc", Layout::Pixels)])?;
        let scale: f64 = settings.number("scale", Some(1.0 / 255.0), -1e6..=1e6)?;
        let (mean, std) = (settings.numbers("mean", [0.0; 3])?, settings.numbers("std", [1.0; 3])?);
        if std.contains(&0.0) {
            return Err("setting 'std' has a 0, by which nothing can be divided".into());
        }
        let bgr = settings.word("colours", &[("rgb", false), ("bgr", true)])?;
        let mut tables = Box::new([[0.0; 256]; 3]);
        for (table, (mean, std)) in tables.iter_mut().zip(mean.iter().zip(std)) {
            for (number, byte) in table.iter_mut().zip(0_u8..=255) {
                // Rounded once: a byte by 255 is what dividing it gives.
                #[expect(clippy::cast_possible_truncation, reason = "that is the rounding")]
                let rounded = ((f64::from(byte) * scale - f64::from(*mean)) / f64::from(std)) as f32;
                *number = rounded;
            }
        }
        let shape: &[i64] = match layout {
            Layout::Planes => &[1, 3, -1, -1],
            Layout::Pixels => &[1, -1, -1, 3],
        };
        Ok(Self {
            inputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3])],
            outputs: [info("tensor", Datatype::Fp32, shape)],
            layout,
            tables,
            bgr,
        })
    }
}

impl Step for Normalise {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [pixels] = inputs else { return Err(Unfit("it takes one picture".into())) };
        let (height, width) = (extent(pixels, 0), extent(pixels, 1));
        let area = height * width;
        let order: [usize; 3] = if self.bgr { [2, 1, 0] } else { [0, 1, 2] };
        match self.layout {
            Layout::Planes => {
                // Three times over bytes that are in a near cache by then, instead of over floats that are not.
                let mut all = Vec::with_capacity(3 * area);
                for (table, at) in self.tables.iter().zip(order) {
                    all.extend(pixels.data.chunks_exact(3).map(|pixel| table[usize::from(pixel[at])]));
                }
                Ok(vec![made(&[1, 3, height, width], all)])
            }
            Layout::Pixels => {
                let [red, green, blue] = &*self.tables;
                let mut all = Vec::with_capacity(3 * area);
                for pixel in pixels.data.chunks_exact(3) {
                    all.extend([
                        red[usize::from(pixel[order[0]])],
                        green[usize::from(pixel[order[1]])],
                        blue[usize::from(pixel[order[2]])],
                    ]);
                }
                Ok(vec![made(&[1, height, width, 3], all)])
            }
        }
    }
}

/// `crop`: a part of a picture, (left, top, right, bottom) in pixels, of which what lies outside is left out.
pub(crate) struct Crop {
    inputs: [TensorInfo; 2],
    outputs: [TensorInfo; 1],
}

impl Crop {
    pub(crate) fn open() -> Self {
        Self {
            inputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3]), info("box", Datatype::Fp32, &[4])],
            outputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3])],
        }
    }
}

impl Step for Crop {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [pixels, part] = inputs else { return Err(Unfit("it takes a picture and a box".into())) };
        let (height, width) = (extent(pixels, 0), extent(pixels, 1));
        let part = elements::<f32>(part);
        if part.iter().any(|edge| !edge.is_finite()) {
            return Err(Unfit(format!("'box' is {part:?}, which holds no four numbers of pixels")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
        let edge = |at: usize, most: usize| (part.get(at).copied().unwrap_or(0.0).round() as usize).min(most);
        let (left, top, right, bottom) = (edge(0, width), edge(1, height), edge(2, width), edge(3, height));
        if left >= right || top >= bottom {
            return Err(Unfit(format!(
                "'box' {part:?} has no pixels of a picture of {width} x {height}; it is (left, top, right, bottom)"
            )));
        }
        let mut all = Vec::with_capacity((right - left) * (bottom - top) * 3);
        for row in pixels.data.chunks_exact(width * 3).take(bottom).skip(top) {
            all.extend_from_slice(&row[left * 3..right * 3]);
        }
        Ok(vec![made(&[bottom - top, right - left, 3], all)])
    }
}

/// How a drawn picture is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    Jpeg,
    Png,
}

/// `draw`: boxes on a picture, each class in a colour of its own, as a file.
pub(crate) struct Draw {
    inputs: [TensorInfo; 3],
    outputs: [TensorInfo; 1],
    packing: Packing,
    quality: u8,
    thickness: usize,
}

impl Draw {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        Ok(Self {
            inputs: [
                info("pixels", Datatype::Uint8, &[-1, -1, 3]),
                info("boxes", Datatype::Fp32, &[-1, 4]),
                info("classes", Datatype::Int64, &[-1]),
            ],
            outputs: [info("image", Datatype::Bytes, &[1])],
            packing: settings.word("format", &[("jpeg", Packing::Jpeg), ("png", Packing::Png)])?,
            quality: settings.number("quality", Some(90), 1..=100)?,
            thickness: settings.number("thickness", Some(2), 1..=64)?,
        })
    }
}

/// Boxes on a picture.
const MOST_DRAWN: usize = 10_000;

/// Colours that are told apart, also by who sees few.
///
/// # Source
/// Okabe and Ito 2008, "Color Universal Design".
const COLOURS: [[u8; 3]; 8] = [
    [230, 159, 0],
    [86, 180, 233],
    [0, 158, 115],
    [240, 228, 66],
    [0, 114, 178],
    [213, 94, 0],
    [204, 121, 167],
    [255, 255, 255],
];

impl Step for Draw {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [pixels, boxes, classes] = inputs else {
            return Err(Unfit("it takes a picture, boxes and classes".into()));
        };
        let (height, width) = (extent(pixels, 0), extent(pixels, 1));
        let (boxes, classes) = (elements::<f32>(boxes), elements::<i64>(classes));
        if boxes.len() != 4 * classes.len() {
            return Err(Unfit(format!("there are {} boxes and {} classes", boxes.len() / 4, classes.len())));
        }
        if classes.len() > MOST_DRAWN {
            return Err(Unfit(format!(
                "there are {} boxes, and {MOST_DRAWN} are drawn at most",
                classes.len()
            )));
        }
        let mut canvas = Canvas { pixels: pixels.data.to_vec(), width, height };
        for (edges, class) in boxes.chunks_exact(4).zip(classes.iter()) {
            let colour = COLOURS[usize::try_from(class.rem_euclid(COLOURS.len() as i64)).unwrap_or(0)];
            canvas.frame([edges[0], edges[1], edges[2], edges[3]], self.thickness, colour);
        }
        let (wide, high) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
        let mut file = Vec::new();
        let packed = match self.packing {
            Packing::Jpeg => JpegEncoder::new_with_quality(&mut file, self.quality).write_image(
                &canvas.pixels,
                wide,
                high,
                ExtendedColorType::Rgb8,
            ),
            Packing::Png => {
                PngEncoder::new(&mut file).write_image(&canvas.pixels, wide, high, ExtendedColorType::Rgb8)
            }
        };
        packed
            .map_err(|error| Unfit(format!("a picture of {width} x {height} cannot be packed: {error}")))?;
        Ok(vec![made_bytes(&file)])
    }
}

struct Canvas {
    pixels: Vec<u8>,
    width: usize,
    height: usize,
}

impl Canvas {
    /// Draws the outline of (left, top, right, bottom) to the inside; what lies outside of the picture is not drawn.
    fn frame(&mut self, edges: [f32; 4], thickness: usize, colour: [u8; 3]) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast saturates, NaN is 0"
        )]
        let edge = |value: f32, most: usize| (value.round() as usize).min(most);
        let [left, top, right, bottom] = edges;
        let (left, right) = (edge(left, self.width), edge(right, self.width));
        let (top, bottom) = (edge(top, self.height), edge(bottom, self.height));
        self.fill((left, right), (top, bottom.min(top + thickness)), colour);
        self.fill((left, right), (bottom.saturating_sub(thickness).max(top), bottom), colour);
        self.fill((left, right.min(left + thickness)), (top, bottom), colour);
        self.fill((right.saturating_sub(thickness).max(left), right), (top, bottom), colour);
    }

    fn fill(&mut self, (left, right): (usize, usize), (top, bottom): (usize, usize), colour: [u8; 3]) {
        if left >= right {
            return;
        }
        let row = self.width * 3;
        for line in self.pixels.chunks_exact_mut(row.max(1)).take(bottom).skip(top) {
            line[left * 3..right * 3].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&colour));
        }
    }
}
