//! Graphs of models and built-in steps, over the wire.
use crate::{
    lifecycle::{order, put, server},
    wire::{SCALER, counted, get, infer, metrics, send, until},
};
use serde_json::{Value, json};
use std::{fs, path::Path};
use xebec_e2e::server::Server;

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

/// x -> a -> middle -> b -> y, in whatever order the steps are written.
fn chain(a: &str, b: &str) -> String {
    let (second, first) =
        (step(b, &[("x", "middle")], &[("y", "y")]), step(a, &[("x", "x")], &[("y", "middle")]));
    format!("platform: \"ensemble\" max_batch_size: 8 ensemble_scheduling {{ {second} {first} }}")
}

/// Model `m` with version `n` says 2 x + n.
fn repository() -> tempfile::TempDir {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "a", 1);
    put(repository.path(), "b", 3);
    write(repository.path(), "g", &chain("a", "b"));
    repository
}

fn data(server: &Server, model: &str) -> Value {
    infer(server.http, model, SCALER).json()["outputs"][0]["data"].clone()
}

/// 2 (2 x + 1) + `b` for 1, 2, 3 and 4.
fn twice(b: f64) -> Value {
    json!([6.0 + b, 10.0 + b, 14.0 + b, 18.0 + b])
}

fn state(server: &Server, model: &str) -> (String, String) {
    let rows = send(server.http, "POST", "/v2/repository/index", &[], b"").json();
    let row = rows.as_array().unwrap().iter().find(|row| row["name"] == model).unwrap().clone();
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (text("state"), text("reason"))
}

