//! What a client may make the server hold, and for how long: each limit has a flag, and holds over real sockets.
use crate::{
    rpc,
    wire::{SCALER, answer, connect, counted, metrics, post, send, still_serves, until},
};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use xebec_e2e::server::Server;

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

/// What comes until the connection ends.
fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    String::from_utf8(rest).unwrap()
}

/// A connection that has been served, so that it is surely among those that are open.
fn used(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(post("/v2/models/scaler/infer", SCALER).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).status, 200);
    stream
}

/// Waits for the one I/O core to read what lies ready on other connections: it reads a piece of each between two
/// answers, and there are more of these than there are pieces.
fn turns(address: SocketAddr) {
    let mut stream = connect(address);
    for _ in 0..200 {
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(answer(&mut stream).status, 200);
    }
}

#[test]
fn bodies_over_the_memory_for_them_are_503_until_there_is_room() {
    let flags = ["--io-threads", "1", "--max-buffered-bytes", "1048576"];
    let limits = ["--http-max-input-size", "1000000", "--grpc-max-message-size", "1000000"];
    let server = server(&[flags, limits].concat());
    let body = " ".repeat(900_000);
    let whole = post("/v2/models/scaler/infer", &body);
    let (first, last) = whole.split_at(800_000);
    let mut held = connect(server.http);
    held.write_all(first.as_bytes()).unwrap();
    turns(server.http);
    let path = "/v2/models/scaler/infer";
    let refused = send(server.http, "POST", path, &[], body.as_bytes());
    assert_eq!(refused.status, 503, "{}", refused.error());
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.error(), "the requests being read and waiting fill the memory for them");
    assert!(refused.json()["hint"].as_str().unwrap().contains("--max-buffered-bytes"));
    held.write_all(last.as_bytes()).unwrap();
    assert_eq!(answer(&mut held).status, 400);
    assert_eq!(send(server.http, "POST", path, &[], body.as_bytes()).status, 400);
    still_serves(server.http);
}

#[test]
fn idle_connections_are_closed_in_their_time_and_not_before() {
    const IDLE: Duration = Duration::from_millis(400);
    let server = server(&["--idle-timeout-secs", "0.4"]);
    let started = Instant::now();
    // One that was used, and one that never says a word.
    for mut stream in [used(server.http), connect(server.http)] {
        assert_eq!(rest(&mut stream), "");
        assert!(started.elapsed() >= IDLE, "{:?}", started.elapsed());
    }
    rpc::run(async {
        let client = rpc::connect(server.grpc).await;
        assert_eq!(rpc::call(&client, rpc::INFER, &rpc::scaler()).await.unwrap().code, rpc::OK);
        let answered = Instant::now();
        // A connection that takes no more calls has ended.
        while let Ok(ready) = client.clone().ready().await {
            drop(ready);
            tokio::task::yield_now().await;
        }
        assert!(answered.elapsed() >= IDLE, "{:?}", answered.elapsed());
        rpc::still_serves(server.grpc).await;
    });
    still_serves(server.http);
}

#[test]
fn connections_over_the_limit_are_told_so_and_closed_and_the_other_listeners_go_on() {
    let server = server(&["--max-connections", "2"]);
    let (first, _second) = (used(server.http), used(server.http));
    let mut third = connect(server.http);
    let refused = answer(&mut third);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.json()["hint"].as_str().unwrap().contains("--max-connections"));
    assert_eq!(rest(&mut third), "");
    let page = metrics(&server);
    assert_eq!(counted(&page, "xebec_net_connections{listener=\"http\"}"), Some(2));
    assert_eq!(counted(&page, "xebec_net_connections_refused_total{listener=\"http\"}"), Some(1));
    rpc::run(rpc::still_serves(server.grpc));
    drop(first);
    until("the first is closed", || {
        counted(&metrics(&server), "xebec_net_connections{listener=\"http\"}") == Some(1)
    });
    still_serves(server.http);
}

#[test]
fn heads_of_too_many_headers_or_too_many_bytes_are_431() {
    let server = server(&["--max-header-bytes", "8192"]);
    let with = |count: usize, size: usize| {
        let value = "v".repeat(size);
        let headers: String = (0..count).map(|at| format!("h{at}: {value}\r\n")).collect();
        let mut stream = connect(server.http);
        stream
            .write_all(format!("GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes())
            .unwrap();
        answer(&mut stream)
    };
    for (count, size, status) in
        [(99, 1, 200), (100, 1, 431), (8, 900, 200), (8, 1100, 431), (1, 60_000, 431)]
    {
        assert_eq!(with(count, size).status, status, "{count} headers of {size} bytes");
    }
    still_serves(server.http);
}
