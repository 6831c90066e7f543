//! `image_decode`: a JPEG, PNG or WebP file becomes pixels.
//!
//! The format is told by the file's first bytes, whatever it is called. Limits are looked at when the head was read, before
//! memory is taken for pixels. A picture that its camera held sideways is turned upright (Exif, tag 0x0112). What is not
//! RGB with 8 bits becomes that: grey, palettes, CMYK, 16 bits. Transparency is left out, as OpenCV does. Of an animation the
//! first frame is taken.
//!
//! # Source
//! ITU-T T.81; PNG, third edition; WebP container specification; Exif 2.32, section 4.6.4.
use crate::{
    settings::Settings,
    values::{info, made, only_bytes},
};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    error::LimitErrorKind, metadata::Orientation,
};
use std::{
    io::Cursor,
    panic::{AssertUnwindSafe, catch_unwind},
};
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Made, Step, Unfit},
};
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

/// Pixels where nothing else is said: a photograph of 50 megapixels.
const MOST_PIXELS: u64 = 50_000_000;

/// Bytes of a file where nothing else is said.
const MOST_BYTES: u64 = 64 << 20;

/// What a decoder may take beside the pixels, for a pixel: those of 16 bits with alpha, and room.
const BYTES_OF_PIXEL: u64 = 16;

pub(crate) struct Decode {
    inputs: [TensorInfo; 1],
    outputs: [TensorInfo; 1],
    most_pixels: u64,
    most_bytes: u64,
}

impl Decode {
    pub(crate) fn open(settings: &Settings<'_>) -> Result<Self, String> {
        Ok(Self {
            inputs: [info("image", Datatype::Bytes, &[1])],
            outputs: [info("pixels", Datatype::Uint8, &[-1, -1, 3])],
            most_pixels: settings.number("max_pixels", Some(MOST_PIXELS), 1..=1 << 31)?,
            most_bytes: settings.number("max_bytes", Some(MOST_BYTES), 1..=1 << 31)?,
        })
    }

    fn decode(&self, file: &[u8]) -> Result<RgbImage, Unfit> {
        if file.len() as u64 > self.most_bytes {
            return Err(Unfit(format!(
                "the picture has {} bytes, and {} are the most (setting max_bytes)",
                file.len(),
                self.most_bytes
            )));
        }
        match image::guess_format(file) {
            Ok(ImageFormat::Jpeg) => self.jpeg(file),
            Ok(format @ (ImageFormat::Png | ImageFormat::WebP)) => self.other(file, format),
            Ok(format) => Err(Unfit(format!("the picture is {}; send JPEG, PNG or WebP", name(format)))),
            Err(_) if file.is_empty() => Err(Unfit("the picture is empty".into())),
            Err(_) => Err(Unfit("the picture is of no known format; send JPEG, PNG or WebP".into())),
        }
    }

    fn check(&self, width: u64, height: u64) -> Result<(), Unfit> {
        if width == 0 || height == 0 {
            return Err(Unfit(format!("the picture has no pixels: it is {width} x {height}")));
        }
        if width.saturating_mul(height) > self.most_pixels {
            return Err(Unfit(format!(
                "the picture is {width} x {height} pixels, and {} are the most (setting max_pixels)",
                self.most_pixels
            )));
        }
        Ok(())
    }

