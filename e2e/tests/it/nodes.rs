//! Graphs from YAML: sequences, ensembles, switches and splitters, with built-in steps of their own.
use crate::{
    graphs::table,
    lifecycle::put,
    wire::{SCALER, get, infer, send},
};
use serde_json::{Value, json};
use std::{fs, process::Command};
use xebec_e2e::server::{Server, binary};

const SERVICES: &str = "
apiVersion: xebec.dev/v1alpha1
kind: InferenceService
metadata: {name: a}
spec: {model: {uri: a/1/model.onnx}}
---
apiVersion: xebec.dev/v1alpha1
kind: InferenceService
metadata: {name: b}
spec: {model: {uri: b/3/model.onnx}}
";

/// A folder in which model `a` says 2 x + 1 and `b` says 2 x + 3, with these nodes as graph `g`.
fn folder(nodes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "a", 1);
    put(folder.path(), "b", 3);
    fs::write(folder.path().join("services.yaml"), SERVICES).unwrap();
    let graph = format!(
        "apiVersion: xebec.dev/v1alpha1\nkind: InferenceGraph\nmetadata: {{name: g}}\nspec:\n  nodes:\n{nodes}"
    );
    fs::write(folder.path().join("graph.yaml"), graph).unwrap();
    folder
}

fn up(folder: &tempfile::TempDir, more: &[&str]) -> Server {
    let path = folder.path().to_string_lossy();
    Server::start(&[&["up", &*path], more].concat()).unwrap()
}

fn output(reply: &Value, name: &str) -> Value {
    let outputs = reply["outputs"].as_array().unwrap_or_else(|| panic!("{reply}"));
    outputs.iter().find(|output| output["name"] == name).unwrap_or_else(|| panic!("{reply}"))["data"].clone()
}

/// 2 (2 x + `a`) + `b` of 1, 2, 3 and 4.
fn twice(a: f64, b: f64) -> Value {
    json!([1.0, 2.0, 3.0, 4.0].map(|x| 2.0 * (2.0 * x + a) + b))
}

fn once(n: f64) -> Value {
    json!([1.0, 2.0, 3.0, 4.0].map(|x| 2.0 * x + n))
}

