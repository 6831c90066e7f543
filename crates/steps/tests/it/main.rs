//! Steps beside the libraries that people use for the same: see `tools/python/make_step_references.py`.
#![expect(clippy::unwrap_used, reason = "tests")]
use bytes::Bytes;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};
use xebec_core::{
    Datatype, Tensor,
    step::{Files, Recipe, Step, Steps as _},
};
use xebec_steps::Library;

struct NoFiles;

impl Files for NoFiles {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        Err(format!("there is no '{name}'"))
    }
}

fn open(kind: &str, settings: &[(&str, String)]) -> Arc<dyn Step> {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Library.open(Recipe { kind, settings: &settings, files: &NoFiles }).unwrap()
}

fn references() -> Value {
    serde_json::from_str(include_str!("../reference/steps.json")).unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn pair(value: &Value) -> [i64; 2] {
    [value[0].as_i64().unwrap(), value[1].as_i64().unwrap()]
}

fn tensor(name: &str, datatype: Datatype, shape: Vec<i64>, data: Vec<u8>) -> Tensor {
    Tensor { name: name.into(), datatype, shape, data: data.into() }
}

/// The largest difference of two pictures, in levels.
fn apart(got: &[u8], want: &[u8]) -> u8 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

fn resized(case: &Value) -> Vec<u8> {
    let ([width, height], [wide, high]) = (pair(&case["from"]), pair(&case["to"]));
    let filter = case["filter"].as_str().unwrap().to_owned();
    let step =
        open("resize", &[("width", wide.to_string()), ("height", high.to_string()), ("filter", filter)]);
    let pixels = tensor("pixels", Datatype::Uint8, vec![height, width, 3], hex(&case["pixels"]));
    let made = step.run(&[pixels]).unwrap().remove(0);
    assert_eq!(made.shape, [high, wide, 3]);
    made.data.to_vec()
}

#[test]
fn a_picture_is_scaled_as_pillow_scales_it() {
    let all = references();
    let cases = all["resize"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let (filter, from, to) = (&case["filter"], &case["from"], &case["to"]);
        let worst = apart(&resized(case), &hex(&case["out"]));
        // These overshoot at edges, which is cut off between the two passes, and Pillow's passes come the other way round.
        let most = if *filter == "bicubic" || *filter == "lanczos" { 4 } else { 1 };
        assert!(worst <= most, "{filter} from {from} to {to}: {worst}");
    }
}

#[test]
fn a_picture_is_scaled_as_opencv_scales_it_within_a_level() {
    let all = references();
    let cases = all["opencv"].as_array().unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let (filter, from, to) = (&case["filter"], &case["from"], &case["to"]);
        let worst = apart(&resized(case), &hex(&case["out"]));
        assert!(worst <= 1, "{filter} from {from} to {to}: {worst}");
    }
}

#[test]
fn files_of_every_kind_have_the_pixels_that_pillow_reads() {
    let decode = open("image_decode", &[]);
    let all = references();
    let cases = all["files"].as_array().unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let (name, file) = (case["name"].as_str().unwrap(), hex(&case["file"]));
        let data = [&u32::try_from(file.len()).unwrap().to_le_bytes(), &file[..]].concat();
        let made = decode.run(&[tensor("image", Datatype::Bytes, vec![1], data)]);
        let made = made.unwrap_or_else(|error| panic!("{name}: {error}")).remove(0);
        let [width, height] = pair(&case["size"]);
        assert_eq!(made.shape, [height, width, 3], "{name}");
        let worst = apart(&made.data, &hex(&case["pixels"]));
        // Formats that lose something leave the last bit to who reads them; chroma that was halved, how it is made whole.
        let most = match name {
            "jpeg-420" | "jpeg-progressive" | "webp" => 12,
            "jpeg-cmyk" => 4,
            // Of 16 bits ours rounds, and what is wanted is cut.
            "png-16-bit" => 1,
            _ if name.starts_with("jpeg") => 3,
            _ => 0,
        };
        assert!(worst <= most, "{name}: {worst}");
    }
}

#[test]
fn boxes_are_suppressed_as_torchvision_suppresses_them() {
    let all = references();
    let cases = all["nms"].as_array().unwrap();
    assert!(cases.len() >= 6);
    let floats = |value: &Value| -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let bytes = |all: &[f32]| -> Vec<u8> { all.iter().flat_map(|number| number.to_le_bytes()).collect() };
    for case in cases {
        let (boxes, scores) = (floats(&case["boxes"]), floats(&case["scores"]));
        let classes: Vec<i64> =
            case["classes"].as_array().unwrap().iter().map(|class| class.as_i64().unwrap()).collect();
        let count = i64::try_from(scores.len()).unwrap();
        for (by_class, kept) in [("true", "by_class"), ("false", "together")] {
            let settings = [
                ("iou", case["iou"].to_string()),
                ("by_class", by_class.to_owned()),
                ("top_k", "1000".to_owned()),
            ];
            let made = open("nms", &settings)
                .run(&[
                    tensor("boxes", Datatype::Fp32, vec![count, 4], bytes(&boxes)),
                    tensor("scores", Datatype::Fp32, vec![count], bytes(&scores)),
                    tensor(
                        "classes",
                        Datatype::Int64,
                        vec![count],
                        classes.iter().flat_map(|class| class.to_le_bytes()).collect(),
                    ),
                ])
                .unwrap();
            // Every score is there once, so that it names its box.
            let want: Vec<f32> = case[kept]
                .as_array()
                .unwrap()
                .iter()
                .map(|at| scores[usize::try_from(at.as_u64().unwrap()).unwrap()])
                .collect();
            assert_eq!(made[1].data.as_ref(), bytes(&want), "{kept} at {} of {count}", case["iou"]);
        }
    }
}
