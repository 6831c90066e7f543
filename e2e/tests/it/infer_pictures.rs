//! `xebec infer` with pictures and texts: tables for people, files for programs.
use crate::infer_tables::{command, run};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};
use xebec_e2e::server::{Server, clients_python};

/// Models that say the same to every picture and text: two boxes; scores of three labels, of which text length changes none.
const MODELS: &str = r#"
import sys
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))

def model(path, inputs, outputs, nodes):
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)

folder = sys.argv[1]
pixels = helper.make_tensor_value_info("tensor", TensorProto.FLOAT, [1, 3, "h", "w"])
real = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
whole = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.INT64, shape)
zero = [constant("none", np.zeros((), np.float32)), helper.make_node("ReduceMax", ["tensor"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "none"], ["zero"])]
boxes = np.array([[1, 2, 6, 7], [3.25, 1, 9, 5]], np.float32)
model(folder + "/boxer/1/model.onnx", [pixels], [real("boxes", [2, 4]), real("scores", [2]), whole("classes", [2])], zero + [
    constant("b", boxes), helper.make_node("Add", ["b", "zero"], ["boxes"]),
    constant("s", np.array([0.875, 0.5], np.float32)), helper.make_node("Add", ["s", "zero"], ["scores"]),
    constant("c", np.array([1, 0], np.int64)), helper.make_node("Cast", ["zero"], ["none_whole"], to=TensorProto.INT64),
    helper.make_node("Add", ["c", "none_whole"], ["classes"])])
model(folder + "/tagger/1/model.onnx", [pixels], [real("p", [1, 3])], zero + [
    constant("s", np.array([[0.125, 0.625, 0.25]], np.float32)), helper.make_node("Add", ["s", "zero"], ["p"])])
text = helper.make_tensor_value_info("text", TensorProto.STRING, ["n"])
model(folder + "/feeling/1/model.onnx", [text], [real("p", ["n", 3])], [
    helper.make_node("Shape", ["text"], ["count"]), constant("three", np.array([3], np.int64)),
    helper.make_node("Concat", ["count", "three"], ["extents"], axis=0),
    constant("s", np.array([[0.0625, 0.1875, 0.75]], np.float32)), helper.make_node("Expand", ["s", "extents"], ["p"])])
"#;

fn write(repository: &Path, model: &str, config: &str) {
    fs::create_dir_all(repository.join(model)).unwrap();
    fs::write(repository.join(model).join("config.pbtxt"), config).unwrap();
}

fn step(model: &str, inputs: &[(&str, &str)], outputs: &[(&str, &str)]) -> String {
    let map = |field: &str, pairs: &[(&str, &str)]| -> String {
        pairs.iter().map(|(key, value)| format!("{field} {{ key: \"{key}\" value: \"{value}\" }} ")).collect()
    };
    let (inputs, outputs) = (map("input_map", inputs), map("output_map", outputs));
    format!("step {{ model_name: \"{model}\" model_version: -1 {inputs} {outputs} }}\n")
}

