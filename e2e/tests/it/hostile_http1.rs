//! Hostile clients of the HTTP and metrics ports, a test for each row of what other servers fell to. Beside each,
//! well-behaved clients of both protocols go on, and none of their calls fails.
use crate::{
    hostile_http2::{beside, most_connections, resident_kib, server, without_memory},
    rpc,
    wire::{Reply, SCALER, answer, connect, counted, metrics, send, still_serves, until},
};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
};
use xebec_net::body::Encoding;

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

/// What comes until the connection ends; the caller sends no more once it has an answer.
fn rest(stream: &mut TcpStream) -> String {
    // It may be closed already.
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

/// A request of which two readers could see another end, or another request in it.
fn smuggled() -> Vec<(&'static str, String)> {
    let hidden = "GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let head = "POST /v2/models/scaler/infer HTTP/1.1\r\nHost: localhost\r\n";
    let (length, chunked) =
        (format!("Content-Length: {}\r\n", hidden.len()), "Transfer-Encoding: chunked\r\n");
    let nothing = "0\r\n\r\n";
    let with = |lines: &str, body: &str| format!("{head}{lines}\r\n{body}{hidden}");
    let chunks = |chunks: &str| with(chunked, chunks);
    vec![
        ("length and chunks", with(&format!("{length}{chunked}"), nothing)),
        ("chunks and length", with(&format!("{chunked}{length}"), nothing)),
        ("two lengths", with(&format!("Content-Length: 0\r\n{length}"), "")),
        ("two lengths that agree", with(&length.repeat(2), "")),
        ("two lengths in one", with("Content-Length: 0, 4\r\n", "")),
        ("a length with a sign", with("Content-Length: +4\r\n", "")),
        ("a negative length", with("Content-Length: -1\r\n", "")),
        ("a length in hexadecimal", with("Content-Length: 0x4\r\n", "")),
        ("a length beyond 64 bits", with("Content-Length: 18446744073709551616\r\n", "")),
        ("an encoding that is not chunked", with("Transfer-Encoding: xchunked\r\n", nothing)),
        ("chunked behind another", with("Transfer-Encoding: identity, chunked\r\n", nothing)),
        ("chunked before another", with("Transfer-Encoding: chunked, identity\r\n", nothing)),
        ("chunked twice", with(&chunked.repeat(2), nothing)),
        ("chunked in quotes", with("Transfer-Encoding: \"chunked\"\r\n", nothing)),
        ("chunked behind a vertical tab", with("Transfer-Encoding: \u{b}chunked\r\n", nothing)),
        ("chunked by an old caller", with(chunked, nothing).replacen("HTTP/1.1", "HTTP/1.0", 1)),
        ("a blank before the colon", with("Transfer-Encoding : chunked\r\n", nothing)),
        ("a folded line", with("Transfer-Encoding:\r\n chunked\r\n", nothing)),
        ("a line that begins with a blank", with(&format!(" {length}"), "")),
        ("a bare LF in the head", with("A: b\nTransfer-Encoding: chunked\r\n", nothing)),
        ("a bare CR in the head", with("A: b\rTransfer-Encoding: chunked\r\n", nothing)),
        ("a NUL in the head", with("A: b\0\r\n", "")),
        ("two hosts", with("Host: localhost\r\n", "")),
        ("a chunk's size with 0x", chunks("0x1\r\nz\r\n0\r\n\r\n")),
        ("a chunk's size with a sign", chunks("+1\r\nz\r\n0\r\n\r\n")),
        ("a negative chunk", chunks("-1\r\nz\r\n0\r\n\r\n")),
        ("a chunk's size before a blank", chunks("1 \r\nz\r\n0\r\n\r\n")),
        ("a chunk's size beyond 64 bits", chunks("10000000000000000\r\nz\r\n0\r\n\r\n")),
        ("a chunk without a size", chunks("\r\nz\r\n0\r\n\r\n")),
        ("a chunk longer than its size", chunks("1\r\nzz\r\n0\r\n\r\n")),
        ("a chunk's line that ends in a bare LF", chunks("1\nz\r\n0\r\n\r\n")),
        ("a chunk that ends in a bare LF", chunks("1\r\nz\n0\r\n\r\n")),
        ("a chunk that ends in a bare CR", chunks("1\r\nz\r0\r\n\r\n")),
        ("an extension with a bare LF", chunks("1;a\nb\r\nz\r\n0\r\n\r\n")),
        ("a bare LF behind the last chunk", chunks("0\r\n\n")),
        ("a trailer that is no header", chunks("0\r\nGET / HTTP/1.1\r\n\r\n")),
    ]
}

#[test]
fn request_smuggling_gets_one_refusal_and_never_a_second_answer() {
    let server = server(&[]);
    beside(&server, || {
        for (name, bytes) in smuggled() {
            let mut stream = connect(server.http);
            stream.write_all(bytes.as_bytes()).unwrap();
            let refused = answer(&mut stream);
            assert!([400, 501].contains(&refused.status), "{name}: {}", refused.status);
            assert!(refused.error().len() > 10, "{name}");
            assert_eq!(rest(&mut stream), "", "{name}");
        }
    });
}

#[test]
fn slow_headers_and_slow_bodies_are_cut_off_and_hold_up_nobody() {
    let server = server(&["--header-timeout-secs", "0.5", "--stall-timeout-secs", "0.5"]);
    let body = "POST /v2/models/scaler/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
    beside(&server, || {
        let mut slow: Vec<TcpStream> = (0..200)
            .map(|at| {
                let mut stream = connect(server.http);
                let begin = if at % 2 == 0 { "GET /v2 HTTP/1.1\r\nA: " } else { body };
                stream.write_all(begin.as_bytes()).unwrap();
                stream
            })
            .collect();
        // A byte now and then keeps none of them alive: each round of them takes as long as an answer for another.
        until("all are cut off", || {
            slow.retain_mut(|stream| stream.write_all(b"x").is_ok());
            still_serves(server.http);
            slow.is_empty()
        });
    });
}

#[test]
fn thousands_of_idle_http_connections_cost_little_and_keep_nobody_out() {
    let connections = most_connections();
    let server = server(&["--max-connections", "12000"]);
    beside(&server, || {
        let before = resident_kib(server.id());
        let idle: Vec<TcpStream> = (0..connections)
            .map(|at| {
                let mut stream = connect(server.http);
                if at % 2 == 0 {
                    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
                    assert_eq!(answer(&mut stream).status, 200);
                }
                stream
            })
            .collect();
        let series = "xebec_net_connections{listener=\"http\"}";
        until("all are open", || counted(&metrics(&server), series).unwrap() >= connections as u64);
        let each = resident_kib(server.id()).saturating_sub(before) / connections as u64;
        assert!(each < 32, "{each} KiB each");
        drop(idle);
        until("they are gone", || counted(&metrics(&server), series).unwrap() < 10);
    });
}

#[test]
fn one_connection_more_than_the_limit_is_told_so_and_the_other_listeners_go_on() {
    let server = server(&["--max-connections", "500"]);
    beside(&server, || {
        // Of one listening socket, connections are taken in their order.
        let held: Vec<TcpStream> = (0..500).map(|_| connect(server.metrics)).collect();
        for _ in 0..10 {
            let mut more = connect(server.metrics);
            let refused = answer(&mut more);
            assert_eq!((refused.status, refused.header("connection")), (503, Some("close")));
            assert!(refused.json()["hint"].as_str().unwrap().contains("--max-connections"));
            assert_eq!(rest(&mut more), "");
        }
        drop(held);
        until("there is room again", || {
            let mut stream = connect(server.metrics);
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").is_ok()
                && answer(&mut stream).status == 200
        });
    });
    let series = "xebec_net_connections_refused_total{listener=\"metrics\"}";
    assert!(counted(&metrics(&server), series).unwrap() >= 10);
}

#[test]
fn compression_bombs_cost_no_more_than_the_limit() {
    const LIMIT: usize = 1 << 20;
    let server = server(&["--http-max-input-size", "1048576", "--grpc-max-message-size", "1048576"]);
    let blanks = vec![b' '; LIMIT];
    let once = Encoding::Gzip.compress(&blanks);
    // Several members are one body: 64 MiB.
    let (gzip, deflate) = (once.repeat(64), Encoding::Deflate.compress(&vec![b' '; 64 << 20]));
    let nested = Encoding::Gzip.compress(&Encoding::Gzip.compress(SCALER.as_bytes()));
    assert!(gzip.len() < LIMIT && deflate.len() < LIMIT, "they are refused for what they hold");
    beside(&server, || {
        without_memory(&server, || {
            for (encoding, body, status) in [
                ("gzip", &gzip[..], 413),
                ("deflate", &deflate, 413),
                // One layer is taken off, and what is in it is no JSON.
                ("gzip", &nested, 400),
                ("gzip, gzip", &nested, 501),
                ("deflate", &nested, 400),
            ] {
                for path in ["/v2/models/scaler/infer", "/v2/repository/index", "/v2/trace/setting"] {
                    let headers = [("Content-Encoding", encoding)];
                    let refused = send(server.http, "POST", path, &headers, body);
                    let other = path != "/v2/models/scaler/infer" && (400..502).contains(&refused.status);
                    assert!(refused.status == status || other, "{path} {encoding}: {}", refused.status);
                }
            }
            rpc::run(async {
                let client = rpc::connect(server.grpc).await;
                for (encoding, body) in [("gzip", &gzip[..]), ("deflate", &deflate)] {
                    let headers = [("grpc-encoding", encoding)];
                    let call = rpc::start(&client, rpc::INFER, &headers, rpc::framed(1, body));
                    let outcome = rpc::finish(call.await.unwrap()).await.unwrap();
                    assert_eq!(outcome.code, rpc::RESOURCE_EXHAUSTED, "{outcome:?}");
                }
            });
        });
    });
}

#[test]
fn cve_2025_23310_and_23311_three_megabytes_in_chunks_of_one_byte_cost_no_memory() {
    let server = server(&[]);
    let chunks = b"1\r\n \r\n".repeat(3 << 20);
    beside(&server, || {
        without_memory(&server, || {
            for path in ["/v2/models/scaler/infer", "/v2/repository/index", "/v2/nothing"] {
                let mut stream = connect(server.http);
                let head = "HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(format!("POST {path} {head}").as_bytes()).unwrap();
                // The server stops reading when it has seen enough.
                let _ = stream.write_all(&chunks);
                let _ = stream.write_all(b"0\r\n\r\n");
                assert!((400..500).contains(&answer(&mut stream).status), "{path}");
            }
        });
    });
}

#[test]
fn tensorflow_serving_a_megabyte_of_brackets_is_refused_wherever_json_is_read() {
    let server = server(&["--model-control-mode", "explicit", "--load-model", "*"]);
    let data = r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":"#;
    beside(&server, || {
        for nested in ["[", "{\"a\":", "[{\"a\":"] {
            let nested = nested.repeat((1 << 20) / nested.len());
            for (path, body) in [
                ("/v2/models/scaler/infer", nested.clone()),
                ("/v2/models/scaler/infer", format!("{data}{nested}")),
                ("/v2/models/scaler/infer", format!("{{\"parameters\":{nested}")),
                ("/v2/repository/models/scaler/load", nested.clone()),
                ("/v2/repository/models/scaler/load", format!("{{\"parameters\":{{\"config\":{nested}")),
                ("/v2/repository/index", nested.clone()),
                ("/v2/logging", nested[..60_000].to_owned()),
                ("/v2/trace/setting", nested[..60_000].to_owned()),
            ] {
                let refused = send(server.http, "POST", path, &[], body.as_bytes());
                assert!([400, 413].contains(&refused.status), "{path}: {}", refused.status);
            }
        }
    });
}

#[test]
fn vllm_cve_2025_48956_a_megabyte_of_header_is_431() {
    let server = server(&[]);
    let value = "v".repeat(1 << 20);
    beside(&server, || {
        without_memory(&server, || {
            for address in [server.http, server.metrics] {
                for line in [format!("X-Long: {value}"), format!("Host: {value}"), format!("{value}: x")] {
                    let mut stream = connect(address);
                    let head = format!("GET /v2 HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n");
                    // The server may answer and close before it has read all of it.
                    let _ = stream.write_all(head.as_bytes());
                    assert_eq!(answer(&mut stream).status, 431);
                }
                let mut stream = connect(address);
                let _ = stream.write_all(format!("GET /{value} HTTP/1.1\r\n\r\n").as_bytes());
                assert_eq!(answer(&mut stream).status, 431);
            }
        });
    });
}

#[test]
fn bentoml_cve_2024_9056_a_long_boundary_of_a_multipart_body_costs_nothing() {
    let server = server(&[]);
    beside(&server, || {
        for (length, status) in [(1 << 20, 431), (30_000, 400), (0, 400)] {
            let boundary = "-".repeat(length);
            let kind = format!("multipart/form-data; boundary={boundary}");
            let body = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n");
            let mut stream = connect(server.http);
            let head = format!(
                "POST /v2/models/scaler/infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes());
            assert_eq!(answer(&mut stream).status, status, "{length}");
        }
    });
}
