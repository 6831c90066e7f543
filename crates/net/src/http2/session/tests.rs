use super::{
    super::{frame::FIRST_WINDOW, stream::CONNECTION_WINDOW},
    *,
};
use proptest::prelude::*;
use std::task::{Context, Poll, Waker};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Outbox::default();
    put(&mut out, kind, flags, stream, payload);
    out.with_unsent(|pieces| pieces.iter().flat_map(|piece| piece.to_vec()).collect())
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    fields.iter().for_each(|(name, value)| hpack::put(&mut block, name, value.as_bytes()));
    block
}

fn call() -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "localhost")])
}

const WHOLE: u8 = flag::END_HEADERS;
const ALONE: u8 = flag::END_HEADERS | flag::END_STREAM;

/// A session that has been greeted, and what it said to that thrown away.
fn greeted(limits: Limits) -> Session {
    let mut session = Session::new(&limits);
    take(&mut session, &[PREFACE, &frame(kind::SETTINGS, 0, 0, &[])[..]].concat()).unwrap();
    sent(&session);
    session
}

fn take(session: &mut Session, bytes: &[u8]) -> Result<(), Fault> {
    session.receive(&mut BytesMut::from(bytes))
}

/// The frames that are to go: kind, flags, stream and payload.
fn sent(session: &Session) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut outbox = session.outbox();
    while !outbox.is_empty() {
        let some: Vec<u8> =
            outbox.with_unsent(|pieces| pieces.iter().flat_map(|piece| piece.to_vec()).collect());
        outbox.advance(some.len());
        bytes.extend(some);
    }
    let (mut rest, mut frames) = (&bytes[..], Vec::new());
    while let Some(head) = FrameHead::read(rest) {
        let (frame, behind) = rest.split_at(HEAD_BYTES + head.length);
        frames.push((head.kind, head.flags, head.stream, frame[HEAD_BYTES..].to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    frames
}

fn resets(session: &Session) -> Vec<(u32, Reason)> {
    let code = |payload: Vec<u8>| Reason(u32::from_be_bytes(payload.try_into().unwrap()));
    let frames = sent(session).into_iter().filter(|frame| frame.0 == kind::RESET);
    frames.map(|(_, _, stream, payload)| (stream, code(payload))).collect()
}

fn read(stream: &Stream) -> Poll<Option<Result<Bytes, super::super::stream::Gone>>> {
    stream.poll_data(&Context::from_waker(Waker::noop()))
}

#[test]
fn a_call_is_read_and_answered_however_its_bytes_are_cut() {
    let bytes = [
        PREFACE,
        &frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])[..],
        &frame(kind::HEADERS, 0, 1, &call()[..10]),
        &frame(kind::CONTINUATION, WHOLE, 1, &call()[10..]),
        &frame(kind::DATA, flag::PADDED, 1, &[2, b'a', b'b', 0, 0]),
        &frame(99, 0, 1, b"nobody knows what this is"),
        &frame(kind::DATA, flag::END_STREAM, 1, b"c"),
    ]
    .concat();
    for step in [1, 2, 3, 10, 1000] {
        let mut session = Session::new(&Limits::default());
        let mut inbox = BytesMut::new();
        for piece in bytes.chunks(step) {
            inbox.extend_from_slice(piece);
            session.receive(&mut inbox).unwrap();
        }
        let request = session.next().unwrap();
        assert_eq!((request.head.path.as_str(), session.next().is_none(), inbox.len()), ("/a/b", true, 0));
        let mut body = Vec::new();
        while let Poll::Ready(Some(Ok(piece))) = read(&request.stream) {
            body.extend(piece);
        }
        assert_eq!((body.as_slice(), request.stream.is_read()), (&b"abc"[..], true));
        request.stream.send_fields(b"\x88", false).unwrap();
        request.stream.send_data(Bytes::from_static(b"answer")).unwrap();
        request.stream.send_fields(b"\x88", true).unwrap();
        drop(request);
        let answer: Vec<_> = sent(&session).into_iter().filter(|frame| frame.2 == 1).collect();
        let wanted = [
            (kind::HEADERS, WHOLE, 1, b"\x88".to_vec()),
            (kind::DATA, 0, 1, b"answer".to_vec()),
            (kind::HEADERS, ALONE, 1, b"\x88".to_vec()),
        ];
        assert_eq!(answer, wanted, "step {step}");
    }
}

