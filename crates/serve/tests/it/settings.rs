//! Shared memory and the log's settings over both transports, with a folder in place of the machine's shared memory.
use crate::server::{Answer, MAX_BODY_BYTES, Server, call};
use prost::Message as _;
use serde_json::{Value, json};
use std::sync::atomic::Ordering::SeqCst;
use xebec_core::log::{LogControl as _, LogSettings};
use xebec_net::wire::inference::{
    InferParameter, LogSettingsRequest, LogSettingsResponse, ModelInferRequest, ModelInferResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse,
    SystemSharedMemoryUnregisterRequest,
    infer_parameter::ParameterChoice,
    log_settings_request,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use xebec_serve::Dialect;

const SERVICE: &str = "/inference.GRPCInferenceService";
const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const REGION: &str = "/v2/systemsharedmemory/region";

/// What may stand in no error: names of regions, keys, and the folder.
const SECRETS: [&str; 3] = ["hidden-region", "xebec-hidden-key", "/tmp"];

impl Server {
    fn with_key(&self, bytes: &[u8]) {
        std::fs::write(self.memory.path().join("xebec-hidden-key"), bytes).unwrap();
    }

    fn key(&self) -> Vec<u8> {
        std::fs::read(self.memory.path().join("xebec-hidden-key")).unwrap()
    }

    fn register(&self, body: &Value) -> Answer {
        self.post(&format!("{REGION}/hidden-region/register"), &[], body.to_string().as_bytes())
    }

    fn infer(&self, input: &Value, output: &Value) -> Answer {
        let body = json!({
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": input}],
            "outputs": [{"name": "y", "parameters": output}],
        });
        self.post("/v2/models/echo/infer", &[], body.to_string().as_bytes())
    }
}

fn place(offset: u64, byte_size: u64) -> Value {
    json!({"shared_memory_region": "hidden-region", "shared_memory_offset": offset, "shared_memory_byte_size": byte_size})
}

fn row() -> Vec<u8> {
    [1.0f32, 2.5].map(f32::to_le_bytes).concat()
}

fn quiet(text: &str) {
    assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
}

#[test]
fn a_tensor_goes_through_shared_memory_over_rest() {
    let server = Server::start();
    server.with_key(&[row(), vec![0; 24]].concat());
    assert_eq!(
        server.register(&json!({"key": "/xebec-hidden-key", "offset": 0, "byte_size": 32})).status,
        200
    );
    let known = json!([{"name": "hidden-region", "key": "/xebec-hidden-key", "offset": 0, "byte_size": 32}]);
    for path in ["/v2/systemsharedmemory/status", "/v2/systemsharedmemory/region/hidden-region/status"] {
        let answer = server.get(path);
        assert_eq!(
            (answer.status, serde_json::from_slice::<Value>(&answer.body).unwrap()),
            (200, known.clone())
        );
    }
    let answer = server.infer(&place(0, 8), &place(8, 16));
    let outputs: Value = serde_json::from_slice(&answer.body).unwrap();
    let output = json!({"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {
        "shared_memory_region": "hidden-region", "shared_memory_byte_size": 8, "shared_memory_offset": 8,
    }});
    assert_eq!((answer.status, &outputs["outputs"][0]), (200, &output));
    assert_eq!(server.key(), [row(), row(), vec![0; 16]].concat());
    // One of the two in memory, the other with the request.
    let answer = server.infer(&place(8, 8), &json!({}));
    let outputs: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &outputs["outputs"][0]["data"]), (200, &json!([1.0, 2.5])));
    assert_eq!(server.post("/v2/systemsharedmemory/unregister", &[], b"").status, 200);
    assert_eq!(server.get("/v2/systemsharedmemory/status").text(), "[]");
    assert_eq!(server.infer(&place(0, 8), &json!({})).status, 404);
}

fn grpc_place(offset: i64, byte_size: i64) -> std::collections::BTreeMap<String, InferParameter> {
    let said = |choice| InferParameter { parameter_choice: Some(choice) };
    [
        ("shared_memory_region", said(ParameterChoice::StringParam("hidden-region".into()))),
        ("shared_memory_offset", said(ParameterChoice::Int64Param(offset))),
        ("shared_memory_byte_size", said(ParameterChoice::Int64Param(byte_size))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn grpc_request(input: (i64, i64), output: (i64, i64)) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "echo".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            parameters: grpc_place(input.0, input.1),
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: "y".into(),
            parameters: grpc_place(output.0, output.1),
        }],
        ..ModelInferRequest::default()
    }
}

fn registration(key: &str, offset: u64, byte_size: u64) -> SystemSharedMemoryRegisterRequest {
    SystemSharedMemoryRegisterRequest { name: "hidden-region".into(), key: key.into(), offset, byte_size }
}

