//! Rows of what other servers fell to by their settings: names of shared memory that leak, files that a caller names.
use crate::{
    hostile_http2::beside,
    rpc::{self, UNIMPLEMENTED},
    wire::{SCALER, get, send, still_serves},
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use xebec_e2e::server::Server;
use xebec_net::wire::inference::{
    LogSettingsRequest, SystemSharedMemoryRegisterRequest,
    log_settings_request::{SettingValue, setting_value::ParameterChoice},
};

/// Shared memory of a test's own, gone with it.
struct Memory(PathBuf);

impl Memory {
    fn new(name: &str, bytes: usize) -> Self {
        let path = Path::new("/dev/shm").join(name);
        std::fs::write(&path, vec![0; bytes]).unwrap();
        Self(path)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // Already gone if the test failed before it was made.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn place(region: &str, offset: u64, byte_size: u64) -> Value {
    json!({"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": byte_size})
}

fn row(input: &Value, output: &Value) -> String {
    json!({
        "inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": input}],
        "outputs": [{"name": "y", "parameters": output}],
    })
    .to_string()
}

/// What is wrong with a request, one of each kind.
fn wrong_requests(region: &str) -> Vec<(&'static str, String)> {
    let (infer, near) = ("/v2/models/scaler/infer", place(region, 0, 16));
    let none = json!({});
    let mut all = vec![
        (infer, "{".to_owned()),
        (infer, "[]".to_owned()),
        (infer, r#"{"inputs":[]}"#.to_owned()),
        (infer, SCALER.replace("[1,2,3,4]", "[1]")),
        (infer, SCALER.replace("FP32", "FP31")),
        (infer, SCALER.replace("\"x\"", "\"z\"")),
        (infer, SCALER.replace("[1,4]", "[4611686018427387904,4]")),
        (infer, row(&none, &none)),
        ("/v2/models/nobody/infer", SCALER.to_owned()),
        ("/v2/models/..%2f..%2fdev%2fshm/infer", SCALER.to_owned()),
        ("/v2/models/scaler/versions/9/infer", SCALER.to_owned()),
        ("/v2/models/lookup/infer", SCALER.replace("scaler", "lookup")),
        ("/v2/nothing", "{}".to_owned()),
        ("/v2/logging", r#"{"log_file": "/dev/shm/x"}"#.to_owned()),
        ("/v2/repository/index", "[]".to_owned()),
        ("/v2/cudasharedmemory/region/r/register", "{}".to_owned()),
    ];
    for (input, output) in [
        (place(region, 0, 17), none.clone()),
        (place(region, u64::MAX, 16), none.clone()),
        (place(region, 0, 8), none.clone()),
        (place("unknown", 0, 16), none.clone()),
        (near.clone(), place(region, 0, 4)),
        (near.clone(), place(region, 56, 16)),
        (near, place("unknown", 0, 16)),
    ] {
        all.push((infer, row(&input, &output)));
    }
    all
}

#[test]
fn cve_2025_23319_23320_and_23334_no_answer_tells_a_name_of_shared_memory_a_key_or_a_path() {
    let key = format!("xebec-secret-{}", std::process::id());
    let memory = Memory::new(&key, 64);
    let off = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    let register = format!("/v2/systemsharedmemory/region/{key}/register");
    let body = json!({"key": key, "byte_size": 64}).to_string();
    let refused = send(off.http, "POST", &register, &[], body.as_bytes());
    assert_eq!(refused.status, 404);
    assert!(!String::from_utf8_lossy(&refused.body).contains(&key));
    let on = Server::start(&[
        "serve",
        "--model-repository",
        "models/testdata/repository",
        "--allow-shared-memory",
        &key,
    ])
    .unwrap();
    beside(&on, || {
        let quiet = |text: &str, asked: &str| {
            for secret in [key.as_str(), "shm", "/tmp", "/proc", "/etc", "testdata", "os error"] {
                assert!(!text.contains(secret), "{asked}: {text}");
            }
        };
        let post = |path: &str, body: &str| {
            let reply = send(on.http, "POST", path, &[], body.as_bytes());
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            // What the caller wrote in a path that is unknown may be repeated.
            quiet(
                &text.replace("/dev/shm/infer", "").replace("../../dev/shm", ""),
                &format!("{path} {body}"),
            );
            reply.status
        };
        for body in [
            json!({"key": key, "byte_size": 65}),
            json!({"key": key, "byte_size": 0}),
            json!({"key": key, "offset": u64::MAX, "byte_size": 64}),
            json!({"key": format!("{key}-2"), "byte_size": 64}),
            json!({"key": "/etc/passwd", "byte_size": 64}),
            json!({"key": 7, "byte_size": 64}),
        ] {
            assert_eq!(
                post("/v2/systemsharedmemory/region/secret/register", &body.to_string()),
                400,
                "{body}"
            );
        }
        assert_eq!(post("/v2/systemsharedmemory/region/secret/register", &body), 200);
        for (path, body) in wrong_requests("secret") {
            assert!((400..600).contains(&post(path, &body)), "{path} {body}");
        }
        // Cut while it is registered.
        std::fs::write(&memory.0, [0; 8]).unwrap();
        assert_eq!(post("/v2/models/scaler/infer", &row(&place("secret", 0, 16), &json!({}))), 400);
        rpc::run(async {
            let client = rpc::connect(on.grpc).await;
            let method = "/inference.GRPCInferenceService/SystemSharedMemoryRegister";
            for (name, key, byte_size) in
                [("secret", key.as_str(), 8), ("more", &key, 64), ("more", "x", 1), ("", &key, 1)]
            {
                let request = SystemSharedMemoryRegisterRequest {
                    name: name.into(),
                    key: key.into(),
                    offset: 0,
                    byte_size,
                };
                let outcome = rpc::call(&client, method, &request).await.unwrap();
                assert_eq!(outcome.code, rpc::INVALID_ARGUMENT, "{outcome:?}");
                quiet(&outcome.words, name);
            }
        });
    });
    still_serves(on.http);
}

#[test]
fn memory_may_be_forgotten_while_requests_use_it() {
    let key = format!("xebec-busy-{}", std::process::id());
    let _memory = Memory::new(&key, 64);
    let flags = ["serve", "--model-repository", "models/testdata/repository", "--allow-shared-memory", &key];
    let server = Server::start(&flags).unwrap();
    let register = || {
        let body = json!({"key": key, "byte_size": 64}).to_string();
        send(server.http, "POST", "/v2/systemsharedmemory/region/r/register", &[], body.as_bytes()).status
    };
    assert_eq!(register(), 200);
    let body = row(&place("r", 0, 16), &place("r", 16, 16));
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let infer = || send(server.http, "POST", "/v2/models/scaler/infer", &[], body.as_bytes());
                    (0..200).map(|_| infer().status).filter(|status| *status == 200).count()
                })
            })
            .collect();
        for _ in 0..50 {
            let forgotten = send(server.http, "POST", "/v2/systemsharedmemory/unregister", &[], b"");
            assert_eq!((forgotten.status, register()), (200, 200));
        }
        let answered: usize = lanes.into_iter().map(|lane| lane.join().unwrap()).sum();
        assert!(answered > 0, "nothing was answered");
    });
    still_serves(server.http);
}

#[test]
fn triton_no_api_sets_a_file() {
    let file = std::env::temp_dir().join(format!("xebec-log-{}", std::process::id()));
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    beside(&server, || {
        assert_eq!(get(server.http, "/v2/logging").json()["log_file"], "");
        let body = json!({"log_file": file}).to_string();
        let refused = send(server.http, "POST", "/v2/logging", &[], body.as_bytes());
        assert!([403, 501].contains(&refused.status), "{}", refused.error());
        assert!(!refused.error().contains("xebec-log-"), "{}", refused.error());
        rpc::run(async {
            let client = rpc::connect(server.grpc).await;
            let choice = ParameterChoice::StringParam(file.to_string_lossy().into_owned());
            let value = SettingValue { parameter_choice: Some(choice) };
            let request = LogSettingsRequest { settings: [("log_file".to_owned(), value)].into() };
            let path = "/inference.GRPCInferenceService/LogSettings";
            let outcome = rpc::call(&client, path, &request).await.unwrap();
            assert!([rpc::PERMISSION_DENIED, UNIMPLEMENTED].contains(&outcome.code), "{outcome:?}");
        });
    });
    assert!(!file.exists());
}