#[test]
fn the_same_head_said_again_is_the_same_and_after_another_table_it_is_not() {
    let mut session = greeted(Limits::default());
    // `x: 1` goes into the table and is meant by its place from then on.
    let kept = |value: u8| [&call()[..], &[0x40, 1, b'x', 1, value]].concat();
    let meant = [&call()[..], &[0x80 | 62]].concat();
    let mut heads = Vec::new();
    for (at, block) in [kept(b'1'), meant.clone(), meant.clone(), kept(b'2'), meant].iter().enumerate() {
        take(&mut session, &frame(kind::HEADERS, ALONE, 2 * at as u32 + 1, block)).unwrap();
        heads.push(session.next().unwrap().head);
    }
    let values: Vec<_> = heads.iter().map(|head| head.headers["x"].to_str().unwrap()).collect();
    assert_eq!(values, ["1", "1", "1", "2", "2"]);
    assert!(Rc::ptr_eq(&heads[1], &heads[2]));
}

#[test]
fn what_ends_the_connection_says_why() {
    let call = call();
    let begun = frame(kind::HEADERS, WHOLE, 1, &call);
    let ended = frame(kind::HEADERS, ALONE, 1, &call);
    let at_five = frame(kind::HEADERS, WHOLE, 5, &call);
    let on_itself = [&1u32.to_be_bytes()[..], &[0], &call].concat();
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("an even stream", frame(kind::HEADERS, WHOLE, 2, &call), Reason::PROTOCOL_ERROR),
        ("no stream", frame(kind::HEADERS, WHOLE, 0, &call), Reason::PROTOCOL_ERROR),
        ("a smaller stream", [at_five.clone(), begun.clone()].concat(), Reason::PROTOCOL_ERROR),
        ("a block that means nothing", frame(kind::HEADERS, WHOLE, 1, &[0xff; 9]), Reason::COMPRESSION_ERROR),
        ("padding", frame(kind::HEADERS, WHOLE | flag::PADDED, 1, &[9]), Reason::PROTOCOL_ERROR),
        ("a cut priority", frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, &[9]), Reason::FRAME_SIZE_ERROR),
        ("itself", frame(kind::HEADERS, WHOLE | flag::PRIORITY, 1, &on_itself), Reason::PROTOCOL_ERROR),
        ("data of none", frame(kind::DATA, 0, 0, b"a"), Reason::PROTOCOL_ERROR),
        ("data before", frame(kind::DATA, 0, 1, b"a"), Reason::PROTOCOL_ERROR),
        (
            "padded data",
            [begun.clone(), frame(kind::DATA, flag::PADDED, 1, &[3, 0])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("reset before", frame(kind::RESET, 0, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        ("reset of none", frame(kind::RESET, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "a cut reset",
            [begun.clone(), frame(kind::RESET, 0, 1, &[0; 3])].concat(),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("data of ours", [at_five.clone(), frame(kind::DATA, 0, 2, b"a")].concat(), Reason::PROTOCOL_ERROR),
        (
            "a reset of ours",
            [at_five.clone(), frame(kind::RESET, 0, 2, &[0; 4])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a window of ours",
            [at_five.clone(), frame(kind::WINDOW_UPDATE, 0, 2, &[0, 0, 0, 1])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("a window before", frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), Reason::PROTOCOL_ERROR),
        ("no window", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        ("a window", frame(kind::WINDOW_UPDATE, 0, 0, &[0x7f, 255, 255, 255]), Reason::FLOW_CONTROL_ERROR),
        ("a cut window", frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]), Reason::FRAME_SIZE_ERROR),
        ("a push", frame(kind::PUSH_PROMISE, WHOLE, 1, &call), Reason::PROTOCOL_ERROR),
        ("a rest", frame(kind::CONTINUATION, WHOLE, 1, &call), Reason::PROTOCOL_ERROR),
        (
            "another's rest",
            [frame(kind::HEADERS, 0, 1, &call), frame(kind::CONTINUATION, WHOLE, 3, &[])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "between",
            [frame(kind::HEADERS, 0, 1, &call), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        ("a stream's settings", frame(kind::SETTINGS, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        ("cut settings", frame(kind::SETTINGS, 0, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        ("a word on settings", frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        ("push", frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        ("windows", frame(kind::SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Reason::FLOW_CONTROL_ERROR),
        (
            "many settings",
            frame(kind::SETTINGS, 0, 0, &[0; 6 * (MOST_SETTINGS + 1)]),
            Reason::ENHANCE_YOUR_CALM,
        ),
        ("small frames", frame(kind::SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), Reason::PROTOCOL_ERROR),
        ("large frames", frame(kind::SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]), Reason::PROTOCOL_ERROR),
        ("a stream's ping", frame(kind::PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("a cut ping", frame(kind::PING, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a priority", frame(kind::PRIORITY, 0, 1, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        ("a priority of none", frame(kind::PRIORITY, 0, 0, &[0; 5]), Reason::PROTOCOL_ERROR),
        ("a stream's goodbye", frame(kind::GOAWAY, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("a cut goodbye", frame(kind::GOAWAY, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        (
            "too large",
            frame(kind::DATA, 0, 1, &vec![0; MOST_FRAME_BYTES as usize + 1]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "after its window",
            [
                begun,
                frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255]),
                frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 0]),
                frame(kind::SETTINGS, 0, 0, &[0, 4, 0xff, 255, 255, 255]),
            ]
            .concat(),
            Reason::FLOW_CONTROL_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let mut session = greeted(Limits::default());
        let fault = take(&mut session, &bytes).unwrap_err();
        assert_eq!(fault.reason, reason, "{what}: {fault}");
        session.fail(fault);
        let (kind, _, _, payload) = sent(&session).pop().unwrap();
        assert_eq!((kind, &payload[4..8]), (kind::GOAWAY, &reason.0.to_be_bytes()[..]), "{what}");
        assert!(payload.len() > 8, "{what}");
    }
    let mut session = greeted(Limits::default());
    take(&mut session, &ended).unwrap();
    drop(session.next().unwrap());
    // Reset by us: what comes late is no fault.
    take(&mut session, &ended).unwrap();
    for first in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[&PREFACE[..], &frame(kind::PING, 0, 0, &[0; 8])].concat(),
        &[&PREFACE[..], &frame(kind::SETTINGS, flag::ACK, 0, &[])].concat(),
    ] {
        assert_eq!(
            take(&mut Session::new(&Limits::default()), first).unwrap_err().reason,
            Reason::PROTOCOL_ERROR
        );
    }
}

#[test]
fn what_ends_a_stream_leaves_the_others_and_too_much_of_it_ends_the_connection() {
    let call = call();
    let at = |stream| frame(kind::HEADERS, WHOLE, stream, &call);
    let ended = |stream| frame(kind::HEADERS, ALONE, stream, &call);
    let sized = block(&[(":method", "POST"), (":scheme", "http"), (":path", "/"), ("content-length", "2")]);
    let sized = |flags| frame(kind::HEADERS, flags, 1, &sized);
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        ("no path", frame(kind::HEADERS, WHOLE, 1, &block(&[(":method", "POST")])), Reason::PROTOCOL_ERROR),
        ("data behind its end", [ended(1), frame(kind::DATA, 0, 1, b"a")].concat(), Reason::STREAM_CLOSED),
        ("a head behind its end", [ended(1), at(1)].concat(), Reason::STREAM_CLOSED),
        (
            "data behind its reset",
            [at(1), frame(kind::RESET, 0, 1, &[0; 4]), frame(kind::DATA, 0, 1, b"a")].concat(),
            Reason::STREAM_CLOSED,
        ),
        (
            "a head behind its reset",
            [at(1), frame(kind::RESET, 0, 1, &[0; 4]), at(1)].concat(),
            Reason::STREAM_CLOSED,
        ),
        ("a second head", [at(1), at(1)].concat(), Reason::PROTOCOL_ERROR),
        ("trailers that are a head", [at(1), ended(1)].concat(), Reason::PROTOCOL_ERROR),
        ("no window", [at(1), frame(kind::WINDOW_UPDATE, 0, 1, &[0; 4])].concat(), Reason::PROTOCOL_ERROR),
        (
            "a window",
            [at(1), frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255])].concat(),
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("too short", [sized(WHOLE), frame(kind::DATA, 1, 1, b"a")].concat(), Reason::PROTOCOL_ERROR),
        ("too long", [sized(WHOLE), frame(kind::DATA, 0, 1, b"abc")].concat(), Reason::PROTOCOL_ERROR),
        ("nothing of it", sized(ALONE), Reason::PROTOCOL_ERROR),
        (
            "trailers too early",
            [sized(WHOLE), frame(kind::HEADERS, ALONE, 1, &block(&[("a", "b")]))].concat(),
            Reason::PROTOCOL_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let mut session = greeted(Limits::default());
        take(&mut session, &bytes).unwrap();
        assert_eq!(resets(&session), [(1, reason)], "{what}");
        take(&mut session, &at(3)).unwrap();
        assert!(std::iter::from_fn(|| session.next()).any(|_| true), "{what}: the next stream is answered");
    }
    let mut session = greeted(Limits::default());
    let bad = block(&[(":method", "POST")]);
    let wrong: Vec<u8> = (0..1000).flat_map(|at| frame(kind::HEADERS, WHOLE, 2 * at + 1, &bad)).collect();
    assert_eq!(take(&mut session, &wrong).unwrap_err().reason, Reason::ENHANCE_YOUR_CALM);
    assert_eq!(resets(&session).len(), MOST_MISTAKES);
}

#[test]
fn of_what_one_frame_says_about_the_first_window_the_last_counts() {
    let mut session = greeted(Limits::default());
    let wider = frame(kind::WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9]);
    let most = [0, 4, 0x7f, 255, 255, 255];
    let set = |pairs: &[[u8; 6]]| frame(kind::SETTINGS, 0, 0, &pairs.concat());
    let call = frame(kind::HEADERS, ALONE, 1, &call());
    take(&mut session, &[call, wider, set(&[most, [0, 4, 0, 0, 0, 5]])].concat()).unwrap();
    let Request { stream, .. } = session.next().unwrap();
    assert_eq!(stream.room(), 14);
    assert_eq!(take(&mut session, &set(&[most])).unwrap_err().reason, Reason::FLOW_CONTROL_ERROR);
}

#[test]
fn settings_say_nothing_about_the_window_of_a_stream_that_was_reset_for_it() {
    let mut session = greeted(Limits::default());
    let too_wide = frame(kind::WINDOW_UPDATE, 0, 1, &[0x7f, 255, 255, 255]);
    let same = frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    take(&mut session, &[frame(kind::HEADERS, ALONE, 1, &call()), too_wide, same].concat()).unwrap();
    assert_eq!(resets(&session), [(1, Reason::FLOW_CONTROL_ERROR)]);
}

#[test]
fn streams_that_are_begun_only_to_be_reset_end_the_connection_and_are_never_answered() {
    let mut session = greeted(Limits { max_pending_resets: 10, ..Limits::default() });
    let one = |id| [frame(kind::HEADERS, WHOLE, id, &call()), frame(kind::RESET, 0, id, &[0; 4])].concat();
    // Looked at in between, these are no more than ten.
    for round in 0..20 {
        let some: Vec<u8> = (0..10).flat_map(|at| one(2 * (10 * round + at) + 1)).collect();
        take(&mut session, &some).unwrap();
        assert!(session.next().is_none());
    }
    let many: Vec<u8> = (1000..1011).flat_map(|at| one(2 * at + 1)).collect();
    assert_eq!(take(&mut session, &many).unwrap_err().reason, Reason::ENHANCE_YOUR_CALM);
}

#[test]
fn more_streams_than_may_be_are_refused_and_room_comes_back() {
    let mut session = greeted(Limits { max_concurrent_streams: 2, ..Limits::default() });
    let at = |id| frame(kind::HEADERS, WHOLE, id, &call());
    take(&mut session, &[at(1), at(3), at(5)].concat()).unwrap();
    assert_eq!(resets(&session), [(5, Reason::REFUSED_STREAM)]);
    // What was on its way to it is no fault, and its window comes back.
    take(&mut session, &frame(kind::DATA, flag::END_STREAM, 5, b"late")).unwrap();
    let (first, second) = (session.next().unwrap(), session.next().unwrap());
    take(&mut session, &[frame(kind::RESET, 0, 1, &[0; 4]), at(7)].concat()).unwrap();
    assert_eq!(read(&first.stream), Poll::Ready(Some(Err(super::super::stream::Gone))));
    assert!(session.next().is_some());
    drop(second);
    assert_eq!(resets(&session), [(7, Reason::CANCEL), (3, Reason::CANCEL)]);
    drop(first);
    assert!(session.shared.borrow().open.is_empty());
    assert_eq!(session.shared.borrow().gone, 0);
}

#[test]
fn heads_that_are_too_long_get_their_status_and_those_without_an_end_end_the_connection() {
    let mut session = greeted(Limits { max_header_bytes: 1000, ..Limits::default() });
    let long = block(&[("a", &"b".repeat(2000))]);
    take(&mut session, &frame(kind::HEADERS, WHOLE, 1, &[call(), long.clone()].concat())).unwrap();
    let frames = sent(&session);
    assert_eq!((frames[0].0, frames[0].1, &frames[0].3[..]), (kind::HEADERS, ALONE, &b"\x08\x03431"[..]));
    assert_eq!((frames[1].0, &frames[1].3[..]), (kind::RESET, &[0; 4][..]));
    assert!(session.next().is_none());
    // In several frames it is no other head.
    let wide = block(&[("a", &"b".repeat(40_000))]);
    let mut session = greeted(Limits { max_header_bytes: 1000, ..Limits::default() });
    let (start, rest) = wide.split_at(20_000);
    let frames = [
        frame(kind::HEADERS, 0, 1, &[&call()[..], start].concat()),
        frame(kind::CONTINUATION, WHOLE, 1, rest),
        frame(kind::HEADERS, ALONE, 3, &call()),
    ];
    take(&mut session, &frames.concat()).unwrap();
    assert_eq!(sent(&session)[0].3, b"\x08\x03431");
    assert!(session.next().is_some());
    for piece in [&long[..], &[]] {
        let mut session = greeted(Limits { max_header_bytes: 1000, ..Limits::default() });
        let flood = frame(kind::CONTINUATION, 0, 1, piece).repeat(100);
        let bytes = [frame(kind::HEADERS, 0, 1, &call()), flood].concat();
        assert_eq!(take(&mut session, &bytes).unwrap_err().reason, Reason::ENHANCE_YOUR_CALM);
    }
}

#[test]
fn windows_are_kept_on_both_sides() {
    let mut session = greeted(Limits::default());
    take(&mut session, &frame(kind::HEADERS, WHOLE, 1, &call())).unwrap();
    let Request { stream, .. } = session.next().unwrap();
    // What the peer may send: the stream's window, and not a byte more.
    let piece = vec![0; MOST_FRAME_BYTES as usize];
    let pieces = usize::try_from(STREAM_WINDOW).unwrap() / piece.len();
    for _ in 0..pieces {
        take(&mut session, &frame(kind::DATA, 0, 1, &piece)).unwrap();
    }
    assert!(sent(&session).is_empty());
    for _ in 0..pieces / 2 {
        let Poll::Ready(Some(Ok(piece))) = read(&stream) else { panic!() };
        stream.release(piece.len());
    }
    let half = u32::try_from(STREAM_WINDOW / 2).unwrap().to_be_bytes().to_vec();
    assert_eq!(sent(&session), [(kind::WINDOW_UPDATE, 0, 1, half)]);
    take(&mut session, &frame(kind::DATA, 0, 1, &piece).repeat(pieces / 2)).unwrap();
    take(&mut session, &frame(kind::DATA, 0, 1, b"a")).unwrap();
    assert_eq!(resets(&session), [(1, Reason::FLOW_CONTROL_ERROR)]);
    assert_eq!(read(&stream), Poll::Ready(Some(Err(super::super::stream::Gone))));
    drop(stream);
    // What was never read, and what was and is in nobody's hands any more, is given back to the connection.
    for id in [3, 5, 7, 9, 11] {
        take(&mut session, &frame(kind::HEADERS, WHOLE, id, &call())).unwrap();
        let Request { stream, .. } = session.next().unwrap();
        take(&mut session, &frame(kind::DATA, 0, id, &piece).repeat(pieces)).unwrap();
        assert!(read(&stream).is_ready());
    }
    assert!(session.shared.borrow().own_window > CONNECTION_WINDOW / 2);
    take(&mut session, &frame(kind::HEADERS, WHOLE, 13, &call())).unwrap();
    sent(&session);
    // What we may send: as much as both windows allow.
    let Request { stream, .. } = session.next().unwrap();
    let first = usize::try_from(FIRST_WINDOW).unwrap();
    assert_eq!(stream.room(), first);
    stream.send_data(vec![1; first].into()).unwrap();
    assert_eq!(stream.room(), 0);
    let lengths: Vec<usize> = sent(&session).iter().map(|frame| frame.3.len()).collect();
    assert_eq!(lengths, [16_384, 16_384, 16_384, 16_383]);
    session.sent();
    assert!(stream.poll_room(&Context::from_waker(Waker::noop())).is_pending());
    take(&mut session, &frame(kind::WINDOW_UPDATE, 0, 13, &[0, 0, 1, 0])).unwrap();
    assert_eq!(stream.room(), 0, "the connection's is shut");
    take(&mut session, &frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9])).unwrap();
    assert_eq!(stream.poll_room(&Context::from_waker(Waker::noop())), Poll::Ready(Ok(9)));
    // A smaller first window takes back what was given.
    take(&mut session, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    assert_eq!(stream.room(), 0);
}

#[test]
fn answers_that_wait_take_turns_so_that_a_long_one_holds_up_no_short_one() {
    let mut session = greeted(Limits::default());
    let open = |id: u32| frame(kind::HEADERS, ALONE, id, &call());
    let wide = frame(kind::SETTINGS, 0, 0, &[0, 4, 0x7f, 255, 255, 255]);
    let more = frame(kind::WINDOW_UPDATE, 0, 0, &[0x3f, 255, 255, 255]);
    take(&mut session, &[wide, more, open(1), open(3), open(5)].concat()).unwrap();
    let streams: Vec<Stream> = std::iter::from_fn(|| session.next()).map(|request| request.stream).collect();
    let [long, longer, short] = &streams[..] else { panic!() };
    let poll = |stream: &Stream| match stream.poll_room(&Context::from_waker(Waker::noop())) {
        Poll::Ready(room) => room.unwrap(),
        Poll::Pending => 0,
    };
    let fill = |stream: &Stream| {
        let room = poll(stream);
        stream.send_data(vec![0; room].into()).unwrap();
        room
    };
    // A long one takes all the room there is, by turns, and waits for more; the others come behind it.
    let mut taken = 0;
    while let room @ 1.. = fill(long) {
        taken += room;
    }
    assert!((200 << 10..300 << 10).contains(&taken), "{taken}");
    assert_eq!((fill(longer), fill(short), short.room()), (0, 0, 0));
    sent(&session);
    // Whoever is not first waits, however much room there is.
    assert_eq!((fill(short), fill(longer)), (0, 0));
    assert_eq!(fill(long), 64 << 10);
    assert_eq!((fill(long), fill(short)), (0, 0), "it is behind the others now");
    assert_eq!(fill(longer), 64 << 10);
    assert_eq!(fill(longer), 0);
    assert_eq!(fill(short), 64 << 10);
    // One whose window is shut is in nobody's way, nor is one that is gone.
    take(&mut session, &frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    sent(&session);
    assert_eq!(fill(long), 0);
    take(&mut session, &frame(kind::WINDOW_UPDATE, 0, 5, &[0, 0x10, 0, 0])).unwrap();
    assert_eq!((fill(short), fill(longer)), (0, 0), "the longer is first, and finds out that it may not");
    assert_eq!(fill(short), 64 << 10);
    assert_eq!(session.shared.borrow().open.len(), 3);
    drop(streams);
    assert!(session.shared.borrow().open.is_empty());
}

#[test]
fn a_peer_with_a_smaller_table_is_told_once_that_none_is_used() {
    let mut session = greeted(Limits::default());
    let settings = [&[0, 1, 0, 0, 0x10, 0][..], &[0, 1, 0, 0, 0, 0]].concat();
    take(&mut session, &frame(kind::SETTINGS, 0, 0, &settings)).unwrap();
    take(&mut session, &frame(kind::HEADERS, ALONE, 1, &call())).unwrap();
    let Request { stream, .. } = session.next().unwrap();
    stream.send_fields(b"\x88", false).unwrap();
    stream.send_fields(b"\x88", true).unwrap();
    let blocks: Vec<Vec<u8>> =
        sent(&session).into_iter().filter(|frame| frame.0 == kind::HEADERS).map(|frame| frame.3).collect();
    assert_eq!(blocks, [&b"\x20\x88"[..], b"\x88"]);
}

#[test]
fn with_too_much_unsent_nothing_is_looked_at_until_some_has_left() {
    let mut session = greeted(Limits::default());
    let mut inbox = BytesMut::from(&frame(kind::PING, 0, 0, &[7; 8]).repeat(100_000)[..]);
    let (whole, mut answered) = (inbox.len(), 0);
    while !inbox.is_empty() {
        session.receive(&mut inbox).unwrap();
        assert!(session.outbox().bytes() < 300 << 10);
        answered += sent(&session).len();
    }
    assert_eq!((answered, whole), (100_000, 1_700_000));
}

#[test]
fn a_goodbye_answers_what_was_begun_before_it_was_read_and_refuses_the_rest() {
    let mut session = greeted(Limits::default());
    session.finish();
    session.finish();
    let said = sent(&session);
    assert_eq!(said.iter().map(|frame| frame.0).collect::<Vec<_>>(), [kind::GOAWAY, kind::PING]);
    take(&mut session, &frame(kind::HEADERS, ALONE, 1, &call())).unwrap();
    let request = session.next().unwrap();
    take(&mut session, &frame(kind::PING, flag::ACK, 0, &said[1].3)).unwrap();
    assert_eq!(sent(&session)[0].3[..4], 1u32.to_be_bytes());
    assert!(!session.is_over());
    take(&mut session, &frame(kind::HEADERS, ALONE, 3, &call())).unwrap();
    assert_eq!(resets(&session), [(3, Reason::REFUSED_STREAM)]);
    drop(request);
    assert!(session.is_over());
    // What it is told later is no more than that.
    let fault = take(&mut session, &frame(kind::PING, 0, 1, &[0; 8])).unwrap_err();
    sent(&session);
    session.fail(fault);
    assert_eq!(sent(&session)[0].3[..4], 1u32.to_be_bytes());
}

proptest! {
    #[test]
    fn no_frames_break_more_than_the_rules_say(
        frames in proptest::collection::vec(
            (0u8..11, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..60,
        ),
        good in any::<bool>(),
    ) {
        let mut session = greeted(Limits { max_concurrent_streams: 3, ..Limits::default() });
        let mut held = Vec::new();
        for (kind, flags, stream, noise) in frames {
            let payload = if good && kind == kind::HEADERS { call() } else { noise };
            let flags = if good { flags & (flag::END_STREAM | flag::END_HEADERS) } else { flags };
            if take(&mut session, &frame(kind, flags, stream, &payload)).is_err() {
                break;
            }
            held.extend(std::iter::from_fn(|| session.next()));
            prop_assert!(session.shared.borrow().open.len() <= 3 + session.shared.borrow().gone);
            if flags & 0x40 != 0 {
                held.pop();
            }
        }
        held.clear();
        session.new.clear();
        let shared = session.shared.borrow();
        prop_assert_eq!((shared.open.len(), shared.gone), (0, 0));
        prop_assert!(shared.own_window <= i64::from(u32::MAX));
    }
}