#[tokio::test]
async fn a_tensor_goes_through_shared_memory_over_grpc() {
    let server = Server::start();
    server.with_key(&[row(), vec![0; 24]].concat());
    let mut client = server.connect().await;
    let register = format!("{SERVICE}/SystemSharedMemoryRegister");
    let (_, status, text) = call(&mut client, &register, &registration("xebec-hidden-key", 0, 32)).await;
    assert_eq!((status, text.as_str()), (0, ""));
    let wanted = SystemSharedMemoryStatusRequest::default();
    let (message, ..) = call(&mut client, &format!("{SERVICE}/SystemSharedMemoryStatus"), &wanted).await;
    let regions = SystemSharedMemoryStatusResponse::decode(message).unwrap().regions;
    assert_eq!((regions.len(), regions["hidden-region"].byte_size), (1, 32));
    let (message, status, text) = call(&mut client, INFER, &grpc_request((0, 8), (8, 24))).await;
    assert_eq!((status, text.as_str()), (0, ""));
    let answer = ModelInferResponse::decode(message).unwrap();
    // A place in the raw contents for each output: clients count.
    assert_eq!(answer.raw_output_contents, [""]);
    let size = &answer.outputs[0].parameters["shared_memory_byte_size"].parameter_choice;
    assert_eq!(size, &Some(ParameterChoice::Int64Param(8)));
    assert_eq!(server.key(), [row(), row(), vec![0; 16]].concat());
    let all = SystemSharedMemoryUnregisterRequest::default();
    let (_, status, _) = call(&mut client, &format!("{SERVICE}/SystemSharedMemoryUnregister"), &all).await;
    assert_eq!(status, 0);
    let (_, status, text) = call(&mut client, INFER, &grpc_request((0, 8), (8, 24))).await;
    assert_eq!(status, 5, "{text}");
}

