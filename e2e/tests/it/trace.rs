//! Traces, read back from OpenTelemetry's own collector and from one that keeps what it is sent.
use crate::{
    rpc::{self, STREAM, Talk, run, scaler},
    triton_client::{pass, python},
    wire::{SCALER, answer, connect, counted, get, infer, metrics, post, send, until},
};
use real::{Collector, Seen};
use receiver::{Manner, Receiver, attributes, is_call};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
};
use xebec_e2e::server::{Server, binary};

mod real;
mod receiver;

/// The checks of `trace_client.py`.
const CHECKS: &str = "6";

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// As W3C writes a caller's span that is, or is not, recorded.
fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled))
}

fn server(endpoint: &str, more: &[&str]) -> Server {
    let base = ["serve", "--model-repository", "models/testdata/repository", "--trace-endpoint", endpoint];
    Server::start(&[&base, more].concat()).unwrap()
}

fn infer_traced(server: &Server, traceparent: &str) -> u16 {
    let headers = [("traceparent", traceparent), ("tracestate", "vendor=1")];
    send(server.http, "POST", "/v2/models/scaler/infer", &headers, SCALER.as_bytes()).status
}

/// What became of traces, by its name.
fn outcome(server: &Server, name: &str) -> u64 {
    let series = format!("xebec_serve_traces_total{{outcome=\"{name}\"}}");
    counted(&metrics(server), &series).unwrap()
}

/// The phases of a call lie end to end, from its beginning to its end.
fn phases_add_up(root: &Seen, spans: &[Seen], names: &[&str]) {
    let (trace, id) = root.context();
    let is_child = |span: &&Seen| span.field("Trace ID") == trace && span.field("Parent ID") == id;
    let children: Vec<&Seen> = spans.iter().filter(is_child).collect();
    assert_eq!(children.iter().map(|span| span.field("Name")).collect::<Vec<_>>(), names);
    let mut from = root.field("Start time");
    for child in &children {
        assert_eq!(child.field("Start time"), from, "{}", child.field("Name"));
        from = child.field("End time");
    }
    assert_eq!(from, root.field("End time"));
    let computes = children.iter().find(|span| span.field("Name") == "compute_infer").unwrap();
    let batch = spans.iter().find(|span| span.context() == computes.links[0]).unwrap();
    assert_eq!((batch.field("Name"), &*batch.attributes["xebec.batch.rows"]), ("batch", "1"));
    assert_eq!(batch.links, [(trace, id)]);
}

