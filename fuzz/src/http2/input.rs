//! What comes over a connection of HTTP/2, out of an input.
//!
//! An input is raw or compact. A raw one is the bytes that come behind the greeting. A compact one is a list of items, so
//! that a change of it gives other frames and not other lengths of frames; what it says is in [`item`].

use std::collections::VecDeque;

/// With what every client begins: the preface, its settings, and its word on ours, before which h2 keeps to windows that
/// are not those of its settings.
pub(super) const GREETING: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0";

/// A head that is whole, by places in the table of all peers and texts that are kept in none.
pub(super) const HEAD: &[u8] = b"\x83\x86\x04\x04/a/b\x01\x01x";

/// The items of a compact input: what, flags, stream and length, a byte each, and then as much payload. What is below ten
/// is a frame of that kind; the others are these.
pub mod item {
    /// A frame that nobody knows.
    pub const UNKNOWN: u8 = 10;
    /// A head with all that a head must have, and the payload behind it.
    pub const CALL: u8 = 11;
    /// What has come whole is answered.
    pub const ANSWER: u8 = 12;
    /// The peer stops reading, or reads again.
    pub const DEAF: u8 = 13;
    /// The server wants the connection to end.
    pub const FINISH: u8 = 14;
    /// The last frames come again, as often as the flags say. The stream says how many frames those are, less one, in its
    /// last three bits, and with its first bit that each time they are of the next stream.
    pub const AGAIN: u8 = 15;
}

/// No input becomes more: enough to fill what waits to be sent.
const MOST_BYTES: usize = 384 << 10;

pub(super) const FRAME_HEAD_BYTES: usize = 9;

/// Frames that may come again at once.
const MOST_AGAIN: usize = 8;

/// The greatest stream that is meant as it is; those above are the greatest that there can be.
const MOST_STREAM: u8 = 0xef;

/// What happens behind some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Answer,
    DeafOrHears,
    Finish,
    End,
}

/// What comes, and what happens in between.
#[derive(Debug)]
pub(super) struct Came(pub(super) Vec<(Vec<u8>, Then)>);

impl Came {
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self(vec![([GREETING, bytes].concat(), Then::End)])
    }

    pub(super) fn compact(mut items: &[u8]) -> Self {
        let (mut came, mut coming) = (Vec::new(), Coming::new());
        while let Some(([what, flags, stream, length], rest)) = items.split_first_chunk() {
            let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
            items = rest;
            let then = match what % 16 {
                item::ANSWER => Then::Answer,
                item::DEAF => Then::DeafOrHears,
                item::FINISH => Then::Finish,
                item::AGAIN => {
                    coming.again(*flags, *stream);
                    continue;
                }
                kind => {
                    coming.put(Frame::new(kind, *flags, *stream, payload));
                    continue;
                }
            };
            came.push((std::mem::take(&mut coming.bytes), then));
        }
        came.push((coming.bytes, Then::End));
        Self(came)
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(bytes, _)| bytes.len()).sum()
    }
}

/// Frames on their way to become bytes.
struct Coming {
    bytes: Vec<u8>,
    room: usize,
    /// The last of them, which may come again.
    last: VecDeque<Frame>,
}

impl Coming {
    fn new() -> Self {
        Self { bytes: GREETING.to_vec(), room: MOST_BYTES, last: VecDeque::new() }
    }

    /// Adds a frame, if that is not too much.
    fn put(&mut self, frame: Frame) {
        let Some(room) = self.room.checked_sub(FRAME_HEAD_BYTES + frame.payload.len()) else {
            self.room = 0;
            return;
        };
        self.room = room;
        let length = u32::try_from(frame.payload.len()).unwrap_or_default().to_be_bytes();
        self.bytes.extend_from_slice(length.get(1..).unwrap_or_default());
        self.bytes.extend_from_slice(&[frame.kind, frame.flags]);
        self.bytes.extend_from_slice(&frame.stream.to_be_bytes());
        self.bytes.extend_from_slice(&frame.payload);
        self.last.push_back(frame);
        if self.last.len() > MOST_AGAIN {
            self.last.pop_front();
        }
    }

    fn again(&mut self, times: u8, which: u8) {
        let before = self.last.len().saturating_sub(usize::from(which) % MOST_AGAIN + 1);
        let last: Vec<Frame> = self.last.iter().skip(before).cloned().collect();
        let step = if which & 0x80 == 0 { 0 } else { 2 };
        for time in (1..=u32::from(times)).take_while(|_| !last.is_empty()) {
            for frame in &last {
                self.put(Frame { stream: frame.stream.saturating_add(step * time), ..frame.clone() });
            }
            if self.room == 0 {
                break;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn new(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Self {
        let (kind, head) = if kind == item::CALL { (1, HEAD) } else { (kind, &[][..]) };
        let stream = if stream <= MOST_STREAM { u32::from(stream) } else { 0x7fff_ff00 | u32::from(stream) };
        Self { kind, flags, stream, payload: [head, payload].concat() }
    }
}
