//! Labels of versions: a name in a version's place, everywhere.
use crate::{
    lifecycle::{ask_for, order, put, server, under_load_of},
    rpc::{INFER, NOT_FOUND, OK, STREAM, Talk, call, connect, run, scaler},
    wire::{SCALER, get, metrics, send, until},
};
use prost::Message;
use serde_json::{Value, json};
use std::{fs, path::Path};
use xebec_net::wire::inference::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ModelStreamInferResponse,
};

/// Calls versions so, and serves all of them.
fn name(repository: &Path, labels: &[(&str, u64)]) {
    let labels = labels.iter().map(|(label, version)| {
        format!("parameters {{ key: \"version_label.{label}\" value: {{ string_value: \"{version}\" }} }}\n")
    });
    let config = "version_policy { all { } }\n".to_owned() + &labels.collect::<String>();
    let folder = repository.join("m");
    fs::write(folder.join("config.new"), config).unwrap();
    fs::rename(folder.join("config.new"), folder.join("config.pbtxt")).unwrap();
}

#[test]
fn a_label_is_a_version_to_every_verb_over_rest_and_grpc_and_moves_under_load() {
    let repository = tempfile::tempdir().unwrap();
    [1, 2].into_iter().for_each(|version| put(repository.path(), "m", version));
    name(repository.path(), &[("stable", 1), ("v2.0-rc", 2)]);
    let server = server(repository.path(), &["--model-control-mode", "explicit", "--load-model", "m"]);

    let verb = |method: &str, label: &str, verb: &str, body: &str| {
        send(server.http, method, &format!("/v2/models/m/versions/{label}{verb}"), &[], body.as_bytes())
    };
    let version = |label: &str| verb("POST", label, "/infer", SCALER).json()["model_version"].clone();
    assert_eq!(
        (version("stable"), version("v2.0-rc"), version("%73table")),
        (json!("1"), json!("2"), json!("1"))
    );
    assert_eq!(verb("GET", "stable", "", "").json()["versions"], json!(["1", "2"]));
    assert_eq!(verb("GET", "stable", "/ready", "").status, 200);
    let config = verb("GET", "stable", "/config", "").json();
    assert_eq!(config["parameters"]["version_label.stable"]["string_value"], "1");
    let stats = verb("GET", "stable", "/stats", "").json();
    assert_eq!(stats["model_stats"].as_array().unwrap().len(), 1);
    assert_eq!(stats["model_stats"][0]["version"], "1");
    let labels: Vec<Value> = send(server.http, "POST", "/v2/repository/index", &[], b"")
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["labels"].clone())
        .collect();
    assert_eq!(labels, [json!(["stable"]), json!(["v2.0-rc"])]);

    let unknown = verb("POST", "staple", "/infer", SCALER);
    assert_eq!(
        (unknown.status, unknown.error().as_str()),
        (404, "Request for unknown model: 'm' version staple is not found")
    );
    assert_eq!(unknown.json()["hint"], "the model has versions 1, 2, and labels stable (1), v2.0-rc (2)");
    for path in ["", "/config", "/stats"] {
        assert_eq!(verb("GET", "staple", path, "").status, 404, "{path}");
    }
    assert_ne!(verb("GET", "staple", "/ready", "").status, 200);

    run(async {
        let client = &connect(server.grpc).await;
        let infer = |version: &str| ModelInferRequest {
            model_name: "m".into(),
            model_version: version.into(),
            ..scaler()
        };
        let answered = call(client, INFER, &infer("stable")).await.unwrap();
        assert_eq!(ModelInferResponse::decode(answered.message).unwrap().model_version, "1");
        let refused = call(client, INFER, &infer("staple")).await.unwrap();
        assert_eq!(refused.code, NOT_FOUND);
        assert!(
            refused.words.contains("version staple is not found; the model has versions 1, 2"),
            "{}",
            refused.words
        );
        let mut talk = Talk::open(client, STREAM).await;
        for (label, number) in [("stable", "1"), ("v2.0-rc", "2"), ("stable", "1")] {
            talk.say(&infer(label));
            let told = ModelStreamInferResponse::decode(talk.hear().await.unwrap()).unwrap();
            assert_eq!(told.infer_response.unwrap().model_version, number, "{}", told.error_message);
        }
        let (name, version) = (|| "m".to_owned(), || "stable".to_owned());
        let method = |name: &str| format!("/inference.GRPCInferenceService/{name}");
        let ready = ModelReadyRequest { name: name(), version: version() };
        let ready = call(client, &method("ModelReady"), &ready).await.unwrap().message;
        assert!(ModelReadyResponse::decode(ready).unwrap().ready);
        let config = ModelConfigRequest { name: name(), version: version() };
        let config = call(client, &method("ModelConfig"), &config).await.unwrap().message;
        let config = ModelConfigResponse::decode(config).unwrap().config.unwrap();
        assert_eq!(config.parameters["version_label.stable"].string_value, "1");
        let metadata = ModelMetadataRequest { name: name(), version: version() };
        assert_eq!(call(client, &method("ModelMetadata"), &metadata).await.unwrap().code, OK);
        let stats = ModelStatisticsRequest { name: name(), version: version() };
        let stats = call(client, &method("ModelStatistics"), &stats).await.unwrap().message;
        assert_eq!(ModelStatisticsResponse::decode(stats).unwrap().model_stats[0].version, "1");
    });
    // Metrics are of numbers.
    let page = metrics(&server);
    assert!(page.contains("version=\"1\"") && !page.contains("stable"), "{page}");

    // It moves while it is asked for: every answer is of the version that it names, and none fails.
    under_load_of(&server, "m/versions/stable", |step| {
        for to in [2, 1, 2] {
            name(repository.path(), &[("stable", to)]);
            assert_eq!(order(&server, "m", "load").0, 200);
            assert_eq!(version("stable"), json!(to.to_string()));
            step();
        }
        name(repository.path(), &[("stable", 7)]);
        let (status, body) = order(&server, "m", "load");
        let words = "label 'stable' is version 7, which is not there: there are 1, 2";
        assert!(status == 400 && body["error"].as_str().unwrap().contains(words), "{body}");
        assert_eq!(version("stable"), json!("2"));
        step();
    });
}

#[test]
fn a_polled_configuration_moves_a_label_and_one_to_nothing_is_an_error_at_start() {
    let repository = tempfile::tempdir().unwrap();
    [1, 2].into_iter().for_each(|version| put(repository.path(), "m", version));
    name(repository.path(), &[("stable", 1)]);
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "0.1"];
    let polling = server(repository.path(), &poll);
    under_load_of(&polling, "m/versions/stable", |step| {
        for to in [2, 1] {
            name(repository.path(), &[("stable", to)]);
            until("the label has moved", || ask_for(&polling, "m/versions/stable") == to.to_string());
            step();
        }
    });
    name(repository.path(), &[("stable", 3)]);
    let noted = || get(polling.http, "/v2/models").json()["models"][0]["reason"].as_str().unwrap().to_owned();
    until("it says so", || noted().contains("label 'stable' is version 3, which is not there"));
    assert_eq!(ask_for(&polling, "m/versions/stable"), "1");
    let path = repository.path().to_string_lossy();
    let error = xebec_e2e::server::Server::start(&["serve", "--model-repository", &path]).err().unwrap();
    assert!(
        error.to_string().contains("label 'stable' is version 3, which is not there: there are 1, 2"),
        "{error}"
    );
}
