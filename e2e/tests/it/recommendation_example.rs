//! The recommendation example: what the server says is what the pipeline says in Python.
use crate::wire::infer;
use serde_json::{Value, json};
use std::{ffi::OsStr, fs, path::Path, process::Command};
use xebec_e2e::{
    generate::root,
    server::{Server, binary, clients_python, engine_library},
};

fn recommend(server: &Server, user: &Value) -> Value {
    let body = json!({"inputs": [{"name": "user", "shape": [1], "datatype": "INT64", "data": [user]}]});
    let reply = infer(server.http, "recommend", &body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.json());
    let outputs = reply.json()["outputs"].clone();
    let named = |name: &str| {
        outputs.as_array().unwrap().iter().find(|output| output["name"] == name).unwrap()["data"].clone()
    };
    json!({"items": named("items"), "scores": named("scores"), "reasons": named("reasons")})
}

/// `offline.py` of the example, with these arguments.
fn offline(arguments: &[&OsStr]) {
    let run = Command::new(clients_python().unwrap())
        .arg("-B")
        .arg(root().join("examples/recommendation/offline.py"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(run.status.success(), "run `make tables`? {}", String::from_utf8_lossy(&run.stderr));
}

/// The server recommends what the pipeline in Python does, with this ranker if one is named.
fn compare(server: &Server, ranker: Option<&Path>) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("predictions.jsonl");
    let mut arguments = vec![OsStr::new("--users"), OsStr::new("40"), OsStr::new("--out"), file.as_os_str()];
    arguments.extend(ranker.iter().flat_map(|ranker| [OsStr::new("--ranker"), ranker.as_os_str()]));
    offline(&arguments);
    let text = fs::read_to_string(&file).unwrap();
    let (mut known, mut cold) = (0, 0);
    for line in text.lines() {
        let want: Value = serde_json::from_str(line).unwrap();
        let got = recommend(server, &want["user"]);
        assert_eq!(
            (&got["items"], &got["reasons"]),
            (&want["items"], &want["reasons"]),
            "user {}",
            want["user"]
        );
        for (a, b) in got["scores"].as_array().unwrap().iter().zip(want["scores"].as_array().unwrap()) {
            assert!((a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-4, "{a} and {b}");
        }
        let reasons = got["reasons"].as_array().unwrap();
        assert_eq!(reasons.len(), 10);
        if reasons.iter().all(|reason| reason == "popular now") { cold += 1 } else { known += 1 }
    }
    assert_eq!((known, cold), (40, 5));
}

#[test]
fn recommendations_are_those_of_the_pipeline_in_python_for_known_and_unknown_users() {
    compare(&Server::start(&["up", "examples/recommendation"]).unwrap(), None);
}

#[test]
fn a_ranker_in_eight_bits_takes_the_place_of_the_other() {
    let example = root().join("examples/recommendation");
    let folder = tempfile::tempdir().unwrap();
    for part in ["models", "tables"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for file in fs::read_dir(example.join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
        }
    }
    let requests = folder.path().join("requests.json");
    offline(&[OsStr::new("--users"), OsStr::new("20"), OsStr::new("--requests"), requests.as_os_str()]);
    let small = folder.path().join("models/ranker-int8.onnx");
    let made = Command::new(binary().unwrap())
        .arg("quantize")
        .arg(example.join("models/ranker.onnx"))
        .args(["--mode", "dynamic", "--max-loss", "0.1", "--json", "--output"])
        .arg(&small)
        .arg("--eval")
        .arg(&requests)
        .arg("--python")
        .arg(clients_python().unwrap())
        .env("ORT_DYLIB_PATH", engine_library().unwrap())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let services = fs::read_to_string(example.join("services.yaml")).unwrap();
    assert!(services.contains("models/ranker.onnx"));
    fs::write(
        folder.path().join("services.yaml"),
        services.replace("models/ranker.onnx", "models/ranker-int8.onnx"),
    )
    .unwrap();
    let server = Server::start(&["up", &folder.path().to_string_lossy()]).unwrap();
    compare(&server, Some(&small));
}
