//! Bad input: each a clear error that says the fix, and the server goes on.
use crate::wire::{SCALER, answer, connect, get, infer, post, send, still_serves};
use std::{
    io::{Read as _, Write as _},
    process::{Command, Output},
};
use xebec_e2e::{
    generate::root,
    server::{Server, binary, engine_library},
};
use xebec_net::body::Encoding;

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

fn command(args: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(args).current_dir(root()).env("ORT_DYLIB_PATH", engine_library().unwrap());
    command.output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_broken_model_is_refused_with_its_reason_and_the_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("models/testdata/repository/scaler.onnx"), folder.path().join("scaler.onnx"))
        .unwrap();
    let good = folder.path().to_string_lossy();
    let args = ["serve", "--model-repository", &good, "--model-repository", "models/testdata/broken"];
    let strict =
        command(&[&args[..], &["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]].concat());
    assert_eq!(strict.status.code(), Some(1));
    assert!(errors(&strict).contains("--exit-on-error=false serves the others"), "{}", errors(&strict));
    let server = Server::start(&[&args[..], &["--exit-on-error=false"]].concat()).unwrap();
    still_serves(server.http);
    let models = get(server.http, "/v2/models").json();
    let reason = |name: &str| {
        let rows = models["models"].as_array().unwrap();
        let row =
            rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {models}"));
        assert_eq!(row["state"], "UNAVAILABLE", "{name}");
        row["reason"].as_str().unwrap().to_owned()
    };
    for (name, words) in [
        ("empty", "the file is empty; export or copy the model again"),
        ("truncated", "the file is damaged or not ONNX"),
        ("not_onnx", "the file is damaged or not ONNX"),
        ("pickle", "the file is a Python pickle, not ONNX; export the model"),
        ("unknown_op", "onnxruntime has no operator Frobnicate"),
        ("external_escape", "it must be a relative path without '..'"),
        ("external_missing", "it cannot be read"),
        (
            "misfit",
            "config says input 'x' has dims: [ 1 ], but the graph has [-1,4] (dims leave out the batch axis because max_batch_size is above 0); write input { name: \"x\" data_type: TYPE_FP32 dims: [ 4 ] }",
        ),
        ("unhonoured", "model_operations is not honoured by this version"),
    ] {
        let reason = reason(name);
        assert!(reason.contains(words), "{name}: {reason}");
    }
    assert!(reason("unhonoured").contains("is_shape_tensor") && reason("unhonoured").contains("KIND_MODEL"));
    let call = infer(server.http, "empty", SCALER);
    assert_eq!(
        (call.status, call.error().as_str()),
        (503, "Request for unknown model: 'empty' has no available versions")
    );
    assert!(call.json()["hint"].as_str().unwrap().contains("the file is empty"));
    assert_eq!(get(server.http, "/v2/health/ready").status, 400, "strict readiness");
}

#[test]
fn bit_flips_of_a_model_file_never_end_the_server() {
    let whole = std::fs::read(root().join("models/testdata/repository/scaler.onnx")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for flip in 0..120 {
        let mut bytes = whole.clone();
        let place = flip * whole.len() / 120;
        bytes[place] ^= 1 << (flip % 8);
        std::fs::write(folder.path().join(format!("flip-{flip}.onnx")), bytes).unwrap();
    }
    std::fs::write(folder.path().join("scaler.onnx"), &whole).unwrap();
    let server = Server::start(&[
        "serve",
        "--model-repository",
        &folder.path().to_string_lossy(),
        "--exit-on-error=false",
    ])
    .unwrap();
    still_serves(server.http);
    let states = get(server.http, "/v2/models").json();
    assert_eq!(states["models"].as_array().unwrap().len(), 121);
}

#[test]
fn a_library_that_was_named_and_is_not_there_is_a_start_up_error() {
    let output = command(&[
        "serve",
        "--model-repository",
        "models/testdata/repository",
        "--onnxruntime-library",
        "/nowhere/libonnxruntime.so",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let said = errors(&output);
    assert!(said.contains("cannot load ONNX Runtime from /nowhere/libonnxruntime.so, which --onnxruntime-library names: there is no such file"), "{said}");
}

#[test]
fn without_a_library_the_built_in_engine_serves_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("models/testdata/repository/scaler.onnx"), folder.path().join("scaler.onnx"))
        .unwrap();
    let mut command = Command::new(binary().unwrap());
    command.args(["serve", "--model-repository"]).arg(folder.path());
    command.args(["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]);
    for variable in ["ORT_DYLIB_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "XEBEC_ENGINE_CACHE", "XDG_CACHE_HOME"]
    {
        command.env_remove(variable);
    }
    let server = Server::spawn({
        command.env("HOME", folder.path());
        command
    })
    .unwrap();
    still_serves(server.http);
    let engine = get(server.http, "/v2").json()["engine"].clone();
    assert_eq!(engine["name"], "rten", "{engine}");
    assert!(engine["reason"].as_str().unwrap().contains("no ONNX Runtime library was found"), "{engine}");
    let page = String::from_utf8(get(server.metrics, "/metrics").body).unwrap();
    assert!(page.contains("xebec_engine_info{engine=\"rten\""), "{page}");
}

#[test]
fn a_request_that_does_not_fit_is_told_what_would() {
    let server = server(&[]);
    let one = |shape: &str, datatype: &str, data: &str| {
        let body = format!(
            r#"{{"id":"7","inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#
        );
        let reply = infer(server.http, "scaler", &body);
        (reply.status, reply.error())
    };
    let named = infer(
        server.http,
        "scaler",
        r#"{"id":"7","inputs":[{"name":"z","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#,
    );
    assert_eq!(
        (named.status, named.error().as_str()),
        (400, "[request id: 7] unexpected inference input 'z' for model 'scaler'")
    );
    assert_eq!(named.json()["hint"], "the model's inputs are 'x'");
    for (shape, datatype, data, words) in [
        (
            "[1,4]",
            "INT32",
            "[1,2,3,4]",
            "[request id: 7] inference input 'x' data-type is 'INT32', but model 'scaler' expects 'FP32'",
        ),
        (
            "[4]",
            "FP32",
            "[1,2,3,4]",
            "[request id: 7] unexpected shape for input 'x' for model 'scaler'. Expected [-1,4], got [4]",
        ),
        (
            "[1,3]",
            "FP32",
            "[1,2,3]",
            "[request id: 7] unexpected shape for input 'x' for model 'scaler'. Expected [-1,4], got [1,3]",
        ),
        ("[1,4]", "FP32", "[1,2,3]", "input 'x' has 3 elements in data where shape [1,4] needs 4"),
        ("[-1,4]", "FP32", "[]", "input 'x' has shape [-1,4], which is negative or holds more than can be"),
        (
            "[9223372036854775807,4]",
            "FP32",
            "[]",
            "input 'x' has shape [9223372036854775807,4], which is negative or holds more than can be",
        ),
        ("[4611686018427387904,4]", "FP32", "[]", "which is negative or holds more than can be"),
        ("[0,4]", "FP32", "[]", "inference request for 'scaler' has no rows: its batch axis is 0"),
        ("[1,4]", "FP16", "[1,2,3,4]", "input 'x': FP16 has no JSON form"),
        ("[1,4]", "FP32", "[NaN,1,2,3]", "failed to parse the request JSON"),
        ("[1,4]", "FP32", "[Infinity,1,2,3]", "failed to parse the request JSON"),
        ("[1,4]", "FP32", "[1e39,1,2,3]", "input 'x' element 0: 1e39 does not fit FP32"),
        ("[1,4]", "FP32", r#"["1",1,2,3]"#, "input 'x' element 0: a string is not FP32"),
    ] {
        let (status, error) = one(shape, datatype, data);
        assert_eq!(status, 400, "{shape} {datatype} {data}");
        assert!(error.contains(words), "{shape} {datatype} {data}: {error}");
    }
    let index = infer(
        server.http,
        "lookup",
        r#"{"inputs":[{"name":"index","shape":[1],"datatype":"INT64","data":[99]}]}"#,
    );
    assert_eq!(index.status, 400, "{}", index.error());
    still_serves(server.http);
}

#[test]
fn nan_in_an_answer_is_written_as_triton_writes_it() {
    let server = server(&[]);
    let reply = infer(
        server.http,
        "nan_out",
        r#"{"inputs":[{"name":"x","shape":[3,1],"datatype":"FP32","data":[0,1,-1]}]}"#,
    );
    let text = String::from_utf8(reply.body).unwrap();
    assert!(text.contains("[NaN,Infinity,-Infinity]"), "{text}");
}

#[test]
fn unknown_models_versions_paths_and_methods_are_named() {
    let server = server(&[]);
    let fault = |method: &str, path: &str| {
        let reply = send(server.http, method, path, &[], b"{}");
        (reply.status, reply.error(), reply.header("allow").map(str::to_owned))
    };
    for (method, path, status, words) in [
        ("POST", "/v2/models/nobody/infer", 404, "Request for unknown model: 'nobody' is not found"),
        (
            "POST",
            "/v2/models/scaler/versions/9/infer",
            404,
            "Request for unknown model: 'scaler' version 9 is not found",
        ),
        (
            "POST",
            "/v2/models/scaler/versions/x/infer",
            404,
            "Request for unknown model: 'scaler' version x is not found",
        ),
        (
            "POST",
            "/v2/models/..%2f..%2fetc%2fpasswd/infer",
            404,
            "Request for unknown model: '../../etc/passwd' is not found",
        ),
        ("GET", "/v2/models/..%2fsimple/config", 404, "Request for unknown model: '../simple' is not found"),
        ("POST", "/v2/models/%00/infer", 404, "Request for unknown model"),
        ("POST", "/v2/models/scaler/versions//infer", 404, "Not Found"),
        ("POST", "/v2/models//infer", 404, "Not Found"),
        ("GET", "/v3", 404, "Not Found"),
        ("GET", "/v2/models/scaler/nothing", 404, "Not Found"),
        ("GET", "/v2/models/scaler/infer", 405, "Method Not Allowed"),
        ("DELETE", "/v2", 405, "Method Not Allowed"),
        ("POST", "/v2/repository/mine/index", 501, "'repository_name' specification is not supported"),
        ("POST", "/v2/repository/models/scaler/load", 403, "runs without --model-control-mode explicit"),
        ("GET", "/v2/models/nobody/stats", 404, "Request for unknown model"),
        ("GET", "/v2/models/scaler/versions/9/stats", 404, "version 9 is not found"),
        ("POST", "/v2/models/stats", 405, "Method Not Allowed"),
    ] {
        let (got, error, _) = fault(method, path);
        assert_eq!(got, status, "{method} {path}: {error}");
        assert!(error.contains(words), "{method} {path}: {error}");
    }
    assert_eq!(fault("GET", "/v2/models/scaler/infer").2.as_deref(), Some("POST"));
    still_serves(server.http);
}

#[test]
fn bodies_over_the_limit_are_refused_before_and_after_decompression() {
    let server = server(&["--http-max-input-size", "10000"]);
    let path = "/v2/models/scaler/infer";
    let long = send(server.http, "POST", path, &[], &[b' '; 10_001]);
    assert_eq!(
        (long.status, long.error().as_str()),
        (413, "request body is larger than the limit of 10000 bytes")
    );
    assert_eq!(long.json()["hint"], "the operator can raise the limit with --http-max-input-size");
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let announced = [("Content-Encoding", encoding.as_str())];
        for size in [10_001, 1 << 20] {
            let bomb = encoding.compress(&vec![b' '; size]);
            assert!(bomb.len() < 10_000, "{size} bytes are refused for what they are compressed to");
            let refused = send(server.http, "POST", path, &announced, &bomb);
            assert_eq!((refused.status, refused.error()), (413, long.error()), "{size}");
        }
        let fits = encoding.compress(&[SCALER.as_bytes(), &vec![b' '; 10_000 - SCALER.len()]].concat());
        assert_eq!(send(server.http, "POST", path, &announced, &fits).status, 200);
    }
    let corrupt = send(server.http, "POST", path, &[("Content-Encoding", "gzip")], b"not gzip");
    assert_eq!((corrupt.status, corrupt.error().as_str()), (400, "body is not valid gzip"));
    let other = send(server.http, "POST", path, &[("Content-Encoding", "br")], b"x");
    assert_eq!((other.status, other.header("accept-encoding")), (501, Some("gzip, deflate")));
    still_serves(server.http);
}

#[test]
fn the_binary_extension_is_checked_to_the_byte() {
    let server = server(&[]);
    let json =
        r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let length = json.len().to_string();
    let call = |length: &str, body: &[u8]| {
        let reply = send(
            server.http,
            "POST",
            "/v2/models/scaler/infer",
            &[("Inference-Header-Content-Length", length)],
            body,
        );
        (reply.status, if reply.status == 200 { String::new() } else { reply.error() })
    };
    let whole = [json.as_bytes(), &[0; 16]].concat();
    assert_eq!(call(&length, &whole).0, 200);
    assert_eq!(call("0", &[0; 16]), (200, String::new()));
    for (length, body, status, words) in [
        ("100000", whole.as_slice(), 400, "is 100000, but the body has"),
        ("-1", &whole, 400, "is not a number of bytes"),
        ("+105", &whole, 400, "is not a number of bytes"),
        ("abc", &whole, 400, "is not a number of bytes"),
        ("0", &whole, 400, "input 'x'"),
        ("0", b"", 400, "input 'x'"),
        (length.as_str(), &whole[..whole.len() - 1], 400, "binary_data_size 16, but only 15 bytes are left"),
        (
            length.as_str(),
            &[whole.as_slice(), &[1]].concat(),
            400,
            "unexpected additional input data for model 'scaler'",
        ),
        ("5", &whole, 400, "failed to parse the request JSON"),
    ] {
        let (got, error) = call(length, body);
        assert_eq!(got, status, "{length}: {error}");
        assert!(error.contains(words), "{length}: {error}");
    }
    still_serves(server.http);
}

#[test]
fn a_megabyte_of_brackets_and_a_body_in_one_byte_chunks_end_nothing() {
    let server = server(&[]);
    let brackets = "[".repeat(1 << 20);
    assert_eq!(infer(server.http, "scaler", &brackets).status, 400);
    let data = format!(r#"{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"FP32","data":{brackets}"#);
    assert!(infer(server.http, "scaler", &data).error().contains("nested deeper than 100 levels"));
    let mut stream = connect(server.http);
    stream
        .write_all(
            b"POST /v2/models/scaler/infer HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
        )
        .unwrap();
    let chunks = b"1\r\n \r\n".repeat(3 << 20);
    // The server stops reading when it has seen enough; what is left in the pipe is nobody's.
    let _ = stream.write_all(&chunks);
    let _ = stream.write_all(b"0\r\n\r\n");
    let reply = answer(&mut stream);
    assert_eq!(reply.status, 400);
    assert!(reply.error().contains("comes in more than"), "{}", reply.error());
    still_serves(server.http);
}

#[test]
fn slow_headers_and_a_client_that_never_reads_are_cut_off() {
    let server = server(&["--header-timeout-secs", "0.3", "--stall-timeout-secs", "0.5"]);
    let mut slow = connect(server.http);
    slow.write_all(b"GET /v2 HTTP/1.1\r\nHost:").unwrap();
    let mut stalled = connect(server.http);
    let begun = post("/v2/models/scaler/infer", SCALER);
    stalled.write_all(&begun.as_bytes()[..begun.len() - 10]).unwrap();
    for mut stream in [slow, stalled] {
        let mut rest = Vec::new();
        // The end of the connection is what is waited for; the bound of the socket fails the test.
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
    let mut deaf = connect(server.http);
    let request = b"GET /v2/models/simple/config HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut sent = 0;
    // Answers fill the pipe, then the server stops reading, then it cuts the connection.
    while deaf.write_all(request).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "a client that never reads was never cut off");
    }
    still_serves(server.http);
}

#[test]
fn wrong_flags_and_files_end_with_64_and_every_fault() {
    let output = command(&["serve", "--http-port", "99999", "--grpc-address", "0.0.0.0"]);
    assert_eq!(output.status.code(), Some(64));
    let said = errors(&output);
    for words in [
        "3 faults",
        "--model-repository is missing",
        "--http-port (XEBEC_HTTP_PORT) is '99999'",
        "--i-know-this-is-insecure",
    ] {
        assert!(said.contains(words), "{words} is missing in {said}");
    }
    assert_eq!(command(&["serve", "--no-such-flag"]).status.code(), Some(64));
    let folder = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: xebec.dev/v1alpha1\nkind: InferenceService\nmetadata: {name: a}\nspec:\n  model: {uri: a.onnx, colour: red}\n";
    std::fs::write(folder.path().join("a.yaml"), yaml).unwrap();
    let output = command(&["up", &folder.path().to_string_lossy()]);
    assert_eq!(output.status.code(), Some(64));
    assert!(errors(&output).contains("colour"), "{}", errors(&output));
    let checked = command(&["serve", "--model-repository", "models/testdata/repository", "--check-config"]);
    assert!(String::from_utf8_lossy(&checked.stdout).starts_with("configuration is valid"), "{checked:?}");
}
