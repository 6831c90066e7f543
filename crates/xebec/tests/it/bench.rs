//! `xebec bench`: what it sends, what it counts, and what it says when something is wrong.
use crate::server::{self, Reply, Seen};
use bytes::Bytes;
use clap::Parser;
use prost::Message as _;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};
use xebec::bench::{self, BenchArgs, Report};
use xebec_net::wire::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataResponse, model_metadata_response::TensorMetadata,
};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

/// Runs a command line on a server; measures at once and for half a minute at most, unless the line says otherwise.
fn run(url: &str, line: &str) -> anyhow::Result<Report> {
    let common = ["bench", "m", "--url", url];
    let line = common.into_iter().chain(line.split(' '));
    bench::run(&Line::parse_from(line).args)
}

fn over_http(address: SocketAddr, line: &str) -> anyhow::Result<Report> {
    run(&format!("http://{address}"), &format!("--warm-up 0 {line}"))
}

fn over_grpc(address: SocketAddr, line: &str) -> anyhow::Result<Report> {
    run(&address.to_string(), &format!("--warm-up 0 {line}"))
}

fn metadata() -> Reply {
    let inputs = json!([{"name": "x", "datatype": "FP32", "shape": [-1, -1, 2]}]);
    Reply::Answer(200, json!({"name": "m", "inputs": inputs}).to_string())
}

/// A model over REST whose infer requests are answered by `infer`.
fn model(infer: impl Fn(Seen<'_>) -> Reply + Send + Sync + 'static) -> SocketAddr {
    server::http(move |seen| if seen.line.starts_with("GET") { metadata() } else { infer(seen) })
}

fn ok() -> Reply {
    Reply::Answer(200, "{}".into())
}

/// A model over gRPC whose infer requests are answered by `infer`.
fn grpc_model(infer: impl Fn(Bytes, u64) -> (u16, Vec<u8>) + Send + Sync + 'static) -> SocketAddr {
    let input = TensorMetadata { name: "x".into(), datatype: "FP32".into(), shape: vec![-1, 2] };
    let metadata = ModelMetadataResponse { inputs: vec![input], ..ModelMetadataResponse::default() };
    server::grpc(move |path, body, nth| match path {
        "/inference.GRPCInferenceService/ModelMetadata" => (0, metadata.encode_to_vec()),
        "/inference.GRPCInferenceService/ModelInfer" => infer(body, nth),
        other => (12, other.as_bytes().to_vec()),
    })
}

#[test]
fn every_request_is_counted_once_over_every_protocol() {
    for line in ["--protocol json", "--protocol binary"] {
        let arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&arrived);
        let address = model(move |_| {
            counter.fetch_add(1, SeqCst);
            ok()
        });
        let report = over_http(address, &format!("{line} --requests 200 -c 4 --threads 2")).unwrap();
        assert_eq!((report.good, arrived.load(SeqCst)), (200, 201), "one request goes ahead of the load");
        assert!(report.failures.is_empty() && report.latencies.p50 > 0.0, "{report:?}");
    }
    let address = grpc_model(|_, _| (0, ModelInferResponse::default().encode_to_vec()));
    let report = over_grpc(address, "--requests 200 -c 40").unwrap();
    assert_eq!((report.good, report.bytes_received), (200, 200 * 5));
    assert!(report.failures.is_empty() && report.latencies.p50 > 0.0, "{report:?}");
}

