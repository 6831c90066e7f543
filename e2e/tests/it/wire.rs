//! Bytes over a socket, as a client that no library would let be so rude.
use serde_json::Value;
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};
use xebec_e2e::server::Server;

/// The bound of a test that hangs; nothing here takes a second.
pub(crate) const BOUND: Duration = Duration::from_secs(60);

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    /// Outputs as the JSON has them, and the bytes of binary tensors behind it.
    pub(crate) fn split(&self) -> (Vec<Value>, &[u8]) {
        let length = self.header("Inference-Header-Content-Length").map(|length| length.parse().unwrap());
        let (json, tensors) = self.body.split_at(length.unwrap_or(self.body.len()));
        let json: Value = serde_json::from_slice(json).unwrap();
        (json["outputs"].as_array().unwrap().clone(), tensors)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// Reads one answer with a length, and not a byte of the next.
pub(crate) fn answer(stream: &mut TcpStream) -> Reply {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut byte).unwrap();
        assert!(read > 0, "no answer: {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut reply = Reply { status, head, body: Vec::new() };
    let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
    reply.body.resize(length, 0);
    stream.read_exact(&mut reply.body).unwrap();
    reply
}

/// Sends a request with these headers and this body on a connection of its own.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut stream = connect(address);
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    // A server may answer before it has read all of a body that is too long.
    let _ = stream.write_all(body);
    answer(&mut stream)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, "GET", path, &[], b"")
}

pub(crate) fn infer(address: SocketAddr, model: &str, body: &str) -> Reply {
    send(address, "POST", &format!("/v2/models/{model}/infer"), &[], body.as_bytes())
}

/// A request for `scaler` of one row.
pub(crate) const SCALER: &str =
    r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;

/// The server still does its job.
pub(crate) fn still_serves(address: SocketAddr) {
    let reply = infer(address, "scaler", SCALER);
    assert_eq!(
        (reply.status, &reply.json()["outputs"][0]["data"]),
        (200, &serde_json::json!([3.0, 5.0, 7.0, 9.0]))
    );
}

/// A request with a JSON body, as it goes over the wire.
pub(crate) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits for a state, bounded by the test's own time.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < BOUND, "never: {what}");
        std::thread::yield_now();
    }
}

/// The metrics page.
pub(crate) fn metrics(server: &Server) -> String {
    String::from_utf8(get(server.metrics, "/metrics").body).unwrap()
}

/// A whole number of the metrics page, by its name and labels.
pub(crate) fn counted(page: &str, series: &str) -> Option<u64> {
    let value = page.lines().find_map(|line| line.strip_prefix(series));
    value.map(|value| value.trim().parse().unwrap())
}

/// Sends the head of an infer request, and waits until the server has said that it has it. The body is still due.
pub(crate) fn begun(address: SocketAddr, model: &str, body: &str) -> TcpStream {
    let mut stream = connect(address);
    let whole = post(&format!("/v2/models/{model}/infer"), body);
    let head = whole
        .strip_suffix(body)
        .unwrap()
        .replace("Host: localhost", "Host: localhost\r\nExpect: 100-continue");
    stream.write_all(head.as_bytes()).unwrap();
    let mut said = [0; 25];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}