#[test]
fn a_graph_answers_like_its_steps_and_is_seen_as_a_model() {
    let repository = repository();
    write(repository.path(), "outer", &chain("g", "b"));
    let server = server(repository.path(), &[]);
    assert_eq!(data(&server, "g"), twice(3.0));
    assert_eq!(data(&server, "outer"), json!([21.0, 29.0, 37.0, 45.0]));
    let about = get(server.http, "/v2/models/g").json();
    assert_eq!((&about["platform"], &about["versions"]), (&json!("ensemble"), &json!(["1"])));
    assert_eq!(about["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]));
    assert_eq!(about["outputs"], json!([{"name": "y", "datatype": "FP32", "shape": [-1, 4]}]));
    let config = get(server.http, "/v2/models/g/config").json();
    let steps = config["ensemble_scheduling"]["step"].as_array().unwrap();
    assert_eq!(
        (steps.len(), &steps[0]["model_name"], &config["max_batch_size"]),
        (2, &json!("b"), &json!(8))
    );
    // Each request is counted with the graph and with what it ran through.
    let page = metrics(&server);
    let answered = |model: &str, version: u64| {
        let series = format!("nv_inference_request_success{{model=\"{model}\",version=\"{version}\"}}");
        counted(&page, &series).unwrap_or(0)
    };
    assert_eq!([answered("g", 1), answered("outer", 1), answered("a", 1), answered("b", 3)], [2, 1, 2, 3]);
    assert!(page.contains("xebec_engine_graph_memory_bytes 0"));
}

#[test]
fn a_wrong_request_to_a_graph_is_told_like_any_and_a_failing_step_by_name() {
    let repository = repository();
    let models = xebec_e2e::generate::root().join("models/testdata/repository");
    fs::copy(models.join("lookup.onnx"), repository.path().join("lookup.onnx")).unwrap();
    let about = {
        let alone = server(repository.path(), &[]);
        let wrong = infer(alone.http, "g", &SCALER.replace("\"x\"", "\"z\""));
        assert_eq!(wrong.status, 400);
        assert_eq!(wrong.error(), "[request id: <id_unknown>] unexpected inference input 'z' for model 'g'");
        get(alone.http, "/v2/models/lookup").json()
    };
    // Whatever the look-up takes and gives: a graph of it alone.
    let name = |kind: &str| about[kind][0]["name"].as_str().unwrap().to_owned();
    let (input, output) = (name("inputs"), name("outputs"));
    let one = step("lookup", &[(&input, "ids")], &[(&output, "rows")]);
    write(repository.path(), "rows", &format!("max_batch_size: 1 ensemble_scheduling {{ {one} }}"));
    let server = server(repository.path(), &[]);
    let shape: Vec<i64> = get(server.http, "/v2/models/rows").json()["inputs"][0]["shape"]
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| extent.as_i64().unwrap().max(1))
        .collect();
    let count = usize::try_from(shape.iter().product::<i64>()).unwrap();
    let datatype = about["inputs"][0]["datatype"].clone();
    let ids = |id: i64| json!({"inputs": [{"name": "ids", "shape": shape, "datatype": datatype, "data": vec![id; count]}]});
    assert_eq!(infer(server.http, "rows", &ids(0).to_string()).status, 200);
    let outside = infer(server.http, "rows", &ids(1 << 30).to_string());
    assert_eq!(outside.status, 400, "{}", outside.json());
    assert!(outside.error().starts_with("in ensemble 'rows', "), "{}", outside.error());
}

#[test]
fn a_step_can_name_a_version() {
    let repository = repository();
    put(repository.path(), "a", 2);
    fs::write(repository.path().join("a/config.pbtxt"), "version_policy { all { } }").unwrap();
    let of = |version: i64| {
        chain("a", "b").replace(
            "model_name: \"a\" model_version: -1",
            &format!("model_name: \"a\" model_version: {version}"),
        )
    };
    write(repository.path(), "old", &of(1));
    write(repository.path(), "none", &of(7));
    let server = server(repository.path(), &["--exit-on-error", "false", "--strict-readiness", "false"]);
    assert_eq!((data(&server, "old"), data(&server, "g")), (twice(3.0), twice(5.0)));
    let (state, reason) = state(&server, "none");
    assert!(
        state == "UNAVAILABLE" && reason.contains("its member 'a' is not served in version 7"),
        "{reason}"
    );
}

#[test]
fn an_order_for_a_graph_loads_what_it_is_of_and_a_reload_of_that_is_seen() {
    let repository = repository();
    let server =
        server(repository.path(), &["--model-control-mode", "explicit", "--model-load-thread-count", "1"]);
    assert_eq!(state(&server, "a").0, "UNAVAILABLE");
    assert_eq!(order(&server, "g", "load").0, 200);
    assert_eq!(data(&server, "g"), twice(3.0));
    assert_eq!(state(&server, "a").0, "READY");
    put(repository.path(), "b", 5);
    assert_eq!(order(&server, "b", "load").0, 200);
    assert_eq!(data(&server, "g"), twice(5.0));
    // Without one of them there is no answer, and it says why.
    assert_eq!(order(&server, "a", "unload").0, 200);
    let refused = infer(server.http, "g", SCALER);
    assert_eq!(refused.status, 503, "{}", refused.json());
    assert_eq!(refused.error(), "in ensemble 'g', Request for unknown model: 'a' has no available versions");
    assert_eq!(state(&server, "g"), ("UNAVAILABLE".into(), "its member 'a' is not served".into()));
    assert_eq!(get(server.http, "/v2/models/g/ready").status, 400);
    let counted = get(server.http, "/v2/models/stats").json()["model_stats"].clone();
    let of_graph = counted.as_array().unwrap().iter().find(|one| one["name"] == "g").unwrap();
    assert_eq!(of_graph["inference_stats"]["fail"]["count"], 1, "{of_graph}");
    assert_eq!(get(server.http, "/v2/models/b/ready").status, 200);
    assert_eq!(order(&server, "a", "load").0, 200);
    assert_eq!(get(server.http, "/v2/models/g/ready").status, 200);
    assert_eq!(data(&server, "g"), twice(5.0));
    assert_eq!(order(&server, "g", "unload").0, 200);
    assert_eq!(state(&server, "b").0, "READY");
    // Named at start, it brings its models too.
    let path = repository.path().to_string_lossy();
    let line =
        ["serve", "--model-repository", &*path, "--model-control-mode", "explicit", "--load-model", "g"];
    let named = Server::start(&line).unwrap();
    assert_eq!(data(&named, "g"), twice(5.0));
}

#[test]
fn a_polled_graph_comes_with_what_it_is_of() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "other", 1);
    let server =
        server(repository.path(), &["--model-control-mode", "poll", "--repository-poll-secs", "0.1"]);
    write(repository.path(), "g", &chain("a", "z"));
    put(repository.path(), "a", 1);
    put(repository.path(), "z", 3);
    until("the graph is served", || infer(server.http, "g", SCALER).status == 200);
    assert_eq!(data(&server, "g"), twice(3.0));
}