#[test]
fn random_inputs_have_the_extents_of_the_models_metadata() {
    let address = model(|seen| {
        let body: Value = serde_json::from_slice(seen.body).unwrap();
        let input = &body["inputs"][0];
        let right = input["shape"] == json!([3, 5, 2]) && input["data"].as_array().unwrap().len() == 30;
        if right { ok() } else { Reply::Answer(400, body.to_string()) }
    });
    let line = "--protocol json --rows 3 --free-extent 5 --requests 10";
    assert_eq!(over_http(address, line).unwrap().good, 10);
    let address = model(|seen| {
        let length = seen.head.split("inference-header-content-length: ").nth(1).unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        let head: Value = serde_json::from_slice(&seen.body[..length]).unwrap();
        let size = &head["inputs"][0]["parameters"]["binary_data_size"];
        let right = *size == json!(120) && seen.body.len() - length == 120;
        if right { ok() } else { Reply::Answer(400, head.to_string()) }
    });
    assert_eq!(over_http(address, "--rows 3 --free-extent 5 --requests 10").unwrap().good, 10);
    let address = grpc_model(|body, _| {
        let request = ModelInferRequest::decode(body).unwrap();
        let right = request.inputs[0].shape == [7, 2] && request.raw_input_contents[0].len() == 56;
        if right { (0, Vec::new()) } else { (3, format!("{request:?}").into_bytes()) }
    });
    assert_eq!(over_grpc(address, "--rows 7 --requests 10").unwrap().good, 10);
}

#[test]
fn the_values_of_a_file_are_sent_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("request.json");
    let input = json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[0.5, 2.0]]});
    std::fs::write(&file, json!({"inputs": [input]}).to_string()).unwrap();
    let address = grpc_model(|body, _| {
        let request = ModelInferRequest::decode(body).unwrap();
        let want = [0.5f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
        if request.raw_input_contents[0] == want { (0, Vec::new()) } else { (3, Vec::new()) }
    });
    let line = format!("--input {} --requests 10", file.display());
    assert_eq!(over_grpc(address, &line).unwrap().good, 10);
}

#[test]
fn refusals_are_counted_by_status_and_have_latencies_of_their_own() {
    let address = model(|seen| if seen.nth % 2 == 0 { ok() } else { Reply::Answer(503, "{}".into()) });
    let report = over_http(address, "--requests 100 -c 2").unwrap();
    assert_eq!((report.good, report.failures["HTTP 503"]), (50, 50));
    assert!(report.refusals.is_some());
    let address = grpc_model(|_, nth| if nth % 2 == 0 { (0, Vec::new()) } else { (14, b"full".to_vec()) });
    let report = over_grpc(address, "--requests 100 -c 2").unwrap();
    assert_eq!((report.good, report.failures["gRPC 14"]), (50, 50));
}

#[test]
fn an_open_loop_accounts_for_every_request_that_was_due() {
    let address = model(|_| ok());
    // No server answers a million requests a second one by one: most are never sent, and the rate is not claimed.
    let report = over_http(address, "--rate 1000000 --duration 0.2 -c 1").unwrap();
    assert_eq!(report.good + report.unsent, 200_000, "{report:?}");
    assert!(report.unsent > 0 && report.per_second < 1_000_000.0, "{report:?}");
    assert!(report.late.unwrap().max > 10_000.0, "a backlog shows in how late requests are sent");
    assert!(report.latencies.max >= report.late.unwrap().p50, "latencies count from when a request was due");
    assert_eq!(report.lost, report.unsent);
    assert!(report.latencies.p50 > 50_000.0, "what was never sent has waited too: {report:?}");
}

#[test]
fn an_open_loop_that_spares_its_core_sends_every_request_all_the_same() {
    let address = model(|_| ok());
    let report = over_http(address, "--rate 2000 --coarse --duration 0.5 -c 50").unwrap();
    assert_eq!((report.good, report.unsent, report.failures.len()), (1000, 0, 0), "{report:?}");
    assert!(
        Line::try_parse_from(["bench", "m", "--coarse"]).is_err(),
        "a closed loop waits for answers alone"
    );
}

#[test]
fn an_open_loop_ends_with_its_last_measured_request() {
    let address = model(|_| ok());
    // At a request a second, lanes that wait for arrivals that no longer count would take a minute.
    let report = over_http(address, "--rate 100 --duration 60 --requests 5 -c 50").unwrap();
    assert_eq!((report.good, report.unsent), (5, 0));
    assert!(report.seconds < 50.0, "{report:?}");
}

