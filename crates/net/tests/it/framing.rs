//! HTTP/1.1: what is a request, what is not, and what a caller is told; keep-alive, pipelining, HEAD, Expect.
use crate::{
    http::{exchange, send, to_end, until},
    server::Server,
};
use std::{
    io::{Read as _, Write as _},
    sync::atomic::Ordering::SeqCst,
};
use xebec_net::limits::Limits;

fn server() -> Server {
    Server::start(Limits::default())
}

#[test]
fn what_is_no_request_is_told_why_as_json_and_nothing_behind_it_is_answered() {
    let server = server();
    let behind = "GET /behind HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (request, status, words) in [
        (
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "both",
        ),
        (
            "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello",
            400,
            "one whole number",
        ),
        ("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: +5\r\n\r\nhello", 400, "one whole number"),
        (
            "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n",
            501,
            "not exactly 'chunked'",
        ),
        ("GET / HTTP/1.1\nhost: x\n\n", 400, "CR LF"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\n folded\r\n\r\n", 400, "a name, a colon and a value"),
        ("GET / HTTP/1.1\r\nhost : x\r\n\r\n", 400, "a name, a colon and a value"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\na: \0\r\n\r\n", 400, "without control characters"),
        ("GET / HTTP/1.1\r\n\r\n", 400, "exactly one Host"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", 400, "exactly one Host"),
        ("GET http://y/ HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "different hosts"),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nexpect: more\r\n\r\n", 417, "100-continue"),
        ("GET / HTTP/3.0\r\nhost: localhost\r\n\r\n", 505, "HTTP/1.1"),
        ("CONNECT x:80 HTTP/1.1\r\nhost: localhost:80\r\n\r\n", 400, "begins with '/'"),
        ("\u{16}\u{3}\u{1}", 400, "without TLS"),
        ("\0\0\0", 400, "not a request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "not HTTP/2"),
    ] {
        let answer = exchange(&server, format!("{request}{behind}").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {head}");
        assert!(head.contains("\r\nconnection: close") && head.contains("application/json"), "{head}");
        assert!(body.starts_with(r#"{"error":""#) && body.ends_with('}') && body.contains(words), "{body}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1 + body.matches("HTTP/1.1 ").count(), "{answer}");
    }
}

#[test]
fn odd_chunks_end_the_request_with_its_error_and_the_connection_with_it() {
    let server = server();
    for chunks in [
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n",
        "5\nhello\n0\n\n",
        "3\r\nhello\r\n",
        "10000000000000000\r\n",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let answer = exchange(&server, (request + "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes());
        assert!(
            answer.starts_with("HTTP/1.1 400 ") && answer.contains("framed wrongly"),
            "{chunks:?}: {answer}"
        );
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
}

#[test]
fn old_callers_keep_their_connection_if_they_ask_for_it() {
    let server = server();
    let answer = exchange(
        &server,
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    );
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    assert_eq!(answer.matches("connection: keep-alive").count(), 1, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[test]
fn head_has_the_length_of_the_body_that_it_leaves_out_and_options_asks_whether_anybody_is_there() {
    let server = server();
    let head = exchange(&server, b"HEAD /big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(head.contains("content-length: 67108864\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    let ping = exchange(&server, b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(ping.starts_with("HTTP/1.1 204 No Content\r\n") && ping.ends_with("\r\n\r\n"), "{ping}");
    assert!(!ping.contains("content-length"), "{ping}");
}

#[test]
fn who_asks_before_sending_is_answered_when_the_body_is_wanted_and_not_before() {
    let server = server();
    let head = b"POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
    let mut stream = send(&server, head);
    let mut said = [0; 25];
    stream.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"ok").unwrap();
    assert!(to_end(stream).ends_with("\r\n\r\nok"));
    // Too large by its length: it is told so without a word in between.
    let head =
        b"POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2000000\r\n\r\n";
    let answer = exchange(&server, head);
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("connection: close"), "{answer}");
    // What has come already is not asked for.
    let whole = b"POST / HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    assert!(exchange(&server, whole).starts_with("HTTP/1.1 200"));
}

#[test]
fn requests_that_come_together_are_answered_at_the_same_time_and_in_their_order() {
    let server = server();
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    let mut three = post("/hold", "first") + &post("/hold", "second") + &post("/", "third");
    three.push_str("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let stream = send(&server, three.as_bytes());
    // Both wait at once: one behind the other, the second would not have begun.
    until(|| server.echo.holds.load(SeqCst) == 2);
    server.echo.release.notify_one();
    server.echo.release.notify_one();
    let answer = to_end(stream);
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("no {text} in {answer}"));
    assert!(at("first") < at("second") && at("second") < at("third"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 4, "{answer}");
}

#[test]
fn a_caller_that_leaves_behind_several_requests_cancels_all_of_them() {
    let server = server();
    let stream = send(&server, &b"GET /hold HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(3));
    until(|| server.echo.holds.load(SeqCst) == 3);
    drop(stream);
    until(|| server.echo.dropped.load(SeqCst) == 3);
}

#[test]
fn more_requests_than_are_answered_together_are_all_answered() {
    let server = server();
    let mut many = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\nok".repeat(1000);
    many.extend_from_slice(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = exchange(&server, &many);
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1001);
    assert_eq!(answer.matches("\r\n\r\nok").count(), 1000);
}

#[test]
fn a_body_that_nobody_read_is_skipped_and_the_next_request_answered() {
    let server = server();
    let body = "a".repeat(60_000);
    let first =
        format!("POST /panic HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let answer = exchange(
        &server,
        (first + "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 500") && answer.contains("HTTP/1.1 200"), "{answer}");
}
