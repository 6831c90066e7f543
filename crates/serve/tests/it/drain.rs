//! Callers that go away, and a server that stops.
use crate::server::{Server, until, until_async};
use h2::Reason;
use http::Request;
use std::io::Read as _;

const ROW: &[u8] = br#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2.5]}]}"#;

fn cancelled(server: &Server) -> u64 {
    use xebec_core::{TenantId, error::FailureReason, port::Upstream as _};
    let metrics = server.models.get("hold").metrics();
    metrics.tenant(&TenantId::default_tenant()).failure(FailureReason::Canceled).get()
}

#[test]
fn a_caller_of_http_that_hangs_up_is_gone_for_the_model_and_counted() {
    let server = Server::start();
    let hold = server.models.get("hold");
    let stream = server.send("POST", "/v2/models/hold/infer", &[], ROW);
    until("the request reaches the model", || hold.held() == (1, false));
    drop(stream);
    until("the model sees that nobody waits", || hold.held() == (1, true));
    until("the call is counted as cancelled", || cancelled(&server) == 1);
    // Counted first, logged after.
    until("the call is logged", || {
        server.log.0.lock().unwrap().first().is_some_and(|line| line.contains(" 499 "))
    });
}

#[tokio::test]
async fn a_caller_of_grpc_that_resets_its_stream_is_gone_for_the_model_and_counted() {
    let server = Server::start();
    let hold = server.models.get("hold");
    let mut client = server.connect().await;
    let request = Request::post("http://localhost/inference.GRPCInferenceService/ModelInfer");
    let request = request.header("content-type", "application/grpc").body(()).unwrap();
    let (_response, mut stream) = client.send_request(request, false).unwrap();
    stream.send_data(vec![0, 0, 0, 0, 6, 10, 4, b'h', b'o', b'l', b'd'].into(), true).unwrap();
    until_async("the request reaches the model", || hold.held() == (1, false)).await;
    stream.send_reset(Reason::CANCEL);
    until_async("the model sees that nobody waits", || hold.held() == (1, true)).await;
    until_async("the call is counted as cancelled", || cancelled(&server) == 1).await;
}

#[test]
fn while_draining_what_is_in_flight_is_answered_and_what_is_new_refused() {
    let server = Server::start();
    let hold = server.models.get("hold");
    let mut in_flight = server.send("POST", "/v2/models/hold/infer", &[], ROW);
    until("the request reaches the model", || hold.held().0 == 1);
    server.begin_drain();
    let refused = server.post("/v2/models/echo/infer", &[], ROW);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(refused.text(), r#"{"error":"server is draining and takes no new requests"}"#);
    assert_eq!(server.get("/v2/health/live").status, 200);
    assert_eq!(server.get("/v2/health/ready").status, 400);
    assert_eq!(server.get("/v2/models/echo/ready").status, 400);
    hold.release();
    let mut answer = String::new();
    in_flight.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Request timeout expired"), "{answer}");
}
