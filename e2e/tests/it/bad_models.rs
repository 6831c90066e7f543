//! Bad models and bad orders while a server runs: each a clear error, and what was served goes on.
use crate::{
    lifecycle::{ask_for, order, put, scaler as version_of_scaler, server, under_load_of},
    rpc::{INVALID_ARGUMENT, STREAM, Talk, call, connect, input, run},
    wire::{SCALER, counted, get, infer, metrics, send, until},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Relaxed, SeqCst},
    },
};
use xebec_e2e::{
    generate::root,
    server::{Server, binary, engine_library},
};
use xebec_net::wire::inference::{
    InferTensorContents, ModelInferRequest, ModelStreamInferResponse, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
};

const EXPLICIT: [&str; 4] = ["--model-control-mode", "explicit", "--load-model", "m"];

/// The error of a load, which must be the caller's to mend.
fn refused(server: &Server, model: &str) -> String {
    let (status, body) = order(server, model, "load");
    assert_eq!(status, 400, "{body}");
    body["error"].as_str().unwrap().to_owned()
}

fn copy(model: &str, repository: &Path, to: &str) {
    let to = repository.join(to);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(root().join("models/testdata/repository").join(model), to).unwrap();
}

#[test]
fn a_wrong_configuration_is_told_at_start_and_by_order_and_changes_nothing() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let server = server(repository.path(), &EXPLICIT);
    let config = repository.path().join("m/config.pbtxt");
    for (text, words) in [
        ("max_batchsize: 8", "line 1, column 1: field 'max_batchsize' not found"),
        ("max_batchsize: 8", "did you mean 'max_batch_size'?"),
        ("input { name: \"x\" data_type: TYPE_FLOAT dims: [ 4 ] }", "did you mean 'TYPE_FP32'?"),
        ("instance_group { kind: A_TPU }", "known are KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL"),
        (
            "max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] }",
            "config says input 'x' has dims: [ -1, 4 ], but the graph has [-1,4]",
        ),
    ] {
        fs::write(&config, text).unwrap();
        let error = refused(&server, "m");
        assert!(error.starts_with("failed to load 'm', ") && error.contains(words), "{text}: {error}");
        assert_eq!(ask_for(&server, "m"), "1", "{text}");
        let path = repository.path().to_string_lossy();
        let start = Server::start(&["serve", "--model-repository", &path]).err().unwrap().to_string();
        assert!(start.contains(words), "{text}: {start}");
    }
    fs::write(&config, "max_batch_size: 8").unwrap();
    assert_eq!(order(&server, "m", "load").0, 200);
}

#[test]
fn versions_with_different_inputs_each_take_their_own() {
    let repository = tempfile::tempdir().unwrap();
    copy("scaler.onnx", repository.path(), "m/1/model.onnx");
    copy("lookup.onnx", repository.path(), "m/2/model.onnx");
    fs::write(repository.path().join("m/config.pbtxt"), "version_policy { all { } }").unwrap();
    let server = server(repository.path(), &[]);
    let inputs = |path: &str| get(server.http, path).json()["inputs"][0]["name"].clone();
    assert_eq!(inputs("/v2/models/m/versions/1"), "x");
    assert_eq!((inputs("/v2/models/m"), inputs("/v2/models/m/versions/2")), (json!("index"), json!("index")));
    assert_eq!(infer(server.http, "m/versions/1", SCALER).status, 200);
    let newest = infer(server.http, "m", SCALER);
    assert_eq!(
        (newest.status, newest.error().as_str()),
        (400, "[request id: <id_unknown>] unexpected inference input 'x' for model 'm'")
    );
    assert_eq!(newest.json()["hint"], "the model's inputs are 'index'");
    let index = r#"{"inputs":[{"name":"index","shape":[1],"datatype":"INT64","data":[0]}]}"#;
    assert_eq!(infer(server.http, "m", index).json()["model_version"], "2");
}

