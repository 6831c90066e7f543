//! What the target `http2` takes: connections as lists of items, and two as bytes.
use super::Seed;
use xebec_fuzz::item;

/// Kinds and flags of HTTP/2.
mod http2 {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RESET: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
    /// The stream's last, or an acknowledgement.
    pub(super) const LAST: u8 = 1;
    /// All of a head.
    pub(super) const WHOLE: u8 = 4;
    pub(super) const ALONE: u8 = LAST | WHOLE;
    pub(super) const PADDED: u8 = 8;
    pub(super) const WITH_PRIORITY: u8 = 0x20;
}

/// An item of a compact connection.
fn said(what: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[what, flags, stream, u8::try_from(payload.len()).unwrap_or(u8::MAX)], payload].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(0x7e)], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

pub(super) fn seeds() -> Vec<Seed> {
    // Compact, and cut every seven bytes.
    let seed =
        |(name, items): Connection| ("http2", name.to_owned(), [&[0x80 | 7][..], &items.concat()].concat());
    let all = [calls(), heads(), windows(), ends()].concat();
    let mut seeds: Vec<Seed> = all.into_iter().map(seed).collect();
    let whole =
        b"\x07\0\0\x0e\x01\x05\0\0\0\x01\x83\x86\x44\x04/a/b\x41\x04host\0\0\x08\x06\0\0\0\0\0pingpong";
    seeds.push(("http2", "raw".into(), whole.to_vec()));
    seeds.push(("http2", "raw-cut".into(), whole[..20].to_vec()));
    seeds
}

