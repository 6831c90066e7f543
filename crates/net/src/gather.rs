//! Pieces of one body or message, put together within its limits.
//!
//! Invariants: no byte past the limit is kept; whatever is kept is counted against the core's [`Budget`] until the
//! [`Hold`] that comes with it is dropped, so that requests that wait cost what they say.
use crate::budget::{Budget, Hold};
use bytes::{Bytes, BytesMut};
use std::rc::Rc;

/// Pieces smaller than this on average are more work than they are worth, if there are too many of them.
const SMALL_PIECE_BYTES: usize = 64;

/// Why no more pieces are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// Together they are larger than may be.
    Bytes,
    /// There are more than a sane client makes.
    Pieces,
    /// Everything that is being read or waits fills the memory for it.
    Room,
}

/// Pieces so far.
#[derive(Debug)]
pub(crate) struct Gather {
    hold: Hold,
    first: Bytes,
    rest: BytesMut,
    pieces: usize,
    most_bytes: usize,
    most_pieces: usize,
}

impl Gather {
    pub(crate) fn new(budget: &Rc<Budget>, most_bytes: usize, most_pieces: usize) -> Self {
        let hold = Hold::new(Rc::clone(budget));
        Self { hold, first: Bytes::new(), rest: BytesMut::new(), pieces: 0, most_bytes, most_pieces }
    }

    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// What has come, if it came in one piece; its beginning at least.
    pub(crate) fn start(&self) -> &[u8] {
        if self.rest.is_empty() { &self.first } else { &self.rest }
    }

    pub(crate) fn push(&mut self, piece: Bytes) -> Result<(), Excess> {
        self.pieces += 1;
        let together = self.len() + piece.len();
        if together > self.most_bytes {
            return Err(Excess::Bytes);
        }
        if self.pieces > self.most_pieces && together / self.pieces < SMALL_PIECE_BYTES {
            return Err(Excess::Pieces);
        }
        self.hold.grow(piece.len()).map_err(|_| Excess::Room)?;
        // Almost everything comes in one piece and stays the view on the connection's buffer that it is.
        if self.len() == 0 {
            self.first = piece;
            return Ok(());
        }
        if self.rest.is_empty() {
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    /// The whole, and what it holds of the budget.
    pub(crate) fn finish(self) -> (Bytes, Hold) {
        let whole = if self.rest.is_empty() { self.first } else { self.rest.freeze() };
        (whole, self.hold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(most_bytes: usize, most_pieces: usize) -> Gather {
        Gather::new(&Budget::new(1000), most_bytes, most_pieces)
    }

    #[test]
    fn one_piece_stays_what_it_is_and_several_are_joined_in_order() {
        let piece = Bytes::from_static(b"abc");
        let mut one = gather(10, 10);
        one.push(piece.clone()).unwrap();
        assert_eq!(one.finish().0.as_ptr(), piece.as_ptr());
        let mut three = gather(10, 10);
        for piece in ["ab", "", "cd", "e"] {
            three.push(Bytes::from_static(piece.as_bytes())).unwrap();
            assert_eq!(three.start().first(), Some(&b'a'));
        }
        assert_eq!(three.finish().0, "abcde");
    }

    #[test]
    fn size_number_and_room_are_bounded() {
        let mut bytes = gather(4, 10);
        bytes.push(Bytes::from_static(b"abc")).unwrap();
        assert_eq!(bytes.push(Bytes::from_static(b"de")), Err(Excess::Bytes));
        let mut pieces = gather(10_000, 2);
        let big = Bytes::from(vec![0; 200]);
        // Many large ones are as good as few.
        (0..4).for_each(|_| pieces.push(big.clone()).unwrap());
        assert_eq!(gather(10, 0).push(Bytes::from_static(b"a")), Err(Excess::Pieces));
        let budget = Budget::new(10);
        let mut other = Gather::new(&budget, 10, 10);
        other.push(Bytes::from_static(b"0")).unwrap();
        let mut room = Gather::new(&budget, 10_000, 10);
        assert_eq!(room.push(Bytes::from(vec![0; 10])), Err(Excess::Room));
    }

    #[test]
    fn what_is_gathered_is_held_until_it_is_dropped() {
        let budget = Budget::new(10);
        let mut first = Gather::new(&budget, 10, 10);
        first.push(Bytes::from_static(b"0123456")).unwrap();
        let (_, hold) = first.finish();
        let mut second = Gather::new(&budget, 10, 10);
        assert_eq!(second.push(Bytes::from_static(b"0123")), Err(Excess::Room));
        drop(hold);
        second.push(Bytes::from_static(b"0123")).unwrap();
    }
}