    fn jpeg(&self, file: &[u8]) -> Result<RgbImage, Unfit> {
        let wrong = |error: &dyn std::fmt::Display| Unfit(format!("the picture is no whole JPEG: {error}"));
        // The decoder itself fills what is missing of a file that was cut off.
        if !has_end(file) {
            return Err(wrong(&"its end is missing"));
        }
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(ColorSpace::RGB)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(file), options);
        guarded(|| decoder.decode_headers().map_err(|error| wrong(&error)))?;
        let (width, height) = decoder.dimensions().unwrap_or_default();
        self.check(width as u64, height as u64)?;
        let turned = decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
        let pixels = guarded(|| decoder.decode().map_err(|error| wrong(&error)))?;
        let (width, height) = (u32::try_from(width).unwrap_or(0), u32::try_from(height).unwrap_or(0));
        let picture = RgbImage::from_raw(width, height, pixels);
        let picture = picture.ok_or_else(|| wrong(&"it has fewer pixels than its head says"))?;
        Ok(upright(DynamicImage::ImageRgb8(picture), turned.unwrap_or(Orientation::NoTransforms)))
    }

    fn other(&self, file: &[u8], format: ImageFormat) -> Result<RgbImage, Unfit> {
        let wrong = |error: ImageError| match &error {
            ImageError::Limits(limit) if matches!(limit.kind(), LimitErrorKind::InsufficientMemory) => {
                Unfit(format!(
                    "the picture takes more memory than {} pixels may (setting max_pixels)",
                    self.most_pixels
                ))
            }
            _ => Unfit(format!("the picture is no whole {}: {error}", name(format))),
        };
        if format == ImageFormat::WebP {
            // A frame says its size again, and the decoder takes memory by that.
            webp_frames(file).try_for_each(|(width, height)| self.check(width, height))?;
        }
        let mut limits = Limits::default();
        limits.max_alloc = Some(self.most_pixels.saturating_mul(BYTES_OF_PIXEL).saturating_add(1 << 20));
        let mut reader = ImageReader::with_format(Cursor::new(file), format);
        reader.limits(limits);
        let mut decoder = guarded(|| reader.into_decoder().map_err(wrong))?;
        let (width, height) = decoder.dimensions();
        self.check(width.into(), height.into())?;
        let turned = decoder.orientation().map_err(wrong)?;
        let picture = guarded(|| DynamicImage::from_decoder(decoder).map_err(wrong))?;
        Ok(upright(picture, turned))
    }
}

/// Sizes of the frames of a WebP file, of every chunk that holds one, however long it says it is.
fn webp_frames(file: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    /// Of the head of an animation's frame, behind which its chunks follow.
    const ANIMATION_FRAME: usize = 16;
    let mut at = 12;
    std::iter::from_fn(move || {
        loop {
            let (kind, rest) = file.get(at..)?.split_first_chunk::<4>()?;
            let (size, data) = rest.split_first_chunk::<4>()?;
            let size = u32::from_le_bytes(*size) as usize;
            at = match kind {
                b"ANMF" => at + 8 + ANIMATION_FRAME,
                _ => at.saturating_add(8).saturating_add(size).saturating_add(size % 2),
            };
            let found = match (kind, data) {
                (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, a, b, c, d, ..]) => {
                    let side = |low, high| u64::from(u16::from_le_bytes([low, high]) & 0x3fff);
                    Some((side(*a, *b), side(*c, *d)))
                }
                (b"VP8L", [0x2f, a, b, c, d, ..]) => {
                    let bits = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
                    Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    })
}

/// Does what a decoder does. Decoders were found to panic over files whose parts contradict each other (`make fuzz`); that is
/// the file's fault and no more than an error.
fn guarded<T>(work: impl FnOnce() -> Result<T, Unfit>) -> Result<T, Unfit> {
    // A decoder that panicked is not used again.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err(Unfit("the picture's parts contradict each other".into())))
}

/// Whether a JPEG ends as one does; some cameras pad behind the end.
fn has_end(file: &[u8]) -> bool {
    const END: [u8; 2] = [0xff, 0xd9];
    file.windows(2).rev().take(64 << 10).any(|two| two == END)
}

fn upright(mut picture: DynamicImage, turned: Orientation) -> RgbImage {
    picture.apply_orientation(turned);
    picture.into_rgb8()
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::Avif => "AVIF",
        _ => "of another format",
    }
}

impl Step for Decode {
    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&self, inputs: &[Tensor]) -> Result<Vec<Made>, Unfit> {
        let [image] = inputs else { return Err(Unfit("it takes one picture".into())) };
        let picture = self.decode(only_bytes(image)?)?;
        let shape = [picture.height() as usize, picture.width() as usize, 3];
        Ok(vec![made(&shape, picture.into_raw())])
    }
}