#[test]
fn models_of_a_graph_come_and_go_within_their_memory() {
    let repository = repository();
    // Room for one of them, not for two.
    let server = server(repository.path(), &["--model-memory-budget", "600000", "--io-threads", "1"]);
    for _ in 0..3 {
        assert_eq!(data(&server, "g"), twice(3.0));
    }
    assert!(counted(&metrics(&server), "xebec_engine_model_evictions_total").unwrap() >= 3);
}

#[test]
fn a_graph_that_makes_no_sense_is_not_served_and_the_others_are() {
    let repository = repository();
    let cycle =
        [step("a", &[("x", "there")], &[("y", "back")]), step("b", &[("x", "back")], &[("y", "there")])];
    for (name, config, _) in wrong(&cycle.concat()) {
        write(repository.path(), name, &config);
    }
    let server = server(repository.path(), &["--exit-on-error", "false", "--strict-readiness", "false"]);
    assert_eq!(data(&server, "g"), twice(3.0));
    for (name, _, want) in wrong(&cycle.concat()) {
        let (state, reason) = state(&server, name);
        assert!(state == "UNAVAILABLE" && reason.contains(want), "{name}: {reason}\nwants: {want}");
    }
}

fn wrong(cycle: &str) -> [(&'static str, String, &'static str); 6] {
    let one = |inputs: &[(&str, &str)], outputs: &[(&str, &str)]| {
        format!("ensemble_scheduling {{ {} }}", step("a", inputs, outputs))
    };
    [
        (
            "cycle",
            format!("ensemble_scheduling {{ {cycle} }}"),
            "the graph has a cycle: step 1 ('a') -> step 2 ('b')",
        ),
        (
            "itself",
            format!("ensemble_scheduling {{ {} }}", step("itself", &[("x", "x")], &[("y", "y")])),
            "the graphs have a cycle: 'itself' -> 'itself'",
        ),
        (
            "nobody",
            format!("ensemble_scheduling {{ {} }}", step("missing", &[("x", "x")], &[("y", "y")])),
            "its member 'missing' is not in the model repository",
        ),
        (
            "type",
            format!(
                "input {{ name: \"x\" data_type: TYPE_INT64 dims: [ -1, 4 ] }} output {{ name: \"y\" data_type: TYPE_FP32 dims: [ -1, 4 ] }} {}",
                one(&[("x", "x")], &[("y", "y")])
            ),
            "tensor 'x' is INT64 by config's input, but FP32 by input 'x' of 'a' in step 1",
        ),
        (
            "made",
            format!(
                "input {{ name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] }} output {{ name: \"z\" data_type: TYPE_FP32 dims: [ -1, 4 ] }} {}",
                one(&[("x", "x")], &[("y", "y")])
            ),
            "tensor 'z' is made by no step",
        ),
        (
            "threads",
            format!("instance_group {{ count: 2 }} {}", one(&[("x", "x")], &[("y", "y")])),
            "instance_group is for a model with runs of its own",
        ),
    ]
}

