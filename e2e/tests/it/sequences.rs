//! Sequences of a stateful model, over real sockets: none sees another, whatever their clients do.
use crate::{
    triton_client::{pass, python},
    wire::{BOUND, Reply, answer, connect, post, send},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};
use xebec_e2e::{generate::root, server::Server};

/// The checks of `sequence_client.py`.
const CHECKS: &str = "7";

/// The model adds up what a sequence sends, and tells what it was told: start, end, ready, id.
const CONFIG: &str = r#"
max_batch_size: 16
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output [
  { name: "sum" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "told" data_type: TYPE_FP32 dims: [ 4 ] }
]
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [ 0, 1 ] } },
    { name: "corrid" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT32 } }
  ]
  state { input_name: "sum_in" output_name: "sum_out" data_type: TYPE_FP32 dims: [ 1 ] }
  STRATEGY
}
"#;

/// A repository with the model `accumulate`, served.
fn server(strategy: &str) -> (tempfile::TempDir, Server) {
    server_with(strategy, &[])
}

fn server_with(strategy: &str, more: &[&str]) -> (tempfile::TempDir, Server) {
    server_of(CONFIG, strategy, more)
}

fn server_of(config: &str, strategy: &str, more: &[&str]) -> (tempfile::TempDir, Server) {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), 1);
    let config = config.replace("STRATEGY", strategy);
    fs::write(repository.path().join("accumulate/config.pbtxt"), config).unwrap();
    let path = repository.path().to_string_lossy().into_owned();
    let server = Server::start(&[&["serve", "--model-repository", &path], more].concat()).unwrap();
    (repository, server)
}

/// A version of the model.
fn put(repository: &Path, version: u64) {
    let folder = repository.join(format!("accumulate/{version}"));
    fs::create_dir_all(&folder).unwrap();
    fs::copy(root().join("models/testdata/configured/accumulate.onnx"), folder.join("model.onnx")).unwrap();
}

fn request(id: &Value, start: bool, end: bool, x: usize, more: &Value) -> String {
    let mut parameters = json!({"sequence_id": id, "sequence_start": start, "sequence_end": end});
    parameters.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let inputs = json!([{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [x]}]);
    post("/v2/models/accumulate/infer", &json!({"parameters": parameters, "inputs": inputs}).to_string())
}

/// Sum and id of an answer.
fn told(reply: &Reply) -> (f64, f64) {
    let body = reply.json();
    assert_eq!(reply.status, 200, "{body}");
    let number = |output: usize, at: usize| body["outputs"][output]["data"][at].as_f64().unwrap();
    (number(0, 0), number(1, 3))
}

/// Steps of the sequence `id`, some of which are dropped by a client that goes away or may not wait. Returns how many
/// answers were compared.
fn follow(server: &Server, id: usize, steps: usize) -> usize {
    let mut stream = connect(server.http);
    let (mut sum, mut compared) = (0.0, 0);
    for step in 0..steps {
        // A fixed mixture of everything that a client can do, another one for each sequence.
        let chance = (id * 7919 + step * 104_729) % 97;
        let (start, end, x) = (step == 0, step + 1 == steps, 1 + chance);
        if chance < 8 && !start && !end {
            // This client sends a step and is gone: nobody knows whether it ran, and the sequence is left as it is.
            stream.write_all(request(&json!(id), false, false, x, &json!({})).as_bytes()).unwrap();
            return compared;
        }
        // A microsecond is not enough for some: they are told so, and change nothing.
        let more = if chance < 20 && !start && !end { json!({"timeout": 1}) } else { json!({}) };
        stream.write_all(request(&json!(id), start, end, x, &more).as_bytes()).unwrap();
        let reply = answer(&mut stream);
        if reply.status == 503 {
            assert!(reply.error().ends_with("Request timeout expired"), "{}", reply.error());
            assert!(!more.as_object().unwrap().is_empty(), "sequence {id} step {step}");
            continue;
        }
        sum += x as f64;
        assert_eq!(told(&reply), (sum, id as f64), "sequence {id} step {step}");
        compared += 1;
    }
    compared
}

