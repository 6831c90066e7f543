use super::*;
use crate::{
    table::tests::npy,
    values::{made, made_bytes, made_texts},
};
use bytes::Bytes;
use image::{ExtendedColorType, ImageEncoder as _, Rgb, RgbImage};
use std::collections::BTreeMap;
use xebec_core::{
    Datatype, Tensor,
    model::TensorInfo,
    step::{Files, Made, Unfit},
};

fn open(kind: &str, settings: &[(&str, &str)]) -> Result<Arc<dyn Step>, String> {
    open_with(&[], kind, settings)
}

fn run(step: &dyn Step, inputs: Vec<Made>) -> Result<Vec<Tensor>, Unfit> {
    let named = |infos: &[TensorInfo], all: Vec<Made>| -> Vec<Tensor> {
        let tensor = |(info, made): (&TensorInfo, Made)| {
            assert!(info.accepts(&made.shape), "{} {:?} {:?}", info.name, info.shape, made.shape);
            Tensor {
                name: Arc::clone(&info.name),
                datatype: info.datatype,
                shape: made.shape,
                data: made.data,
            }
        };
        infos.iter().zip(all).map(tensor).collect()
    };
    let made = step.run(&named(step.inputs(), inputs))?;
    assert_eq!(made.len(), step.outputs().len());
    Ok(named(step.outputs(), made))
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    assert_eq!(tensor.datatype, Datatype::Fp32);
    crate::values::elements::<f32>(tensor).into_owned()
}

fn numbers(tensor: &Tensor) -> Vec<i64> {
    assert_eq!(tensor.datatype, Datatype::Int64);
    crate::values::elements::<i64>(tensor).into_owned()
}

fn told(step: &str, settings: &[(&str, &str)]) -> String {
    open(step, settings).err().unwrap_or_default()
}

/// A picture whose colours tell where a pixel was.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([u8::try_from(x * 255 / width).unwrap(), u8::try_from(y * 255 / height).unwrap(), 128])
    })
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::png::PngEncoder::new(&mut file)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 95)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .unwrap();
    file
}

#[test]
fn a_step_that_is_not_there_and_a_setting_that_it_has_not_are_named() {
    assert!(told("decode", &[]).contains("the steps are image_decode, letterbox"), "{}", told("decode", &[]));
    assert!(told("letterbox", &[("width", "640")]).contains("'height' is missing"));
    let unknown = told("nms", &[("iuo", "0.5")]);
    assert!(
        unknown
            .contains("step 'nms': setting 'iuo' is unknown: its settings are by_class, iou, score, top_k"),
        "{unknown}"
    );
    assert!(told("crop", &[("x", "1")]).contains("it has none"));
}

