//! The messages of a call that takes many, cut out of its frames.
//!
//! Invariants: whatever is kept is counted against the core's budget, with the cost of keeping a frame; a message that
//! lies in one frame stays the view on it that it is; what the caller may send ahead grows by the bytes of messages that
//! were begun, never by what only waits.
use super::message::{PREFIX_BYTES, announced, decompress, no_room, push};
use crate::{
    body::Encoding,
    budget::{Budget, Hold},
    gather::Gather,
    limits::Limits,
    service::GrpcStatus,
};
use bytes::{Buf as _, Bytes};
use std::{collections::VecDeque, rc::Rc};

/// What a frame that waits costs beside its bytes: a flood of tiny ones must not cost more than it says.
const FRAME_COST_BYTES: usize = 64;

/// Frames that came, and the message that has begun.
#[derive(Debug)]
pub(crate) struct Split {
    budget: Rc<Budget>,
    limits: Limits,
    encoding: Option<Encoding>,
    frames: VecDeque<Bytes>,
    waiting: Hold,
    message: Gather,
    taken: usize,
}

impl Split {
    pub(crate) fn new(budget: &Rc<Budget>, limits: Limits, encoding: Option<Encoding>) -> Self {
        Self {
            budget: Rc::clone(budget),
            limits,
            encoding,
            frames: VecDeque::new(),
            waiting: Hold::new(Rc::clone(budget)),
            message: gather(budget, &limits),
            taken: 0,
        }
    }

    /// Takes a frame in.
    pub(crate) fn push(&mut self, frame: Bytes) -> Result<(), GrpcStatus> {
        if frame.is_empty() {
            return Ok(());
        }
        self.waiting.grow(frame.len() + FRAME_COST_BYTES).map_err(|_| no_room())?;
        self.frames.push_back(frame);
        Ok(())
    }

    /// The next message that is there whole, with what it holds of the budget.
    pub(crate) fn next(&mut self) -> Result<Option<(Bytes, Hold)>, GrpcStatus> {
        let most = self.limits.max_message_bytes;
        loop {
            let begun = self.message.len();
            let start = match self.frames.front() {
                Some(frame) if begun == 0 => frame,
                _ => self.message.start(),
            };
            let wanted = announced(start, most)?.map_or(PREFIX_BYTES, |length| PREFIX_BYTES + length);
            if begun == wanted && begun > 0 {
                return self.finish().map(Some);
            }
            let Some(piece) = self.take(wanted - begun) else { return Ok(None) };
            push(&mut self.message, piece, most)?;
        }
    }

    /// So many bytes at most of the first frame that waits.
    fn take(&mut self, most: usize) -> Option<Bytes> {
        let frame = self.frames.front_mut()?;
        let piece = frame.split_to(most.min(frame.len()));
        let done = frame.is_empty();
        if done {
            self.frames.pop_front();
        }
        self.waiting.give_back(piece.len() + if done { FRAME_COST_BYTES } else { 0 });
        self.taken += piece.len();
        Some(piece)
    }

    fn finish(&mut self) -> Result<(Bytes, Hold), GrpcStatus> {
        let next = gather(&self.budget, &self.limits);
        let (mut message, mut hold) = std::mem::replace(&mut self.message, next).finish();
        let compressed = message.first() == Some(&1);
        message.advance(PREFIX_BYTES);
        if compressed {
            message = decompress(&message, self.encoding, self.limits.max_message_bytes)?;
            hold.grow(message.len()).map_err(|_| no_room())?;
        }
        Ok((message, hold))
    }

    /// Whether a message has begun and is not there whole.
    pub(crate) fn is_inside_a_message(&self) -> bool {
        self.message.len() > 0 || !self.frames.is_empty()
    }

    /// Bytes of messages begun since this was last asked.
    pub(crate) fn taken(&mut self) -> usize {
        std::mem::take(&mut self.taken)
    }
}

fn gather(budget: &Rc<Budget>, limits: &Limits) -> Gather {
    Gather::new(budget, PREFIX_BYTES + limits.max_message_bytes, limits.max_body_pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(budget: &Rc<Budget>) -> Split {
        Split::new(budget, Limits { max_message_bytes: 100, ..Limits::default() }, Some(Encoding::Gzip))
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag], &length[..], message].concat()
    }

    #[test]
    fn messages_come_out_whole_wherever_the_frames_end() {
        let messages: Vec<Vec<u8>> = [0, 1, 2, 7, 100, 3].map(|length| vec![b'a'; length]).to_vec();
        let bytes: Vec<u8> = messages.iter().flat_map(|message| framed(0, message)).collect();
        for size in 1..bytes.len() {
            let mut split = split(&Budget::new(1 << 20));
            let (mut out, mut taken) = (Vec::new(), 0);
            for frame in bytes.chunks(size) {
                split.push(Bytes::copy_from_slice(frame)).unwrap();
                while let Some((message, _)) = split.next().unwrap() {
                    out.push(message.to_vec());
                }
                taken += split.taken();
            }
            assert!(out == messages, "frames of {size}");
            assert_eq!((taken, split.is_inside_a_message()), (bytes.len(), false));
        }
    }

    #[test]
    fn a_message_in_one_frame_is_a_view_on_it() {
        let mut split = split(&Budget::new(1000));
        let frame = Bytes::from([framed(0, b"ab"), framed(0, b"cde")].concat());
        split.push(frame.clone()).unwrap();
        let (first, _) = split.next().unwrap().unwrap();
        let (second, _) = split.next().unwrap().unwrap();
        assert_eq!((first.as_ptr(), second.as_ptr()), (frame[5..].as_ptr(), frame[12..].as_ptr()));
    }

    #[test]
    fn what_waits_counts_with_the_cost_of_its_frames_and_not_longer_than_it_waits() {
        let budget = Budget::new(1000);
        let mut split = split(&budget);
        (0..10).for_each(|_| split.push(Bytes::from_static(b"x")).unwrap());
        let mut beside = Hold::new(Rc::clone(&budget));
        beside.grow(1000 - 10 * (1 + FRAME_COST_BYTES)).unwrap();
        assert_eq!(split.push(Bytes::from_static(b"x")).unwrap_err().code, 14);
        drop(split);
        beside.grow(10 * (1 + FRAME_COST_BYTES)).unwrap();
    }

    #[test]
    fn a_message_is_judged_by_its_prefix() {
        for (bytes, code) in [(&[0, 0, 0, 0, 101][..], 8), (&[2, 0, 0, 0, 1], 3), (&[1, 0, 0, 0, 1, 0], 3)] {
            let mut split = split(&Budget::new(1000));
            split.push(Bytes::copy_from_slice(&framed(0, b"right"))).unwrap();
            split.push(Bytes::copy_from_slice(bytes)).unwrap();
            assert_eq!(split.next().unwrap().unwrap().0, "right");
            assert_eq!(split.next().unwrap_err().code, code, "{bytes:?}");
        }
        let mut packed = split(&Budget::new(1000));
        packed.push(framed(1, &Encoding::Gzip.compress(b"small")).into()).unwrap();
        assert_eq!(packed.next().unwrap().unwrap().0, "small");
    }
}
