//! Files of pictures: every format, kind of pixel and fault that has code of its own.
use super::Seed;
use image::{DynamicImage, ExtendedColorType, ImageEncoder as _, ImageFormat, codecs, imageops::FilterType};
use std::io::Cursor;

fn picture() -> DynamicImage {
    let small = image::RgbaImage::from_fn(4, 4, |x, y| {
        let part = |number: u32| u8::try_from(number * 60).unwrap_or(255);
        image::Rgba([part(x), part(y), part(4 - x), 200 + part(y) / 10])
    });
    DynamicImage::ImageRgba8(small).resize_exact(19, 13, FilterType::Triangle)
}

fn file(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    match picture.write_to(&mut bytes, format) {
        Ok(()) => bytes.into_inner(),
        Err(_) => Vec::new(),
    }
}

fn jpeg(quality: u8, kind: ExtendedColorType, pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A kind that cannot be packed leaves an empty file, which is a seed too.
    let _ =
        codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality).write_image(pixels, 19, 13, kind);
    bytes
}

/// With an Exif segment behind its first marker that says how its camera was held.
fn turned(file: &[u8], orientation: u8) -> Vec<u8> {
    let tiff = [
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(),
        &[orientation, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let length = u16::try_from(tiff.len() + 2).unwrap_or(0).to_be_bytes();
    let (head, rest) = file.split_at(2);
    [head, &[0xff, 0xe1], &length, &tiff, rest].concat()
}

/// A small PNG whose head says so many pixels.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut file = file(&picture(), ImageFormat::Png);
    if file.len() > 33 {
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        let sum = crc(&file[12..29]).to_be_bytes();
        file[29..33].copy_from_slice(&sum);
    }
    file
}

/// # Source
/// PNG, third edition, annex D: the cyclic redundancy code.
fn crc(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 },
        )
    };
    !bytes.iter().fold(u32::MAX, step)
}

pub(super) fn seeds() -> Vec<Seed> {
    let picture = picture();
    let (rgb, grey) = (picture.to_rgb8().into_raw(), picture.to_luma8().into_raw());
    let photo = jpeg(80, ExtendedColorType::Rgb8, &rgb);
    let of = |name: &str, bytes: Vec<u8>| ("image", name.to_owned(), bytes);
    let mut all = vec![
        of("empty", Vec::new()),
        of("jpeg", photo.clone()),
        of("jpeg-fine", jpeg(100, ExtendedColorType::Rgb8, &rgb)),
        of("jpeg-coarse", jpeg(1, ExtendedColorType::Rgb8, &rgb)),
        of("jpeg-grey", jpeg(80, ExtendedColorType::L8, &grey)),
        of("jpeg-cut", photo[..photo.len() * 2 / 3].to_vec()),
        of("jpeg-without-end", photo[..photo.len() - 2].to_vec()),
        of("jpeg-padded", [&photo[..], &[0; 9]].concat()),
        of("png-bomb", bomb(40_000, 40_000)),
        of("png-without-pixels", bomb(0, 1)),
        of(
            "gif",
            b"GIF89a\x01\0\x01\0\x80\0\0\xff\xff\xff\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;".to_vec(),
        ),
        of("text", b"this is no picture".to_vec()),
    ];
    for orientation in [0, 3, 6, 8, 9] {
        all.push(of(&format!("jpeg-turned-{orientation}"), turned(&photo, orientation)));
    }
    let kinds = [
        ("rgb", DynamicImage::ImageRgb8(picture.to_rgb8())),
        ("rgba", picture.clone()),
        ("grey", DynamicImage::ImageLuma8(picture.to_luma8())),
        ("grey-alpha", DynamicImage::ImageLumaA8(picture.to_luma_alpha8())),
        ("rgb16", DynamicImage::ImageRgb16(picture.to_rgb16())),
        ("rgba16", DynamicImage::ImageRgba16(picture.to_rgba16())),
    ];
    for (name, kind) in &kinds {
        let png = file(kind, ImageFormat::Png);
        all.push(of(&format!("png-{name}-cut"), png[..png.len() / 2].to_vec()));
        all.push(of(&format!("png-{name}"), png));
    }
    for (name, kind) in &kinds[..2] {
        let webp = file(kind, ImageFormat::WebP);
        all.push(of(&format!("webp-{name}-cut"), webp[..webp.len() / 2].to_vec()));
        all.push(of(&format!("webp-{name}"), webp));
    }
    all
}