#[test]
fn an_empty_version_folder_is_no_version() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let server = server(repository.path(), &EXPLICIT);
    // Beside another it is one that is still being copied.
    fs::create_dir(repository.path().join("m/2")).unwrap();
    assert_eq!(order(&server, "m", "load").0, 200);
    assert_eq!(ask_for(&server, "m"), "1");
    // Alone it is a model without a version.
    fs::create_dir_all(repository.path().join("empty/1")).unwrap();
    let error = refused(&server, "empty");
    assert!(
        error.contains("empty has no version: put the file at ") && error.ends_with("empty/1/model.onnx"),
        "{error}"
    );
    let path = repository.path().to_string_lossy();
    let start = Server::start(&["serve", "--model-repository", &path]).err().unwrap().to_string();
    assert!(start.contains("empty has no version: put the file at "), "{start}");
    put(repository.path(), "empty", 1);
    assert_eq!(order(&server, "empty", "load").0, 200);
    assert_eq!(ask_for(&server, "empty"), "1");
}

#[test]
fn a_stream_whose_model_is_unloaded_gets_what_it_asked_for_and_errors_in_band_until_it_is_back() {
    let repository = tempfile::tempdir().unwrap();
    copy("slow.onnx", repository.path(), "m/1/model.onnx");
    let server = server(repository.path(), &[&EXPLICIT[..], &["--instances", "1"]].concat());
    let contents = InferTensorContents { fp32_contents: vec![1.0; 4], ..InferTensorContents::default() };
    let slow = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input("x", "FP32", &[1, 4], Some(contents))],
        ..ModelInferRequest::default()
    };
    let waiting = || {
        let page = metrics(&server);
        counted(&page, "nv_inference_pending_request_count{model=\"m\",version=\"1\"}").unwrap_or(0)
    };
    run(async {
        let mut talk = Talk::open(&connect(server.grpc).await, STREAM).await;
        (0..20).for_each(|_| talk.say(&slow));
        while waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(order(&server, "m", "unload").0, 200);
        let mut next = async || ModelStreamInferResponse::decode(talk.hear().await.unwrap()).unwrap();
        // What was read before the unload is answered by it, what was read behind it refused; none is lost or mixed up.
        let mut answered = 0;
        for at in 0..20 {
            let told = next().await;
            if told.error_message.is_empty() {
                assert_eq!(answered, at, "an answer behind a refusal");
                answered += 1;
            } else {
                assert_eq!(told.error_message, "Request for unknown model: 'm' has no available versions");
            }
        }
        assert!(answered > 0, "what ran when the model went was not answered");
        talk.say(&slow);
        let told = ModelStreamInferResponse::decode(talk.hear().await.unwrap()).unwrap();
        assert!(told.error_message.contains("has no available versions"), "{}", told.error_message);
        assert_eq!(order(&server, "m", "load").0, 200);
        talk.say(&slow);
        let told = ModelStreamInferResponse::decode(talk.hear().await.unwrap()).unwrap();
        assert_eq!(told.error_message, "");
    });
}

#[test]
fn a_name_that_is_a_path_is_neither_loaded_nor_unloaded() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let server = server(repository.path(), &EXPLICIT);
    let rule =
        "a model name is 1 to 255 bytes without '/', '\\' or control characters, and is not '.' or '..'";
    for (raw, name) in
        [("a%2fb", "a/b"), ("..%2fm", "../m"), ("%2e%2e", ".."), ("m%2f1", "m/1"), ("m%5c1", "m\\1")]
    {
        for verb in ["load", "unload"] {
            let (status, body) = order(&server, raw, verb);
            let said = format!("failed to load '{name}', which cannot be {verb}ed: {rule}");
            assert_eq!((status, body["error"].as_str()), (400, Some(said.as_str())), "{raw}");
        }
        run(async {
            let client = connect(server.grpc).await;
            let method = |verb: &str| format!("/inference.GRPCInferenceService/RepositoryModel{verb}");
            let load = RepositoryModelLoadRequest {
                model_name: name.into(),
                ..RepositoryModelLoadRequest::default()
            };
            let unload = RepositoryModelUnloadRequest {
                model_name: name.into(),
                ..RepositoryModelUnloadRequest::default()
            };
            for outcome in [
                call(&client, &method("Load"), &load).await.unwrap(),
                call(&client, &method("Unload"), &unload).await.unwrap(),
            ] {
                assert!(outcome.code == INVALID_ARGUMENT && outcome.words.contains(rule), "{outcome:?}");
            }
        });
    }
    assert_eq!(ask_for(&server, "m"), "1");
}

/// `xebec serve` with everything loaded by order, run by a program that sets limits first.
fn serve_under(program: &[&str], repository: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).arg(binary().unwrap()).args(["serve", "--model-repository"]).arg(repository);
    command.args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]).args(more);
    command.env("ORT_DYLIB_PATH", engine_library().unwrap());
    command
}

