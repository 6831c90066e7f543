//! Loading, reloading and unloading while requests come: none fails, and every answer is of the version that it names.
use crate::{
    triton_client::{pass, python},
    wire::{SCALER, answer, connect, counted, get, infer, metrics, post, send, until},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::Path,
    sync::atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};
use xebec_e2e::server::Server;

/// The checks of `triton_control.py`.
const CHECKS: &str = "8";

/// y = 2 x + `offset`: the model of the repository with another weight.
pub(crate) fn scaler(offset: f32) -> Vec<u8> {
    let mut model =
        fs::read(xebec_e2e::generate::root().join("models/testdata/repository/scaler.onnx")).unwrap();
    let one = 1.0_f32.to_le_bytes();
    let at = model.windows(4).position(|bytes| bytes == one).unwrap();
    model[at..at + 4].copy_from_slice(&offset.to_le_bytes());
    model
}

/// Version `n` of a model adds `n`. Files are put as a careful owner puts them: beside, then over.
pub(crate) fn put(repository: &Path, model: &str, version: u64) {
    let folder = repository.join(model).join(version.to_string());
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("new"), scaler(version as f32)).unwrap();
    fs::rename(folder.join("new"), folder.join("model.onnx")).unwrap();
}

pub(crate) fn server(repository: &Path, more: &[&str]) -> Server {
    let path = repository.to_string_lossy();
    Server::start(&[&["serve", "--model-repository", &*path], more].concat()).unwrap()
}

pub(crate) fn order(server: &Server, model: &str, verb: &str) -> (u16, Value) {
    let reply = send(server.http, "POST", &format!("/v2/repository/models/{model}/{verb}"), &[], b"");
    (reply.status, reply.json())
}

fn index(server: &Server) -> Vec<(String, String)> {
    let reply = send(server.http, "POST", "/v2/repository/index", &[], b"").json();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    reply.as_array().unwrap().iter().map(|row| (text(row, "name"), text(row, "state"))).collect()
}

/// Whether an answer is that of the version it names: 1 in, 2 + version out.
fn is_of_its_version(body: &Value) -> bool {
    let version: f64 = body["model_version"].as_str().unwrap().parse().unwrap();
    body["outputs"][0]["data"] == json!([2.0 + version, 4.0 + version, 6.0 + version, 8.0 + version])
}

/// The version that answers for a model, by the path of its name and version.
pub(crate) fn ask_for(server: &Server, model: &str) -> String {
    infer(server.http, model, SCALER).json()["model_version"].as_str().unwrap_or_default().to_owned()
}

/// Sends requests for a model until told to end; every one must be answered, and rightly.
fn ask(address: SocketAddr, model: &str, going: &AtomicBool, answered: &AtomicU64) {
    let mut stream = connect(address);
    let request = post(&format!("/v2/models/{model}/infer"), SCALER);
    while going.load(Relaxed) {
        stream.write_all(request.as_bytes()).unwrap();
        let reply = answer(&mut stream);
        assert!(reply.status == 200 && is_of_its_version(&reply.json()), "{}", reply.json());
        answered.fetch_add(1, SeqCst);
    }
}

/// Runs `change` while two clients ask for `m`; each step of it waits for answers after it.
fn under_load(server: &Server, change: impl FnOnce(&dyn Fn())) {
    under_load_of(server, "m", change);
}

/// As [`under_load`], of a model by the path of its name and version.
pub(crate) fn under_load_of(server: &Server, model: &str, change: impl FnOnce(&dyn Fn())) {
    let (going, answered) = (AtomicBool::new(true), AtomicU64::new(0));
    let ready = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| ask(server.http, model, &going, &answered));
        }
        scope.spawn(|| {
            while going.load(Relaxed) {
                let reply = get(server.http, "/v2/health/ready");
                ready.fetch_and(reply.status == 200, SeqCst);
            }
        });
        let step = || {
            let before = answered.load(SeqCst);
            until("answers go on", || answered.load(SeqCst) > before + 4);
        };
        step();
        change(&step);
        going.store(false, SeqCst);
    });
    assert!(ready.load(SeqCst), "readiness flipped");
}

#[test]
fn reloads_and_loads_of_others_lose_no_request_and_never_mix_versions() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    put(repository.path(), "other", 1);
    let explicit = ["--model-control-mode", "explicit", "--load-model", "m"];
    let server = server(repository.path(), &explicit);
    let version = || get(server.http, "/v2/models/m").json()["versions"].clone();
    under_load(&server, |step| {
        for new in 2..=20 {
            put(repository.path(), "m", new);
            assert_eq!(order(&server, "m", "load"), (200, json!({"name": "m", "load": true})));
            assert_eq!(version(), json!([new.to_string()]));
            assert_eq!(order(&server, "other", if new % 2 == 0 { "load" } else { "unload" }).0, 200);
            step();
        }
        // A broken newer version changes nothing for anybody.
        fs::create_dir_all(repository.path().join("m/21")).unwrap();
        fs::write(repository.path().join("m/21/model.onnx"), "garbage").unwrap();
        let (status, body) = order(&server, "m", "load");
        assert_eq!(status, 400, "{body}");
        let error = body["error"].as_str().unwrap();
        assert!(error.starts_with("failed to load 'm', version 21 is not served"), "{error}");
        assert_eq!(version(), json!(["20"]));
        step();
    });
    let page = metrics(&server);
    let loads =
        |outcome: &str| counted(&page, &format!("xebec_engine_model_loads_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((loads("success"), loads("failure")), (Some(1 + 19 + 10), Some(1)));
}

#[test]
fn a_polled_folder_is_followed_under_load() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "0.1"];
    let server = server(repository.path(), &poll);
    let versions = |model: &str| get(server.http, &format!("/v2/models/{model}")).json()["versions"].clone();
    under_load(&server, |step| {
        for new in 2..=4 {
            put(repository.path(), "m", new);
            until("the new version is served", || versions("m") == json!([new.to_string()]));
            step();
        }
        put(repository.path(), "late", 3);
        until("the new model is served", || versions("late") == json!(["3"]));
        // An empty version folder is one that is being copied.
        fs::create_dir(repository.path().join("m/9")).unwrap();
        fs::remove_dir_all(repository.path().join("late")).unwrap();
        until("the removed model is unknown", || get(server.http, "/v2/models/late").status == 404);
        assert_eq!(versions("m"), json!(["4"]));
    });
    // By its owner's order alone, and by nobody else's.
    let (status, body) = order(&server, "m", "unload");
    assert_eq!(status, 403, "{body}");
    assert!(body["error"].as_str().unwrap().contains("--model-control-mode explicit"), "{body}");
}