/// A model that is a built-in step.
fn builtin(kind: &str, settings: &[(&str, &str)]) -> String {
    let parameter = |(key, value): &(&str, &str)| {
        format!("parameters {{ key: \"{key}\" value {{ string_value: \"{value}\" }} }}\n")
    };
    let all: String = [("step", kind)].iter().chain(settings).map(parameter).collect();
    format!("backend: \"xebec\"\n{all}")
}

/// A PNG of one colour, without compression.
fn png(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut file = Vec::new();
    let pixels: Vec<u8> = colour.iter().copied().cycle().take((3 * width * height) as usize).collect();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ExtendedColorType::Rgb8)
        .unwrap();
    file
}

/// A request with one element of BYTES as it is, behind its JSON.
fn with_bytes(server: &Server, model: &str, element: &[u8], output: &str) -> crate::wire::Reply {
    let size = element.len() + 4;
    let head = json!({
        "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}],
        "outputs": [{"name": output}],
    })
    .to_string();
    let length = u32::try_from(element.len()).unwrap().to_le_bytes();
    let body = [head.as_bytes(), &length, element].concat();
    let json_length = head.len().to_string();
    let headers = [("Inference-Header-Content-Length", json_length.as_str())];
    send(server.http, "POST", &format!("/v2/models/{model}/infer"), &headers, &body)
}

#[test]
fn a_picture_goes_through_built_in_steps() {
    let repository = tempfile::tempdir().unwrap();
    write(repository.path(), "decode", &builtin("image_decode", &[("max_pixels", "10000")]));
    write(repository.path(), "fit", &builtin("letterbox", &[("width", "4"), ("height", "4"), ("fill", "0")]));
    write(repository.path(), "numbers", &builtin("normalise", &[]));
    let steps = [
        step("decode", &[("image", "image")], &[("pixels", "pixels")]),
        step("fit", &[("pixels", "pixels")], &[("pixels", "small"), ("transform", "transform")]),
        step("numbers", &[("pixels", "small")], &[("tensor", "tensor")]),
    ];
    write(repository.path(), "see", &format!("ensemble_scheduling {{ {} }}", steps.concat()));
    let server = server(repository.path(), &[]);
    let reply = with_bytes(&server, "see", &png(8, 4, [255, 0, 51]), "tensor");
    assert_eq!(reply.status, 200, "{}", reply.json());
    let tensor = reply.json()["outputs"][0].clone();
    assert_eq!(tensor["shape"], json!([1, 3, 4, 4]));
    let red: Vec<f64> =
        tensor["data"].as_array().unwrap()[..16].iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(red, [[0.0; 4], [1.0; 4], [1.0; 4], [0.0; 4]].concat());
    for (file, want) in [
        (&b"GIF89a"[..], "in ensemble 'see', the picture is GIF; send JPEG, PNG or WebP"),
        (&png(200, 100, [0; 3]), "200 x 100 pixels, and 10000 are the most"),
        (&png(8, 4, [0; 3])[..40], "no whole PNG"),
    ] {
        let refused = with_bytes(&server, "see", file, "tensor");
        assert!(refused.status == 400 && refused.error().contains(want), "{}", refused.json());
    }
    let about = get(server.http, "/v2/models/decode").json();
    assert_eq!(
        (&about["platform"], &about["inputs"][0]["datatype"]),
        (&json!("xebec_step"), &json!("BYTES"))
    );
}