#[test]
fn a_trace_with_all_phases_is_read_back_from_an_opentelemetry_collector() {
    const PHASES: [&str; 9] = [
        "route",
        "read",
        "decode",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
        "deliver",
        "encode",
    ];
    let collector = Collector::start();
    for endpoint in
        [format!("grpc://127.0.0.1:{}", collector.grpc), format!("http://127.0.0.1:{}", collector.http)]
    {
        let seen_before = collector.spans().len();
        let server = server(&endpoint, &["--trace-rate", "1", "--trace-service-name", "fraud"]);
        assert_eq!(infer_traced(&server, &traceparent(true)), 200);
        run(async {
            let client = rpc::connect(server.grpc).await;
            assert_eq!(rpc::call(&client, rpc::INFER, &scaler()).await.unwrap().code, rpc::OK);
        });
        let roots = |spans: &[Seen]| -> Vec<Seen> {
            let roots = spans.iter().filter(|span| span.field("Kind") == "Server");
            roots.cloned().collect()
        };
        // Two calls with their phases, and two runs.
        until("both calls are there", || collector.spans().len() >= seen_before + 21);
        let spans = &collector.spans()[seen_before..];
        let [http, grpc] = &*roots(spans) else { panic!("two calls were to be told of") };
        assert_eq!((http.field("Trace ID"), http.field("Parent ID")), (TRACE, CALLER));
        assert_eq!(http.field("TraceState"), "vendor=1");
        assert_eq!(http.field("Name"), "POST /v2/models/{model}/infer");
        phases_add_up(http, spans, &PHASES);
        assert_eq!((grpc.field("Parent ID"), grpc.field("Status code")), ("", "Unset"));
        assert_eq!(grpc.field("Name"), "inference.GRPCInferenceService/ModelInfer");
        let without_read: Vec<&str> = PHASES.into_iter().filter(|name| *name != "read").collect();
        phases_add_up(grpc, spans, &without_read);
        for (root, name, value) in [
            (http, "http.response.status_code", "200"),
            (http, "xebec.model.version", "1"),
            (grpc, "rpc.grpc.status_code", "0"),
            (grpc, "rpc.method", "ModelInfer"),
            (grpc, "xebec.model.name", "scaler"),
            (grpc, "xebec.tenant", "default"),
            (grpc, "xebec.request.rows", "1"),
            (grpc, "client.address", "127.0.0.1"),
        ] {
            assert_eq!(root.attributes[name], value, "{name}");
        }
        server.terminate().unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn requests_that_shared_a_run_are_linked_to_its_one_span_and_back() {
    let receiver = Receiver::start(Manner::Good);
    let server = server(&receiver.url(), &["--trace-rate", "1", "--instances", "1"]);
    let request = post(
        "/v2/models/slow/infer",
        r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#,
    );
    let mut streams: Vec<_> = (0..20).map(|_| connect(server.http)).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(request.as_bytes()).unwrap());
    assert!(streams.iter_mut().all(|stream| answer(stream).status == 200));
    until("all calls are there", || receiver.spans().iter().filter(|span| is_call(span)).count() == 20);
    let spans = receiver.spans();
    let calls: HashMap<_, _> =
        spans.iter().filter(|span| is_call(span)).map(|span| (&span.span_id, span)).collect();
    let batches: Vec<_> = spans.iter().filter(|span| span.name == "batch").collect();
    assert_eq!(batches.iter().map(|batch| batch.links.len()).sum::<usize>(), 20);
    assert!(batches.iter().any(|batch| batch.links.len() > 1), "no two shared a run");
    for batch in batches {
        assert_eq!(attributes(batch)["xebec.batch.requests"], batch.links.len().to_string());
        for link in &batch.links {
            let call = calls[&link.span_id];
            assert_eq!(link.trace_id, call.trace_id);
            let computes = |span: &&xebec_net::wire::otlp::Span| {
                span.parent_span_id == call.span_id && span.name == "compute_infer"
            };
            let back = &spans.iter().find(computes).unwrap().links[0];
            assert_eq!((&back.trace_id, &back.span_id), (&batch.trace_id, &batch.span_id));
        }
    }
}

#[test]
fn a_call_is_traced_if_its_caller_records_it_and_else_by_the_rate_and_messages_of_a_stream_are_its() {
    let receiver = Receiver::start(Manner::Good);
    // So few that none is drawn in this test.
    let rare = server(&receiver.url(), &["--trace-rate", "4294967295"]);
    let always = server(&receiver.url(), &["--trace-rate", "1"]);
    assert_eq!((infer_traced(&rare, "nonsense"), infer(rare.http, "scaler", SCALER).status), (200, 200));
    assert_eq!(infer_traced(&always, &traceparent(false)), 200);
    run(async {
        let client = rpc::connect(rare.grpc).await;
        let mut talk = Talk::open_with(&client, STREAM, &[("traceparent", &traceparent(true))]).await;
        for _ in 0..3 {
            talk.say(&scaler());
            assert!(talk.hear().await.is_some());
        }
        talk.up.send_data(bytes::Bytes::new(), true).unwrap();
        assert_eq!(talk.end().await.0, rpc::OK);
    });
    let messages = || receiver.spans().into_iter().filter(is_call).collect::<Vec<_>>();
    until("the messages of the stream are there", || messages().len() == 3);
    assert_eq!(infer_traced(&always, &traceparent(true)), 200);
    until("the last call is there", || messages().len() == 4);
    for (at, call) in messages().iter().enumerate() {
        let caller = call.parent_span_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(caller, CALLER, "a call whose caller did not record it was traced");
        if at < 3 {
            assert_eq!(call.name, "inference.GRPCInferenceService/ModelStreamInfer");
        }
    }
}

#[test]
fn a_failed_call_says_how_it_failed_and_only_the_servers_own_fault_is_an_error() {
    let receiver = Receiver::start(Manner::Good);
    let server = server(&receiver.url(), &["--trace-rate", "1"]);
    assert_eq!(infer(server.http, "scaler", r#"{"id":"x7","inputs":[]}"#).status, 400);
    let call = receiver.wait_for("the call is there", is_call);
    let attributes = attributes(&call);
    assert_eq!((&*attributes["http.response.status_code"], &*attributes["error.type"]), ("400", "400"));
    assert_eq!((&*attributes["xebec.request.id"], &call.status), ("x7", &None));
    assert!(attributes["xebec.error.message"].starts_with("expected 1 inputs"));
    assert_eq!(infer(server.http, "nobody", "{}").status, 404);
    assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
    let answered =
        |span: &xebec_net::wire::otlp::Span| self::attributes(span).contains_key("xebec.request.rows");
    receiver.wait_for("the answered call is there", answered);
    // What is asked of a model that there is not leaves no trace.
    assert_eq!(receiver.spans().iter().filter(|span| is_call(span)).count(), 2);
}

#[test]
fn a_collector_that_is_down_slow_or_failing_holds_up_nobody_and_what_it_does_not_take_is_counted() {
    // Nobody listens there, and no other test comes to.
    let refused = "127.0.0.1:1";
    let (silent, failing) = (Receiver::start(Manner::Silent), Receiver::start(Manner::Status(500)));
    for (endpoint, lost) in [
        (format!("http://{refused}"), "failed"),
        (format!("grpc://{refused}"), "failed"),
        (format!("grpc://{}", silent.address), "dropped"),
        (silent.url(), "dropped"),
        (failing.url(), "failed"),
    ] {
        let server = server(&endpoint, &["--trace-rate", "1"]);
        let mut stream = connect(server.http);
        let request = post("/v2/models/scaler/infer", SCALER);
        // A call and its run take a place each, and there are 4096 beside those of a batch.
        for _ in 0..3000 {
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(answer(&mut stream).status, 200, "{endpoint}");
        }
        until("what is lost is counted", || outcome(&server, lost) > 0);
        assert_eq!(outcome(&server, "exported"), 0);
        assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
        server.terminate().unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0), "{endpoint}");
    }
}

#[test]
fn what_a_collector_refuses_for_now_is_sent_again() {
    let receiver = Receiver::start(Manner::Once(503));
    let server = server(&receiver.url(), &["--trace-rate", "1"]);
    assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
    receiver.wait_for("the call is there", is_call);
    assert_eq!(receiver.asked(), 2);
    until("it is counted", || outcome(&server, "exported") == 2);
    assert_eq!((outcome(&server, "failed"), outcome(&server, "dropped")), (0, 0));
}

#[test]
fn the_access_log_says_to_which_trace_a_call_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let log = ["--access-log", "json", "--access-log-file", &file.to_string_lossy()].map(str::to_owned);
    let log: Vec<&str> = log.iter().map(String::as_str).collect();
    let receiver = Receiver::start(Manner::Good);
    let server = server(&receiver.url(), &[&log[..], &["--trace-rate", "4294967295"]].concat());
    for parent in [&*traceparent(true), &traceparent(false), "none"] {
        assert_eq!(infer_traced(&server, parent), 200);
    }
    let call = receiver.wait_for("the call is there", is_call);
    server.terminate().unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let own = call.span_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ids: Vec<_> = lines.iter().map(|line| (&line["trace_id"], &line["span_id"])).collect();
    // Its own span, its caller's, and none.
    assert_eq!(
        ids,
        [(&json!(TRACE), &json!(own)), (&json!(TRACE), &json!(CALLER)), (&json!(null), &json!(null))]
    );
}