type Connection = (&'static str, Vec<Vec<u8>>);

/// Calls that go well.
fn calls() -> Vec<Connection> {
    use http2::*;
    let answer = || said(item::ANSWER, 0, 0, b"");
    let begin = |stream| said(item::CALL, WHOLE, stream, &field("te", "trailers"));
    let message = b"\0\0\0\0\x05hello";
    vec![
        ("unary", vec![begin(1), said(DATA, LAST, 1, message), answer()]),
        ("again", vec![begin(1), said(DATA, LAST, 1, message), answer(), said(item::AGAIN, 3, 0x81, b"")]),
        (
            "stream",
            vec![
                begin(1),
                said(DATA, 0, 1, message),
                said(DATA, 0, 1, b"\0\0\0"),
                answer(),
                said(DATA, 0, 1, b"\0\x01a"),
                said(DATA, 0, 1, b""),
                said(DATA, LAST, 1, b""),
                answer(),
            ],
        ),
        (
            "side-by-side",
            vec![
                begin(1),
                begin(3),
                said(DATA, 0, 3, b"a"),
                said(DATA, LAST, 1, b"b"),
                answer(),
                said(DATA, LAST, 3, b"c"),
                answer(),
            ],
        ),
        (
            "trailers",
            vec![
                begin(1),
                said(DATA, 0, 1, b"a"),
                said(HEADERS, ALONE, 1, &field("checksum", "7")),
                answer(),
                begin(3),
                said(HEADERS, ALONE, 3, b"\x82"),
                begin(5),
                said(HEADERS, WHOLE, 5, &field("not", "last")),
            ],
        ),
        (
            "padding",
            vec![
                said(HEADERS, ALONE | PADDED, 1, b"\x02\x83\x86\x84\0\0"),
                begin(3),
                said(DATA, PADDED, 3, b"\x03abc\0\0\0"),
                said(DATA, PADDED | LAST, 3, b"\0"),
                said(DATA, PADDED, 3, b"\x09"),
            ],
        ),
        (
            "priority",
            vec![
                said(PRIORITY, 0, 9, b"\0\0\0\x01\x10"),
                said(HEADERS, ALONE | WITH_PRIORITY, 1, b"\x80\0\0\x07\xff\x83\x86\x84"),
                said(PRIORITY, 0, 9, b"\0\0\0\x09\x10"),
            ],
        ),
        (
            "unknown",
            vec![said(item::UNKNOWN, 0xff, 3, b"what"), said(PING, 0, 0, b"pingpong"), begin(1), answer()],
        ),
    ]
}

/// Heads in every form, and those that are refused.
fn heads() -> Vec<Connection> {
    use http2::*;
    let kept: &[u8] = b"\x83\x86\x84\x40\x01x\x011";
    let call = |stream, more: &[u8]| said(item::CALL, ALONE, stream, more);
    let bare = |stream, block: &[u8]| said(HEADERS, ALONE, stream, block);
    let length = |length| field("content-length", length);
    vec![
        (
            "continuation",
            vec![
                said(HEADERS, LAST, 1, b"\x83\x86\x04"),
                said(CONTINUATION, 0, 1, b"\x04/a"),
                said(CONTINUATION, WHOLE, 1, b"/b\x01\x01x"),
                said(HEADERS, 0, 3, b"\x83"),
                said(PING, 0, 0, b"pingpong"),
            ],
        ),
        ("no-end", vec![said(HEADERS, 0, 1, b""), said(CONTINUATION, 0, 1, b""), said(item::AGAIN, 40, 0, b"")]),
        (
            "table",
            vec![
                bare(1, kept),
                bare(3, b"\x83\x86\x84\xbe"),
                bare(5, b"\x83\x86\x84\xbe"),
                bare(7, b"\x83\x86\x84\x7e\x012"),
                bare(9, b"\x3f\xe1\x1f\x83\x86\x84\xbe\xbf"),
                bare(11, b"\x20\x83\x86\x84"),
                bare(13, b"\x83\x86\x84\xbe"),
            ],
        ),
        (
            "table-small",
            vec![bare(1, b"\x3f\x09\x83\x86\x84\x40\x01a\x011\x40\x01b\x012"), bare(3, b"\x83\x86\x84\xbe\xbf")],
        ),
        (
            "table-full",
            vec![
                bare(1, b"\x3f\x25\x83\x86\x84\x40\x01a\x011\x40\x01b\x012"),
                bare(3, b"\x83\x86\x84\xbe\xbf"),
                bare(5, b"\x83\x86\x84\x40\x01c\x0234\xbe"),
                bare(7, b"\x83\x86\x84\xbf"),
            ],
        ),
        (
            "huffman",
            vec![
                bare(
                    1,
                    b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
                ),
                bare(
                    3,
                    b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
                ),
                bare(5, b"\x83\x86\x84\x0f\x00\x81\xff"),
            ],
        ),
        (
            "fields",
            vec![
                call(1, &[field("a", "1"), field("b", "2"), field("a", "3"), field("cookie", "c=d")].concat()),
                call(3, &field("te", "gzip")),
                call(5, &field("connection", "close")),
                call(7, &field("Capital", "1")),
                call(9, &field(":path", "/late")),
                call(11, &field("", "")),
            ],
        ),
        (
            "lengths",
            vec![
                said(item::CALL, WHOLE, 1, &length("2")),
                said(DATA, LAST, 1, b"ab"),
                said(item::CALL, WHOLE, 3, &length("2")),
                said(DATA, LAST, 3, b"a"),
                call(5, &length("1")),
                call(7, &[length("0"), length("0")].concat()),
                call(9, &[length("0"), length("1")].concat()),
                call(11, &length("00000000000000000000")),
                call(13, &length("")),
            ],
        ),
        (
            "paths",
            vec![
                bare(1, b"\x82\x86\x04\x04/a?b"),
                bare(3, b"\x82\x86\x04\x04/a#b"),
                bare(5, b"\x82\x86\x04\x01*"),
                bare(7, b"\x82\x86\x04\x02?a"),
                bare(9, b"\x82\x86\x04\x00"),
                bare(11, b"\x82\x06\x04grpc\x84"),
                bare(13, &[field(":method", "CONNECT"), field(":authority", "a:1")].concat()),
                bare(15, b"\x83\x86\x84\x01\x03a b"),
            ],
        ),
        (
            "too-long",
            vec![
                call(1, &field("a", &"b".repeat(120)).repeat(2)),
                bare(3, &[kept, &[0xbe; 200]].concat()),
                call(5, &[0xbe; 100]),
            ],
        ),
        (
            "many",
            vec![
                bare(1, &[&b"\x83\x86\x84"[..], &(0x90..=0xbd).collect::<Vec<u8>>()].concat()),
                said(item::AGAIN, 15, 0x80, b""),
                said(item::ANSWER, 0, 0, b""),
                said(item::AGAIN, 15, 0x80, b""),
            ],
        ),
        ("nonsense", vec![bare(1, b"\xff\xff\xff\xff\xff\x0f")]),
    ]
}

/// Settings, windows, and a peer that does not read.
fn windows() -> Vec<Connection> {
    use http2::*;
    let answer = || said(item::ANSWER, 0, 0, b"");
    let call = |stream| said(item::CALL, ALONE, stream, b"");
    let window = |stream, bytes: u32| said(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    let set = |pairs: &[(u8, u32)]| {
        let pairs = pairs.iter().map(|(name, value)| [&[0, *name][..], &value.to_be_bytes()].concat());
        said(SETTINGS, 0, 0, &pairs.collect::<Vec<_>>().concat())
    };
    vec![
        (
            "settings",
            vec![
                set(&[(1, 0), (2, 0), (3, 1), (4, 100), (5, 1 << 20), (6, 100), (9, 9)]),
                said(SETTINGS, LAST, 0, b""),
                call(1),
                answer(),
                set(&[(2, 2)]),
            ],
        ),
        (
            "windows",
            vec![
                set(&[(4, 0)]),
                call(1),
                answer(),
                window(1, 3),
                answer(),
                set(&[(4, 2)]),
                answer(),
                window(1, 100),
                window(0, 100),
                answer(),
            ],
        ),
        ("window-too-wide", vec![call(1), window(1, 0x7fff_ffff), set(&[(4, 0xffff)]), call(3), answer()]),
        ("window-of-nothing", vec![call(1), window(1, 0), call(3), answer(), window(0, 0)]),
        ("window-of-all", vec![window(0, 0x7fff_0000), window(0, 0x7fff_ffff)]),
        (
            "deaf",
            vec![
                said(item::DEAF, 0, 0, b""),
                call(1),
                said(PING, 0, 0, b"pingpong"),
                said(item::AGAIN, 255, 0, b""),
                said(item::AGAIN, 255, 7, b""),
                said(item::AGAIN, 255, 7, b"").repeat(8),
                answer(),
                said(item::DEAF, 0, 0, b""),
                call(3),
            ],
        ),
    ]
}

/// Resets, mistakes and goodbyes.
fn ends() -> Vec<Connection> {
    use http2::*;
    let answer = || said(item::ANSWER, 0, 0, b"");
    let begin = |stream| said(item::CALL, WHOLE, stream, b"");
    let reset = |stream| said(RESET, 0, stream, b"\0\0\0\x08");
    vec![
        (
            "reset",
            vec![
                begin(1),
                said(DATA, 0, 1, b"a"),
                reset(1),
                begin(3),
                reset(3),
                reset(3),
                begin(5),
                answer(),
            ],
        ),
        ("resets", vec![begin(1), reset(1), said(item::AGAIN, 30, 0x81, b"")]),
        ("reset-late", vec![begin(1), said(DATA, LAST, 1, b"a"), reset(1), said(DATA, 0, 1, b"b"), reset(7)]),
        ("data-late", vec![begin(1), said(DATA, LAST, 1, b"a"), said(DATA, 0, 1, b"b"), begin(3), answer()]),
        (
            "refused",
            vec![begin(1), said(item::AGAIN, 20, 0x80, b""), answer(), said(DATA, LAST, 35, b"late")],
        ),
        ("mistakes", vec![said(HEADERS, ALONE, 1, b"\x83"), said(item::AGAIN, 140, 0x80, b"")]),
        (
            "closed",
            vec![
                said(item::CALL, ALONE, 1, b""),
                answer(),
                said(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"),
                reset(1),
                said(DATA, 0, 1, b"late"),
                begin(5),
                said(HEADERS, ALONE, 3, b"\x83\x86\x84"),
            ],
        ),
        ("idle", vec![begin(3), said(DATA, 0, 2, b"a")]),
        ("push", vec![begin(1), said(PUSH_PROMISE, WHOLE, 1, b"\0\0\0\x02\x83\x86\x84")]),
        (
            "goodbye",
            vec![
                begin(1),
                said(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0why"),
                begin(3),
                said(DATA, LAST, 1, b""),
                answer(),
            ],
        ),
        (
            "finish",
            vec![
                begin(1),
                said(item::FINISH, 0, 0, b""),
                begin(3),
                said(PING, LAST, 0, b"good bye"),
                begin(5),
                said(DATA, LAST, 1, b""),
                answer(),
            ],
        ),
        ("nothing", vec![]),
    ]
}
