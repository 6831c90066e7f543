//! The object-detection example: what the server sees is what its crates see in one loop, and the camera's frames keep order.
use crate::wire::{get, send};
use serde_json::Value;
use std::{fs, process::Command};
use xebec_e2e::{
    generate::root,
    server::{Server, clients_python},
};

/// What was seen in a picture: edges of boxes, scores, classes.
#[derive(Debug, PartialEq)]
struct Seen {
    boxes: Vec<f32>,
    scores: Vec<f32>,
    classes: Vec<i64>,
}

/// What the same crates see in one loop, in a process of its own.
fn in_one_loop(file: &[u8]) -> Seen {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.jsonl");
    fs::write(folder.path().join("scene-1.jpg"), file).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_figures"))
        .args(["detect", "--pictures"])
        .arg(folder.path())
        .arg("--predictions")
        .arg(&out)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let line: Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
    #[expect(clippy::cast_possible_truncation, reason = "they were written from numbers of 32 bits")]
    let float = |number: &Value| number.as_f64().unwrap() as f32;
    Seen {
        boxes: line["boxes"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one.as_array().unwrap())
            .map(float)
            .collect(),
        scores: line["scores"].as_array().unwrap().iter().map(float).collect(),
        classes: line["classes"].as_array().unwrap().iter().map(|class| class.as_i64().unwrap()).collect(),
    }
}

fn server() -> Server {
    Server::start(&["up", "examples/object-detection"]).unwrap()
}

fn scene() -> Vec<u8> {
    fs::read(root().join("examples/object-detection/data/scene.jpg")).unwrap()
}

/// What a graph sees in a picture, which is the whole body.
fn see(server: &Server, graph: &str, file: &[u8]) -> Seen {
    let headers = [("Inference-Header-Content-Length", "0")];
    let reply = send(server.http, "POST", &format!("/v2/models/{graph}/infer"), &headers, file);
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let (outputs, tensors) = reply.split();
    let size =
        |output: &Value| usize::try_from(output["parameters"]["binary_data_size"].as_u64().unwrap()).unwrap();
    let take = |name: &str| -> &[u8] {
        let at = outputs.iter().position(|output| output["name"] == name).unwrap();
        let start: usize = outputs[..at].iter().map(size).sum();
        &tensors[start..start + size(&outputs[at])]
    };
    Seen {
        boxes: bytemuck::pod_collect_to_vec(take("boxes")),
        scores: bytemuck::pod_collect_to_vec(take("scores")),
        classes: bytemuck::pod_collect_to_vec(take("classes")),
    }
}

