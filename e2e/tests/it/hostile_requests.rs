//! Requests that other servers understood as more than they were: paths, pickles, shapes, URLs. A test for each row, beside
//! clients whose calls go on.
use crate::{
    hostile_http2::{beside, server},
    rpc::{self, INVALID_ARGUMENT},
    wire::{SCALER, answer, connect, get, send},
};
use serde_json::json;
use std::{io::Write as _, net::TcpListener};
use xebec_net::wire::inference::{InferTensorContents, ModelInferRequest};

const INFER: &str = "/v2/models/scaler/infer";

/// Ways to write a path that some router, proxy or filter takes for the plain one.
fn spellings(path: &str) -> Vec<String> {
    let encoded = path.replace("repository", "%72epository").replace("logging", "%6cogging");
    vec![
        path.to_owned(),
        format!("/{path}"),
        path.replacen("/v2/", "/v2//", 1),
        path.replacen("/v2/", "/v2/./", 1),
        path.replacen("/v2/", "/v2/%2e/", 1),
        path.replacen("/v2/", "/v2/health/../", 1),
        path.replacen("/v2/", "/v2/health/%2e%2e/", 1),
        path.replacen("/v2/", "/v2/health/live/..%2f..%2f", 1),
        path.replacen("/v2/", "/V2/", 1),
        path.replacen("/v2/", "/v2%2f", 1),
        path.to_uppercase(),
        format!("{path}/"),
        format!("{path}//"),
        format!("{path}/."),
        format!("{path}%00"),
        format!("{path};a=b"),
        format!("{path}?_method=GET"),
        format!("http://localhost{path}"),
        encoded,
    ]
}

#[test]
fn triton_cve_2026_24207_no_spelling_of_a_path_and_no_method_gets_past_the_gate() {
    // Orders are for nobody here, and so is shared memory.
    let server = server(&[]);
    let overrides = ["X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"];
    let rewrites = ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix"];
    beside(&server, || {
        for path in [
            "/v2/repository/models/scaler/unload",
            "/v2/repository/models/scaler/load",
            "/v2/systemsharedmemory/region/r/register",
            "/v2/systemsharedmemory/unregister",
            "/v2/cudasharedmemory/region/r/register",
            "/v2/logging",
            "/v2/trace/setting",
        ] {
            for spelt in spellings(path) {
                for method in ["POST", "PUT", "DELETE", "PATCH", "post", "POSTX"] {
                    let refused = send(server.http, method, &spelt, &[], b"{\"log_verbose_level\": 1}");
                    assert!([400, 403, 404, 405, 501].contains(&refused.status), "{method} {spelt}");
                }
            }
            for header in overrides {
                let tried = send(server.http, "GET", path, &[(header, "POST")], b"{}");
                // Reading the settings of the log is not an order.
                let read = ["/v2/logging", "/v2/trace/setting"].contains(&path) && tried.status == 200;
                assert!(read || [403, 404, 405, 501].contains(&tried.status), "{header} {path}");
            }
            for header in rewrites {
                // The path of the request holds, whatever a proxy's header says.
                let asked = send(server.http, "POST", INFER, &[(header, path)], SCALER.as_bytes());
                assert_eq!(asked.json()["model_name"], "scaler", "{header} {path}");
            }
        }
        assert_eq!(get(server.http, "/v2/models/scaler").status, 200);
        assert_eq!(get(server.http, "/v2/logging").json()["log_verbose_level"], 0);
    });
}

/// A pickle that makes a file when it is loaded, in protocols 0 and 4.
fn pickles(file: &str) -> [Vec<u8>; 2] {
    let command = format!("touch {file}");
    let old = format!("cos\nsystem\n(S'{command}'\ntR.");
    let text = |text: &str| [&[0x8c, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let new = [
        b"\x80\x04".to_vec(),
        text("os"),
        text("system"),
        b"\x93".to_vec(),
        text(&command),
        b"\x85R.".to_vec(),
    ];
    [old.into_bytes(), new.concat()]
}

#[test]
fn bentoml_cve_2024_2912_and_cve_2025_27520_a_pickle_is_bytes_that_nobody_loads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("loaded");
    let server = server(&[]);
    beside(&server, || {
        for pickle in pickles(&file.to_string_lossy()) {
            for kind in [
                "application/vnd.bentoml+pickle",
                "application/x-pickle",
                "application/python-pickle",
                "application/octet-stream",
                "application/json",
            ] {
                let headers = [("Content-Type", kind), ("Bento-Pickle-Bytes-Indices", "[0, 10]")];
                for path in [INFER, "/v2/repository/index"] {
                    assert_eq!(
                        send(server.http, "POST", path, &headers, &pickle).status,
                        400,
                        "{kind} {path}"
                    );
                }
            }
            // As a tensor it comes back as the bytes that it was.
            let header = json!({
                "inputs": [{"name": "x", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 4 + pickle.len()}}],
                "outputs": [{"name": "y", "parameters": {"binary_data": true}}],
            })
            .to_string();
            let length = u32::try_from(pickle.len()).unwrap().to_le_bytes();
            let body = [header.as_bytes(), &length, &pickle].concat();
            let headers = [("Inference-Header-Content-Length", &*header.len().to_string())];
            let echoed = send(server.http, "POST", "/v2/models/identity_bytes/infer", &headers, &body);
            assert!(echoed.status == 200 && echoed.body.ends_with(&pickle));
        }
    });
    assert!(!file.exists(), "it was loaded");
}

