//! Cancelling, overload and probes of the real binary.
use crate::wire::{SCALER, answer, begun, connect, counted, get, infer, metrics, post, until};
use serde_json::json;
use std::io::Write as _;
use xebec_e2e::server::Server;

const SLOW: &str = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

fn metric(server: &Server, series: &str) -> u64 {
    let page = metrics(server);
    counted(&page, series).unwrap_or_else(|| panic!("no {series} in {page}"))
}

/// A request for `slow` of so many rows.
fn rows(count: usize) -> String {
    let data = vec!["1"; count * 4].join(",");
    format!(r#"{{"inputs":[{{"name":"x","shape":[{count},4],"datatype":"FP32","data":[{data}]}}]}}"#)
}

/// Requests that wait for `slow`.
fn pending(server: &Server) -> u64 {
    metric(server, "nv_inference_pending_request_count{model=\"slow\",version=\"1\"}")
}

#[test]
fn a_cancelled_request_that_still_waits_never_runs() {
    let server = server(&["--instances", "1", "--default-max-batch-size", "8"]);
    let runs = || metric(&server, "nv_inference_exec_count{model=\"slow\",version=\"1\"}");
    let canceled =
        || metric(&server, "nv_inference_request_failure{model=\"slow\",version=\"1\",reason=\"CANCELED\"}");
    let before = runs();
    // More rows than fit into one run together: one of the two runs while the other waits.
    let long = post("/v2/models/slow/infer", &rows(5));
    let (mut first, mut second) = (connect(server.http), connect(server.http));
    first.write_all(long.as_bytes()).unwrap();
    second.write_all(long.as_bytes()).unwrap();
    until("one runs and one waits", || pending(&server) == 1);
    let mut gone: Vec<_> = (0..5).map(|_| connect(server.http)).collect();
    gone.iter_mut()
        .for_each(|stream| stream.write_all(post("/v2/models/slow/infer", SLOW).as_bytes()).unwrap());
    until("six wait", || pending(&server) == 6);
    drop(gone);
    until("five were canceled", || canceled() == 5);
    assert_eq!(runs(), before, "one was to be still running");
    assert_eq!((answer(&mut first).status, answer(&mut second).status), (200, 200));
    assert_eq!((runs(), canceled(), pending(&server)), (before + 2, 5, 0));
}

#[test]
fn a_full_queue_is_503_with_retry_after_and_the_rest_is_answered() {
    let queue = ["--default-max-queue-size", "2", "--default-max-batch-size", "8", "--instances", "1"];
    let server = server(&[&queue[..], &["--io-threads", "1"]].concat());
    let rejected =
        || metric(&server, "nv_inference_request_failure{model=\"slow\",version=\"1\",reason=\"REJECTED\"}");
    // Too many rows to run together: one runs and two wait, and every other one finds the queue full.
    let request = post("/v2/models/slow/infer", &rows(5));
    let mut taken = [(); 3].map(|()| connect(server.http));
    let mut take = |place: usize| {
        taken[place].write_all(request.as_bytes()).unwrap();
        // The one I/O core has read it when it has answered others that came later.
        (0..3).for_each(|_| drop(metrics(&server)));
    };
    take(0);
    until("one runs", || pending(&server) == 0);
    take(1);
    take(2);
    assert_eq!(pending(&server), 2, "one runs and two wait");
    for count in 1..=9 {
        let reply = infer(server.http, "slow", SLOW);
        assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
        assert_eq!(reply.error(), "[request id: <id_unknown>] Exceeds maximum queue size");
        assert_eq!(rejected(), count);
    }
    assert_eq!(pending(&server), 2, "one was to be still running");
    assert!(taken.iter_mut().all(|stream| answer(stream).status == 200));
    assert_eq!((infer(server.http, "slow", SLOW).status, rejected()), (200, 9));
}

#[test]
fn models_that_mix_rows_run_every_request_alone() {
    let server = server(&["--inline-below-us", "0", "--instances", "1"]);
    for model in ["softmax_over_batch", "dynamic_quantize", "reduce_in_if"] {
        let body = r#"{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data":[1,2,3,4,5,6]}]}"#;
        let before = metric(&server, &format!("nv_inference_exec_count{{model=\"{model}\",version=\"1\"}}"));
        let request = post(&format!("/v2/models/{model}/infer"), body);
        let mut streams: Vec<_> = (0..20).map(|_| connect(server.http)).collect();
        streams.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
        let first = answer(&mut streams[0]).body;
        assert!(streams[1..].iter_mut().all(|stream| answer(stream).body == first), "{model}");
        let after = metric(&server, &format!("nv_inference_exec_count{{model=\"{model}\",version=\"1\"}}"));
        assert_eq!(after - before, 20, "{model} shared a run");
    }
}

#[test]
fn probes_follow_the_dialect_of_the_listener_and_the_drain() {
    for (dialect, not_ready) in [("kserve", 503), ("triton", 400)] {
        let server = server(&["--http-dialect", dialect]);
        let probe = |path: &str| {
            let reply = get(server.http, path);
            (reply.status, reply.json())
        };
        assert_eq!(probe("/v2/health/live"), (200, json!({"live": true})));
        assert_eq!(probe("/v2/health/ready"), (200, json!({"ready": true})));
        assert_eq!(probe("/v2/models/scaler/ready"), (200, json!({"name": "scaler", "ready": true})));
        assert_eq!(probe("/v2/models/nobody/ready").0, not_ready);
        assert_eq!(metric(&server, "xebec_serve_ready"), 1);
        // A request that was begun keeps the server up while it drains.
        let mut last = begun(server.http, "scaler", SCALER);
        server.terminate().unwrap();
        until("it drains", || metric(&server, "xebec_serve_ready") == 0);
        assert_eq!(probe("/v2/health/live"), (200, json!({"live": true})));
        assert_eq!(probe("/v2/health/ready"), (not_ready, json!({"ready": false})));
        let model = json!({"error": "Model version not ready", "ready": false});
        assert_eq!(probe("/v2/models/scaler/ready"), (not_ready, model));
        assert_eq!(infer(server.http, "scaler", SCALER).status, 503);
        last.write_all(SCALER.as_bytes()).unwrap();
        assert_eq!(answer(&mut last).status, 200);
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_version_policy_says_which_versions_are_served() {
    let server = server(&[]);
    assert_eq!(get(server.http, "/v2/models/versions").json()["versions"], json!(["1", "3"]));
}
