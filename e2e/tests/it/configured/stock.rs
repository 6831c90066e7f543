//! The same as callers and operators see it, over sockets.
use crate::{
    triton_client::{pass, python},
    wire::{get, infer},
};
use std::{fs, path::Path};
use xebec_e2e::{generate::root, server::Server};

/// The checks of `config_client.py`.
const CHECKS: &str = "6";

fn model(repository: &Path, name: &str, file: &str, config: &str) {
    let folder = repository.join(name);
    fs::create_dir_all(folder.join("1")).unwrap();
    fs::copy(root().join("models/testdata").join(file), folder.join("1/model.onnx")).unwrap();
    fs::write(folder.join("config.pbtxt"), config).unwrap();
}

const SHAPES: &str = r#"
    max_batch_size: 8
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" } ]
    metric_tags { key: "team" value: "fraud" }
"#;

const RESHAPED: &str = r#"
    max_batch_size: 8
    input [ { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } } ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]
"#;

const OPTIONAL: &str = r#"
    max_batch_size: 8
    input [
      { name: "x" data_type: TYPE_FP32 dims: [ 2 ] },
      { name: "bias" data_type: TYPE_FP32 dims: [ 2 ] optional: true }
    ]
    output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
    parameters { key: "team" value { string_value: "fraud" } }
"#;

const URGENT: &str = "dynamic_batching { priority_levels: 2 default_priority_level: 2 }";

fn serve() -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "labelled", "repository/scaler.onnx", SHAPES);
    fs::write(folder.path().join("labelled/labels.txt"), "cat\ndog\nbird\n").unwrap();
    model(folder.path(), "reshaped", "configured/reshaped.onnx", RESHAPED);
    model(folder.path(), "optional", "configured/optional.onnx", OPTIONAL);
    model(folder.path(), "urgent", "repository/scaler.onnx", URGENT);
    let server = Server::start(&["serve", "--model-repository", &folder.path().to_string_lossy()]).unwrap();
    (folder, server)
}

#[test]
fn what_a_config_changes_reaches_the_stock_client() {
    let (_folder, server) = serve();
    pass(python("config_client.py", &server), CHECKS);
}

#[test]
fn classes_have_the_labels_of_their_file() {
    let (_folder, server) = serve();
    let body = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,4,3,9]}],"outputs":[{"name":"y","parameters":{"classification":3}}]}"#;
    let reply = infer(server.http, "labelled", body);
    // The fourth class has no label.
    assert_eq!(
        reply.json()["outputs"][0]["data"],
        serde_json::json!(["19.000000:3", "9.000000:1:dog", "7.000000:2:bird"])
    );
}

#[test]
fn tags_are_labels_of_the_models_metrics() {
    let (_folder, server) = serve();
    let page = String::from_utf8(get(server.metrics, "/metrics").body).unwrap();
    let of = |name: &str, model: &str| -> Vec<&str> {
        let start = format!("{name}{{model=\"{model}\"");
        page.lines().filter(|line| line.starts_with(&start)).collect()
    };
    assert_eq!(
        of("nv_inference_count", "labelled"),
        ["nv_inference_count{model=\"labelled\",version=\"1\",_team=\"fraud\"} 0"]
    );
    assert_eq!(of("nv_inference_count", "urgent"), ["nv_inference_count{model=\"urgent\",version=\"1\"} 0"]);
}
