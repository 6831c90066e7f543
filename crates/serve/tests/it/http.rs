//! Paths, methods, metadata and health of REST.
use crate::server::Server;
use xebec_serve::Dialect;

#[test]
fn the_server_names_itself_its_engine_and_only_the_extensions_that_work() {
    let answer = Server::start().get("/v2");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let want: serde_json::Value = serde_json::json!({
        "name": "triton", "version": "1.2.3",
        "extensions": [
            "binary_tensor_data", "classification", "logging", "model_configuration",
            "model_repository", "parameters", "sequence", "sequence(string_id)", "statistics", "trace",
            "system_shared_memory",
        ],
        "engine": {"name": "fake", "version": "0", "reason": "a test"},
    });
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(), want);
}

#[test]
fn metadata_of_a_model_says_what_goes_over_the_wire() {
    let server = Server::start();
    let want = serde_json::json!({
        "name": "echo", "versions": ["1"], "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    });
    for path in ["/v2/models/echo", "/v2/models/echo/versions/1", "/v2/models/%65cho", "/v2/models/echo/"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(), want, "{path}");
    }
}

#[test]
fn the_configuration_has_its_fields_by_their_names_in_config_pbtxt() {
    let answer = Server::start().get("/v2/models/echo/config");
    let config: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &config["name"], &config["max_batch_size"]), (200, &"echo".into(), &8.into()));
    assert_eq!(config["instance_group"], serde_json::json!([]));
}

#[test]
fn the_list_of_models_gives_each_its_state_and_reason() {
    let answer = Server::start().get("/v2/models");
    let want = serde_json::json!({"models": [
        {"name": "echo", "version": "1", "state": "READY", "reason": ""},
        {"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"},
    ]});
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(), want);
}

