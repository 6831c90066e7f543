//! Our HTTP/2 beside h2's: the two differ for the reasons that the target names, and for each of them there is an example.
use proptest::prelude::*;
use xebec_fuzz::{apart, compact_apart, item, target};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const LAST: u8 = 1;
const WHOLE: u8 = 4;
const ALONE: u8 = 5;

/// A whole request's method, scheme and path, by their places in the table of all peers.
const HEAD: &[u8] = b"\x83\x86\x84";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn head(flags: u8, stream: u32, more: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, &[HEAD, more].concat())
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

#[test]
fn a_right_request_is_taken_by_both() {
    let frames = [
        head(WHOLE, 1, &field("te", "trailers")),
        frame(DATA, 0, 1, b"\0\0\0\0\x01a"),
        frame(HEADERS, ALONE, 1, &field("checksum", "7")),
    ];
    assert!(apart(&frames.concat()).is_empty());
    let message = [&[0x87][..], &frames.concat()].concat();
    assert!(target("http2").unwrap()(&[&[7][..], &frames.concat()].concat()));
    // The same bytes are no items.
    assert!(!target("http2").unwrap()(&message));
}

#[test]
fn we_alone_refuse() {
    let long = field("a", &"b".repeat(100)).repeat(16);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("we count mistakes", (0..140).flat_map(|at| frame(HEADERS, ALONE, 2 * at + 1, b"\x83")).collect()),
        ("we count settings", frame(SETTINGS, 0, 0, &[0, 9, 0, 0, 0, 0].repeat(65))),
        ("we count headers", head(ALONE, 1, &b"\x8f".repeat(17))),
        ("a stream that depends on itself ends the connection", frame(PRIORITY, 0, 1, b"\0\0\0\x01\0")),
        (
            "h2 looks at the priority before the padding",
            frame(HEADERS, ALONE | 8 | 0x20, 1, b"\x09\0\0\0\x01\0\x83\x86\x84"),
        ),
        (
            "h2 resets a malformed head of any stream",
            frame(HEADERS, ALONE, 2, &[HEAD, &field("te", "x")].concat()),
        ),
        (
            "h2 resets a malformed push",
            [head(WHOLE, 1, b""), frame(PUSH_PROMISE, WHOLE, 1, &[b"\0\0\0\x02", HEAD, HEAD].concat())]
                .concat(),
        ),
        (
            "h2 does not wait for the rest of a malformed head",
            [head(LAST, 1, HEAD), frame(SETTINGS, 0, 0, b"")].concat(),
        ),
        (
            "h2 takes a change of the table's size in every frame of a head",
            [head(LAST, 1, b""), frame(CONTINUATION, WHOLE, 1, b"\x20")].concat(),
        ),
        ("a path that is none", frame(HEADERS, ALONE, 1, b"\x83\x86\x04\x04/a#b")),
        ("a path that is none", frame(HEADERS, ALONE, 1, b"\x83\x86\x04\x02?a")),
        ("a length without digits", head(ALONE, 1, &field("content-length", ""))),
        (
            "h2 forgets a field without a name",
            [head(LAST, 1, b"\x40\0\x01x"), frame(CONTINUATION, WHOLE, 1, b"")].concat(),
        ),
        (
            "h2 forgets that a head is malformed where a frame ends within a field",
            [
                head(LAST, 1, &[&field("connection", "close")[..], b"\0\x01"].concat()),
                frame(CONTINUATION, WHOLE, 1, b"a\x01b"),
            ]
            .concat(),
        ),
        (
            "h2 forgets that a head is malformed where a frame ends within a field",
            [
                head(WHOLE, 1, b""),
                frame(HEADERS, LAST, 1, &[&field("te", "x")[..], b"\0\x01"].concat()),
                frame(CONTINUATION, WHOLE, 1, b"a\x01b"),
            ]
            .concat(),
        ),
        (
            "fields behind a body that only a head has",
            [head(WHOLE, 1, b""), frame(HEADERS, ALONE, 1, b"\x82")].concat(),
        ),
        ("too many fields behind a body", [head(WHOLE, 1, b""), frame(HEADERS, ALONE, 1, &long)].concat()),
    ];
    for (why, frames) in cases {
        assert_eq!(apart(&frames), [why], "{}", frames.escape_ascii());
    }
}

