//! Hostile clients of the HTTP and metrics ports, a test for each row of what other servers fell to. Beside each,
//! well-behaved clients of both protocols go on, and none of their calls fails.
use crate::{
    hostile_http2::{beside, server},
    rpc,
    wire::{Reply, answer, connect, counted, metrics},
};
use std::{io::Write as _, net::SocketAddr};

/// Sends a head with these lines and no body, on a connection of its own.
fn ask(address: SocketAddr, line: &str, headers: &[&str]) -> Reply {
    let mut stream = connect(address);
    let head = format!("{line} HTTP/1.1\r\n{}\r\nContent-Length: 0\r\n\r\n", headers.join("\r\n"));
    stream.write_all(head.as_bytes()).unwrap();
    answer(&mut stream)
}

#[test]
fn ray_cve_2026_27482_pages_of_other_hosts_reach_nothing_on_any_port() {
    let server = server(&["--model-control-mode", "explicit", "--load-model", "*"]);
    let page = ["Host: localhost", "Origin: http://evil.example"];
    beside(&server, || {
        for line in [
            "GET /v2/health/ready",
            "GET /v2/models/scaler",
            "DELETE /v2/models/scaler",
            "POST /v2/models/scaler/infer",
            "POST /v2/repository/models/scaler/unload",
            "OPTIONS /v2/repository/index",
            "GET /metrics",
            "OPTIONS *",
        ] {
            for address in [server.http, server.metrics] {
                // A page whose name was made to lead here, with and without a port.
                for host in ["Host: evil.example", "Host: evil.example:8000", "Host: localhost.evil.example"]
                {
                    let refused = ask(address, line, &[host]);
                    assert_eq!(refused.status, 421, "{line}");
                    assert!(refused.json()["hint"].as_str().unwrap().contains("--allowed-hosts"));
                }
                assert_eq!(ask(address, line, &page).status, 403, "{line}");
                assert_eq!(ask(address, line, &["Host: 127.0.0.1", "Origin: null"]).status, 403, "{line}");
            }
        }
        // A verb that browsers send for their pages changes nothing, whoever asks.
        assert_eq!(ask(server.http, "DELETE /v2/models/scaler", &["Host: localhost"]).status, 405);
        rpc::run(async {
            let mut client = rpc::connect(server.grpc).await.ready().await.unwrap();
            let mut head = rpc::head(rpc::INFER, &[]);
            *head.uri_mut() = format!("http://evil.example{}", rpc::INFER).parse().unwrap();
            let (refused, _) = client.send_request(head, true).unwrap();
            let outcome = rpc::finish(refused).await.unwrap();
            assert!(outcome.code == rpc::PERMISSION_DENIED && outcome.words.contains("--allowed-hosts"));
        });
    });
    let page = metrics(&server);
    for (listener, count) in [("http", 40), ("grpc", 1), ("metrics", 40)] {
        let series = format!("xebec_net_foreign_requests_total{{listener=\"{listener}\"}}");
        assert_eq!(counted(&page, &series), Some(count), "{listener}");
    }
}

#[test]
fn hosts_that_the_operator_listed_are_answered() {
    let server = server(&["--allowed-hosts", "models.example,*.cluster.local"]);
    let status = |host: &str| ask(server.http, "GET /v2/health/live", &[host]).status;
    for host in ["models.example:8000", "a.cluster.local", "localhost", "[::1]:1", "127.0.0.1"] {
        assert_eq!(status(&format!("Host: {host}")), 200, "{host}");
    }
    assert_eq!(status("Host: other.example"), 421);
}
