//! Our reader beside hyper's: whatever ours takes, hyper takes for the same request.
//!
//! The other way round it need not hold: what only hyper takes is what ours refuses because another reader on the way
//! could understand it differently. Each kind of that is a line of `refused_here_alone`.
use proptest::prelude::*;
use xebec_fuzz::{hypers, ours};

/// A request that is right or nearly so.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        8 => Just("POST /v2/models/m/infer HTTP/1.1\r\n"),
        2 => Just("GET /v2 HTTP/1.1\r\n"),
        1 => Just("GET http://x/v2?a=b HTTP/1.1\r\n"),
        1 => Just("OPTIONS * HTTP/1.1\r\n"),
        1 => Just("POST /v2 HTTP/1.0\r\n"),
        1 => Just("POST  /v2 HTTP/1.1\r\n"),
        1 => Just("POST /v2 HTTP/1.1\n"),
    ];
    let header = prop_oneof![
        8 => Just("Host: x\r\n".to_owned()),
        4 => "Content-Length: ?[0-4]\r\n".prop_map(|text| text),
        4 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        2 => "(Content-Length|Transfer-Encoding|Connection|Expect|Host|X)[ \t]?:[ \t]?[-+,a-z0-9 ]{0,10}\r?\n",
        1 => "[A-Za-z-]{1,8}:[ -~]{0,12}\r\n[ \t]?",
        1 => Just("Connection: keep-alive\r\n".to_owned()),
    ];
    let body = prop_oneof![
        3 => "[a-z]{0,4}",
        3 => "([0-3](;[a-z=]{0,4})?\r\n[a-z]{0,3}\r\n){0,3}0\r\n([A-Za-z]{1,3}: ?[a-z]{0,3}\r\n)?\r\n",
        1 => "[0-9a-fA-FxX;+ \r\n-]{0,12}",
    ];
    (line, prop::collection::vec(header, 0..5), body)
        .prop_map(|(line, headers, body)| [line, &headers.concat(), "\r\n", &body].concat().into_bytes())
}

/// One byte is changed, put in or taken out.
fn spoil(bytes: &mut Vec<u8>, kind: u8, at: usize, byte: u8) {
    let at = at % (bytes.len() + 1);
    match kind {
        0 if at < bytes.len() => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn whatever_our_reader_takes_hyper_takes_for_the_same_request(
        requests in prop::collection::vec(request(), 1..4),
        faults in prop::collection::vec((0u8..6, 0usize..300, any::<u8>()), 0..3),
    ) {
        let mut bytes = requests.concat();
        faults.into_iter().for_each(|(kind, at, byte)| spoil(&mut bytes, kind, at, byte));
        let (ours, hypers) = (ours(&bytes), hypers(&bytes));
        prop_assert!(hypers.starts_with(&ours), "{}\nours {ours:?}\nhyper {hypers:?}", bytes.escape_ascii());
    }
}

#[test]
fn a_right_request_is_taken_by_both() {
    let bytes = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok\
        POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nok\r\n0\r\nt: u\r\n\r\n\
        GET /c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /d HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(ours(bytes), hypers(bytes));
    assert_eq!(ours(bytes).len(), 3);
}

/// What hyper takes and ours refuses: all of it is refused on purpose.
#[test]
fn refused_here_alone() {
    for bytes in [
        // Without a host, with two, or with what is no host.
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://y/ HTTP/1.1\r\nHost: x\r\n\r\n",
        // Bare LF.
        b"GET / HTTP/1.1\nHost: x\n\n",
        // Two framings, or one said twice.
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        // A blank behind a chunk's size.
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n",
        // A star that is not OPTIONS', a proxy's target, a fragment.
        b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
        // An expectation that nobody knows.
        b"GET / HTTP/1.1\r\nHost: x\r\nExpect: the-worst\r\n\r\n",
    ] {
        assert_eq!((ours(bytes).len(), hypers(bytes).len()), (0, 1), "{}", bytes.escape_ascii());
    }
}