#[test]
fn what_the_server_sees_is_what_its_crates_see_in_one_loop() {
    let (server, file) = (server(), scene());
    let want = in_one_loop(&file);
    assert!(want.scores.len() >= 3, "there is something on the picture: {want:?}");
    for graph in ["detect", "detect-picture"] {
        assert_eq!(see(&server, graph, &file), want, "{graph}");
    }
    let expected = fs::read_to_string(root().join("examples/object-detection/data/scene.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    for (class, shape) in
        expected["classes"].as_array().unwrap().iter().zip(expected["boxes"].as_array().unwrap())
    {
        let near = |at: usize| {
            let found = &want.boxes[4 * at..4 * at + 4];
            found
                .iter()
                .zip(shape.as_array().unwrap())
                .all(|(a, b)| (f64::from(*a) - b.as_f64().unwrap()).abs() < 8.0)
        };
        let seen = (0..want.scores.len()).any(|at| Some(want.classes[at]) == class.as_i64() && near(at));
        assert!(seen, "{class} at {shape} was not seen: {want:?}");
    }
}

/// The pixels of a picture, row by row.
fn pixels(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let picture = image::load_from_memory(file).unwrap().into_rgb8();
    (picture.width(), picture.height(), picture.into_raw())
}

#[test]
fn the_picture_of_the_guide_is_what_the_example_draws() {
    let server = server();
    let headers = [("Inference-Header-Content-Length", "0")];
    let reply = send(server.http, "POST", "/v2/models/detect-picture/infer", &headers, &scene());
    let (_, tensors) = reply.split();
    // Of all outputs the picture is the last: its bytes lie at the end.
    let at = tensors.windows(3).position(|bytes| bytes == [0xff, 0xd8, 0xff]).unwrap();
    let guide = fs::read(root().join("docs/guide/images/scene-with-boxes.jpg")).unwrap();
    let ((width, height, drawn), (wide, high, shown)) = (pixels(&tensors[at..]), pixels(&guide));
    assert_eq!((width, height), (wide, high));
    // Edges of boxes may lie a pixel apart on another processor.
    let apart = drawn.iter().zip(&shown).filter(|(a, b)| a.abs_diff(**b) > 16).count();
    assert!(apart * 200 < drawn.len(), "{apart} of {} bytes differ", drawn.len());
    let plain = pixels(&scene()).2;
    let boxes = plain.iter().zip(&shown).filter(|(a, b)| a.abs_diff(**b) > 16).count();
    assert!(boxes * 200 > drawn.len(), "the boxes are {boxes} bytes: too few to be compared");
}

#[test]
fn the_camera_shows_its_frames_in_order_and_ends() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        fs::write(folder.path().join(format!("frame-{number}.jpg")), scene()).unwrap();
    }
    let camera = |more: &[&str]| {
        let run = Command::new(clients_python().unwrap())
            .arg(root().join("examples/object-detection/camera.py"))
            .arg(folder.path())
            .args(["--url", &server.grpc.to_string(), "--fps", "0", "--repeat", "10"])
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        said
    };
    let said = camera(&[]);
    let numbers: Vec<u32> = said
        .lines()
        .filter_map(|line| line.strip_prefix("frame"))
        .map(|rest| rest.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.len() == 30 && numbers.is_sorted(), "{said}");
    assert!(said.contains("30 answered") && said.contains("0 dropped as too old, 0 failed"), "{said}");
    // A frame that is older than a millisecond when its turn comes is dropped, in its place.
    let said = camera(&["--max-age-ms", "1", "--in-flight", "16"]);
    let count = |words: &str| -> u32 {
        let before = said.split(words).next().unwrap();
        before.rsplit(|letter: char| !letter.is_ascii_digit()).next().unwrap().parse().unwrap()
    };
    let (answered, dropped) = (count(" answered with"), count(" dropped as too old"));
    assert!(answered + dropped == 30 && dropped > 0, "{said}");
}

/// A JPEG of so many pixels a side, all noise: it takes long to read.
fn large(side: u32) -> Vec<u8> {
    let mut state = 1_u32;
    let noise = image::RgbImage::from_fn(side, side, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, a, b, c] = state.to_le_bytes();
        image::Rgb([a, b, c])
    });
    let mut file = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90);
    image::ImageEncoder::write_image(encoder, &noise, side, side, image::ExtendedColorType::Rgb8).unwrap();
    file
}

#[test]
fn thirty_frames_a_second_of_which_every_fifth_takes_long_come_back_in_order_and_none_that_is_too_old() {
    let server = server();
    let folder = tempfile::tempdir().unwrap();
    for number in 0..4 {
        fs::write(folder.path().join(format!("frame-{number}.jpg")), scene()).unwrap();
    }
    fs::write(folder.path().join("frame-4.jpg"), large(1600)).unwrap();
    let run = Command::new(clients_python().unwrap())
        .arg(root().join("examples/object-detection/camera.py"))
        .arg(folder.path())
        .args(["--url", &server.grpc.to_string(), "--fps", "30", "--repeat", "12", "--max-age-ms", "100"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    let frames: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("frame")).collect();
    let number = |line: &&str| line.split_whitespace().next().unwrap().parse::<u32>().unwrap();
    let numbers: Vec<u32> = frames.iter().map(number).collect();
    assert!(numbers.len() == 60 && numbers.is_sorted(), "{said}");
    // Each has its boxes or is said to be too old; the camera itself ends where an answer is not in its place.
    assert!(frames.iter().all(|line| line.contains(" ms, ") != line.ends_with("dropped, too old")), "{said}");
}

#[test]
fn each_part_of_the_graph_is_a_model_that_can_be_asked() {
    let server = server();
    let names = [
        "detect",
        "detect.image_decode",
        "detect.letterbox",
        "detect.nms",
        "detect-picture.draw",
        "detector",
    ];
    for name in names {
        assert_eq!(get(server.http, &format!("/v2/models/{name}/ready")).status, 200, "{name}");
    }
    let refused = send(
        server.http,
        "POST",
        "/v2/models/detect/infer",
        &[("Inference-Header-Content-Length", "0")],
        b"GIF89a",
    );
    assert_eq!(refused.status, 400);
    assert_eq!(refused.error(), "in ensemble 'detect', the picture is GIF; send JPEG, PNG or WebP");
}
