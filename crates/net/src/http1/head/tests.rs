use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Head, Refusal> {
    read(&Bytes::copy_from_slice(text.as_bytes()), 100)
}

/// A POST with these lines after the first.
fn post(lines: &str) -> Result<Head, Refusal> {
    parse(&format!("POST /v2 HTTP/1.1\r\n{lines}\r\n"))
}

#[test]
fn a_head_says_what_is_asked_for_and_how_its_body_ends() {
    let head =
        post("Host: localhost:8000\r\nContent-Length: 007\r\nX-Empty:\r\nX-Empty: \t a b \t\r\n").unwrap();
    assert_eq!((head.parts.method, head.parts.uri.path()), (Method::POST, "/v2"));
    assert_eq!(head.framing, Framing::Length(7));
    let values: Vec<_> = head.parts.headers.get_all("x-empty").iter().collect();
    assert_eq!(values, ["", "a b"]);
    assert_eq!((head.last, head.old, head.asks_first), (false, false, false));
    let chunked = post("Host: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n").unwrap();
    assert_eq!((chunked.framing, chunked.asks_first), (Framing::Chunked(Chunks::new()), true));
    assert_eq!(post("Host: a\r\n").unwrap().framing, Framing::Length(0));
    let target = parse("GET http://A:1/v2 HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap();
    assert_eq!(target.parts.uri.path(), "/v2");
}

#[test]
fn a_connection_goes_on_as_its_version_and_its_header_say() {
    for (version, lines, last) in [
        ("1.1", "", false),
        ("1.1", "Connection: close\r\n", true),
        ("1.1", "Connection: upgrade , CLOSE\r\n", true),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", true),
        ("1.0", "", true),
        ("1.0", "Connection: Keep-Alive\r\n", false),
        ("1.0", "Connection: keep-alive, close\r\n", true),
    ] {
        let head = parse(&format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n")).unwrap();
        assert_eq!((head.last, head.old), (last, version == "1.0"), "{version} {lines}");
    }
    // It does not know the word that it would wait for.
    assert!(
        !parse("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").unwrap().asks_first
    );
}

#[test]
fn what_two_readers_could_understand_differently_is_refused() {
    for (lines, refusal) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Refusal::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Refusal::TwoFramings),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", Refusal::Length),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Refusal::Length),
        ("Content-Length: 5, 5\r\n", Refusal::Length),
        ("Content-Length: +5\r\n", Refusal::Length),
        ("Content-Length: -5\r\n", Refusal::Length),
        ("Content-Length: 0x5\r\n", Refusal::Length),
        ("Content-Length: 5 5\r\n", Refusal::Length),
        ("Content-Length: 1_0\r\n", Refusal::Length),
        ("Content-Length:\r\n", Refusal::Length),
        ("Content-Length: 18446744073709551616\r\n", Refusal::Length),
        ("Transfer-Encoding: gzip, chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked, chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding:\r\n", Refusal::TransferEncoding),
        ("Transfer-Encoding : chunked\r\n", Refusal::Header),
        ("Content-Length : 5\r\n", Refusal::Header),
        (" Content-Length: 5\r\n", Refusal::Header),
        ("X: a\r\n b\r\n", Refusal::Header),
        ("X: a\r\n\tb\r\n", Refusal::Header),
        ("X: a\0b\r\n", Refusal::Header),
        ("X: a\u{1}b\r\n", Refusal::Header),
        ("X: a\u{7f}b\r\n", Refusal::Header),
        ("X\0: a\r\n", Refusal::Header),
        ("X Y: a\r\n", Refusal::Header),
        (": a\r\n", Refusal::Header),
        ("no colon\r\n", Refusal::Header),
        ("Expect: 200-ok\r\n", Refusal::Expect),
        ("Host: b\r\n", Refusal::Host),
    ] {
        let got = post(&format!("Host: a\r\n{lines}"));
        assert_eq!(got.map(|head| head.framing), Err(refusal), "{}", lines.escape_debug());
    }
    for lines in [
        "",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: [::1\r\n",
    ] {
        assert_eq!(post(lines).map(|head| head.framing), Err(Refusal::Host), "{lines}");
    }
}

#[test]
fn request_lines_have_one_form() {
    for (line, refusal) in [
        ("GET /", Refusal::RequestLine),
        ("GET  / HTTP/1.1", Refusal::RequestLine),
        ("GET / HTTP/1.1 ", Refusal::LineEnd),
        ("G@T / HTTP/1.1", Refusal::RequestLine),
        ("GET /\u{7f} HTTP/1.1", Refusal::RequestLine),
        ("GET /a b HTTP/1.1", Refusal::Version),
        ("GET / HTTP/1.2", Refusal::Version),
        ("GET / HTTP/2.0", Refusal::Version),
        ("GET / http/1.1", Refusal::Version),
        ("GET v2 HTTP/1.1", Refusal::Target),
        ("CONNECT a:80 HTTP/1.1", Refusal::Target),
        ("GET * HTTP/1.1", Refusal::Target),
        ("GET http://b/ HTTP/1.1", Refusal::OtherHost),
        ("GET http://u@a/ HTTP/1.1", Refusal::OtherHost),
        ("GET http://a:81/ HTTP/1.1", Refusal::OtherHost),
    ] {
        let got = parse(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(got.map(|head| head.framing), Err(refusal), "{line}");
    }
    assert_eq!(parse("PRI * HTTP/2.0\r\n\r\n").map(|head| head.framing), Err(Refusal::Http2));
    let old = parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").map(|head| head.framing);
    assert_eq!(old, Err(Refusal::TransferEncoding));
    assert!(parse("GET / HTTP/1.0\r\n\r\n").is_ok());
}

#[test]
fn one_header_too_many_is_told_with_the_limit() {
    let head =
        |count: usize| parse(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(count - 1)));
    assert_eq!(head(100).unwrap().parts.headers.len(), 100);
    assert_eq!(head(101).map(|head| head.framing), Err(Refusal::TooManyHeaders(100)));
}

#[test]
fn what_cannot_become_a_request_is_known_by_its_first_byte() {
    for good in [&b""[..], b"G", b"!"] {
        assert_eq!(begins(good), Ok(()), "{}", good.escape_ascii());
    }
    assert_eq!(begins(b"\x16\x03\x01"), Err(Refusal::Tls));
    for bad in [&b"\0"[..], b" GET", b"\x80\x02", b"\t"] {
        assert_eq!(begins(bad), Err(Refusal::NotHttp));
    }
    for bad in [&b"\n"[..], b"\r\n", b"\rG"] {
        assert_eq!(begins(bad), Err(Refusal::LineEnd));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes.into(), 100);
    }

    #[test]
    fn what_is_accepted_has_one_host_and_one_framing(
        lines in prop::collection::vec("(Host|Content-Length|Transfer-Encoding|X)( )?: ?(a|5|chunked|,)?", 0..5),
    ) {
        let text = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>();
        if let Ok(head) = post(&text) {
            let count = |name: &str| head.parts.headers.get_all(name).iter().count();
            prop_assert_eq!(count("host"), 1);
            prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
        }
    }
}
