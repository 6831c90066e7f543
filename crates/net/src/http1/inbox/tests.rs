use super::*;
use proptest::prelude::*;

/// What a connection's bytes mean: requests with their bodies, and how it ends.
#[derive(Debug, PartialEq)]
struct Outcome {
    requests: Vec<(String, Result<Vec<u8>, Refusal>)>,
    refused: Option<Refusal>,
    left: usize,
}

/// Reads everything as a connection does, with the bytes cut at `cuts`. `together` takes whole requests at once where it
/// can.
fn read(bytes: &[u8], cuts: &[usize], together: bool) -> Outcome {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let (mut inbox, mut fed, mut body) = (Inbox::new(), 0, None::<(String, Vec<u8>)>);
    let mut outcome = Outcome { requests: Vec::new(), refused: None, left: 0 };
    for end in ends {
        inbox.make_room();
        inbox.bytes.extend_from_slice(&bytes[fed..end]);
        fed = end;
        loop {
            if let Some((path, mut pieces)) = body.take() {
                match inbox.piece() {
                    Ok(Next::Piece(piece)) => {
                        pieces.extend_from_slice(&piece);
                        body = Some((path, pieces));
                    }
                    Ok(Next::More) => {
                        body = Some((path, pieces));
                        break;
                    }
                    Ok(Next::End) => outcome.requests.push((path, Ok(pieces))),
                    Err(refusal) => outcome.requests.push((path, Err(refusal))),
                }
                continue;
            }
            if together && let Some((head, body)) = inbox.whole_request(1000, 10) {
                outcome.requests.push((head.parts.uri.path().into(), Ok(body.to_vec())));
                continue;
            }
            match inbox.head(1000, 10) {
                Ok(Some(head)) => {
                    inbox.begin_body(head.framing);
                    body = Some((head.parts.uri.path().into(), Vec::new()));
                }
                Ok(None) => break,
                Err(refusal) => {
                    outcome.refused = Some(refusal);
                    return outcome;
                }
            }
        }
    }
    outcome.left = inbox.bytes.len();
    outcome
}

#[test]
fn requests_behind_each_other_are_read_one_by_one_and_together_alike() {
    let bytes = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n\
        POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nz\r\n0\r\n\r\nGET /d HTTP/1.1\r\nHo";
    let want = Outcome {
        requests: [("/a", "ok"), ("/b", ""), ("/c", "z")]
            .map(|(path, body)| (path.into(), Ok(body.as_bytes().to_vec())))
            .into(),
        refused: None,
        left: 19,
    };
    assert_eq!(read(bytes, &[], false), want);
    assert_eq!(read(bytes, &[], true), want);
}

#[test]
fn after_a_refusal_nothing_is_read_any_more() {
    let two = b"GET / HTTP/1.1\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let outcome = read(two, &[], true);
    assert_eq!((outcome.requests.len(), outcome.refused), (0, Some(Refusal::LineEnd)));
    let body = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nG\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let outcome = read(body, &[], false);
    assert_eq!(outcome.requests, [("/".into(), Err(Refusal::ChunkSize))]);
    assert_eq!(outcome.refused, Some(Refusal::ChunkSize));
    // Two empty lines are one too many.
    assert_eq!(read(b"\r\n\r\nGET", &[], false).refused, Some(Refusal::LineEnd));
}

#[test]
fn a_head_is_refused_at_its_limit_and_no_byte_later() {
    let head = |size: usize| {
        let line = "GET / HTTP/1.1\r\nHost: x\r\nlong: ";
        format!("{line}{}\r\n\r\n", "a".repeat(size - line.len() - 4))
    };
    for (size, cut, refused) in [(1000, 999, false), (1001, 1000, true), (5000, 3, true)] {
        let want = refused.then_some(Refusal::HeadTooLarge(1000));
        assert_eq!(read(head(size).as_bytes(), &[cut], false).refused, want, "{size}");
        assert_eq!(read(head(size).as_bytes(), &[], false).refused, want, "{size}");
    }
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_requests_are_the_same(
        parts in prop::collection::vec(
            "(\r\n)?(GET|POST) /[ab]? HTTP/1.[019](\r\n|\n)(Host: x(\r\n|\r|\n))?(Content-Length: [0-3]\r\n)?\
             (Transfer-Encoding: chunked\r\n)?(x: [a-z]{0,3}(\r\n)?)?\r\n([0-3]\r\n[ab]{0,3}\r\n)?(0\r\n\r\n)?",
            0..4,
        ),
        cuts in prop::collection::vec(0usize..400, 0..12),
        together in any::<bool>(),
    ) {
        let bytes = parts.concat();
        prop_assert_eq!(read(bytes.as_bytes(), &cuts, together), read(bytes.as_bytes(), &[], false));
    }
}
