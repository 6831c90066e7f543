//! Bad input to built-in steps and graphs: what is said of it, and that it takes no more memory than it may.
//!
//! Here and not beside the steps, because here memory is counted.
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};
use xebec_core::{
    Tensor,
    step::{Files, Made, Recipe, Step, Steps as _},
};
use xebec_engine::{fuzzing::ensemble, repository::config::parse};
use xebec_fuzz::memory::peak;
use xebec_steps::Library;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

struct Shelf(Vec<(&'static str, Vec<u8>)>);

impl Files for Shelf {
    fn map(&self, name: &str) -> Result<Bytes, String> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, file)| file.clone().into()).ok_or_else(|| format!("there is no '{name}'"))
    }
}

fn open(kind: &str, settings: &[(&str, &str)], files: Shelf) -> Arc<dyn Step> {
    let settings: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Library.open(Recipe { kind, settings: &settings, files: &files }).unwrap()
}

fn step(kind: &str, settings: &[(&str, &str)]) -> Arc<dyn Step> {
    open(kind, settings, Shelf(Vec::new()))
}

/// Runs a step on inputs of these shapes and bytes, within so much memory.
fn run(step: &Arc<dyn Step>, inputs: Vec<(Vec<i64>, Vec<u8>)>, most: usize) -> Result<Vec<Made>, String> {
    let tensors: Vec<Tensor> = step
        .inputs()
        .iter()
        .zip(inputs)
        .map(|(info, (shape, data))| {
            assert!(info.accepts(&shape), "{shape:?} is no {:?}", info.shape);
            Tensor { name: Arc::clone(&info.name), datatype: info.datatype, shape, data: data.into() }
        })
        .collect();
    let (outcome, took) = peak(|| step.run(&tensors));
    assert!(took <= most, "{took} bytes, and {most} are the most");
    outcome.map_err(|unfit| unfit.to_string())
}

fn file(bytes: &[u8]) -> Vec<(Vec<i64>, Vec<u8>)> {
    vec![(vec![1], [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat())]
}

fn floats(all: &[f32]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn wholes(all: &[i64]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A table of NumPy of so many rows of zeros.
fn zeros(rows: usize, width: usize) -> Vec<u8> {
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {width}), }}");
    while !(head.len() + 11).is_multiple_of(64) {
        head.push(' ');
    }
    head.push('\n');
    let length = u16::try_from(head.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, head.as_bytes(), &vec![0; rows * width * 4]].concat()
}

fn extent(count: usize) -> i64 {
    i64::try_from(count).unwrap()
}

/// Boxes with scores and classes, as `nms` takes them.
fn boxes(edges: &[f32], scores: &[f32]) -> Vec<(Vec<i64>, Vec<u8>)> {
    let count = extent(scores.len());
    vec![
        (vec![count, 4], floats(edges)),
        (vec![count], floats(scores)),
        (vec![count], wholes(&vec![0; scores.len()])),
    ]
}

fn seed(name: &str) -> Vec<u8> {
    let path = [env!("CARGO_MANIFEST_DIR"), "corpus/image", &format!("seed-{name}")]
        .iter()
        .collect::<std::path::PathBuf>();
    std::fs::read(path).unwrap()
}