#[test]
fn a_server_that_never_answers_does_not_hold_the_bench() {
    let address = model(|seen| if seen.nth == 0 { ok() } else { Reply::Silence });
    let report = over_http(address, "--duration 0.1 --patience 0.1 -c 3").unwrap();
    assert_eq!(report.good, 0);
    assert_eq!(report.failures["no answer: not within 0.1 s of the end"], 3);
    assert_eq!((report.lost, report.answered), (3, 0));
    assert!(report.latencies.p50 >= 100_000.0, "what never came back has waited all the time: {report:?}");
}

#[test]
fn a_connection_that_ends_costs_the_request_that_was_on_it_and_no_other() {
    let address = model(|seen| if seen.nth % 10 == 9 { Reply::Close } else { ok() });
    let report = over_http(address, "--requests 100 -c 1").unwrap();
    assert_eq!((report.good, report.failures["no answer: the server closed the connection"]), (90, 10));
}

#[test]
fn a_bench_that_cannot_begin_says_what_the_server_said() {
    let said = |result: anyhow::Result<Report>| format!("{:#}", result.unwrap_err());
    let unknown = r#"{"error": "Request for unknown model: 'm' is not found"}"#;
    let address = server::http(move |_| Reply::Answer(404, unknown.into()));
    let error = said(over_http(address, "-c 1"));
    assert!(error.ends_with("status 404: Request for unknown model: 'm' is not found"), "{error}");
    let address = server::grpc(|_, _, _| (5, b"unknown model".to_vec()));
    let error = said(over_grpc(address, "-c 1"));
    assert!(error.ends_with("gRPC status 5: unknown model"), "{error}");
    let address = model(|_| Reply::Answer(400, r#"{"error": "wrong shape"}"#.into()));
    let error = said(over_http(address, "-c 1"));
    assert!(error.ends_with("status 400: wrong shape"), "{error}");
}

#[test]
fn an_answer_without_a_length_is_refused_by_name() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let address = model(move |_| Reply::Raw(chunked));
    let report = over_http(address, "--requests 3 -c 1").unwrap();
    let (why, count) = report.failures.first_key_value().unwrap();
    assert!(why.contains("no Content-Length") && *count == 3, "{report:?}");
}

#[test]
fn the_report_has_the_figures_under_lasting_names() {
    let address = model(|_| ok());
    let report = over_http(address, "--requests 10").unwrap();
    let mut out = Vec::new();
    report.print(bench::Form::Json, &mut out).unwrap();
    let object: Value = serde_json::from_slice(&out).unwrap();
    let keys: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    let names = "answered bytes_received bytes_sent failures generator_cpu_percent generator_was_busy good \
                 lanes_that_gave_up late_us latency_us lost per_second refusal_latency_us seconds unsent";
    assert_eq!(keys.join(" "), names);
    let quantiles: Vec<&str> = object["latency_us"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(quantiles.join(" "), "max mean p50 p90 p99 p99.9");
    let mut out = Vec::new();
    report.print(bench::Form::Table, &mut out).unwrap();
    let table = String::from_utf8(out).unwrap();
    for name in ["requests/s", "latency us", "p99.9", "bytes", "generator"] {
        assert!(table.contains(name), "{table}");
    }
}

#[test]
fn a_connection_that_the_server_announces_to_close_costs_no_request() {
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let address = model(move |_| Reply::Last(last));
    let report = over_http(address, "--requests 50 -c 2").unwrap();
    assert_eq!((report.good, report.failures.len()), (50, 0), "{report:?}");
}

#[test]
fn a_server_that_goes_away_is_told_and_the_rate_counts_the_time_it_was_there() {
    let (address, gone) = server::mortal(20);
    let report = over_http(address, "--duration 30 -c 2").unwrap();
    assert!(gone.load(SeqCst) && report.gave_up == 2 && report.seconds < 25.0, "{report:?}");
    assert!(report.good > 0 && report.per_second > report.good as f64 / 25.0, "{report:?}");
}

#[test]
fn flags_that_would_mean_nothing_are_refused() {
    for line in ["--requests 0", "--rows 2 --input a.json", "--free-extent 2 --input a.json"] {
        assert!(Line::try_parse_from(["bench", "m"].into_iter().chain(line.split(' '))).is_err(), "{line}");
    }
}
