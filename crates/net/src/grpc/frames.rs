//! Where among the frames of HTTP/2 a peer stands: whether something has begun that is not there whole.
//!
//! It judges nothing, which is h2's business, and only knows where frames end: so a head that trickles in is told from a
//! peer that rests.
//!
//! # Source
//! RFC 9113, sections 3.4, 4.1 and 4.3.

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: u32 = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What has come of the preface, of a frame, or of headers in several frames.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The last bytes of a frame's head, the first of them in the highest place.
    head: u128,
    /// Bytes of it that have come.
    come: u32,
    /// Bytes that are owed before the next one.
    owed: usize,
    /// Headers go on in the next frame.
    headers: bool,
}

impl Frames {
    pub(crate) fn new() -> Self {
        Self { head: 0, come: 0, owed: PREFACE_BYTES, headers: false }
    }

    /// Takes in bytes that came. Whether something has begun that is not there whole.
    pub(crate) fn are_cut_behind(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.owed.min(bytes.len());
            self.owed -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else {
                return self.owed > 0 || self.come > 0 || self.headers;
            };
            bytes = rest;
            (self.head, self.come) = (self.head << 8 | u128::from(*byte), self.come + 1);
            if self.come == HEAD_BYTES {
                self.begin();
            }
        }
    }

    /// Reads the head that has come: three bytes of length, type, flags, four bytes of the stream.
    fn begin(&mut self) {
        let [.., long, middle, short, kind, flags, _, _, _, _] = self.head.to_be_bytes();
        self.owed = usize::from(long) << 16 | usize::from(middle) << 8 | usize::from(short);
        if kind == HEADERS || kind == CONTINUATION {
            self.headers = flags & END_HEADERS == 0;
        }
        self.come = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &vec![0xff; payload]].concat()
    }

    #[test]
    fn frames_are_cut_behind_everything_but_their_ends_however_they_come() {
        let wholes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 0),
            frame(0, 0, 70_000),
            frame(HEADERS, END_HEADERS, 20),
            // Headers in three frames have one end.
            [frame(HEADERS, 0, 20), frame(CONTINUATION, 0, 5), frame(CONTINUATION, END_HEADERS, 0)].concat(),
            frame(6, 0, 8),
        ];
        for step in [1, 2, 7, 1000, 1 << 20] {
            let mut frames = Frames::new();
            for whole in &wholes {
                let (last, start) = whole.split_last().unwrap();
                for piece in start.chunks(step) {
                    assert!(frames.are_cut_behind(piece), "step {step}");
                }
                assert!(!frames.are_cut_behind(&[*last]), "step {step}");
            }
        }
        let mut together = Frames::new();
        assert!(!together.are_cut_behind(&wholes.concat()));
    }
}
