//! What is counted and what is logged.
use crate::server::{MAX_BODY_BYTES, Server, call};
use bytes::Bytes;
use http::Request;
use prost::Message as _;
use xebec_core::{TenantId, error::FailureReason, port::Upstream as _};
use xebec_net::wire::inference::{ModelInferRequest, model_infer_request::InferInputTensor};

const ROWS: &[u8] = br#"{"id":"7","inputs":[{"name":"x","shape":[2,2],"datatype":"FP32","data":[1,2,3,4]}]}"#;

#[test]
fn calls_are_counted_under_their_model_and_tenant_and_under_none_if_they_found_none() {
    let server = Server::start();
    server.post("/v2/models/echo/infer", &[], ROWS);
    server.post("/v2/models/echo/infer", &[], b"{");
    server.post("/v2/models/full/infer", &[], ROWS);
    server.post("/v2/models/none/infer", &[], ROWS);
    server.get("/nothing");
    let default = TenantId::default_tenant();
    let echo = server.models.get("echo").metrics().tenant(&default);
    assert_eq!((echo.success.get(), echo.rows.get()), (1, 2));
    assert_eq!(echo.failure(FailureReason::Other).get(), 1);
    let full = server.models.get("full").metrics().tenant(&default);
    assert_eq!((full.success.get(), full.failure(FailureReason::Rejected).get()), (0, 1));
    assert_eq!(server.unrouted.counts(), [(404, 2)]);
}

#[tokio::test]
async fn the_log_has_each_call_with_its_outcome_and_no_input() {
    let server = Server::start();
    let mut client = server.connect().await;
    let request = ModelInferRequest { model_name: "none".into(), ..ModelInferRequest::default() };
    call(&mut client, "/inference.GRPCInferenceService/ModelInfer", &request).await;
    let long =
        String::from_utf8(ROWS.to_vec()).unwrap().replace("\"7\"", &format!("\"{}\"", "ü".repeat(100)));
    let bytes_out = server.post("/v2/models/echo/infer", &[], ROWS).body.len();
    server.post("/v2/models/full/infer", &[], long.as_bytes());
    let lines = server.log.0.lock().unwrap();
    let shortened = "ü".repeat(64);
    let want = [
        "grpc infer none/0  404 '' 6 0 Request for unknown model: 'none' is not found".to_owned(),
        format!("http infer echo/1 default 200 '7' {} {bytes_out} -", ROWS.len()),
        format!("http infer full/1 default 503 '{shortened}' {} 0 Exceeds maximum queue size", long.len()),
    ];
    assert_eq!(*lines, want);
}

/// Calls with these bytes and this header; the status of gRPC.
async fn send(
    server: &Server,
    method: &str,
    (name, value): (&str, &str),
    bytes: Vec<u8>,
    ended: bool,
) -> Option<String> {
    let mut client = server.connect().await;
    let request = Request::post(format!("http://localhost/inference.GRPCInferenceService/{method}"))
        .header("content-type", "application/grpc")
        .header(name, value);
    let (response, mut up) = client.send_request(request.body(()).unwrap(), false).unwrap();
    up.send_data(Bytes::from(bytes), ended).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    while let Some(piece) = body.data().await {
        piece.unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let status = head.headers.get("grpc-status").or(trailers.get("grpc-status"));
    status.map(|status| status.to_str().unwrap().to_owned())
}

const NO_HEADER: (&str, &str) = ("x", "y");

#[tokio::test]
async fn what_is_refused_over_grpc_before_it_is_there_is_counted_and_logged_like_the_rest() {
    let server = Server::start();
    let too_large = [&[0][..], &u32::try_from(MAX_BODY_BYTES * 40).unwrap().to_be_bytes()].concat();
    for method in ["ModelInfer", "ModelStreamInfer"] {
        assert_eq!(send(&server, method, NO_HEADER, too_large.clone(), false).await.as_deref(), Some("8"));
    }
    // The beginning of a message whose model is not there.
    let request = ModelInferRequest { model_name: "none".into(), ..ModelInferRequest::default() };
    let begun = [&[0, 0, 0, 1, 0][..], &request.encode_to_vec()].concat();
    assert_eq!(send(&server, "ModelInfer", NO_HEADER, begun, false).await.as_deref(), Some("5"));
    let snappy = ("grpc-encoding", "snappy");
    assert_eq!(send(&server, "ModelInfer", snappy, vec![0; 5], true).await.as_deref(), Some("12"));
    assert_eq!(send(&server, "ModelInfer", NO_HEADER, vec![0; 3], true).await.as_deref(), Some("3"));
    // Other methods are no inferences.
    assert_eq!(send(&server, "ModelReady", NO_HEADER, vec![0; 3], true).await.as_deref(), Some("3"));
    assert_eq!(server.unrouted.counts(), [(400, 1), (404, 1), (413, 2), (501, 1)]);
    let lines = server.log.0.lock().unwrap();
    let large = format!(
        "grpc infer /0  413 '' 0 0 request message is larger than the limit of {MAX_BODY_BYTES} bytes"
    );
    let want = [
        large.as_str(),
        large.as_str(),
        "grpc infer none/0  404 '' 0 0 Request for unknown model: 'none' is not found",
        "grpc infer /0  501 '' 0 0 grpc-encoding is not one of identity, deflate, gzip",
        "grpc infer /0  400 '' 0 0 the message ends before its length",
    ];
    assert_eq!(*lines, want);
}

#[tokio::test]
async fn a_call_whose_deadline_passes_is_recorded_as_that_and_not_as_a_caller_that_has_gone() {
    let server = Server::start();
    let held = row("hold");
    let short = ("grpc-timeout", "50m");
    assert_eq!(send(&server, "ModelInfer", short, held, true).await.as_deref(), Some("4"));
    let hold = server.models.get("hold").metrics().tenant(&TenantId::default_tenant());
    crate::server::until("it is counted", || hold.failure(FailureReason::Canceled).get() == 1);
    // The message does not come before the deadline.
    assert_eq!(send(&server, "ModelInfer", short, vec![0, 0, 0, 0, 9], false).await.as_deref(), Some("4"));
    assert_eq!(server.unrouted.counts(), [(504, 1)]);
    let lines = server.log.0.lock().unwrap();
    let passed = "the deadline that its caller gave the request has passed";
    assert!(lines[0].starts_with("grpc infer hold/1 default 504") && lines[0].ends_with(passed), "{lines:?}");
    assert_eq!(lines[1], format!("grpc infer /0  504 '' 0 0 {passed}"));
}

fn row(model: &str) -> Vec<u8> {
    let request = ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; 8].into()],
        ..ModelInferRequest::default()
    }
    .encode_to_vec();
    [&[0][..], &u32::try_from(request.len()).unwrap().to_be_bytes(), &request].concat()
}