/// A disk that is full refuses to write; a limit of the size of files does so for every user, without a disk of its own.
#[test]
fn a_disk_that_is_full_while_files_are_loaded_fails_the_order_and_leaves_nothing_behind() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    let temporary = tempfile::tempdir().unwrap();
    // Eight blocks, of 512 or 1024 bytes. The signal that comes with the error is none that a full disk sends.
    let limited = ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"];
    let more = [&EXPLICIT[..], &["--allow-model-upload", "true"]].concat();
    let mut command = serve_under(&limited, repository.path(), &more);
    command.env("TMPDIR", temporary.path());
    let server = Server::spawn(command).unwrap();
    let upload = |padding: usize| {
        let file = |bytes: &[u8]| STANDARD.encode(bytes);
        let parameters = json!({
            "config": "{}",
            "file:2/model.onnx": file(&version_of_scaler(2.0)),
            "file:2/more.bin": file(&vec![7; padding]),
        });
        let body = json!({"parameters": parameters}).to_string();
        send(server.http, "POST", "/v2/repository/models/m/load", &[], body.as_bytes())
    };
    let full = upload(64 << 10);
    assert_eq!(full.status, 500, "{}", full.json());
    let words = "failed to load 'm', failed to poll from model repository: its files cannot be written: ";
    assert!(full.error().starts_with(words), "{}", full.error());
    // The engine keeps a file of its own there.
    let entries = fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(left.is_empty(), "what was begun is left: {left:?}");
    assert_eq!(ask_for(&server, "m"), "1");
    assert_eq!(upload(16).status, 200);
    assert_eq!(ask_for(&server, "m"), "2");
}

/// Root may read everything: there the server runs without the capabilities that let it.
#[test]
fn files_that_may_not_be_read_are_told_and_what_was_served_goes_on() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    put(repository.path(), "n", 1);
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let without = [
        "setpriv",
        "--bounding-set=-dac_override,-dac_read_search",
        "--inh-caps=-dac_override,-dac_read_search",
    ];
    let program: &[&str] = if is_root { &without } else { &["env"] };
    let server = Server::spawn(serve_under(program, repository.path(), &EXPLICIT)).unwrap();
    let shut = |path: &str, mode: u32| {
        fs::set_permissions(repository.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    put(repository.path(), "m", 2);
    for (path, words) in [
        ("m/2/model.onnx", "m/2/model.onnx: Permission denied"),
        ("m/2", "Permission denied"),
        ("m", "Permission denied"),
    ] {
        shut(path, 0);
        let error = refused(&server, "m");
        shut(path, 0o755);
        assert!(error.contains("cannot read ") && error.contains(words), "{path}: {error}");
        assert_eq!(ask_for(&server, "m"), "1", "{path}");
    }
    let config = repository.path().join("m/config.pbtxt");
    fs::write(&config, "max_batch_size: 4").unwrap();
    shut("m/config.pbtxt", 0);
    let error = refused(&server, "m");
    assert!(error.contains("m/config.pbtxt: Permission denied"), "{error}");
    shut("m/config.pbtxt", 0o644);
    assert_eq!(order(&server, "m", "load").0, 200);
    assert_eq!(ask_for(&server, "m"), "2");
    assert_eq!(order(&server, "n", "load").0, 200);
}

#[test]
fn a_polled_folder_that_changes_without_end_holds_up_nobody() {
    let repository = tempfile::tempdir().unwrap();
    put(repository.path(), "m", 1);
    put(repository.path(), "quiet", 1);
    let poll = ["--model-control-mode", "poll", "--repository-poll-secs", "0.1"];
    let server = server(repository.path(), &poll);
    let (going, changes) = (AtomicBool::new(true), AtomicUsize::new(0));
    under_load_of(&server, "m", |step| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while going.load(Relaxed) {
                    put(repository.path(), "m", 1);
                    changes.fetch_add(1, SeqCst);
                }
            });
            for version in 2..=4 {
                put(repository.path(), "quiet", version);
                until("the quiet one is followed", || ask_for(&server, "quiet") == version.to_string());
                step();
            }
            until("it has changed often", || changes.load(SeqCst) >= 1000);
            going.store(false, SeqCst);
        });
        put(repository.path(), "m", 2);
        until("the last state is served", || ask_for(&server, "m") == "2");
        step();
    });
}
