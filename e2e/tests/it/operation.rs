//! Draining, cancelling and overload of the real binary.
use crate::wire::{SCALER, answer, connect, get, infer, send};
use std::{
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::Instant,
};
use xebec_e2e::server::Server;

const SLOW: &str = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

fn metric(server: &Server, line: &str) -> u64 {
    let page = String::from_utf8(get(server.metrics, "/metrics").body).unwrap();
    let found = page.lines().find_map(|other| other.strip_prefix(line));
    found.unwrap_or_else(|| panic!("no {line} in {page}")).trim().parse().unwrap()
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits for a state, bounded by the test's own time.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < crate::wire::BOUND, "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn sigterm_under_load_loses_nothing_that_was_read_and_answers_nothing_wrong() {
    let server = server(&["--instances", "1"]);
    let (stop, answered, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let address = server.http;
    std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let request = post("/v2/models/scaler/infer", SCALER);
                    let mut stream = connect(address);
                    while !stop.load(SeqCst) {
                        stream.write_all(request.as_bytes()).unwrap();
                        // A connection that the server had closed before it read anything has lost nothing.
                        let Some(reply) = try_answer(&mut stream) else { return };
                        match reply.status {
                            200 => {
                                assert_eq!(
                                    reply.json()["outputs"][0]["data"],
                                    serde_json::json!([3.0, 5.0, 7.0, 9.0])
                                );
                                answered.fetch_add(1, SeqCst);
                            }
                            503 => {
                                assert_eq!(reply.error(), "server is draining and takes no new requests");
                                assert_eq!(reply.header("retry-after"), Some("1"));
                                refused.fetch_add(1, SeqCst);
                                return;
                            }
                            other => panic!("status {other}: {}", reply.error()),
                        }
                        if reply.header("connection") == Some("close") {
                            return;
                        }
                    }
                })
            })
            .collect();
        until("load", || answered.load(SeqCst) > 500);
        // Three that run for long: two wait in the queue when the first runs, so all three were read before the signal.
        let mut slow: Vec<_> = (0..3).map(|_| connect(address)).collect();
        slow.iter_mut()
            .for_each(|stream| stream.write_all(post("/v2/models/slow/infer", SLOW).as_bytes()).unwrap());
        until("two wait", || pending(&server) == 2);
        server.terminate().unwrap();
        slow.iter_mut().for_each(|stream| assert_eq!(answer(stream).status, 200));
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
    });
    assert!(answered.load(SeqCst) > 500);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

/// An answer, or nothing if the connection was closed before one byte of it came.
fn try_answer(stream: &mut std::net::TcpStream) -> Option<crate::wire::Reply> {
    let mut first = [0];
    match stream.peek(&mut first) {
        Ok(1..) => Some(answer(stream)),
        Ok(_) | Err(_) => None,
    }
}

/// Requests that wait for `slow`.
fn pending(server: &Server) -> u64 {
    metric(server, "nv_inference_pending_request_count{model=\"slow\",version=\"1\"}")
}

#[test]
fn a_cancelled_request_that_still_waits_never_runs() {
    let server = server(&["--instances", "1"]);
    let runs = || metric(&server, "nv_inference_exec_count{model=\"slow\",version=\"1\"}");
    let canceled =
        || metric(&server, "nv_inference_request_failure{model=\"slow\",version=\"1\",reason=\"CANCELED\"}");
    let before = runs();
    // Many rows, so that the first is still running when the others have come and gone; the second stays.
    let long = format!(
        r#"{{"inputs":[{{"name":"x","shape":[32,4],"datatype":"FP32","data":[{}]}}]}}"#,
        vec!["1"; 128].join(",")
    );
    let (mut first, mut second) = (connect(server.http), connect(server.http));
    first.write_all(post("/v2/models/slow/infer", &long).as_bytes()).unwrap();
    second.write_all(post("/v2/models/slow/infer", SLOW).as_bytes()).unwrap();
    until("one runs and one waits", || pending(&server) == 1);
    let mut gone: Vec<_> = (0..5).map(|_| connect(server.http)).collect();
    gone.iter_mut()
        .for_each(|stream| stream.write_all(post("/v2/models/slow/infer", SLOW).as_bytes()).unwrap());
    until("six wait", || pending(&server) == 6);
    drop(gone);
    until("five were canceled", || canceled() == 5);
    assert_eq!(runs(), before, "the first was to be still running");
    assert_eq!((answer(&mut first).status, answer(&mut second).status), (200, 200));
    assert_eq!((runs(), canceled(), pending(&server)), (before + 2, 5, 0));
}

#[test]
fn a_full_queue_is_503_with_retry_after_and_the_rest_is_answered() {
    let server = server(&["--instances", "1", "--default-max-queue-size", "2"]);
    let request = post("/v2/models/slow/infer", SLOW);
    let mut streams: Vec<_> = (0..12).map(|_| connect(server.http)).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
    let replies: Vec<_> = streams.iter_mut().map(answer).collect();
    let refused: Vec<_> = replies.iter().filter(|reply| reply.status == 503).collect();
    assert!(!refused.is_empty() && refused.len() <= 11, "{} of 12 refused", refused.len());
    for reply in &refused {
        assert_eq!(reply.error(), "[request id: <id_unknown>] Exceeds maximum queue size");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert!(replies.iter().all(|reply| reply.status == 503 || reply.status == 200));
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
    let server = server(&["--http-dialect", "kserve"]);
    let live = get(server.http, "/v2/health/live");
    assert_eq!((live.status, live.json()), (200, serde_json::json!({"live": true})));
    assert_eq!(get(server.http, "/v2/health/ready").json(), serde_json::json!({"ready": true}));
    assert_eq!(get(server.http, "/v2/models/nobody/ready").status, 503);
    // A request in flight keeps the server up while it drains.
    let mut slow = connect(server.http);
    let mut probe = connect(server.http);
    slow.write_all(post("/v2/models/slow/infer", SLOW).as_bytes()).unwrap();
    until("slow is counted", || metric(&server, "xebec_net_connections{listener=\"http\"}") >= 2);
    probe.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(answer(&mut probe).status, 200);
    assert_eq!(answer(&mut slow).status, 200);
    let versions = send(server.http, "GET", "/v2/models/versions", &[], b"").json();
    assert_eq!(versions["versions"], serde_json::json!(["1", "3"]));
    assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
}