#[test]
fn trace_settings_are_changed_by_the_stock_tritonclient_and_at_once_in_force() {
    let receiver = Receiver::start(Manner::Good);
    let control = ["--model-control-mode", "explicit", "--load-model", "*"];
    let server = server(&receiver.url(), &control);
    pass(python("trace_client.py", &server), CHECKS);
    let set = |path: &str, body: &Value| {
        let reply = send(server.http, "POST", path, &[], body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{}", reply.error());
        reply.json()
    };
    let seen = || receiver.spans().iter().filter(|span| is_call(span)).count();
    // A count of two, and a model whose own level is off.
    set("/v2/trace/setting", &json!({"trace_rate": "1", "trace_count": 2}));
    set("/v2/models/simple/trace/setting", &json!({"trace_level": ["OFF"]}));
    for _ in 0..4 {
        assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
    }
    until("two are there", || seen() == 2);
    assert_eq!(get(server.http, "/v2/trace/setting").json()["trace_count"], "0");
    // Three at a time, long before they are old.
    let told = set("/v2/trace/setting", &json!({"trace_count": null, "log_frequency": 3}));
    assert_eq!((&told["trace_count"], &told["log_frequency"]), (&json!("-1"), &json!("3")));
    (0..3).for_each(|_| assert_eq!(infer(server.http, "scaler", SCALER).status, 200));
    until("three more are there", || seen() == 5);
}

#[test]
fn a_traced_request_is_the_example_of_its_buckets_in_openmetrics() {
    let receiver = Receiver::start(Manner::Good);
    let server = server(&receiver.url(), &["--trace-rate", "4294967295"]);
    assert_eq!(
        (infer_traced(&server, &traceparent(true)), infer(server.http, "scaler", SCALER).status),
        (200, 200)
    );
    let mut script = python("metrics_client.py", &server);
    script.env("XEBEC_METRICS", server.metrics.to_string()).env("XEBEC_TRACE", TRACE);
    pass(script, "2");
}

#[test]
fn trace_settings_are_the_operators_to_change_and_nothing_is_traced_without_a_collector() {
    let serve = ["serve", "--model-repository", "models/testdata/repository"];
    let server = Server::start(&serve).unwrap();
    assert_eq!(get(server.http, "/v2/trace/setting").json()["trace_level"], json!(["OFF"]));
    let change = |server: &Server, path: &str, body: &str| {
        let reply = send(server.http, "POST", path, &[], body.as_bytes());
        (reply.status, reply.json().to_string())
    };
    let (status, said) = change(&server, "/v2/trace/setting", r#"{"trace_rate":"1"}"#);
    assert!(status == 403 && said.contains("--model-control-mode"), "{status} {said}");
    assert!(!metrics(&server).contains("xebec_serve_traces_total"));
    let explicit = ["--model-control-mode", "explicit", "--load-model", "scaler"];
    let server = Server::start(&[&serve[..], &explicit].concat()).unwrap();
    let (status, said) = change(&server, "/v2/trace/setting", r#"{"trace_rate":"1"}"#);
    assert!(status == 501 && said.contains("--trace-endpoint"), "{status} {said}");
    for (path, status) in [("/v2/models/nobody/trace/setting", 404), ("/v2/models/a%2fb/trace/setting", 404)]
    {
        assert_eq!(
            (get(server.http, path).status, change(&server, path, "{}").0),
            (status, status),
            "{path}"
        );
    }
}

#[test]
fn a_wrong_collector_is_told_before_the_server_starts() {
    for (flags, says) in [
        (&["--trace-endpoint", "https://c:4318"][..], "no TLS"),
        (&["--trace-endpoint", "localhost:4317"], "grpc://HOST:4317"),
        (&["--trace-endpoint", "grpc://c", "--trace-rate", "0"], "one of so many"),
        (&["--trace-endpoint", "grpc://c", "--trace-resource", "a"], "KEY=VALUE"),
        (&["--trace-rate", "5"], "no effect without --trace-endpoint"),
    ] {
        let mut command = std::process::Command::new(binary().unwrap());
        command
            .args(["serve", "--model-repository", "models/testdata/repository", "--check-config"])
            .args(flags);
        command.current_dir(xebec_e2e::generate::root()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok).collect();
        assert_eq!(child.wait().unwrap().code(), Some(64), "{flags:?}");
        assert!(said.iter().any(|line| line.contains(says)), "{said:?}");
    }
}