fn reference(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/steps/tests/reference/steps.json"
    ));
    let all: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let case = all["files"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    let hex = case["file"].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_bomb_of_forty_thousand_pixels_a_side_is_refused_by_its_head() {
    let decode = step("image_decode", &[]);
    let bomb = seed("png-bomb");
    assert!(bomb.len() < KIB);
    let told = run(&decode, file(&bomb), 256 * KIB).unwrap_err();
    assert!(told.contains("40000 x 40000 pixels, and 50000000 are the most"), "{told}");
    // A canvas of two pixels, and a frame in it of 16383 x 16383.
    let frame = [0x10, 0, 0, 0x9d, 1, 0x2a, 0xff, 0x3f, 0xff, 0x3f, 0, 0];
    let webp = [b"RIFF\x2e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x01\0\0\0\0\0VP8 \x0c\0\0\0".as_slice(), &frame];
    let told = run(&decode, file(&webp.concat()), 256 * KIB).unwrap_err();
    assert!(told.contains("16383 x 16383 pixels"), "{told}");
    // Its head lies, and what follows is more than it says.
    let small = step("image_decode", &[("max_pixels", "1000"), ("max_bytes", "2000")]);
    let told = run(&small, file(&vec![0xff; 4000]), 64 * KIB).unwrap_err();
    assert!(told.contains("4000 bytes, and 2000 are the most"), "{told}");
}

#[test]
fn truncated_files_are_refused_and_odd_ones_read_within_the_memory_of_their_pixels() {
    let decode = step("image_decode", &[("max_pixels", "16384")]);
    for name in
        ["jpeg-cut", "jpeg-without-end", "png-rgb-cut", "png-rgb16-cut", "webp-rgb-cut", "webp-rgba-cut"]
    {
        let told = run(&decode, file(&seed(name)), 4 * MIB).unwrap_err();
        assert!(told.contains("no whole"), "{name}: {told}");
    }
    for name in
        ["jpeg-cmyk", "png-16-bit", "webp-animated", "png-animated", "png-palette", "jpeg-progressive"]
    {
        let made =
            run(&decode, file(&reference(name)), 4 * MIB).unwrap_or_else(|told| panic!("{name}: {told}"));
        assert_eq!(made[0].shape, [17, 24, 3], "{name}");
    }
}

#[test]
fn a_gif_by_another_name_is_refused_by_its_first_bytes() {
    let told = run(&step("image_decode", &[]), file(&seed("gif")), 64 * KIB).unwrap_err();
    assert_eq!(told, "the picture is GIF; send JPEG, PNG or WebP");
}

#[test]
fn a_crop_without_pixels_is_refused() {
    let crop = step("crop", &[]);
    for edges in
        [[3.0, 3.0, 3.0, 5.0], [5.0, 0.0, 3.0, 4.0], [9.0, 9.0, 20.0, 20.0], [-5.0, -5.0, -1.0, -1.0]]
    {
        let inputs = vec![(vec![8, 8, 3], vec![0; 192]), (vec![4], floats(&edges))];
        let told = run(&crop, inputs, 64 * KIB).unwrap_err();
        assert!(told.contains("has no pixels of a picture of 8 x 8"), "{told}");
    }
    let inputs = vec![(vec![8, 8, 3], vec![0; 192]), (vec![4], floats(&[f32::NAN, 0.0, 1.0, 1.0]))];
    assert!(run(&crop, inputs, 64 * KIB).unwrap_err().contains("holds no four numbers"));
    let huge = vec![(vec![8, 8, 3], vec![0; 192]), (vec![4], floats(&[0.0, 0.0, f32::MAX, f32::MAX]))];
    assert_eq!(run(&crop, huge, 64 * KIB).unwrap()[0].shape, [8, 8, 3]);
}

#[test]
fn boxes_that_are_no_numbers_are_refused_by_their_place() {
    for edges in [[f32::NAN, 0.0, 1.0, 1.0], [0.0, 0.0, f32::INFINITY, 1.0]] {
        let all = [[0.0, 0.0, 1.0, 1.0], edges].concat();
        let told = run(&step("nms", &[]), boxes(&all, &[0.5, 0.9]), 64 * KIB).unwrap_err();
        assert!(told.starts_with("box 1 is"), "{told}");
    }
    assert!(run(&step("nms", &[]), boxes(&[0.0; 4], &[f32::NAN]), 64 * KIB).is_err());
}

#[test]
fn a_hundred_thousand_boxes_take_memory_for_them_and_no_more() {
    const COUNT: usize = 100_000;
    // None hides another: the worst there is to look through.
    let edges: Vec<f32> =
        (0..COUNT).flat_map(|at| [at as f32 * 2.0, 0.0, at as f32 * 2.0 + 1.0, 1.0]).collect();
    let scores: Vec<f32> = (0..COUNT).map(|at| at as f32 / COUNT as f32).collect();
    let made = run(&step("nms", &[]), boxes(&edges, &scores), COUNT * 48).unwrap();
    assert_eq!(made[0].shape, [300, 4]);
    assert_eq!(made[1].data.first_chunk::<4>(), Some(&scores[COUNT - 1].to_le_bytes()));
}

#[test]
fn an_id_outside_of_the_table_is_refused_and_the_table_not_copied() {
    const ROWS: usize = 50_000;
    let table = zeros(ROWS, 4);
    let files = || Shelf(vec![("t.npy", table.clone())]);
    let lookup = open("lookup", &[("table", "t.npy")], files());
    for id in [-1, 50_000, i64::MAX, i64::MIN] {
        let told = run(&lookup, vec![(vec![1], wholes(&[id]))], 16 * KIB).unwrap_err();
        assert_eq!(told, format!("id {id} is not in the table, which has the ids 0 to 49999"));
    }
    let similar = open("most_similar", &[("table", "t.npy")], files());
    let inputs = vec![(vec![1], wholes(&[ROWS as i64])), (vec![1], wholes(&[0]))];
    assert!(run(&similar, inputs, 16 * KIB).unwrap_err().contains("50000"));
    // A million ids that are asked for at once take what their rows take.
    let many = vec![(vec![1_000_000], wholes(&vec![7; 1_000_000]))];
    assert_eq!(run(&lookup, many, 64 * MIB).unwrap()[0].shape, [1_000_000, 4]);
}

#[test]
fn an_empty_set_of_candidates_gives_an_empty_answer() {
    let none = |floats: bool| (vec![0], if floats { Vec::new() } else { wholes(&[]) });
    for (kind, settings, inputs) in [
        ("top_k", vec![("k", "3")], vec![none(false), none(true)]),
        ("merge", vec![("k", "3")], vec![none(false), none(true), none(false), none(true)]),
        ("rerank", vec![("k", "3")], vec![none(false), none(true), none(true)]),
        ("diversify", vec![("k", "3"), ("per_group", "1")], vec![none(false), none(true), none(false)]),
        ("difference", vec![], vec![none(false), none(false)]),
        ("labels", vec![], vec![none(false)]),
    ] {
        let made =
            run(&step(kind, &settings), inputs, 16 * KIB).unwrap_or_else(|told| panic!("{kind}: {told}"));
        assert!(made.iter().all(|made| made.shape == [0]), "{kind}");
    }
    assert_eq!(run(&step("nms", &[]), boxes(&[], &[]), 16 * KIB).unwrap()[0].shape, [0, 4]);
}

const WORDS: &[u8] =
    br###"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[UNK]":0,"a":1},"unk_token":"[UNK]"}}"###;

#[test]
fn texts_with_lone_surrogates_or_of_ten_megabytes_are_refused() {
    let words = || Shelf(vec![("tokenizer.json", WORDS.to_vec())]);
    let tokenise = open("tokenise", &[("file", "tokenizer.json")], words());
    // A surrogate as three bytes, as CESU-8 has it.
    let told = run(&tokenise, file(&[b'a', 0xed, 0xa0, 0x80]), 16 * KIB).unwrap_err();
    assert_eq!(told, "text 0 is no UTF-8 at byte 1");
    let long = "a ".repeat(5 << 20);
    let told = run(&tokenise, file(long.as_bytes()), 16 * KIB).unwrap_err();
    assert_eq!(told, "text 0 has 10485760 bytes, and 1048576 are the most (setting max_bytes)");
}

#[test]
fn graphs_that_cannot_be_are_refused_within_their_text() {
    let step = |model: &str, input: &str, output: &str| {
        format!(
            "step {{ model_name: \"{model}\" input_map {{ key: \"a\" value: \"{input}\" }} output_map {{ key: \"y\" value: \"{output}\" }} }}"
        )
    };
    let edge =
        |kind: &str, name: &str| format!("{kind} {{ name: \"{name}\" data_type: TYPE_FP32 dims: [ -1 ] }}");
    let cases = [
        (
            step("b", "m", "o") + &step("b", "o", "m"),
            String::new(),
            "the graph has a cycle: step 1 ('b') -> step 2 ('b')",
        ),
        // A model whose name ends in d takes whole numbers.
        (
            step("b", "x", "m") + &step("d", "m", "o"),
            String::new(),
            "tensor 'm' is FP32 by output 'y' of 'b' in step 1, but INT64",
        ),
        (
            step("b", "x", "o"),
            edge("input", "x") + &edge("output", "other"),
            "tensor 'other' is made by no step",
        ),
    ];
    for (steps, edges, want) in cases {
        let config = parse(&format!("{edges} ensemble_scheduling {{ {steps} }}")).unwrap();
        let (outcome, took) = peak(|| ensemble(&config));
        let told = outcome.unwrap_err();
        assert!(told.contains(want), "{told}\nwants: {want}");
        assert!(took < 64 * KIB, "{took}");
    }
}

#[test]
fn extents_without_elements_cost_nothing() {
    let pool = step("pool", &[]);
    let inputs = vec![(vec![4096, 0, 4096], Vec::new()), (vec![4096, 0], Vec::new())];
    assert!(run(&pool, inputs, 16 * KIB).unwrap_err().contains("without a number: 0 tokens of 4096"));
    let boxes = run(&step("yolo_decode", &[]), vec![(vec![1, 1 << 40, 0], Vec::new())], 16 * KIB).unwrap();
    assert_eq!(boxes[0].shape, [0, 4]);
}

#[test]
fn a_picture_that_is_long_and_thin_is_scaled_within_the_memory_of_its_pixels() {
    for (width, height) in [(1_000_000, 1), (1, 1_000_000)] {
        for kind in ["resize", "letterbox"] {
            let scale = step(kind, &[("width", "640"), ("height", "640")]);
            let pixels = vec![(vec![height, width, 3], vec![7; 3_000_000])];
            assert_eq!(run(&scale, pixels, 40 * MIB).unwrap()[0].shape, [640, 640, 3], "{kind}");
        }
    }
}

#[test]
fn what_a_request_makes_a_step_make_is_bounded() {
    let words = Shelf(vec![("tokenizer.json", WORDS.to_vec())]);
    let tokenise = open("tokenise", &[("file", "tokenizer.json"), ("max_length", "5000")], words);
    let element = |text: &str| [&u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
    let texts = |long: &str, count: usize| {
        vec![(vec![extent(count)], [element(long), element("").repeat(count - 1)].concat())]
    };
    let told = run(&tokenise, texts(&"a ".repeat(5000), 2000), 16 * MIB).unwrap_err();
    assert!(told.contains("2000 texts of 5000 tokens"), "{told}");
    let told = run(&tokenise, texts("a", 5000), 16 * MIB).unwrap_err();
    assert!(told.contains("more than 4096 texts"), "{told}");
    let ids = |count: usize, id: i64| (vec![extent(count)], wholes(&vec![id; count]));
    let labels = step("labels", &[("missing", &"x".repeat(1000))]);
    let told = run(&labels, vec![ids(300_000, -1)], 160 * MIB).unwrap_err();
    assert!(told.contains("the labels have more than"), "{told}");
    let table = zeros(2, 1000);
    let files = || Shelf(vec![("t.npy", table.clone())]);
    let told =
        run(&open("lookup", &[("table", "t.npy")], files()), vec![ids(20_000, 1)], 16 * KIB).unwrap_err();
    assert!(told.contains("the rows of 20000 ids have more than"), "{told}");
    let similar = open("most_similar", &[("table", "t.npy")], files());
    let told = run(&similar, vec![ids(1, 1), ids(20_000, 1)], 16 * KIB).unwrap_err();
    assert!(told.contains("1 ids beside 20000 others"), "{told}");
    let many = 200_001;
    let told = run(&step("nms", &[]), boxes(&vec![0.0; 4 * many], &vec![0.5; many]), 16 * KIB).unwrap_err();
    assert!(told.contains("200001 boxes, and 200000 are the most"), "{told}");
    let inputs =
        vec![(vec![4, 4, 3], vec![0; 48]), (vec![10_001, 4], floats(&vec![0.0; 40_004])), ids(10_001, 0)];
    assert!(run(&step("draw", &[]), inputs, 16 * KIB).unwrap_err().contains("10001 boxes"));
}
