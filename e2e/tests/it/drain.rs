//! SIGTERM under load: what the server had begun to read is answered, and nothing is answered wrongly.
//!
//! A client cannot look into the server's buffers, so every lane rests on what it can know. Two requests in one write
//! lie in one segment: if the first is answered, the second was read. The same holds for the first half of a request.
//! `100 Continue` says that a head was read. Where a connection ends with nothing answered, the server's own counts,
//! which must be those of the clients, say whether it had taken the request.
use crate::{
    rpc,
    wire::{Reply, SCALER, answer, begun, connect, counted, infer, metrics, post, until},
};
use bytes::Bytes;
use h2::client::SendRequest;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};
use xebec_e2e::server::Server;

const REFUSAL: &str = "server is draining and takes no new requests";

/// Answers that clients have got.
#[derive(Debug, Default)]
struct Tally {
    right: AtomicU64,
    refused: AtomicU64,
}

impl Tally {
    /// Counts an answer of REST; whether the connection goes on.
    fn take(&self, reply: &Reply) -> bool {
        match reply.status {
            200 => {
                let data = &reply.json()["outputs"][0]["data"];
                assert_eq!(*data, serde_json::json!([3.0, 5.0, 7.0, 9.0]));
                self.right.fetch_add(1, SeqCst);
            }
            503 => {
                assert_eq!((reply.error().as_str(), reply.header("retry-after")), (REFUSAL, Some("1")));
                self.refused.fetch_add(1, SeqCst);
            }
            other => panic!("status {other}: {}", reply.error()),
        }
        reply.status == 200 && reply.header("connection") != Some("close")
    }

    /// Counts an answer of gRPC; whether more are to be expected.
    fn take_call(&self, outcome: &rpc::Outcome) -> bool {
        match outcome.code {
            rpc::OK => {
                assert!(rpc::is_scaled(&outcome.message), "{outcome:?}");
                self.right.fetch_add(1, SeqCst);
            }
            rpc::UNAVAILABLE => {
                assert_eq!(outcome.words, REFUSAL);
                self.refused.fetch_add(1, SeqCst);
            }
            other => panic!("code {other}: {}", outcome.words),
        }
        outcome.code == rpc::OK
    }

    /// The server has counted what clients have got, not more and not less.
    fn is_the_count_of(&self, server: &Server) {
        let page = metrics(server);
        let succeeded = "nv_inference_request_success{model=\"scaler\",version=\"1\"}";
        let refused = counted(&page, "xebec_serve_unrouted_requests_total{code=\"503\"}");
        assert_eq!(counted(&page, succeeded), Some(self.right.load(SeqCst)), "answers were lost");
        assert_eq!(refused.unwrap_or(0), self.refused.load(SeqCst), "refusals were lost");
        for reason in ["REJECTED", "CANCELED", "BACKEND", "OTHER"] {
            let failed =
                format!("nv_inference_request_failure{{model=\"scaler\",version=\"1\",reason=\"{reason}\"}}");
            assert_eq!(counted(&page, &failed), Some(0), "{failed}");
        }
    }
}

/// Ends the lanes of a test that has failed, so that it is told why.
struct Ended<'a>(&'a Server);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.terminate();
        }
    }
}

fn server() -> Server {
    Server::start(&[
        "serve",
        "--model-repository",
        "models/testdata/repository",
        "--instances",
        "1",
        "--default-max-batch-size",
        "8",
        // No lane may have to wait for the end of the drain: it would wait for longer than any read does.
        "--exit-timeout-secs",
        "3600",
    ])
    .unwrap()
}

fn request() -> String {
    post("/v2/models/scaler/infer", SCALER)
}

fn halves() -> (String, String) {
    let (mut first, body) = (request(), SCALER.len());
    // Inside the head, so that the server cannot even know what is asked for.
    let second = first.split_off((first.len() - body) / 2);
    (first, second)
}

/// Whether an answer has begun to come; no if the connection was closed before.
fn begins(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Ok(1..))
}

/// Nothing comes but the end.
fn ends(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "after the last answer: {}", String::from_utf8_lossy(&rest));
}

/// One request at a time.
fn single(address: SocketAddr, tally: &Tally) {
    let mut stream = connect(address);
    // Between two requests the server may close: what is then written was never read, and its counts show it.
    while stream.write_all(request().as_bytes()).is_ok() && begins(&stream) {
        if !tally.take(&answer(&mut stream)) {
            return ends(&mut stream);
        }
    }
}

/// Two requests in every write.
fn pairs(address: SocketAddr, tally: &Tally) {
    let mut stream = connect(address);
    let both = request().repeat(2);
    while stream.write_all(both.as_bytes()).is_ok() && begins(&stream) {
        let replies = [answer(&mut stream), answer(&mut stream)];
        if !replies.map(|reply| tally.take(&reply)).iter().all(|goes_on| *goes_on) {
            return ends(&mut stream);
        }
    }
}