#[test]
fn a_sequence_takes_the_newest_tensor_of_a_name_and_says_which_where_it_is_told() {
    let folder = folder(
        "    root:
      routerType: Sequence
      steps:
        - serviceName: a
          outputs: {y: x}
        - serviceName: b
        - {serviceName: a, name: again, data: $request, outputs: {y: first}}
        - {nodeName: more, inputs: {x: y}}
      outputs: [x, y, first, both]
    more:
      routerType: Sequence
      steps: [{serviceName: a, outputs: {y: both}}]
",
    );
    let server = up(&folder, &[]);
    let reply = infer(server.http, "g", SCALER).json();
    assert_eq!(output(&reply, "x"), once(1.0));
    assert_eq!(output(&reply, "y"), twice(1.0, 3.0));
    assert_eq!(output(&reply, "first"), once(1.0));
    assert_eq!(
        output(&reply, "both"),
        json!([1.0, 2.0, 3.0, 4.0].map(|x| 2.0 * (2.0 * (2.0 * x + 1.0) + 3.0) + 1.0))
    );
    let about = get(server.http, "/v2/models/g").json();
    assert_eq!(about["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]));
    let names: Vec<&Value> =
        about["outputs"].as_array().unwrap().iter().map(|output| &output["name"]).collect();
    assert_eq!(names, ["x", "y", "first", "both"]);
    assert_eq!(output(&infer(server.http, "g.more", SCALER).json(), "both"), once(1.0), "a node is a model");
}

#[test]
fn an_ensemble_gives_the_request_to_each() {
    let folder = folder(
        "    root:
      routerType: Ensemble
      steps:
        - {serviceName: a, outputs: {y: a}}
        - {serviceName: b, outputs: {y: b}}
",
    );
    let reply = infer(up(&folder, &[]).http, "g", SCALER).json();
    assert_eq!((output(&reply, "a"), output(&reply, "b")), (once(1.0), once(3.0)));
}

#[test]
fn a_switch_looks_at_a_header_or_at_a_tensor_and_says_if_nothing_fits() {
    let folder = folder(
        "    root:
      routerType: Switch
      steps:
        - {serviceName: a, when: {header: X-Tier, equals: gold}}
        - {serviceName: b, when: {tensor: x, atLeast: 1, below: 2}}
        - {serviceName: a, name: c, when: {tensor: big, equals: true}}
",
    );
    let server = up(&folder, &[]);
    let ask = |x: f64, big: bool, headers: &[(&str, &str)]| {
        let body = json!({"inputs": [
            {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [x, 2.0, 3.0, 4.0]},
            {"name": "big", "shape": [1], "datatype": "BOOL", "data": [big]},
        ]});
        send(server.http, "POST", "/v2/models/g/infer", headers, body.to_string().as_bytes())
    };
    let first = |reply: &crate::wire::Reply| output(&reply.json(), "y")[0].clone();
    assert_eq!(first(&ask(1.0, false, &[("x-tier", "gold")])), json!(3.0));
    assert_eq!(first(&ask(1.0, false, &[("x-tier", "silver")])), json!(5.0));
    assert_eq!(first(&ask(2.0, true, &[])), json!(5.0));
    let refused = ask(2.0, false, &[]);
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("none of its conditions holds"), "{}", refused.json());
    let missing = infer(server.http, "g", SCALER);
    assert!(missing.status == 400 && missing.error().contains("'big'"), "{}", missing.json());
}

#[test]
fn a_splitter_takes_each_way_as_often_as_its_weight_says() {
    let folder = folder(
        "    root:
      routerType: Splitter
      steps:
        - {serviceName: a, weight: 90}
        - {serviceName: b, weight: 10}
",
    );
    let server = up(&folder, &[]);
    let answers = (0..400).map(|_| output(&infer(server.http, "g", SCALER).json(), "y"));
    let (heavy, light): (Vec<_>, Vec<_>) = answers.partition(|answer| *answer == once(1.0));
    assert!(light.iter().all(|answer| *answer == once(3.0)), "{light:?}");
    // 40 are to be expected; of 10,000,000 such rows one has less than 10 or more than 75.
    assert!((10..=75).contains(&light.len()), "{} and {}", heavy.len(), light.len());
}

#[test]
fn built_in_steps_of_a_graph_read_files_beside_its_document() {
    let folder = folder(
        "    root:
      routerType: Sequence
      steps:
        - {step: lookup, settings: {table: tables/users.npy, missing: zero}, inputs: {ids: user}}
        - {nodeName: choose, inputs: {ids: user}}
    choose:
      routerType: Switch
      steps:
        - {step: labels, name: cold, when: {tensor: found, equals: false}, settings: {template: 'nobody {}'}}
        - {step: labels, name: warm, settings: {template: 'user {}'}}
",
    );
    fs::create_dir(folder.path().join("tables")).unwrap();
    fs::write(folder.path().join("tables/users.npy"), table(&[0.0, 0.0])).unwrap();
    let server = up(&folder, &[]);
    let ask = |user: i64| {
        let body = json!({"inputs": [{"name": "user", "shape": [1], "datatype": "INT64", "data": [user]}]});
        output(&infer(server.http, "g", &body.to_string()).json(), "labels")
    };
    assert_eq!((ask(1), ask(2)), (json!(["user 1"]), json!(["nobody 2"])));
    assert_eq!(get(server.http, "/v2/models/g.lookup").json()["platform"], json!("xebec_step"));
}

/// What `xebec up` says of a folder that it does not serve.
fn refused(nodes: &str) -> String {
    let folder = folder(nodes);
    let path = folder.path().to_string_lossy().into_owned();
    let line = ["up", &path, "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"];
    let ended = Command::new(binary().unwrap()).args(line).output().unwrap();
    assert!(!ended.status.success(), "{nodes}");
    String::from_utf8_lossy(&ended.stderr).into_owned()
}

#[test]
fn a_graph_that_makes_no_sense_is_refused_with_what_would() {
    let node =
        |kind: &str, steps: &str| format!("    root:\n      routerType: {kind}\n      steps: [{steps}]\n");
    let two = |kind: &str, steps: &str, other: &str| {
        format!("{}    other:\n      routerType: Sequence\n      steps: [{other}]\n", node(kind, steps))
    };
    let cases = [
        (
            "    start:\n      routerType: Sequence\n      steps: [{serviceName: a}]\n".to_owned(),
            "it has no node 'root'",
        ),
        (node("Sequence", "{nodeName: none}"), "node 'root' names node 'none', which is not there"),
        (
            two("Sequence", "{nodeName: other}", "{nodeName: root}"),
            "its nodes have a cycle: root -> other -> root",
        ),
        (two("Sequence", "{serviceName: a}", "{serviceName: a}"), "node 'other' is reached by none"),
        (node("Sequence", ""), "it has 0 steps"),
        (node("Sequence", "{serviceName: a, step: nms}"), "write one of serviceName, nodeName and step"),
        (node("Sequence", "{serviceName: a}, {serviceName: a}"), "two steps are called 'a'"),
        (node("Sequence", "{serviceName: a, weight: 3}"), "weight is for a step of a Splitter"),
        (
            node("Splitter", "{serviceName: a, weight: 60}, {serviceName: b, weight: 60}"),
            "the weights add up to 120",
        ),
        (node("Switch", "{serviceName: a}, {serviceName: b}"), "step 'a' has no `when`"),
        (node("Switch", "{serviceName: a, when: {header: x}}"), "`when` says nothing of it"),
        (node("Switch", "{serviceName: a, when: {header: authorization, equals: x}}"), "it is a secret"),
        (node("Switch", "{serviceName: a, when: {tensor: z, atLeast: 1}}"), "write its datatype"),
        (node("Switch", "{serviceName: a, when: {tensor: x, equals: red}}"), "what it cannot be"),
        (node("Sequence", "{serviceName: a, dependency: Soft}"), "dependency Soft is not offered"),
        (node("Sequence", "{serviceName: a, settings: {k: 3}}"), "settings are for a built-in step"),
        (node("Sequence", "{serviceName: none}"), "its member 'none' is not in the model repository"),
        (
            node("Sequence", "{serviceName: a, inputs: {z: x}}"),
            "step 'a' names input 'z', which 'a' does not have; it has 'x'",
        ),
        (
            node("Sequence", "{serviceName: a}, {serviceName: b, data: $response}"),
            "takes 'x' from the step before it, which makes 'y'",
        ),
        (node("Sequence", "{serviceName: a}, {serviceName: b}"), "nothing that step 'a' makes is used"),
        (node("Ensemble", "{serviceName: a}, {serviceName: b}"), "more than one step makes 'y'"),
        (node("Sequence", "{step: nms, settings: {iou: 2}}"), "setting 'iou' is '2'"),
        (
            node("Sequence", "{step: normalise, settings: {mean: [0.5, red, 1]}}"),
            "setting 'mean' is '0.5,red,1': write 3 numbers, divided by commas",
        ),
        (node("Sequence", "{step: nms, settings: {iou: {a: 2}}}"), "a setting is a text, a number"),
        (
            node("Sequence", "{step: lookup, settings: {table: ../t.npy}}"),
            "not the name of a file below its folder",
        ),
        (
            node("Splitter", "{serviceName: a, weight: 50, outputs: {y: z}}, {serviceName: b, weight: 50}"),
            "do not answer with the same",
        ),
        (node("Sequence", "{serviceName: a, colour: red}"), "colour"),
    ];
    for (nodes, want) in cases {
        let told = refused(&nodes);
        assert!(told.contains(want), "{nodes}\nwants: {want}\nsaid: {told}");
    }
}