#[tokio::test]
async fn who_may_use_the_model_and_not_the_memory_reads_and_writes_none_of_it() {
    let server = Server::start();
    server.with_key(&[row(), vec![0; 24]].concat());
    let region = json!({"key": "/xebec-hidden-key", "offset": 0, "byte_size": 32});
    assert_eq!(server.register(&region).status, 200);
    server.shares.store(false, SeqCst);
    for (input, output) in [(place(0, 8), place(8, 16)), (place(0, 8), json!({}))] {
        let answer = server.infer(&input, &output);
        assert_eq!((answer.status, answer.text()), (403, r#"{"error":"not you"}"#));
    }
    let mut client = server.connect().await;
    let (_, status, text) = call(&mut client, INFER, &grpc_request((0, 8), (8, 24))).await;
    assert_eq!((status, text.as_str()), (7, "not you"));
    assert_eq!(server.key(), [row(), vec![0; 24]].concat());
}

#[test]
fn no_error_over_rest_has_the_name_of_a_region_a_key_or_a_path_in_it() {
    let server = Server::start();
    server.with_key(&[0; 32]);
    let registration =
        |key: &str, offset: u64, size: u64| json!({"key": key, "offset": offset, "byte_size": size});
    for (body, status) in [
        (registration("xebec-hidden-key", 0, 33), 400),
        (registration("xebec-hidden-key", 32, 1), 400),
        (registration("xebec-hidden-key", u64::MAX, 1), 400),
        (registration("xebec-hidden-key", 0, 0), 400),
        (registration("xebec-hidden-key-that-is-not-there", 0, 1), 400),
        (registration("../xebec-hidden-key", 0, 1), 400),
        (registration("/etc/passwd", 0, 1), 400),
        (json!({"key": "xebec-hidden-key", "byte_size": -1}), 400),
        (json!({"key": ["xebec-hidden-key"], "byte_size": 1}), 400),
        (json!(["xebec-hidden-key", 0, 1]), 400),
        (json!({"key": "xebec-hidden-key", "byte_size": 32}), 200),
        (json!({"key": "xebec-hidden-key", "byte_size": 32}), 400),
    ] {
        let answer = server.register(&body);
        assert_eq!(answer.status, status, "{}", answer.text());
        quiet(answer.text());
    }
    for (input, output, status) in [
        (place(0, 33), json!({}), 400),
        (place(u64::MAX, 8), json!({}), 400),
        (place(0, 4), json!({}), 200),
        (place(0, 8), place(0, 4), 400),
        (place(0, 8), place(30, 8), 400),
        (json!({"shared_memory_region": "hidden-region"}), json!({}), 400),
        (json!({"shared_memory_byte_size": 8}), json!({}), 400),
        (json!({"shared_memory_region": 7, "shared_memory_byte_size": 8}), json!({}), 400),
        (json!({"shared_memory_region": "hidden-region", "shared_memory_byte_size": "8"}), json!({}), 400),
        (json!({"shared_memory_region": "hidden-region-2", "shared_memory_byte_size": 8}), json!({}), 404),
        (place(0, 8), json!({"shared_memory_region": "hidden-region-2", "shared_memory_byte_size": 8}), 404),
    ] {
        let answer = server.infer(&input, &output);
        assert_eq!(answer.status, status, "{input} {output} {}", answer.text());
        quiet(answer.text());
    }
    std::fs::write(server.memory.path().join("xebec-hidden-key"), [0; 3]).unwrap();
    for (input, output) in [(place(0, 8), json!({})), (place(0, 1), place(0, 8))] {
        let answer = server.infer(&input, &output);
        assert_eq!(answer.status, 400, "{}", answer.text());
        quiet(answer.text());
    }
    for (method, path, status) in [
        ("GET", "/v2/systemsharedmemory/region/hidden-region-2/status", 404),
        ("GET", "/v2/systemsharedmemory/region/hidden-region/register", 405),
        ("POST", "/v2/systemsharedmemory/region/hidden-region/status", 405),
        ("POST", "/v2/systemsharedmemory/region/hidden-region", 404),
        ("POST", "/v2/systemsharedmemory/region/hidden-region/steal", 404),
        ("POST", "/v2/cudasharedmemory/region/hidden-region/register", 501),
    ] {
        let answer = server.exchange(method, path, &[], b"{}");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        quiet(answer.text());
    }
}

#[tokio::test]
async fn no_error_over_grpc_has_the_name_of_a_region_a_key_or_a_path_in_it() {
    let server = Server::start();
    server.with_key(&[0; 32]);
    let mut client = server.connect().await;
    let register = format!("{SERVICE}/SystemSharedMemoryRegister");
    for (key, offset, size, status) in [
        ("xebec-hidden-key", 0, 33, 3),
        ("xebec-hidden-key", u64::MAX, u64::MAX, 3),
        ("xebec-hidden-key", 0, 0, 3),
        ("xebec-hidden-key-2", 0, 1, 3),
        ("/etc/passwd", 0, 1, 3),
        ("xebec-hidden-key", 0, 32, 0),
        ("xebec-hidden-key", 0, 32, 3),
    ] {
        let (_, got, text) = call(&mut client, &register, &registration(key, offset, size)).await;
        assert_eq!(got, status, "{text}");
        quiet(&text);
    }
    let mut both = grpc_request((0, 8), (8, 8));
    both.inputs[0].contents = Some(Default::default());
    let mut raw = grpc_request((0, 8), (8, 8));
    raw.raw_input_contents = vec![row().into()];
    for (request, status) in [
        (grpc_request((0, 33), (0, 8)), 3),
        (grpc_request((-1, 8), (0, 8)), 3),
        (grpc_request((i64::MAX, i64::MAX), (0, 8)), 3),
        (grpc_request((0, 8), (0, 4)), 3),
        (both, 3),
        (raw, 3),
        (grpc_request((0, 8), (8, 8)), 0),
    ] {
        let (_, got, text) = call(&mut client, INFER, &request).await;
        assert_eq!(got, status, "{text}");
        quiet(&text);
    }
    let cuda = format!("{SERVICE}/CudaSharedMemoryRegister");
    let (_, status, text) = call(&mut client, &cuda, &registration("xebec-hidden-key", 0, 1)).await;
    assert_eq!(
        (status, text.as_str()),
        (12, "CudaSharedMemoryRegister is not offered by this version of xebec")
    );
}

#[test]
fn what_a_request_brings_from_shared_memory_is_no_larger_than_a_body_may_be() {
    let server = Server::start();
    server.with_key(&vec![0; MAX_BODY_BYTES + 8]);
    assert_eq!(
        server.register(&json!({"key": "xebec-hidden-key", "byte_size": MAX_BODY_BYTES + 8})).status,
        200
    );
    let answer = server.infer(&place(0, MAX_BODY_BYTES as u64 + 1), &json!({}));
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert!(answer.text().contains("--http-max-input-size"), "{}", answer.text());
}

#[tokio::test]
async fn where_it_is_not_allowed_shared_memory_is_not_there() {
    let server = Server::with_memory(Dialect::Triton, true, false);
    let wanted = r#"{"error":"system shared memory is not allowed on this server","hint":"the operator can allow it with --allow-shared-memory"}"#;
    for (method, path) in [
        ("POST", "/v2/systemsharedmemory/region/hidden-region/register"),
        ("GET", "/v2/systemsharedmemory/region/hidden-region/register"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("GET", "/v2/systemsharedmemory/anything"),
    ] {
        let answer = server.exchange(method, path, &[], b"{}");
        assert_eq!((answer.status, answer.text()), (404, wanted), "{path}");
    }
    let answer = server.infer(&place(0, 8), &json!({}));
    assert_eq!(answer.status, 501);
    assert!(answer.text().contains("shared_memory_region"), "{}", answer.text());
    quiet(answer.text());
    assert!(!server.get("/v2").text().contains("shared_memory"));
    let mut client = server.connect().await;
    let register = format!("{SERVICE}/SystemSharedMemoryRegister");
    let (_, status, text) = call(&mut client, &register, &registration("xebec-hidden-key", 0, 1)).await;
    assert!(status == 12 && text.contains("--allow-shared-memory"), "{status} {text}");
}

fn told(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn log_settings_are_read_and_changed_over_rest_and_a_wrong_one_changes_nothing() {
    let server = Server::start();
    let mut wanted = json!({
        "log_file": "", "log_info": false, "log_warning": true, "log_error": true, "log_verbose_level": 0, "log_format": "ISO8601",
    });
    assert_eq!(told(&server.get("/v2/logging")), wanted);
    let answer = server.post("/v2/logging", &[], br#"{"log_info": true, "log_verbose_level": 2}"#);
    wanted["log_info"] = json!(true);
    wanted["log_verbose_level"] = json!(2);
    assert_eq!((answer.status, told(&answer)), (200, wanted.clone()));
    let in_force = LogSettings { error: true, warning: true, info: true, verbose_level: 2 };
    assert_eq!(server.log_settings.settings(), in_force);
    // What was read can be said again.
    assert_eq!(told(&server.post("/v2/logging", &[], wanted.to_string().as_bytes())), wanted);
    for (body, status) in [
        (r#"{"log_info": false, "log_file": "/etc/passwd"}"#, 501),
        (r#"{"log_info": false, "log_format": "default"}"#, 501),
        (r#"{"log_info": 1}"#, 400),
        (r#"{"log_colour": true}"#, 400),
        (r#"{"log_info": false, "log_info": true}"#, 400),
        (r#"[{"log_info": false}]"#, 400),
        ("{", 400),
    ] {
        let answer = server.post("/v2/logging", &[], body.as_bytes());
        assert_eq!(answer.status, status, "{body} {}", answer.text());
        assert!(!answer.text().contains("passwd"), "{}", answer.text());
        assert_eq!(server.log_settings.settings(), in_force, "{body}");
    }
    assert_eq!(server.exchange("DELETE", "/v2/logging", &[], b"").header("allow"), Some("GET, POST"));
}

#[tokio::test]
async fn log_settings_are_read_and_changed_over_grpc() {
    use log_settings_request::{SettingValue, setting_value::ParameterChoice};
    let server = Server::start();
    let mut client = server.connect().await;
    let path = format!("{SERVICE}/LogSettings");
    let said = |name: &str, choice| {
        let value = SettingValue { parameter_choice: Some(choice) };
        LogSettingsRequest { settings: [(name.to_owned(), value)].into() }
    };
    let (message, status, _) =
        call(&mut client, &path, &said("log_verbose_level", ParameterChoice::Uint32Param(1))).await;
    let settings = LogSettingsResponse::decode(message).unwrap().settings;
    assert_eq!((status, settings.len(), server.log_settings.settings().verbose_level), (0, 6, 1));
    let file = ParameterChoice::StringParam("/etc/passwd".into());
    let (_, status, text) = call(&mut client, &path, &said("log_file", file)).await;
    assert!(status == 12 && text.contains("log_file") && !text.contains("passwd"), "{status} {text}");
    let (message, status, _) = call(&mut client, &path, &LogSettingsRequest::default()).await;
    assert_eq!((status, LogSettingsResponse::decode(message).unwrap().settings), (0, settings));
}

#[test]
fn bodies_of_settings_are_objects_and_small_and_may_be_compressed() {
    let server = Server::start();
    let index = |headers: &[(&str, &str)], body: &[u8]| server.post("/v2/repository/index", headers, body);
    assert_eq!(index(&[], b" {\"ready\": true} ").status, 200);
    assert_eq!(index(&[], b"").status, 200);
    assert_eq!(index(&[], b"[true]").status, 400);
    assert_eq!(index(&[], &vec![b' '; 70_000]).status, 400);
    let refused = index(&[("content-encoding", "br")], b"{}");
    assert_eq!((refused.status, refused.header("accept-encoding")), (501, Some("gzip, deflate")));
    let packed = xebec_net::body::Encoding::Gzip.compress(br#"{"ready": true}"#);
    assert_eq!(index(&[("content-encoding", "gzip")], &packed).status, 200);
}