#[test]
fn pictures_of_every_format_become_pixels() {
    let decode = open("image_decode", &[]).unwrap();
    let source = picture(40, 24);
    let pixels = |file: &[u8]| run(&*decode, vec![made_bytes(file)]).unwrap().remove(0);
    let lossless = pixels(&png(&source));
    assert_eq!((lossless.shape.as_slice(), &lossless.data[..]), (&[24, 40, 3][..], &source.as_raw()[..]));
    let lossy = pixels(&jpeg(&source));
    let worst = lossy.data.iter().zip(source.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(lossy.shape == [24, 40, 3] && worst < 12, "{worst}");
}

#[test]
fn pictures_that_are_none_are_refused_with_the_reason() {
    let decode = open("image_decode", &[("max_pixels", "1000"), ("max_bytes", "20000")]).unwrap();
    let refused = |file: &[u8]| run(&*decode, vec![made_bytes(file)]).unwrap_err().0;
    let whole = jpeg(&picture(20, 20));
    let large = png(&picture(100, 100));
    let cases: [(Vec<u8>, &str); 8] = [
        (Vec::new(), "is empty"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00;".to_vec(), "is GIF; send JPEG, PNG or WebP"),
        (b"hello".to_vec(), "of no known format"),
        (whole[..whole.len() / 2].to_vec(), "no whole JPEG"),
        (large.clone(), "100 x 100 pixels, and 1000 are the most"),
        (png(&picture(20, 20))[..60].to_vec(), "no whole PNG"),
        (vec![0xff; 30_000], "30000 bytes, and 20000 are the most"),
        (vec![0xff, 0xd8, 0xff, 0xe0], "no whole JPEG"),
    ];
    for (file, want) in cases {
        let told = refused(&file);
        assert!(told.contains(want), "{told}\nwants: {want}");
    }
}

#[test]
fn a_bomb_is_refused_by_its_head() {
    // A PNG of 40,000 x 40,000 that says so in its head and has nothing else.
    let mut bomb = png(&picture(8, 8));
    bomb[16..20].copy_from_slice(&40_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&40_000_u32.to_be_bytes());
    let sum = crc(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    let decode = open("image_decode", &[]).unwrap();
    let told = run(&*decode, vec![made_bytes(&bomb)]).unwrap_err().0;
    assert!(told.contains("40000 x 40000") || told.contains("more memory"), "{told}");
}

fn crc(data: &[u8]) -> u32 {
    !data.iter().fold(!0_u32, |mut sum, byte| {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
        }
        sum
    })
}

#[test]
fn a_picture_in_a_box_goes_back_to_where_it_was() {
    let letterbox = open("letterbox", &[("width", "64"), ("height", "64")]).unwrap();
    let source = picture(32, 16);
    let pixels = || made(&[16, 32, 3], source.as_raw().clone());
    let boxed = run(&*letterbox, vec![pixels()]).unwrap();
    assert_eq!(boxed[0].shape, [64, 64, 3]);
    assert_eq!(floats(&boxed[1]), [2.0, 2.0, 0.0, 16.0]);
    assert!(boxed[0].data[..64 * 3 * 16].iter().all(|byte| *byte == 114));
    assert!(boxed[0].data[64 * 3 * 16..64 * 3 * 48].iter().any(|byte| *byte != 114));
    let back = open("scale_boxes", &[]).unwrap();
    let transform = Made { shape: boxed[1].shape.clone(), data: boxed[1].data.clone() };
    let edges = vec![10.0_f32, 20.0, 30.0, 40.0, -5.0, 0.0, 500.0, 500.0];
    let there = run(&*back, vec![made(&[2, 4], edges), transform, pixels()]).unwrap();
    assert_eq!(floats(&there[0]), [5.0, 2.0, 15.0, 12.0, 0.0, 0.0, 32.0, 16.0]);
}

#[test]
fn pixels_become_the_numbers_that_a_model_takes() {
    let planes = open("normalise", &[("mean", "0.5,0,0"), ("std", "0.5,1,1")]).unwrap();
    let two = || made(&[1, 2, 3], vec![255_u8, 0, 51, 0, 255, 102]);
    let made_planes = run(&*planes, vec![two()]).unwrap().remove(0);
    assert_eq!(made_planes.shape, [1, 3, 1, 2]);
    assert_eq!(floats(&made_planes), [1.0, -1.0, 0.0, 1.0, 0.2, 0.4]);
    let pixels = open("normalise", &[("layout", "nhwc"), ("colours", "bgr"), ("scale", "1")]).unwrap();
    let made_pixels = run(&*pixels, vec![two()]).unwrap().remove(0);
    assert_eq!(
        (made_pixels.shape.as_slice(), floats(&made_pixels)),
        (&[1, 1, 2, 3][..], vec![51.0, 0.0, 255.0, 102.0, 255.0, 0.0])
    );
}

#[test]
fn a_part_is_cut_out_and_one_without_pixels_is_refused() {
    let crop = open("crop", &[]).unwrap();
    let cut = |edges: [f32; 4]| {
        run(&*crop, vec![made(&[2, 3, 3], (0..18).collect::<Vec<u8>>()), made(&[4], edges.to_vec())])
    };
    let part = cut([1.0, 0.0, 99.0, 1.0]).unwrap().remove(0);
    assert_eq!((part.shape.as_slice(), &part.data[..]), (&[1, 2, 3][..], &[3_u8, 4, 5, 6, 7, 8][..]));
    for wrong in
        [[1.0, 1.0, 1.0, 2.0], [2.0, 0.0, 1.0, 1.0], [f32::NAN, 0.0, 1.0, 1.0], [-9.0, -9.0, -1.0, -1.0]]
    {
        assert!(cut(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn of_boxes_that_overlap_the_best_of_each_class_stays() {
    let boxes = [
        [0.0_f32, 0.0, 10.0, 10.0],
        [1.0, 0.0, 11.0, 10.0],
        [1.0, 0.0, 11.0, 10.0],
        [50.0, 50.0, 60.0, 60.0],
    ];
    let inputs = || {
        vec![
            made(&[4, 4], boxes.concat()),
            made(&[4], vec![0.8_f32, 0.9, 0.7, 0.1]),
            made(&[4], vec![0_i64, 0, 1, 0]),
        ]
    };
    let kept = |settings: &[(&str, &str)]| {
        let out = run(&*open("nms", settings).unwrap(), inputs()).unwrap();
        (floats(&out[1]), numbers(&out[2]))
    };
    assert_eq!(kept(&[]), (vec![0.9, 0.7, 0.1], vec![0, 1, 0]));
    assert_eq!(kept(&[("by_class", "false")]), (vec![0.9, 0.1], vec![0, 0]));
    assert_eq!(kept(&[("iou", "0.9")]).0, [0.9, 0.8, 0.7, 0.1]);
    assert_eq!(kept(&[("score", "0.5"), ("top_k", "1")]).0, [0.9]);
    let wrong = vec![made(&[1, 4], vec![f32::NAN; 4]), made(&[1], vec![0.5_f32]), made(&[1], vec![0_i64])];
    assert!(run(&*open("nms", &[]).unwrap(), wrong).unwrap_err().0.contains("box 0 is"));
}

#[test]
fn a_hundred_thousand_boxes_are_done_with_soon() {
    let count = 100_000_usize;
    let place = |at: usize| {
        let (x, y) = ((at % 317) as f32, (at / 317) as f32);
        [x, y, x + 9.0, y + 9.0]
    };
    let boxes: Vec<f32> = (0..count).flat_map(place).collect();
    let scores: Vec<f32> = (0..count).map(|at| ((at * 7919) % 100_003) as f32 / 100_003.0).collect();
    let inputs = vec![made(&[count, 4], boxes), made(&[count], scores), made(&[count], vec![0_i64; count])];
    let out = run(&*open("nms", &[]).unwrap(), inputs).unwrap();
    assert_eq!(out[1].shape, [300]);
}

#[test]
fn what_detectors_say_becomes_boxes() {
    // One place of two classes, in each layout.
    let decoded = |layout: &str, shape: [usize; 3], values: &[f32]| {
        let out =
            run(&*open("yolo_decode", &[("layout", layout)]).unwrap(), vec![made(&shape, values.to_vec())])
                .unwrap();
        (floats(&out[0]), floats(&out[1]), numbers(&out[2]))
    };
    let want = (vec![8.0, 16.0, 12.0, 24.0], vec![0.5], vec![1]);
    assert_eq!(
        decoded("v5", [1, 2, 7], &[10.0, 20.0, 4.0, 8.0, 1.0, 0.25, 0.5, 1.0, 1.0, 1.0, 1.0, 0.1, 0.9, 0.9]),
        want
    );
    let columns = [10.0, 1.0, 20.0, 1.0, 4.0, 1.0, 8.0, 1.0, 0.25, 0.2, 0.5, 0.1];
    assert_eq!(decoded("v8", [1, 6, 2], &columns), want);
    assert_eq!(decoded("v10", [1, 1, 6], &[8.0, 16.0, 12.0, 24.0, 0.5, 1.0]), want);
    assert_eq!(decoded("v8", [1, 6, 0], &[]), (vec![], vec![], vec![]));
    let few = run(&*open("yolo_decode", &[]).unwrap(), vec![made(&[1, 4, 1], vec![0.0_f32; 4])]).unwrap_err();
    assert!(few.0.contains("see setting 'layout'"), "{few}");
    let nan = run(
        &*open("yolo_decode", &[]).unwrap(),
        vec![made(&[1, 5, 1], vec![0.0_f32, 0.0, 1.0, 1.0, f32::NAN])],
    );
    assert!(nan.is_err());
}

#[test]
fn drawn_boxes_are_seen_in_the_file() {
    let draw = open("draw", &[("format", "png"), ("thickness", "1")]).unwrap();
    let inputs = vec![
        made(&[8, 8, 3], vec![0_u8; 8 * 8 * 3]),
        made(&[2, 4], vec![2.0_f32, 2.0, 6.0, 6.0, f32::NAN, -9.0, 1e9, 1.0]),
        made(&[2], vec![0_i64, -1]),
    ];
    let file = run(&*draw, inputs).unwrap().remove(0);
    let pixels = run(&*open("image_decode", &[]).unwrap(), vec![Made { shape: vec![1], data: file.data }])
        .unwrap()
        .remove(0);
    let at = |x: usize, y: usize| pixels.data[(y * 8 + x) * 3..][..3].to_vec();
    assert_eq!(
        (at(2, 2), at(5, 5), at(3, 3), at(7, 7)),
        (vec![230, 159, 0], vec![230, 159, 0], vec![0; 3], vec![0; 3])
    );
    assert_eq!(at(4, 0), [255, 255, 255]);
}

#[test]
fn lists_are_ranked() {
    let softmax = open("softmax", &[]).unwrap();
    let out = run(&*softmax, vec![made(&[2, 2], vec![0.0_f32, 0.0, 1000.0, 0.0])]).unwrap().remove(0);
    assert_eq!(floats(&out), [0.5, 0.5, 1.0, 0.0]);
    let left_out = made(&[1, 3], vec![f32::NEG_INFINITY, 7.0, 7.0]);
    assert_eq!(floats(&run(&*softmax, vec![left_out]).unwrap()[0]), [0.0, 0.5, 0.5]);
    for wrong in [[f32::INFINITY, 0.0], [0.0, f32::NAN], [f32::NEG_INFINITY; 2]] {
        let rows = [vec![0.0, 0.0], wrong.to_vec()].concat();
        let told = run(&*softmax, vec![made(&[2, 2], rows)]).unwrap_err().to_string();
        assert!(told.starts_with("row 1 of 'logits' has no probabilities"), "{told}");
    }
    let top = open("top_k", &[("k", "2")]).unwrap();
    let ranked = |ids: Vec<i64>, scores: Vec<f32>| {
        let out = run(&*top, vec![made(&[ids.len()], ids), made(&[scores.len()], scores)])?;
        Ok::<_, Unfit>((numbers(&out[0]), floats(&out[1])))
    };
    assert_eq!(ranked(vec![5, 6, 7, 8], vec![0.1, 0.9, 0.9, 0.2]), Ok((vec![6, 7], vec![0.9, 0.9])));
    assert_eq!(ranked(vec![], vec![]), Ok((vec![], vec![])));
    assert!(ranked(vec![1], vec![f32::NAN]).is_err() && ranked(vec![1], vec![]).is_err());
    let difference = open("difference", &[]).unwrap();
    let out =
        run(&*difference, vec![made(&[4], vec![3_i64, 1, 3, 2]), made(&[1], vec![1_i64])]).unwrap().remove(0);
    assert_eq!(numbers(&out), [3, 2]);
}

/// Files in memory.
#[derive(Default)]
struct Shelf(BTreeMap<&'static str, Vec<u8>>);

impl Files for Shelf {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        self.0.get(name).map(|file| file.clone().into()).ok_or_else(|| format!("there is no {name}"))
    }
}

fn open_with(
    files: &[(&'static str, Vec<u8>)],
    kind: &str,
    settings: &[(&str, &str)],
) -> Result<Arc<dyn Step>, String> {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let files = Shelf(files.iter().cloned().collect());
    Library.open(Recipe { kind, settings: &settings, files: &files })
}

fn bytes_of<T: bytemuck::NoUninit>(numbers: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(numbers).to_vec()
}

fn ids(all: &[i64]) -> Made {
    made(&[all.len()], all.to_vec())
}

fn scores(all: &[f32]) -> Made {
    made(&[all.len()], all.to_vec())
}

fn texts(tensor: &Tensor) -> Vec<String> {
    xebec_core::tensor::bytes_elements(&tensor.data)
        .map(|text| String::from_utf8(text.unwrap().to_vec()).unwrap())
        .collect()
}

#[test]
fn rows_are_looked_up_by_number_or_by_key_and_what_is_missing_is_told() {
    let table = npy("<f4", &[3, 2], &bytes_of(&[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0]));
    let keys = npy("<i8", &[3], &bytes_of(&[10_i64, 20, 30]));
    let files = [("t.npy", table), ("k.npy", keys)];
    let step = open_with(&files, "lookup", &[("table", "t.npy")]).unwrap();
    let made = run(&*step, vec![ids(&[2, 0])]).unwrap();
    assert_eq!((floats(&made[0]), made[1].data.as_ref()), (vec![4.0, 5.0, 0.0, 1.0], &[1, 1][..]));
    assert_eq!(made[0].shape, [2, 2]);
    for wrong in [3, -1, i64::MAX, i64::MIN] {
        let told = run(&*step, vec![ids(&[0, wrong])]).unwrap_err().to_string();
        assert_eq!(told, format!("id {wrong} is not in the table, which has the ids 0 to 2"));
    }
    let step =
        open_with(&files, "lookup", &[("table", "t.npy"), ("keys", "k.npy"), ("missing", "zero")]).unwrap();
    let made = run(&*step, vec![ids(&[30, 7])]).unwrap();
    assert_eq!((floats(&made[0]), made[1].data.as_ref()), (vec![4.0, 5.0, 0.0, 0.0], &[1, 0][..]));
    assert_eq!(run(&*step, vec![ids(&[])]).unwrap()[0].shape, [0, 2]);
}

#[test]
fn rows_of_different_lengths_are_looked_up_one_at_a_time() {
    let files = [
        ("t.npy", npy("<i8", &[4], &bytes_of(&[7_i64, 8, 9, 6]))),
        ("o.npy", npy("<i8", &[4], &bytes_of(&[0_i64, 1, 1, 4]))),
    ];
    let settings = [("table", "t.npy"), ("offsets", "o.npy"), ("missing", "zero")];
    let step = open_with(&files, "lookup", &settings).unwrap();
    for (id, want, found) in [(0, &[7][..], 1), (1, &[], 1), (2, &[8, 9, 6], 1), (3, &[], 0)] {
        let made = run(&*step, vec![ids(&[id])]).unwrap();
        assert_eq!((numbers(&made[0]), made[1].data[0]), (want.to_vec(), found), "{id}");
    }
}

#[test]
fn tables_that_do_not_fit_are_refused_when_they_are_opened() {
    let files = [
        ("t.npy", npy("<f4", &[2, 2], &[0; 16])),
        ("down.npy", npy("<i8", &[2], &bytes_of(&[2_i64, 1]))),
        ("three.npy", npy("<i8", &[3], &bytes_of(&[0_i64, 1, 2]))),
        ("list.npy", npy("<i8", &[3], &bytes_of(&[0_i64, 1, 2]))),
        ("over.npy", npy("<i8", &[2], &bytes_of(&[0_i64, 9]))),
    ];
    for (settings, word) in [
        (vec![], "'table' is missing"),
        (vec![("table", "none")], "there is no none"),
        (vec![("table", "t.npy"), ("keys", "down.npy")], "must ascend, and 2 at 0 is followed by 1"),
        (vec![("table", "t.npy"), ("keys", "three.npy")], "there are 3 for 2 rows"),
        (vec![("table", "t.npy"), ("keys", "t.npy")], "is to be INT64 with 1 axes"),
        (vec![("table", "t.npy"), ("offsets", "three.npy")], "a table of one axis"),
        (vec![("table", "list.npy"), ("offsets", "over.npy")], "rise from 0 to 3"),
    ] {
        let told = open_with(&files, "lookup", &settings).err().unwrap_or_default();
        assert!(told.contains(word), "{word}: {told}");
    }
}

#[test]
fn labels_are_lines_of_a_file_or_the_ids_themselves() {
    let files = [("names.txt", b"apple\r\npear\n\xc3\xbcber".to_vec())];
    let settings = [("file", "names.txt"), ("template", "like {}!"), ("missing", "popular")];
    let step = open_with(&files, "labels", &settings).unwrap();
    let made = run(&*step, vec![ids(&[2, -1, 0, 1])]).unwrap();
    assert_eq!(texts(&made[0]), ["like über!", "popular", "like apple!", "like pear!"]);
    let told = run(&*step, vec![ids(&[3])]).unwrap_err().to_string();
    assert!(told.contains("has 3 lines"), "{told}");
    let step = open_with(&files, "labels", &[("template", "item {}")]).unwrap();
    assert_eq!(texts(&run(&*step, vec![ids(&[42])]).unwrap()[0]), ["item 42"]);
    assert!(told_of(&files, "labels", &[("template", "none")]).contains("{}"));
}

fn told_of(files: &[(&'static str, Vec<u8>)], kind: &str, settings: &[(&str, &str)]) -> String {
    open_with(files, kind, settings).err().unwrap_or_default()
}

/// Numbers that look like none.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 2001) as f32 / 1000.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn the_nearest_are_those_of_a_plain_scan() {
    // More than a block, and a width that is no multiple of a register's.
    let (items, width) = (1500, 37);
    let mut vectors = noise(items * width, 1);
    vectors[5 * width] = f32::NAN;
    let files = [("v.npy", npy("<f4", &[items, width], &bytes_of(&vectors)))];
    let step = open_with(&files, "nearest", &[("table", "v.npy"), ("k", "20")]).unwrap();
    for seed in 2..12 {
        let query = noise(width, seed);
        let plain = |item: usize| -> f64 {
            let row = &vectors[item * width..(item + 1) * width];
            row.iter().zip(&query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let mut all: Vec<usize> = (0..items).filter(|item| !plain(*item).is_nan()).collect();
        all.sort_by(|a, b| plain(*b).total_cmp(&plain(*a)));
        let made = run(&*step, vec![made(&[1, width], query.clone())]).unwrap();
        let found: Vec<usize> = numbers(&made[0]).iter().map(|id| usize::try_from(*id).unwrap()).collect();
        // Scores that differ by less than rounding may stand in any order.
        for (at, (found, want)) in found.iter().zip(&all).enumerate() {
            assert!((plain(*found) - plain(*want)).abs() < 1e-4, "{at}: {found} and {want}");
        }
        assert_eq!(found.len(), 20);
        for (id, score) in found.iter().zip(floats(&made[1])) {
            assert!((plain(*id) - f64::from(score)).abs() < 1e-4);
        }
    }
    assert!(run(&*step, vec![made(&[1, width], vec![f32::NAN; width])]).is_err());
}

#[test]
fn of_few_items_all_are_near() {
    let files = [("v.npy", npy("<f4", &[2, 1], &bytes_of(&[1.0_f32, 2.0])))];
    let step = open_with(&files, "nearest", &[("table", "v.npy"), ("k", "5")]).unwrap();
    let made = run(&*step, vec![made(&[1, 1], vec![-1.0_f32])]).unwrap();
    assert_eq!((numbers(&made[0]), floats(&made[1])), (vec![0, 1], vec![-1.0, -2.0]));
}

#[test]
fn the_most_similar_is_named_for_each_and_none_where_there_is_none() {
    let files = [("v.npy", npy("<f4", &[3, 2], &bytes_of(&[1.0_f32, 0.0, 0.0, 1.0, 0.6, 0.8])))];
    let step = open_with(&files, "most_similar", &[("table", "v.npy")]).unwrap();
    let made = run(&*step, vec![ids(&[0, 1]), ids(&[2, 1])]).unwrap();
    assert_eq!((numbers(&made[0]), floats(&made[1])), (vec![2, 1], vec![0.6, 1.0]));
    let made = run(&*step, vec![ids(&[0, 1]), ids(&[])]).unwrap();
    assert_eq!((numbers(&made[0]), floats(&made[1])), (vec![-1, -1], vec![0.0, 0.0]));
    assert!(run(&*step, vec![ids(&[3]), ids(&[1])]).unwrap_err().to_string().contains("has 3 rows"));
    assert!(run(&*step, vec![ids(&[1]), ids(&[-1])]).is_err());
}

#[test]
fn two_lists_become_one_with_each_id_once() {
    let step = open("merge", &[("k", "3")]).unwrap();
    let lists = vec![ids(&[1, 2, 3]), scores(&[0.1, 0.9, 0.5]), ids(&[3, 4]), scores(&[0.7, 0.2])];
    let made = run(&*step, lists).unwrap();
    assert_eq!((numbers(&made[0]), floats(&made[1])), (vec![2, 3, 4], vec![0.9, 0.7, 0.2]));
    let empty = || vec![ids(&[]), scores(&[]), ids(&[]), scores(&[])];
    assert_eq!(run(&*step, empty()).unwrap()[0].shape, [0]);
    let told = run(&*step, vec![ids(&[1]), scores(&[]), ids(&[]), scores(&[])]).unwrap_err().to_string();
    assert!(told.contains("1 ids and 0 of 'scores_a'"), "{told}");
}

#[test]
fn two_scores_make_an_order_by_their_weights() {
    let step = open("rerank", &[("k", "2"), ("weight", "2"), ("prior_weight", "-1")]).unwrap();
    let made =
        run(&*step, vec![ids(&[1, 2, 3]), scores(&[1.0, 2.0, 3.0]), scores(&[0.0, 0.0, 5.0])]).unwrap();
    assert_eq!((numbers(&made[0]), floats(&made[1])), (vec![2, 1], vec![4.0, 2.0]));
    assert!(run(&*step, vec![ids(&[1]), scores(&[1.0]), scores(&[f32::NAN])]).is_err());
}

#[test]
fn few_of_each_group_come_first_and_the_rest_fills_up() {
    let step = open("diversify", &[("k", "4"), ("per_group", "1")]).unwrap();
    let lists = |groups: &[i64]| vec![ids(&[1, 2, 3, 4, 5]), scores(&[0.9, 0.8, 0.7, 0.6, 0.5]), ids(groups)];
    let made = run(&*step, lists(&[7, 7, 7, 8, 9])).unwrap();
    assert_eq!(numbers(&made[0]), [1, 4, 5, 2]);
    assert_eq!(numbers(&run(&*step, lists(&[7, 7, 7, 7, 7])).unwrap()[0]), [1, 2, 3, 4]);
    assert!(run(&*step, lists(&[7])).is_err());
}

/// Words by themselves, as the file of a tokenizer.
const WORDS: &[u8] = br###"{"version":"1.0","truncation":null,"padding":{"strategy":"BatchLongest","direction":"Right",
"pad_to_multiple_of":null,"pad_id":3,"pad_type_id":0,"pad_token":"[PAD]"},"added_tokens":[],"normalizer":{"type":"Lowercase"},
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[UNK]":0,"hello":1,"world":2,"[PAD]":3},"unk_token":"[UNK]"}}"###;

#[test]
fn texts_become_tokens_as_long_as_the_longest() {
    let files = [("tokenizer.json", WORDS.to_vec())];
    let settings = [("file", "tokenizer.json"), ("max_length", "3"), ("max_bytes", "50")];
    let step = open_with(&files, "tokenise", &settings).unwrap();
    let made =
        run(&*step, vec![made_texts([b"Hello".as_slice(), b"hello big world hello"].into_iter())]).unwrap();
    assert_eq!(made[0].shape, [2, 3]);
    assert_eq!(numbers(&made[0]), [1, 3, 3, 1, 0, 2]);
    assert_eq!(numbers(&made[1]), [1, 0, 0, 1, 1, 1]);
    assert_eq!(numbers(&made[2]), [0; 6]);
    assert_eq!(run(&*step, vec![made_texts([b"".as_slice()].into_iter())]).unwrap()[0].shape, [1, 0]);
    let long = vec![b'a'; 51];
    for (text, word) in
        [(&[0xed_u8, 0xa0, 0x80][..], "is no UTF-8 at byte 0"), (&long, "51 bytes, and 50 are the most")]
    {
        let told =
            run(&*step, vec![made_texts([b"a".as_slice(), text].into_iter())]).unwrap_err().to_string();
        assert!(told.contains(word) && told.contains("text 1"), "{told}");
    }
    assert!(
        told_of(&[("tokenizer.json", b"{}".to_vec())], "tokenise", &settings).contains("no tokenizer.json")
    );
    assert!(told_of(&files, "tokenise", &[]).contains("'file' is missing"));
}

#[test]
fn vectors_of_tokens_become_one() {
    let hidden = || made(&[2, 2, 2], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0, 100.0]);
    let mask = || made(&[2, 2], vec![1_i64, 1, 1, 0]);
    for (mode, want) in [
        ("mean", [2.0, 3.0, 5.0, 6.0]),
        ("max", [3.0, 4.0, 5.0, 6.0]),
        ("cls", [1.0, 2.0, 5.0, 6.0]),
        ("last", [3.0, 4.0, 5.0, 6.0]),
    ] {
        let step = open("pool", &[("mode", mode), ("normalise", "false")]).unwrap();
        assert_eq!(floats(&run(&*step, vec![hidden(), mask()]).unwrap()[0]), want, "{mode}");
    }
    let step = open("pool", &[]).unwrap();
    let long = floats(
        &run(&*step, vec![made(&[1, 1, 2], vec![3.0_f32, 4.0]), made(&[1, 1], vec![1_i64])]).unwrap()[0],
    );
    assert_eq!(long, [0.6, 0.8]);
    let nothing =
        run(&*step, vec![made(&[1, 1, 2], vec![3.0_f32, 4.0]), made(&[1, 1], vec![0_i64])]).unwrap();
    assert_eq!(floats(&nothing[0]), [0.0, 0.0], "a text without tokens is no division by zero");
    assert!(run(&*step, vec![hidden(), made(&[1, 2], vec![1_i64, 1])]).is_err());
}