#[test]
fn triton_cve_2026_24214_shapes_that_overflow_are_negative_empty_or_do_not_fit_are_refused() {
    let server = server(&[]);
    let shapes: [&[i64]; 8] = [
        &[1 << 62, 4],
        &[i64::MAX, i64::MAX],
        &[i64::MIN, 4],
        &[-1, 4],
        &[0, 4],
        &[2, 4],
        &[1 << 32, 1 << 32],
        &[1 << 40, 4],
    ];
    beside(&server, || {
        let before = crate::hostile_http2::resident_kib(server.id());
        for shape in shapes {
            let tensor = json!({"name": "x", "shape": shape, "datatype": "FP32", "data": [1, 2, 3, 4]});
            let typed = json!({"inputs": [tensor]}).to_string();
            assert_eq!(send(server.http, "POST", INFER, &[], typed.as_bytes()).status, 400, "{shape:?}");
            let mut tensor = tensor;
            tensor.as_object_mut().unwrap().remove("data");
            tensor["parameters"] = json!({"binary_data_size": 16});
            let head = json!({"inputs": [tensor]}).to_string();
            let headers = [("Inference-Header-Content-Length", &*head.len().to_string())];
            let body = [head.as_bytes(), &[0; 16]].concat();
            assert_eq!(send(server.http, "POST", INFER, &headers, &body).status, 400, "{shape:?}");
            rpc::run(async {
                let client = rpc::connect(server.grpc).await;
                let numbers = InferTensorContents { fp32_contents: vec![1.0; 4], ..Default::default() };
                for (contents, raw) in [(Some(numbers), vec![]), (None, vec![vec![0; 16].into()])] {
                    let request = ModelInferRequest {
                        model_name: "scaler".into(),
                        inputs: vec![rpc::input("x", "FP32", shape, contents)],
                        raw_input_contents: raw,
                        ..Default::default()
                    };
                    let outcome = rpc::call(&client, rpc::INFER, &request).await.unwrap();
                    assert_eq!(outcome.code, INVALID_ARGUMENT, "{shape:?}: {outcome:?}");
                }
            });
        }
        let more = crate::hostile_http2::resident_kib(server.id()).saturating_sub(before);
        assert!(more < 64 << 10, "{more} KiB more are held");
    });
}

#[test]
fn vllm_cve_2025_62164_an_index_that_is_out_of_range_is_the_callers_error() {
    let server = server(&[]);
    beside(&server, || {
        for index in [99, -99, i64::MAX, i64::MIN] {
            let body =
                json!({"inputs": [{"name": "index", "shape": [1], "datatype": "INT64", "data": [index]}]});
            let refused =
                send(server.http, "POST", "/v2/models/lookup/infer", &[], body.to_string().as_bytes());
            assert_eq!(refused.status, 400, "{index}: {}", refused.error());
            rpc::run(async {
                let client = rpc::connect(server.grpc).await;
                let request = ModelInferRequest {
                    model_name: "lookup".into(),
                    inputs: vec![rpc::input("index", "INT64", &[1], None)],
                    raw_input_contents: vec![index.to_le_bytes().to_vec().into()],
                    ..Default::default()
                };
                let outcome = rpc::call(&client, rpc::INFER, &request).await.unwrap();
                assert_eq!(outcome.code, INVALID_ARGUMENT, "{index}: {outcome:?}");
            });
        }
    });
}

#[test]
fn lmdeploy_cve_2026_33626_and_torchserve_no_url_of_a_request_is_fetched() {
    let bait = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    bait.set_nonblocking(true).unwrap();
    let at = bait.local_addr().unwrap();
    let url = format!("http://{at}/model.onnx");
    let server =
        server(&["--model-control-mode", "explicit", "--load-model", "*", "--allow-model-upload", "true"]);
    beside(&server, || {
        let texts = json!({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "BYTES", "data": [url]}]});
        let parameters = json!({"inputs": [], "parameters": {"url": url, "image_url": url}, "id": url});
        let load = |parameters: serde_json::Value| json!({"parameters": parameters}).to_string();
        let named = url.replace(':', "%3a").replace('/', "%2f");
        for (path, body) in [
            ("/v2/models/identity_bytes/infer", texts.to_string()),
            (INFER, parameters.to_string()),
            (INFER, url.clone()),
            ("/v2/repository/models/scaler/load", load(json!({"url": url}))),
            ("/v2/repository/models/scaler/load", load(json!({"model_url": url, "s3": url}))),
            (
                "/v2/repository/models/scaler/load",
                load(json!({"config": format!("{{\"default_model_filename\": \"{url}\"}}")})),
            ),
            ("/v2/repository/models/scaler/load", load(json!({"file:1/model.onnx": url}))),
            (&*format!("/v2/repository/models/{named}/load"), String::new()),
            (&*format!("/v2/models/{named}/infer"), String::new()),
            ("/v2/models?url=", String::new()),
            ("/v2/trace/setting", json!({"trace_file": url}).to_string()),
            ("/v2/trace/setting", json!({"trace_endpoint": url, "url": url}).to_string()),
            ("/v2/logging", json!({"log_file": url}).to_string()),
        ] {
            let path = path.replace("url=", &format!("url={url}"));
            let headers =
                ["X-Forwarded-Host", "Referer", "X-Original-URL", "Destination"].map(|name| (name, &*url));
            send(server.http, "POST", &path, &headers, body.as_bytes());
        }
        // This is no proxy either.
        for line in [format!("GET {url}"), format!("CONNECT {at}")] {
            let mut stream = connect(server.http);
            stream.write_all(format!("{line} HTTP/1.1\r\nHost: {at}\r\n\r\n").as_bytes()).unwrap();
            assert!((400..500).contains(&answer(&mut stream).status), "{line}");
        }
    });
    let nobody = bait.accept().map(drop).unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "somebody came to {at}");
}