#[test]
fn h2_alone_refuses() {
    let begun = head(WHOLE, 1, b"");
    let goodbye = |last: u8| frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0]);
    let many = frame(CONTINUATION, 0, 1, b"").repeat(6);
    let bad = field("te", "x");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a length of more digits than h2 reads", head(ALONE, 1, &field("content-length", &"0".repeat(20)))),
        ("h2 ends for what is no field", head(ALONE, 1, &field("A", "b"))),
        ("h2 reads a head before it is whole", head(LAST, 1, &field("A", "b"))),
        (
            "h2 reads a head before it is whole",
            [begun.clone(), frame(HEADERS, LAST, 1, &bad), frame(CONTINUATION, WHOLE, 1, b"")].concat(),
        ),
        (
            "h2 takes a head in fewer pieces",
            [head(LAST, 1, b""), many, frame(CONTINUATION, WHOLE, 1, b"")].concat(),
        ),
        ("h2 ends for a list that is far too long", head(ALONE, 1, &field("a", &"b".repeat(100)).repeat(80))),
        (
            "h2 does not wait for the rest of a malformed head",
            [head(LAST, 1, &bad), frame(CONTINUATION, WHOLE, 1, b"")].concat(),
        ),
        ("a head behind the end of its stream", head(ALONE, 1, b"").repeat(2)),
        ("data behind the end of its stream", [head(ALONE, 1, b""), frame(DATA, 0, 1, b"a")].concat()),
        (
            "the window of a stream grows by nothing",
            [begun.clone(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
        ),
        ("h2 counts frames without data", [begun.clone(), frame(DATA, 0, 1, b"").repeat(200)].concat()),
        ("an acknowledgement of settings that were not sent", frame(SETTINGS, 1, 0, b"")),
        ("a setting that we do not know", frame(SETTINGS, 0, 0, b"\0\x08\0\0\0\x02")),
        ("h2 closes behind a goodbye when its streams are over", goodbye(0)),
        ("h2 closes behind a goodbye when its streams are over", frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\x02")),
        ("h2 compares one goodbye with another", [begun, goodbye(0), goodbye(2)].concat()),
        (
            "h2 forgets a stream that it refused",
            [(0..17).flat_map(|at| head(WHOLE, 2 * at + 1, b"")).collect(), head(WHOLE, 33, b"")].concat(),
        ),
    ];
    for (why, frames) in cases {
        assert_eq!(apart(&frames), [why], "{}", frames.escape_ascii());
    }
}

#[test]
fn a_stream_that_one_has_alone_counts_there_alone() {
    let alone = frame(HEADERS, ALONE, 1, b"\x83\x86\x04\x04/a#b");
    let others = (1..18).flat_map(|at| head(WHOLE, 2 * at + 1, b"")).collect();
    let reasons = apart(&[alone.clone(), others].concat());
    assert_eq!(reasons, ["a path that is none", "a stream that only one has counts for one alone"]);
    let reasons = apart(&[alone, head(ALONE, 1, b"")].concat());
    let differ = "a frame is of a stream of which the two do not think the same";
    assert_eq!(reasons, ["a path that is none", differ]);
}

#[test]
fn h2_resets_a_malformed_head_also_of_a_stream_that_has_ended() {
    let bad = field("te", "x");
    let call = [item::CALL, ALONE, 1, 0];
    let again = [&[item::CALL, ALONE, 1, u8::try_from(bad.len()).unwrap()], &bad[..]].concat();
    let reasons = compact_apart(&[&call[..], &[item::ANSWER, 0, 0, 0], &again].concat());
    assert_eq!(reasons, ["h2 resets a malformed head of any stream"]);
}

/// One item of a connection that is right or nearly so.
fn said() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![4 => (0u8..8).prop_map(|at| 2 * at + 1), 1 => 0u8..4];
    let flags =
        prop_oneof![4 => Just(ALONE), 4 => Just(WHOLE), 2 => Just(LAST), 2 => Just(0), 1 => any::<u8>()];
    let what = prop_oneof![4 => Just(item::CALL), 3 => Just(DATA), 2 => Just(HEADERS), 1 => Just(item::ANSWER), 3 => 0u8..12];
    let payload = prop_oneof![
        2 => Just(Vec::new()),
        2 => prop::collection::vec(any::<u8>(), 0..12),
        2 => prop::sample::select(vec![HEAD.to_vec(), b"\x40\x01x\x011".to_vec(), b"\xbe".to_vec(), field("a", "b"), vec![0, 0, 0, 1], vec![0, 4, 0, 0, 0, 3]]),
    ];
    (what, flags, stream, payload).prop_map(|(what, flags, stream, payload)| {
        [&[what, flags, stream, u8::try_from(payload.len()).unwrap()], &payload[..]].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn frames_that_are_right_or_nearly_so_are_understood_alike(items in prop::collection::vec(said(), 1..30)) {
        compact_apart(&items.concat());
    }
}