/// A request and the first half of the next in every write, so that one is always begun.
fn staggered(address: SocketAddr, tally: &Tally) {
    let mut stream = connect(address);
    let (first, second) = halves();
    let ahead = second.clone() + &first;
    stream.write_all((request() + &first).as_bytes()).unwrap();
    while tally.take(&answer(&mut stream)) {
        stream.write_all(ahead.as_bytes()).unwrap();
    }
    stream.write_all(second.as_bytes()).unwrap();
    tally.take(&answer(&mut stream));
    ends(&mut stream);
}

/// A request for `slow` that runs for long.
fn long() -> String {
    let data = vec!["1"; 5 * 4].join(",");
    let input = format!(r#"{{"name":"x","shape":[5,4],"datatype":"FP32","data":[{data}]}}"#);
    format!(r#"{{"inputs":[{input}]}}"#)
}

fn is_slow_answer(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let json = reply.json();
    let data = json["outputs"][0]["data"].as_array().unwrap();
    let want = 0.04 + 1.0 / 1024.0;
    assert!(data.len() == 5 && data.iter().all(|got| (got.as_f64().unwrap() / want - 1.0).abs() < 1e-5));
}

#[test]
fn sigterm_under_load_loses_no_request_of_rest_that_was_begun_and_answers_nothing_wrong() {
    let server = server();
    let (address, tally) = (server.http, &Tally::default());
    let lanes: [fn(SocketAddr, &Tally); 3] = [single, pairs, staggered];
    std::thread::scope(|scope| {
        let _ended = Ended(&server);
        let lane = |lane: fn(SocketAddr, &Tally)| scope.spawn(move || lane(address, tally));
        let lanes: Vec<_> = lanes.iter().cycle().take(9).map(|one| lane(*one)).collect();
        until("load", || tally.right.load(SeqCst) > 500);
        // It keeps the server up until the lanes have ended and its page was read.
        let mut last = begun(address, "scaler", SCALER);
        // More rows than fit into one run together: one runs and two wait.
        let mut slow = [(); 3].map(|()| begun(address, "slow", &long()));
        slow.iter_mut().for_each(|stream| stream.write_all(long().as_bytes()).unwrap());
        until("two wait", || {
            counted(&metrics(&server), "nv_inference_pending_request_count{model=\"slow\",version=\"1\"}")
                == Some(2)
        });
        server.terminate().unwrap();
        slow.iter_mut().for_each(|stream| is_slow_answer(&answer(stream)));
        lanes.into_iter().for_each(|lane| lane.join().unwrap());
        let late = infer(address, "scaler", SCALER);
        assert_eq!(late.status, 503, "a new request was not refused");
        tally.take(&late);
        tally.is_the_count_of(&server);
        last.write_all(SCALER.as_bytes()).unwrap();
        let reply = answer(&mut last);
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        tally.take(&reply);
        ends(&mut last);
    });
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

/// Calls, one after the other, until the server takes no more.
async fn calls(client: SendRequest<Bytes>, tally: &Tally) {
    loop {
        match rpc::call(&client, rpc::INFER, &rpc::scaler()).await {
            Ok(outcome) if tally.take_call(&outcome) => {}
            Ok(_) => return,
            // The goodbye names the last call that was taken; what comes after it is safe to send elsewhere.
            Err(error) => {
                let goodbye = error.is_go_away() && error.is_remote();
                assert!(goodbye && error.reason() == Some(h2::Reason::NO_ERROR), "{error:?}");
                return;
            }
        }
    }
}

/// A call of which the server has the head and a part of the message: a later one of its connection was answered.
async fn begun_call(
    address: SocketAddr,
    tally: &Tally,
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>, Bytes) {
    let client = rpc::connect(address).await;
    let mut body = rpc::framed(0, &prost::Message::encode_to_vec(&rpc::scaler()));
    let rest = body.split_off(20);
    let mut ready = client.clone().ready().await.unwrap();
    let (response, mut stream) = ready.send_request(rpc::head(rpc::INFER, &[]), false).unwrap();
    stream.send_data(body, false).unwrap();
    assert!(tally.take_call(&rpc::call(&client, rpc::INFER, &rpc::scaler()).await.unwrap()));
    (response, stream, rest)
}

#[test]
fn sigterm_under_load_ends_every_grpc_call_with_its_answer_or_unavailable() {
    let server = server();
    let tally = Tally::default();
    rpc::run(async {
        let (response, mut stream, rest) = begun_call(server.grpc, &tally).await;
        let mut lanes = Vec::new();
        for _ in 0..4 {
            let client = rpc::connect(server.grpc).await;
            lanes.extend((0..8).map(|_| calls(client.clone(), &tally)));
        }
        let signal = async {
            while tally.right.load(SeqCst) < 500 {
                tokio::task::yield_now().await;
            }
            server.terminate().unwrap();
        };
        tokio::join!(futures_util::future::join_all(lanes), signal);
        tally.is_the_count_of(&server);
        stream.send_data(rest, true).unwrap();
        tally.take_call(&rpc::finish(response).await.unwrap());
    });
    assert!(tally.right.load(SeqCst) >= 500);
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
