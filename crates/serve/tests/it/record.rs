//! What is counted and what is logged.
use crate::server::{Server, call};
use xebec_core::{TenantId, error::FailureReason, port::Upstream as _};
use xebec_net::wire::inference::ModelInferRequest;

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