#[test]
fn interleaved_sequences_never_see_each_other() {
    const SEQUENCES: usize = 1000;
    let (_repository, server) = server("oldest { max_candidate_sequences: 1000 }");
    let (next, compared) = (AtomicUsize::new(1), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let id = next.fetch_add(1, SeqCst);
                    if id > SEQUENCES {
                        return;
                    }
                    compared.fetch_add(follow(&server, id, 6), SeqCst);
                }
            });
        }
    });
    assert!(compared.load(SeqCst) > 4 * SEQUENCES, "{compared:?} answers were compared");
}

#[test]
fn more_sequences_than_have_a_place_wait_for_one() {
    let (_repository, server) = server("oldest { max_candidate_sequences: 2 }");
    let send = |id: usize, start, end, x| {
        let mut stream = connect(server.http);
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.write_all(request(&json!(id), start, end, x, &json!({})).as_bytes()).unwrap();
        stream
    };
    for id in [1, 2] {
        assert_eq!(told(&answer(&mut send(id, true, false, 5))), (5.0, id as f64));
    }
    let mut third = send(3, true, true, 7);
    assert_eq!(told(&answer(&mut send(1, false, true, 1))), (6.0, 1.0));
    assert_eq!(told(&answer(&mut third)), (7.0, 3.0));
    let mut over = send(1, false, false, 1);
    let reply = answer(&mut over);
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("must specify the START flag on the first request"), "{}", reply.error());
}

#[test]
fn a_sequence_without_a_start_with_two_or_idle_for_too_long_is_told_and_harms_none() {
    let (_repository, server) =
        server_of(&CONFIG.replace("60000000", "20000"), "oldest { max_candidate_sequences: 1 }", &[]);
    let step = |id: usize, start, end, x| {
        let mut stream = connect(server.http);
        stream.write_all(request(&json!(id), start, end, x, &json!({})).as_bytes()).unwrap();
        answer(&mut stream)
    };
    let refused = |id: usize| {
        let reply = step(id, false, false, 1);
        let words =
            format!("inference request for sequence {id} to model 'accumulate' must specify the START flag");
        assert!(reply.status == 400 && reply.error().starts_with(&words), "{}", reply.error());
        let hint = "it never began, has ended, or was idle for longer than max_sequence_idle_microseconds";
        assert_eq!(reply.json()["hint"], hint);
    };
    refused(1);
    assert_eq!(told(&step(1, true, false, 5)), (5.0, 1.0));
    // A second start begins anew.
    assert_eq!(told(&step(1, true, false, 7)), (7.0, 1.0));
    // Another one gets the only place once this one was idle for too long, and this one is over.
    assert_eq!(told(&step(2, true, true, 3)), (3.0, 2.0));
    refused(1);
    refused(2);
    assert_eq!(told(&step(1, true, true, 2)), (2.0, 1.0));
}

#[test]
fn the_stock_tritonclient_follows_sequences() {
    for strategy in ["direct { }", "oldest { max_candidate_sequences: 8 preserve_ordering: true }"] {
        let (_repository, server) = server(strategy);
        pass(python("sequence_client.py", &server), CHECKS);
    }
}

#[test]
fn a_sequence_names_the_version_that_answers_it() {
    let more = ["--model-control-mode", "explicit", "--load-model", "accumulate"];
    let (repository, server) = server_with("direct { }", &more);
    let ask = |id: usize, start, end| {
        let mut stream = connect(server.http);
        stream.write_all(request(&json!(id), start, end, 1, &json!({})).as_bytes()).unwrap();
        let reply = answer(&mut stream);
        (told(&reply).0, reply.json()["model_version"].as_str().unwrap().to_owned())
    };
    let says = |sum: f64, version: &str| (sum, version.to_owned());
    assert_eq!(ask(1, true, false), says(1.0, "1"));
    assert_eq!(ask(2, true, false), says(1.0, "1"));
    put(repository.path(), 2);
    let load = send(server.http, "POST", "/v2/repository/models/accumulate/load", &[], b"");
    assert_eq!(load.status, 200, "{}", load.json());
    assert_eq!(ask(1, false, false), says(2.0, "1"));
    assert_eq!(ask(3, true, false), says(1.0, "2"));
    assert_eq!(ask(1, false, true), says(3.0, "1"));
    assert_eq!(ask(1, true, true), says(1.0, "2"));
    // What begins anew leaves nothing behind in the old version.
    assert_eq!(ask(2, true, true), says(1.0, "2"));
    let mut stream = connect(server.http);
    stream.write_all(request(&json!(2), false, false, 1, &json!({})).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).status, 400);
}
