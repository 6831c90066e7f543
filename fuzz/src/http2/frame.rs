//! Frames and blocks of heads, cut out of bytes without our session.
use super::input::FRAME_HEAD_BYTES;
use std::fmt;
use xebec_net::fuzzing::{BlockFields, Blocks};

pub(super) mod kind {
    pub(in crate::http2) const DATA: u8 = 0;
    pub(in crate::http2) const HEADERS: u8 = 1;
    pub(in crate::http2) const RESET: u8 = 3;
    pub(in crate::http2) const SETTINGS: u8 = 4;
    pub(in crate::http2) const PING: u8 = 6;
    pub(in crate::http2) const GOAWAY: u8 = 7;
    pub(in crate::http2) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2) const CONTINUATION: u8 = 9;
}

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
    /// All of it.
    pub(super) bytes: &'a [u8],
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, flags, stream, payload, .. } = self;
        write!(f, "kind {kind}, flags {flags:#x}, stream {stream}: {}", payload.escape_ascii())
    }
}

impl<'a> Frame<'a> {
    /// The frame that these bytes begin with, if it is there whole, and what is behind it.
    pub(super) fn first(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([a, b, c, kind, flags, stream @ ..], rest) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>()?;
        let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).ok()?;
        let (payload, rest) = rest.split_at_checked(length)?;
        let stream = u32::from_be_bytes(*stream) & 0x7fff_ffff;
        let bytes = bytes.get(..FRAME_HEAD_BYTES + length)?;
        Some((Self { kind: *kind, flags: *flags, stream, payload, bytes }, rest))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The part of a block that a head's first frame has.
    fn block(&self) -> Option<&'a [u8]> {
        let mut block = self.payload;
        if self.has(PADDED) {
            let (padding, rest) = block.split_first()?;
            block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
        }
        if self.has(PRIORITY) {
            block = block.get(5..)?;
        }
        Some(block)
    }
}

/// A block that is there whole.
#[derive(Debug)]
pub(super) struct Head {
    /// The frames that it came in.
    pub(super) frames: usize,
    /// Nothing if it breaks the rules of the compression.
    pub(super) fields: Option<BlockFields>,
}

/// Puts heads together.
#[derive(Default)]
pub(super) struct Heads {
    blocks: Blocks,
    begun: Option<(Head, Vec<u8>)>,
}

impl Heads {
    /// Takes the next frame; a head that ends with it.
    pub(super) fn take(&mut self, frame: &Frame<'_>) -> Option<Head> {
        match frame.kind {
            kind::HEADERS => {
                self.begun = Some((Head { frames: 1, fields: None }, frame.block()?.to_vec()));
            }
            kind::CONTINUATION => {
                let (head, block) = self.begun.as_mut()?;
                head.frames += 1;
                block.extend_from_slice(frame.payload);
            }
            _ => return None,
        }
        if !frame.has(END_HEADERS) {
            return None;
        }
        let (head, block) = self.begun.take()?;
        Some(Head { fields: self.blocks.read(&block), ..head })
    }
}
