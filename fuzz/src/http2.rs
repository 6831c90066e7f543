//! What comes over a connection of HTTP/2: read by our session, cut in different places, and beside h2's.
use crate::memory::within;
use std::{collections::BTreeMap, time::Duration};
use xebec_net::{
    fuzzing::{Link, Outcome},
    limits::Limits,
};

mod beside;
mod frame;
pub(crate) mod input;
mod other;

use frame::Frame;
use input::{Came, Then};

/// Limits that a short input reaches.
const LIMITS: Limits = Limits {
    max_connections: 1,
    max_header_bytes: 2 << 10,
    max_headers: 16,
    header_timeout: Duration::ZERO,
    idle_timeout: Duration::ZERO,
    stall_timeout: Duration::ZERO,
    max_body_bytes: 1 << 20,
    max_message_bytes: 1 << 20,
    max_buffered_bytes: 1 << 20,
    max_concurrent_streams: 16,
    max_pending_resets: 20,
    max_body_pieces: 1 << 10,
};

/// What waits to be sent at the most: answers, other frames, and what one frame or one round of answers adds to so much.
const MOST_UNSENT_BYTES: usize = (256 << 10) + (32 << 10) + (4 << 10);

/// What a connection may take beside what its bytes make it take: the heads of as many streams as there may be, the table
/// that they are told by, and what waits to be sent.
const LINK_BYTES: usize = 256 << 10;

/// Bytes for each byte that comes: a place in a table is one, and becomes a header in a map with room for as many again.
const PER_BYTE: usize = 256;

/// Beyond so many bytes h2 is not asked, frame by frame.
const COMPARED_BYTES: usize = 32 << 10;

/// The first byte says whether the rest is compact, and in pieces of how many bytes it comes.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Some((manner, rest)) = bytes.split_first() else { return false };
    let came = if manner & 0x80 == 0 { Came::raw(rest) } else { Came::compact(rest) };
    let size = usize::from(manner & 0x7f).max(1);
    let outcome = run(&came, usize::MAX);
    let cut = run(&came, size);
    assert_eq!(outcome, cut, "cut every {size} bytes");
    frames_are_right(&outcome.sent);
    let talks = |(_, then): &(Vec<u8>, Then)| matches!(then, Then::Answer | Then::End);
    if came.bytes() <= COMPARED_BYTES && came.0.iter().all(talks) {
        beside::compare(&came);
    }
    outcome.calls.iter().any(|call| call.whole)
}

/// The reasons for which we or h2 took what the other did not, of frames that come behind a greeting.
pub fn apart(frames: &[u8]) -> Vec<&'static str> {
    beside::compare(&Came::raw(frames))
}

/// The same of a compact input.
pub fn compact_apart(items: &[u8]) -> Vec<&'static str> {
    beside::compare(&Came::compact(items))
}

fn run(came: &Came, size: usize) -> Outcome {
    let (outcome, most_unsent_bytes) = within(LINK_BYTES, PER_BYTE, came.bytes(), || {
        let mut link = Link::new(&LIMITS);
        for (bytes, then) in &came.0 {
            bytes.chunks(size).for_each(|piece| link.come(piece));
            match then {
                Then::Answer => link.answer(),
                Then::DeafOrHears => link.turn_deaf_or_hear(),
                Then::Finish => link.finish(),
                Then::End => {}
            }
        }
        link.end()
    });
    assert!(most_unsent_bytes <= MOST_UNSENT_BYTES, "{most_unsent_bytes} bytes waited to be sent");
    outcome
}

/// Asserts that what is sent is frames, and that a stream has nothing behind its end.
fn frames_are_right(mut sent: &[u8]) {
    let mut over = BTreeMap::new();
    while let Some((frame, rest)) = Frame::first(sent) {
        sent = rest;
        let fits = match frame.kind {
            frame::kind::DATA | frame::kind::HEADERS => frame.payload.len() <= 16 << 10,
            frame::kind::RESET | frame::kind::WINDOW_UPDATE => frame.payload.len() == 4,
            frame::kind::SETTINGS => frame.payload.len().is_multiple_of(6),
            frame::kind::PING => frame.payload.len() == 8,
            frame::kind::GOAWAY => frame.payload.len() >= 8,
            _ => false,
        };
        assert!(fits && (frame.stream == 0 || !frame.stream.is_multiple_of(2)), "{frame:?}");
        if frame.stream != 0 {
            let over = over.entry(frame.stream).or_insert(false);
            assert!(!*over || frame.kind == frame::kind::RESET, "behind its end: {frame:?}");
            let answers = matches!(frame.kind, frame::kind::DATA | frame::kind::HEADERS);
            *over |= frame.kind == frame::kind::RESET || (answers && frame.has(frame::END_STREAM));
        }
    }
    assert!(sent.is_empty(), "{} bytes are no frame", sent.len());
}