#[test]
fn a_built_in_step_that_is_set_wrongly_says_what_would_be_right() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "a", 1);
    let cases = [
        ("unknown", builtin("decode", &[]), "step 'decode' is unknown; the steps are image_decode"),
        (
            "setting",
            builtin("nms", &[("iou", "2")]),
            "step 'nms': setting 'iou' is '2': write a number from 0 to 1",
        ),
        ("none", "backend: \"xebec\"".into(), "parameter 'step' is missing"),
        ("batch", format!("max_batch_size: 4 {}", builtin("softmax", &[])), "max_batch_size is for models"),
        (
            "edges",
            format!(
                "output {{ name: \"logits\" data_type: TYPE_FP32 dims: [ -1, -1 ] }} {}",
                builtin("softmax", &[])
            ),
            "config lists other inputs or outputs than the step has: its inputs are 'logits' FP32 [-1,-1]",
        ),
    ];
    for (name, config, _) in &cases {
        write(repository.path(), name, config);
    }
    let server = server(repository.path(), &["--exit-on-error", "false", "--strict-readiness", "false"]);
    for (name, _, want) in cases {
        let (state, reason) = state(&server, name);
        assert!(state == "UNAVAILABLE" && reason.contains(want), "{name}: {reason}");
    }
}

/// A file of NumPy with a number in each row.
pub(crate) fn table(rows: &[f32]) -> Vec<u8> {
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 1), }}", rows.len());
    while !(head.len() + 11).is_multiple_of(64) {
        head.push(' ');
    }
    head.push('\n');
    let length = u16::try_from(head.len()).unwrap().to_le_bytes();
    let data: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00".as_slice(), &length, head.as_bytes(), &data].concat()
}

#[test]
fn a_table_that_is_replaced_is_seen_without_a_failed_request() {
    let repository = tempfile::tempdir().unwrap();
    write(repository.path(), "rows", &builtin("lookup", &[("table", "t.npy"), ("missing", "zero")]));
    let folder = repository.path().join("rows/1");
    fs::create_dir(&folder).unwrap();
    let put = |rows: &[f32]| {
        fs::write(folder.join(".new"), table(rows)).unwrap();
        fs::rename(folder.join(".new"), folder.join("t.npy")).unwrap();
    };
    put(&[1.5]);
    let server =
        server(repository.path(), &["--model-control-mode", "poll", "--repository-poll-secs", "0.1"]);
    let ask = || {
        let body = json!({"inputs": [{"name": "ids", "shape": [2], "datatype": "INT64", "data": [0, 1]}]});
        let reply = infer(server.http, "rows", &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.json());
        (reply.json()["outputs"][0]["data"].clone(), reply.json()["outputs"][1]["data"].clone())
    };
    assert_eq!(ask(), (json!([1.5, 0.0]), json!([true, false])));
    put(&[2.5, 3.5]);
    until("the new table is served", || ask() == (json!([2.5, 3.5]), json!([true, true])));
    // One that is none changes nothing.
    fs::write(folder.join(".new"), "no table").unwrap();
    fs::rename(folder.join(".new"), folder.join("t.npy")).unwrap();
    until("the fault is told", || state(&server, "rows").1.contains("is no table"));
    assert_eq!(ask().0, json!([2.5, 3.5]));
}

/// An order to load a model as something else.
fn load_as(server: &Server, model: &str, config: &Value) -> crate::wire::Reply {
    let body = json!({"parameters": {"config": config.to_string()}}).to_string();
    send(server.http, "POST", &format!("/v2/repository/models/{model}/load"), &[], body.as_bytes())
}

/// A configuration of a graph of one model.
fn graph_of(model: &str) -> Value {
    let maps =
        json!({"model_name": model, "model_version": -1, "input_map": {"x": "x"}, "output_map": {"y": "y"}});
    json!({"max_batch_size": 8, "ensemble_scheduling": {"step": [maps]}})
}

