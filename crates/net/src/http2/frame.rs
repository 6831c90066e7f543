//! Frames: their heads, their kinds, and the codes of errors.
//!
//! # Source
//! RFC 9113, sections 4.1, 6 and 7.
use crate::outbox::Outbox;

pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(super) const HEAD_BYTES: usize = 9;
/// The largest window there can be.
pub(super) const MOST_WINDOW: i64 = 0x7fff_ffff;
/// Windows before anything was said about them.
pub(super) const FIRST_WINDOW: i64 = 65_535;
/// Frames that every peer takes.
pub(super) const FIRST_MOST_FRAME: u32 = 16_384;

pub(super) mod kind {
    pub(in super::super) const DATA: u8 = 0;
    pub(in super::super) const HEADERS: u8 = 1;
    pub(in super::super) const PRIORITY: u8 = 2;
    pub(in super::super) const RESET: u8 = 3;
    pub(in super::super) const SETTINGS: u8 = 4;
    pub(in super::super) const PUSH_PROMISE: u8 = 5;
    pub(in super::super) const PING: u8 = 6;
    pub(in super::super) const GOAWAY: u8 = 7;
    pub(in super::super) const WINDOW_UPDATE: u8 = 8;
    pub(in super::super) const CONTINUATION: u8 = 9;
}

pub(super) mod flag {
    pub(in super::super) const END_STREAM: u8 = 1;
    pub(in super::super) const ACK: u8 = 1;
    pub(in super::super) const END_HEADERS: u8 = 4;
    pub(in super::super) const PADDED: u8 = 8;
    pub(in super::super) const PRIORITY: u8 = 0x20;
}

pub(super) mod setting {
    pub(in super::super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(in super::super) const ENABLE_PUSH: u16 = 2;
    pub(in super::super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(in super::super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(in super::super) const MAX_FRAME_SIZE: u16 = 5;
    pub(in super::super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Why a stream or a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    /// Reads the head that these bytes begin with, if it is there whole.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let ([long, middle, short, kind, flags, stream @ ..], _) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        Some(Self {
            length: usize::from(*long) << 16 | usize::from(*middle) << 8 | usize::from(*short),
            kind: *kind,
            flags: *flags,
            // The first bit means nothing.
            stream: u32::from_be_bytes(*stream) & 0x7fff_ffff,
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Adds the head of a frame; its payload, so many bytes, is to follow.
pub(super) fn put_head(out: &mut Outbox, kind: u8, flags: u8, stream: u32, length: usize) {
    let [_, long, middle, short] = u32::try_from(length).unwrap_or_default().to_be_bytes();
    let [a, b, c, d] = stream.to_be_bytes();
    out.push_raw(&[long, middle, short, kind, flags, a, b, c, d]);
}

/// Adds a frame.
pub(super) fn put(out: &mut Outbox, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    put_head(out, kind, flags, stream, payload.len());
    out.push_raw(payload);
}

/// A payload without its padding (section 6.1).
pub(super) fn unpadded(head: FrameHead, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(*padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_put() {
        let mut out = Outbox::default();
        put(&mut out, kind::DATA, flag::END_STREAM, 7, &[1; 70_000]);
        let bytes = out.with_unsent(|pieces| pieces[0].to_vec());
        let head = FrameHead { length: 70_000, kind: kind::DATA, flags: 1, stream: 7 };
        assert_eq!((FrameHead::read(&bytes), bytes.len()), (Some(head), 70_009));
        assert_eq!(FrameHead::read(&bytes[..8]), None);
    }

    #[test]
    fn padding_is_taken_off_and_may_not_be_longer_than_the_rest() {
        let head = |flags| FrameHead { length: 0, kind: kind::DATA, flags, stream: 1 };
        assert_eq!(unpadded(head(0), &[9, 1]), Some(&[9, 1][..]));
        assert_eq!(unpadded(head(flag::PADDED), &[2, 1, 0, 0]), Some(&[1][..]));
        assert_eq!(unpadded(head(flag::PADDED), &[1, 0]), Some(&[][..]));
        assert_eq!(unpadded(head(flag::PADDED), &[2, 0]), None);
        assert_eq!(unpadded(head(flag::PADDED), &[]), None);
    }
}