#[test]
fn the_repository_index_is_the_list_of_models_or_of_those_that_are_ready() {
    let server = Server::start();
    let echo = serde_json::json!({"name": "echo", "version": "1", "state": "READY", "reason": ""});
    let broken = serde_json::json!({"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"});
    let both = serde_json::json!([echo, broken]);
    let index = |body: &str| server.post("/v2/repository/index", &[], body.as_bytes());
    for (body, want) in [
        ("", &both),
        (" ", &both),
        ("{}", &both),
        (r#"{"ready":false}"#, &both),
        (r#"{"ready":true}"#, &serde_json::json!([echo])),
    ] {
        let answer = index(body);
        assert_eq!(answer.status, 200, "{body}");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap(), *want, "{body}");
    }
    for body in ["[", "null", r#"{"ready":"yes"}"#, "[true, 1]"] {
        let answer = index(body);
        let text = answer.text();
        assert!(answer.status == 400 && text.contains("{\"error\":\"the body"), "{body}: {text}");
    }
    let named = server.post("/v2/repository/mine/index", &[], b"");
    assert_eq!(named.status, 501);
    assert!(named.text().contains("'repository_name' specification is not supported"), "{}", named.text());
    assert_eq!(server.get("/v2/repository/index").status, 405);
}

#[test]
fn a_load_says_what_it_got_and_what_was_wrong() {
    let server = Server::start();
    let order =
        |verb: &str, body: &str| server.post(&format!("/v2/repository/models/{verb}"), &[], body.as_bytes());
    for verb in ["echo/load", "echo/unload"] {
        for body in ["", "{}", r#"{"parameters":{}}"#] {
            assert_eq!(order(verb, body).status, 200, "{verb} {body}");
        }
    }
    // `none` answers with what it was told.
    let told = order("none/load", r#"{"parameters":{"config":"{}","file:1/model.onnx":"AAEC"}}"#);
    assert_eq!(told.status, 404);
    assert!(
        told.text().contains(r#"failed to load 'none', config Some(\"{}\") and 1 files"#),
        "{}",
        told.text()
    );
    for (verb, body, words) in [
        ("echo/load", "[]", "not a JSON object"),
        ("echo/load", r#"{"parameter":{}}"#, "unknown field"),
        ("echo/load", r#"{"parameters":{"config":"{}","config":"{}"}}"#, "'config' is there twice"),
        ("echo/load", r#"{"parameters":{},"parameters":{}}"#, "duplicate field"),
        ("echo/load", r#"{"parameters":{"config":{}}}"#, "parameter 'config' must be a text"),
        ("echo/load", r#"{"parameters":{"file:1/m":"!"}}"#, "parameter 'file:1/m' is not base64"),
        ("echo/load", r#"{"parameters":{"file:1/m":1}}"#, "parameter 'file:1/m' must be the file's bytes"),
        ("echo/load", r#"{"parameters":{"x":"y"}}"#, "unknown parameter 'x'"),
        ("echo/unload", r#"{"parameters":{"unload_dependents":1}}"#, "must be true or false"),
        ("echo/unload", r#"{"parameters":{"config":"{}"}}"#, "unknown parameter 'config'"),
        ("..%2f..%2fetc%2fpasswd/load", "", "failed to load '../../etc/passwd', which cannot be loaded"),
        ("a%00b/load", "", "failed to load 'ab', which cannot be loaded"),
        ("%2fetc%2fpasswd/unload", "", "which cannot be unloaded"),
    ] {
        let answer = order(verb, body);
        assert!(answer.status == 400 && answer.text().contains(words), "{verb} {body}: {}", answer.text());
    }
    let named = server.post("/v2/repository/mine/models/echo/load", &[], b"");
    assert!(named.status == 501 && named.text().contains("'repository_name'"), "{}", named.text());
    assert_eq!(server.get("/v2/repository/models/echo/load").status, 405);
}

#[test]
fn health_is_json_and_what_is_not_ready_has_the_dialects_status() {
    for (dialect, not_ready) in [(Dialect::Triton, 400), (Dialect::KServe, 503)] {
        let server = Server::with(dialect, true);
        for (path, status, body) in [
            ("/v2/health/live", 200, r#"{"live":true}"#),
            ("/v2/health/ready", 200, r#"{"ready":true}"#),
            ("/v2/models/echo/ready", 200, r#"{"name":"echo","ready":true}"#),
            ("/v2/models/late/ready", not_ready, r#"{"error":"Model version not ready","ready":false}"#),
            ("/v2/models/none/ready", not_ready, r#"{"error":"Model version not ready","ready":false}"#),
        ] {
            let answer = server.get(path);
            assert_eq!((answer.status, answer.text()), (status, body), "{path}");
        }
    }
}

#[test]
fn unknown_models_versions_and_paths_are_not_found_in_the_words_that_clients_know() {
    let server = Server::start();
    for (path, error) in [
        ("/v2/models/none", "Request for unknown model: 'none' is not found"),
        ("/v2/models/echo/versions/7", "Request for unknown model: 'echo' version 7 is not found"),
        ("/v2/models/echo/versions/x", "Request for unknown model: 'echo' version x is not found"),
        ("/v2/models/..%2fecho/config", "Request for unknown model: '../echo' is not found"),
        ("/v2/models/..%2f..%2fetc%2fpasswd", "Request for unknown model: '../../etc/passwd' is not found"),
        ("/v2/models/%2e%2e", "Request for unknown model: '..' is not found"),
        ("/v2/models/a%00b", "Request for unknown model: 'ab' is not found"),
        ("/v2/models/%ff", "Request for unknown model: '\u{fffd}' is not found"),
        ("/v2/models/../models/echo", "Not Found"),
        ("/v2/models/echo/nothing", "Not Found"),
        ("/v1/models", "Not Found"),
        ("/", "Not Found"),
    ] {
        let answer = server.get(path);
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &body["error"]), (404, &error.into()), "{path}");
        assert!(!body["hint"].as_str().unwrap_or_default().is_empty(), "{path}");
    }
    assert!(server.unrouted.counts().contains(&(404, 12)));
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let server = Server::start();
    for (method, path, allow) in [
        ("POST", "/v2", "GET"),
        ("DELETE", "/v2/models/echo", "GET"),
        ("GET", "/v2/models/echo/infer", "POST"),
        ("PUT", "/v2/models/none/infer", "POST"),
    ] {
        let answer = server.exchange(method, path, &[], b"");
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
        assert!(answer.text().starts_with(r#"{"error":"Method Not Allowed""#));
    }
}

#[test]
fn what_is_read_about_a_model_that_is_not_in_memory_does_not_bring_it_back() {
    let server = Server::start();
    for path in ["", "/versions/1", "/config", "/stats", "/versions/1/stats"] {
        let answer = server.get(&format!("/v2/models/asleep{path}"));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status == 200 && text.contains("\"asleep\""), "{path}: {text}");
    }
    let body = r#"{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]}"#;
    let answer = server.post("/v2/models/asleep/infer", &[], body.as_bytes());
    assert_eq!(answer.status, 404, "this one cannot be brought back");
}

#[test]
fn statistics_count_requests_rows_and_failures() {
    let server = Server::start();
    let body = br#"{"inputs":[{"name":"x","shape":[3,2],"datatype":"FP32","data":[1,2,3,4,5,6]}]}"#;
    for (body, status) in [(&body[..], 200), (&body[..], 200), (b"{", 400)] {
        assert_eq!(server.post("/v2/models/echo/infer", &[], body).status, status);
    }
    for path in ["/v2/models/echo/stats", "/v2/models/echo/versions/1/stats", "/v2/models/stats"] {
        let answer = server.get(path);
        let stats: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let model = &stats["model_stats"][0];
        assert_eq!((answer.status, stats["model_stats"].as_array().unwrap().len()), (200, 1), "{path}");
        assert_eq!((&model["name"], &model["version"]), (&"echo".into(), &"1".into()));
        assert_eq!((&model["inference_count"], &model["execution_count"]), (&6.into(), &0.into()));
        let inferences = &model["inference_stats"];
        assert_eq!((&inferences["success"]["count"], &inferences["fail"]["count"]), (&2.into(), &1.into()));
        assert!(
            inferences["success"]["ns"].as_u64() > Some(0) && inferences["fail"]["ns"].as_u64() > Some(0)
        );
        assert_eq!(inferences["cache_hit"], serde_json::json!({"count": 0, "ns": 0}));
    }
    for (path, status) in [("/v2/models/none/stats", 404), ("/v2/models/echo/versions/9/stats", 404)] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
}

#[test]
fn what_triton_offers_and_this_server_does_not_is_named() {
    let server = Server::start();
    for (method, path, name) in [
        ("POST", "/v2/models/echo/generate", "generate"),
        ("POST", "/v2/models/echo/generate_stream", "generate_stream"),
        ("POST", "/v2/cudasharedmemory/region/r/register", "CUDA shared memory"),
    ] {
        let answer = server.exchange(method, path, &[], b"{}");
        assert_eq!(answer.status, 501, "{path}");
        assert!(answer.text().contains(name) && answer.text().contains("not offered"), "{}", answer.text());
    }
}

#[test]
fn of_cuda_memory_there_is_nothing_to_list_and_forgetting_it_is_no_fault() {
    let server = Server::start();
    for (method, path, status, body) in [
        ("GET", "/v2/cudasharedmemory/status", 200, "[]"),
        ("POST", "/v2/cudasharedmemory/unregister", 200, "{}"),
        ("POST", "/v2/cudasharedmemory/region/r/unregister", 200, "{}"),
    ] {
        let answer = server.exchange(method, path, &[], b"");
        assert_eq!((answer.status, answer.text()), (status, body), "{path}");
    }
    assert_eq!(server.get("/v2/cudasharedmemory/region/r/status").status, 404);
    assert_eq!(server.get("/v2/cudasharedmemory/unregister").status, 405);
}

#[test]
fn every_path_asks_the_gate() {
    let server = Server::with(Dialect::Triton, false);
    for (method, path) in [
        ("GET", "/v2/cudasharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("GET", "/v2"),
        ("GET", "/v2/health/live"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models"),
        ("GET", "/v2/models/echo"),
        ("GET", "/v2/models/none"),
        ("GET", "/v2/models/echo/ready"),
        ("GET", "/v2/models/echo/config"),
        ("GET", "/v2/models/echo/stats"),
        ("GET", "/v2/models/stats"),
        ("POST", "/v2/models/echo/infer"),
        ("POST", "/v2/models/none/infer"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("GET", "/v2/models/none/trace/setting"),
        ("POST", "/v2/models/none/trace/setting"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/unregister"),
        ("POST", "/v2/systemsharedmemory/region/r/register"),
        ("POST", "/v2/repository/models/echo/load"),
        ("POST", "/v2/repository/models/a%2fb/unload"),
    ] {
        let answer = server.exchange(method, path, &[], b"not even JSON");
        assert_eq!((answer.status, answer.text()), (403, r#"{"error":"not you"}"#), "{path}");
    }
}
