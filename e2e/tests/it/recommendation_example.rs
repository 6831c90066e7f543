//! The recommendation example: what the server says is what the pipeline says in Python.
use crate::wire::infer;
use serde_json::{Value, json};
use std::{fs, process::Command};
use xebec_e2e::{
    generate::root,
    server::{Server, clients_python},
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

#[test]
fn recommendations_are_those_of_the_pipeline_in_python_for_known_and_unknown_users() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("predictions.jsonl");
    let run = Command::new(clients_python().unwrap())
        .arg("-B")
        .arg(root().join("examples/recommendation/offline.py"))
        .args(["--users", "40", "--out"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(run.status.success(), "run `make tables`? {}", String::from_utf8_lossy(&run.stderr));
    let server = Server::start(&["up", "examples/recommendation"]).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let (mut known, mut cold) = (0, 0);
    for line in text.lines() {
        let want: Value = serde_json::from_str(line).unwrap();
        let got = recommend(&server, &want["user"]);
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