#[test]
fn an_explicit_server_begins_with_what_is_named_and_lists_the_rest() {
    let repository = tempfile::tempdir().unwrap();
    ["a", "b", "c"].into_iter().for_each(|model| put(repository.path(), model, 1));
    let explicit = ["--model-control-mode", "explicit"];
    let server = server(repository.path(), &[&explicit[..], &["--load-model", "b,c"]].concat());
    let states = |states: [&str; 3]| {
        let rows = ["a", "b", "c"].into_iter().zip(states);
        rows.map(|(name, state)| (name.to_owned(), state.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(index(&server), states(["UNAVAILABLE", "READY", "READY"]));
    let refused = infer(server.http, "a", SCALER);
    assert_eq!(refused.status, 503);
    assert_eq!(refused.error(), "Request for unknown model: 'a' has no available versions");
    assert_eq!(order(&server, "a", "load").0, 200);
    assert_eq!(order(&server, "c", "unload"), (200, json!({"name": "c", "unload": true})));
    until("it is unloaded", || index(&server) == states(["READY", "READY", "UNAVAILABLE"]));
    assert_eq!(infer(server.http, "a", SCALER).status, 200);
    assert_eq!(order(&server, "nobody", "load").0, 404);
    assert_eq!(order(&server, "nobody", "unload").0, 404);
    // One that is named and not there ends a start.
    let path = repository.path().to_string_lossy();
    let line =
        ["serve", "--model-repository", &*path, "--model-control-mode", "explicit", "--load-model", "d"];
    let error = Server::start(&line).err().unwrap().to_string();
    assert!(error.contains("--load-model names it, but no --model-repository has it"), "{error}");
}

#[test]
fn more_models_than_fit_into_their_memory_all_answer() {
    const MODELS: u64 = 60;
    let repository = tempfile::tempdir().unwrap();
    (1..=MODELS).for_each(|at| put(repository.path(), &format!("m{at}"), at));
    // A model takes half a MiB for each of two I/O threads, and a few bytes.
    let budget = (10 * 2 * (512 << 10) + 20_000).to_string();
    let server = server(repository.path(), &["--model-memory-budget", &budget, "--io-threads", "2"]);
    assert_eq!(get(server.http, "/v2/health/ready").status, 200);
    assert_eq!(get(server.http, "/v2/models/m7/ready").status, 200);
    for round in 0..2 {
        std::thread::scope(|scope| {
            for first in 1..=2 {
                let server = &server;
                scope.spawn(move || {
                    for at in (first..=MODELS).step_by(2) {
                        let reply = infer(server.http, &format!("m{at}"), SCALER);
                        assert!(reply.status == 200, "round {round}: {}", reply.json());
                        assert!(is_of_its_version(&reply.json()), "{}", reply.json());
                    }
                });
            }
        });
    }
    // Reading about all of them brings none back.
    let loads = |page: &str| counted(page, "xebec_engine_model_loads_total{outcome=\"success\"}").unwrap();
    let before = loads(&metrics(&server));
    for (at, what) in (1..=MODELS).flat_map(|at| ["", "/config", "/stats"].map(|what| (at, what))) {
        assert_eq!(get(server.http, &format!("/v2/models/m{at}{what}")).status, 200, "{at}{what}");
    }
    let page = metrics(&server);
    let number = |series: &str| counted(&page, series).unwrap();
    assert_eq!(loads(&page), before);
    let answered = |at| number(&format!("nv_inference_request_success{{model=\"m{at}\",version=\"{at}\"}}"));
    assert!((1..=MODELS).all(|at| answered(at) == 2), "{page}");
    let (used, limit) =
        (number("xebec_engine_model_memory_bytes"), number("xebec_engine_model_memory_limit_bytes"));
    assert!(used <= limit && limit.to_string() == budget, "{used} of {limit}");
    assert!(number("xebec_engine_model_evictions_total") >= MODELS, "{page}");
    assert_eq!(number("xebec_engine_model_loads_total{outcome=\"failure\"}"), 0);
    // Every model is listed as one that answers.
    assert!(index(&server).iter().filter(|(_, state)| state == "READY").count() as u64 == MODELS);
}

#[test]
fn the_stock_tritonclient_controls_models() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    put(repository.path(), "n", 2);
    let explicit = ["--model-control-mode", "explicit", "--allow-model-upload", "true"];
    let server = server(repository.path(), &explicit);
    let mut client = python("triton_control.py", &server);
    client.env("XEBEC_REPOSITORY", repository.path());
    pass(client, CHECKS);
}