#[test]
fn graphs_never_come_around_whatever_is_loaded_in_whatever_order() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let one = |model: &str| {
        format!("max_batch_size: 8 ensemble_scheduling {{ {} }}", step(model, &[("x", "x")], &[("y", "y")]))
    };
    for (name, of) in [("a", "m"), ("b", "a"), ("self", "self"), ("p", "q"), ("q", "p")] {
        write(repository.path(), name, &one(of));
    }
    let server = server(repository.path(), &["--model-control-mode", "explicit"]);
    assert_eq!(order(&server, "b", "load").0, 200);
    assert_eq!(data(&server, "b"), json!([3.0, 5.0, 7.0, 9.0]));
    // What b is of becomes a graph of b.
    let refused = load_as(&server, "a", &graph_of("b"));
    assert!(
        refused.status == 400 && refused.error().contains("the graphs have a cycle: 'a' -> 'b' -> 'a'"),
        "{}",
        refused.json()
    );
    assert_eq!(data(&server, "b"), json!([3.0, 5.0, 7.0, 9.0]));
    for name in ["self", "p", "q"] {
        let (status, told) = order(&server, name, "load");
        assert_eq!(status, 400, "{name}: {told}");
    }
    assert_eq!(order(&server, "m", "load").0, 200, "orders go on");
}

#[test]
fn graphs_that_are_too_deep_or_run_too_much_are_refused() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "d0", 1);
    put(repository.path(), "w0", 1);
    for depth in 1..=17 {
        let below = format!("d{}", depth - 1);
        let one = step(&below, &[("x", "x")], &[("y", "y")]);
        write(
            repository.path(),
            &format!("d{depth}"),
            &format!("max_batch_size: 8 ensemble_scheduling {{ {one} }}"),
        );
    }
    for depth in 1..=13 {
        let below = format!("w{}", depth - 1);
        let two = step(&below, &[("x", "x")], &[("y", "m")]) + &step(&below, &[("x", "m")], &[("y", "y")]);
        write(
            repository.path(),
            &format!("w{depth}"),
            &format!("max_batch_size: 8 ensemble_scheduling {{ {two} }}"),
        );
    }
    let server = server(repository.path(), &["--exit-on-error", "false", "--strict-readiness", "false"]);
    assert_eq!(infer(server.http, "d16", SCALER).status, 200);
    assert_eq!(infer(server.http, "w5", SCALER).status, 200);
    for (name, want) in [("d17", "17 deep"), ("w13", "8192 runs")] {
        let (state, reason) = state(&server, name);
        assert!(state == "UNAVAILABLE" && reason.contains(want), "{name}: {reason}");
    }
}

#[test]
fn a_member_that_is_another_now_is_another_in_its_graphs() {
    let repository = repository();
    let server = server(repository.path(), &["--model-control-mode", "explicit"]);
    assert_eq!(order(&server, "g", "load").0, 200);
    let labels = |text: &str| {
        fs::write(repository.path().join("b/labels.txt"), text).unwrap();
        fs::write(
            repository.path().join("b/config.pbtxt"),
            "max_batch_size: 8 output { name: \"y\" data_type: TYPE_FP32 dims: [ 4 ] label_filename: \"labels.txt\" }",
        )
        .unwrap();
        assert_eq!(order(&server, "b", "load").0, 200);
    };
    let classes = || {
        let body =
            SCALER.replacen('{', "{\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":1}}],", 1);
        infer(server.http, "g", &body).json()["outputs"][0]["data"][0].as_str().unwrap_or_default().to_owned()
    };
    labels("old0\nold1\nold2\nold3\n");
    until("the graph has the labels", || classes().ends_with(":old3"));
    labels("new0\nnew1\nnew2\nnew3\n");
    until("the graph has the new labels", || classes().ends_with(":new3"));
}

#[test]
fn a_polled_graph_whose_model_comes_later_is_served_then() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "other", 1);
    let server =
        server(repository.path(), &["--model-control-mode", "poll", "--repository-poll-secs", "0.1"]);
    write(repository.path(), "late", &chain("a", "a"));
    until("the graph was tried", || {
        let rows = send(server.http, "POST", "/v2/repository/index", &[], b"").json();
        rows.as_array().unwrap().iter().any(|row| row["name"] == "late" && row["state"] == "UNAVAILABLE")
    });
    put(repository.path(), "a", 1);
    until("the graph is served", || infer(server.http, "late", SCALER).status == 200);
}