/// Graphs `see` (boxes, and the picture with them) and `tag` (labels), and the model `feeling` of texts.
fn server() -> (tempfile::TempDir, Server) {
    let repository = tempfile::tempdir().unwrap();
    let folder = repository.path();
    for model in ["boxer", "tagger", "feeling"] {
        fs::create_dir_all(folder.join(model).join("1")).unwrap();
    }
    let made = Command::new(clients_python().unwrap()).args(["-c", MODELS]).arg(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let builtin = |name: &str| {
        format!("backend: \"xebec\" parameters {{ key: \"step\" value {{ string_value: \"{name}\" }} }}")
    };
    for (name, kind) in [("decode", "image_decode"), ("numbers", "normalise"), ("drawn", "draw")] {
        write(folder, name, &builtin(kind));
    }
    for (model, rows, labels) in
        [("tagger", "1", "cat\ndog\nfish\n"), ("feeling", "-1", "anger\nfear\njoy\n")]
    {
        let output = format!(
            "output {{ name: \"p\" data_type: TYPE_FP32 dims: [ {rows}, 3 ] label_filename: \"labels.txt\" }}"
        );
        write(folder, model, &format!("max_batch_size: 0 {output}"));
        fs::write(folder.join(model).join("labels.txt"), labels).unwrap();
    }
    let decode = step("decode", &[("image", "image")], &[("pixels", "pixels")]);
    let numbers = step("numbers", &[("pixels", "pixels")], &[("tensor", "tensor")]);
    let found = ["boxes", "scores", "classes"].map(|name| (name, name));
    let boxer = step("boxer", &[("tensor", "tensor")], &found);
    let drawn = step(
        "drawn",
        &[("pixels", "pixels"), ("boxes", "boxes"), ("classes", "classes")],
        &[("image", "drawing")],
    );
    // The picture that comes back is called `image`, as the one that was sent may not be.
    let see = [
        decode.replace("\"image\" value: \"image\"", "\"image\" value: \"photo\""),
        numbers.clone(),
        boxer,
        drawn.replace("drawing", "image"),
    ];
    let outputs: String = [
        ("boxes", "FP32 dims: [ 2, 4 ]"),
        ("scores", "FP32 dims: [ 2 ]"),
        ("classes", "INT64 dims: [ 2 ]"),
        ("image", "STRING dims: [ 1 ]"),
    ]
    .iter()
    .map(|(name, of)| format!("output {{ name: \"{name}\" data_type: TYPE_{of} }} "))
    .collect();
    let input = "input { name: \"photo\" data_type: TYPE_STRING dims: [ 1 ] }";
    write(folder, "see", &format!("{input} {outputs} ensemble_scheduling {{ {} }}", see.concat()));
    let tag = [decode, numbers, step("tagger", &[("tensor", "tensor")], &[("p", "p")])];
    write(folder, "tag", &format!("ensemble_scheduling {{ {} }}", tag.concat()));
    let path = folder.to_string_lossy().into_owned();
    let server = Server::start(&["serve", "--model-repository", &path]).unwrap();
    (repository, server)
}

/// A PNG of one colour.
fn png(colour: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(encoder, &[colour; 3 * 12 * 8], 12, 8, image::ExtendedColorType::Rgb8)
        .unwrap();
    file
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_picture_gives_a_table_of_objects_and_a_picture_with_boxes() {
    let (_repository, server) = server();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::write(at("a.png"), png(9)).unwrap();
    fs::write(at("names.txt"), "person\nbus\n").unwrap();
    let (code, out, error) = run(&server, "see", &["--image", &at("a.png"), "--labels", &at("names.txt")]);
    assert_eq!(code, Some(0), "{error}");
    let table: Vec<&str> = out.lines().collect();
    assert_eq!(table[0], format!("{}: 2 objects", at("a.png")));
    let words = |line: &str| {
        line.split(['│', '┆', ' ']).filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let rows: Vec<Vec<String>> = table.iter().map(|line| words(line)).collect();
    assert!(
        rows.contains(&["class", "score", "left", "top", "right", "bottom"].map(str::to_owned).to_vec()),
        "{out}"
    );
    assert!(
        rows.contains(&["bus", "0.875", "1.0", "2.0", "6.0", "7.0"].map(str::to_owned).to_vec()),
        "{out}"
    );
    assert!(
        rows.contains(&["person", "0.500", "3.2", "1.0", "9.0", "5.0"].map(str::to_owned).to_vec()),
        "{out}"
    );
    let saved = table.last().unwrap().strip_prefix("saved as ").unwrap();
    assert_eq!(saved, at("a.boxes.jpg"));
    assert!(fs::read(saved).unwrap().starts_with(&[0xff, 0xd8, 0xff]));
    // Labels of the model, the best first; the first of them alone; as JSON.
    let (_, out, _) = run(&server, "tag", &["--image", &at("a.png")]);
    let places = ["dog", "fish", "cat"].map(|label| out.find(label).unwrap());
    assert!(places.is_sorted() && out.contains("0.625"), "{out}");
    let (_, out, _) = run(&server, "tag", &["--image", &at("a.png"), "--top", "1", "--output", "json"]);
    assert_eq!(lines(&out), [json!({"file": at("a.png"), "labels": [{"label": "dog", "score": 0.625}]})]);
}

#[test]
fn a_folder_of_pictures_gives_a_line_each_and_one_that_is_broken_stops_nobody() {
    let (_repository, server) = server();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::create_dir(at("photos")).unwrap();
    (0..20).for_each(|number| fs::write(at(&format!("photos/{number:02}.png")), png(number)).unwrap());
    let (code, out, error) = run(&server, "see", &["--image", &at("photos"), "--out", &at("found.jsonl")]);
    assert_eq!((code, out), (Some(0), format!("20 pictures in {}\n", at("found.jsonl"))), "{error}");
    let found = lines(&fs::read_to_string(at("found.jsonl")).unwrap());
    assert_eq!(found.len(), 20);
    assert_eq!(found[7]["file"], at("photos/07.png"));
    assert_eq!(found[7]["objects"][1], json!({"label": "0", "score": 0.5, "box": [3.25, 1, 9, 5]}));
    assert_eq!(fs::read_dir(at("photos")).unwrap().count(), 20, "nothing is drawn that nobody wants");
    fs::write(at("photos/03.png"), "<html>").unwrap();
    fs::write(at("photos/05.png"), &png(1)[..40]).unwrap();
    let flags =
        ["--image", &at("photos"), "--out", &at("found.csv"), "--save", &at("drawn")].map(str::to_owned);
    let (code, _, error) = run(&server, "see", &flags.each_ref().map(String::as_str));
    assert!(code == Some(1) && error.contains("2 of 20 pictures failed"), "{error}");
    let text = fs::read_to_string(at("found.csv")).unwrap();
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!((rows.len(), rows[0]), (21, "file,boxes,scores,classes,saved,error"));
    assert!(rows[4].contains("is no picture") && rows[6].contains("no whole PNG"), "{} {}", rows[4], rows[6]);
    assert!(rows[1].contains("\"[[1,2,6,7],[3.25,1,9,5]]\",\"[0.875,0.5]\",\"[1,0]\","), "{}", rows[1]);
    assert_eq!(fs::read_dir(at("drawn")).unwrap().count(), 18);
    let (_, _, error) = run(&server, "tag", &["--image", &at("photos"), "--out", &at("tags.csv")]);
    let text = fs::read_to_string(at("tags.csv")).unwrap();
    assert_eq!(text.lines().nth(1), Some(&*format!("{},dog,0.625,,", at("photos/00.png"))), "{error}");
}

#[test]
fn pictures_that_are_left_are_done_when_the_work_goes_on() {
    let (_repository, server) = server();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::create_dir(at("photos")).unwrap();
    (0..400).for_each(|number| fs::write(at(&format!("photos/{number:03}.png")), png(1)).unwrap());
    let flags =
        ["--image", &at("photos"), "--out", &at("found.jsonl"), "--in-flight", "1"].map(str::to_owned);
    let flags = flags.each_ref().map(String::as_str);
    let mut child = command(&server, "see", &flags).spawn().unwrap();
    crate::wire::until("some pictures are done", || {
        fs::read_to_string(at("found.jsonl.journal")).is_ok_and(|journal| journal.lines().count() > 5)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = fs::read_to_string(at("found.jsonl.journal"))
        .map(|journal| journal.lines().count() - 1)
        .unwrap_or(400);
    // One more came meanwhile, before all others.
    fs::write(at("photos/+.png"), png(1)).unwrap();
    let (code, out, error) = run(&server, "see", &[&flags[..], &["--resume"]].concat());
    assert_eq!((code, out), (Some(0), format!("401 pictures in {}\n", at("found.jsonl"))), "{error}");
    let mut files: Vec<String> = lines(&fs::read_to_string(at("found.jsonl")).unwrap())
        .iter()
        .map(|line| line["file"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(files[kept], at("photos/+.png"));
    files.sort();
    files.dedup();
    assert_eq!(files.len(), 401, "each once");
}

#[test]
fn texts_get_their_labels_as_a_table_or_as_lines() {
    let (_repository, server) = server();
    let (code, out, error) = run(&server, "feeling", &["--text", "what a day"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(out.find("joy").unwrap() < out.find("fear").unwrap() && out.contains("0.750"), "{out}");
    let (_, out, _) = run(&server, "feeling", &["--text", "one", "--text", "two", "--top", "1"]);
    assert_eq!((out.matches("joy").count(), out.matches("fear").count()), (2, 0), "{out}");
    let flags = ["--text", "-", "--output", "json", "--top", "2"];
    let mut child = command(&server, "feeling", &flags).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"first\n\nsecond\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let told = lines(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(told.len(), 2, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(
        told[1],
        json!({"text": "second", "labels": [{"label": "joy", "score": 0.75}, {"label": "fear", "score": 0.1875}]})
    );
}

#[test]
fn what_is_wrong_with_a_picture_or_a_text_is_told() {
    let (_repository, server) = server();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    fs::create_dir(at("empty")).unwrap();
    fs::write(at("a.png"), png(1)).unwrap();
    fs::write(at("page.jpg"), "<html>").unwrap();
    fs::write(at("cut.png"), &png(1)[..40]).unwrap();
    for (model, flags, want) in [
        ("see", vec!["--image", "nowhere.jpg"], "there is no file nowhere.jpg"),
        ("see", vec!["--image", "empty/"], "there is no picture in"),
        (
            "see",
            vec!["--image", "page.jpg"],
            "page.jpg is no picture: a JPEG, PNG or WebP file does not begin with",
        ),
        ("see", vec!["--image", "cut.png"], "no whole PNG"),
        (
            "boxer",
            vec!["--image", "a.png"],
            "model 'boxer' takes no picture: no input is BYTES, it takes 'tensor' FP32",
        ),
        ("saw", vec!["--image", "a.png"], "there is no model 'saw'"),
        ("see", vec!["--image", "a.png", "--save", "a.png"], "that is the picture that is sent"),
        (
            "see",
            vec!["--image", "a.png", "--input-name", "tensor"],
            "has no such input of BYTES; it takes 'photo'",
        ),
        ("see", vec!["--image", "a.png", "--out", "x.txt"], "goes to a .jsonl or a .csv file"),
        (
            "tag",
            vec!["--image", "a.png", "--labels", "page.jpg"],
            "there are 1 labels, and the answer has 3 scores",
        ),
        ("boxer", vec!["--text", "hello"], "takes no text"),
    ] {
        let flags: Vec<String> = flags.iter().map(|flag| flag.to_string()).collect();
        let mut command = command(&server, model, &flags.iter().map(String::as_str).collect::<Vec<_>>());
        let output = command.current_dir(folder.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{flags:?}: {error}");
        assert!(error.contains(want), "{flags:?}: {error}");
    }
}
