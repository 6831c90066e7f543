//! The metrics page is a golden file: names, helps, labels and order; numbers of a known history exactly.
use crate::wire::{SCALER, get, infer};
use xebec_e2e::{generate::root, server::Server};

/// Families whose numbers follow from the history of this test alone.
const EXACT: [&str; 11] = [
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_pending_request_count",
    "xebec_serve_requests_total",
    "xebec_serve_unrouted_requests_total",
    "xebec_serve_log_lines_lost_total",
    "xebec_serve_panics_total",
    "xebec_serve_ready",
    "xebec_net_connections_refused_total",
];

/// Replaces numbers that time and the machine decide by `*`, and what names this machine.
fn settled(page: &str) -> String {
    let line = |line: &str| {
        if line.starts_with('#') {
            return line.to_owned();
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        let exact = EXACT.iter().any(|family| name.starts_with(family))
            || name.ends_with("_count{tenant=\"default\",model=\"scaler\",version=\"1\"}");
        let name = if name.starts_with("xebec_engine_info") {
            "xebec_engine_info{engine=\"onnxruntime\",...}"
        } else {
            name
        };
        format!("{name} {}", if exact { value } else { "*" })
    };
    page.lines().map(|one| line(one) + "\n").collect()
}

#[test]
fn the_page_is_the_golden_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(root().join("models/testdata/repository/scaler.onnx"), folder.path().join("scaler.onnx"))
        .unwrap();
    let server = Server::start(&["serve", "--model-repository", &folder.path().to_string_lossy()]).unwrap();
    for _ in 0..3 {
        assert_eq!(infer(server.http, "scaler", SCALER).status, 200);
    }
    assert_eq!(infer(server.http, "scaler", r#"{"inputs":[]}"#).status, 400);
    assert_eq!(infer(server.http, "nobody", "{}").status, 404);
    let reply = get(server.metrics, "/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let page = settled(&String::from_utf8(reply.body).unwrap());
    let golden = root().join("e2e/tests/it/metrics.golden");
    if std::env::var_os("XEBEC_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &page).unwrap();
    }
    let want = std::fs::read_to_string(&golden).unwrap();
    assert!(page == want, "the page has changed; XEBEC_UPDATE_GOLDEN=1 writes it anew:\n{page}");
    assert_eq!(get(server.metrics, "/").status, 404);
}
