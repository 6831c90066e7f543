//! What is on its way out of a connection: small things are gathered and leave in one write, large ones are not copied.
use bytes::Bytes;
use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{io::AsyncWrite as _, net::TcpStream};

/// Up to this size bytes are copied behind what goes before them: the copy costs less than the kernel's walk over a list.
pub(crate) const COPIED_BYTES: usize = 16 << 10;

/// Room for small things that is kept between them.
const KEPT_BYTES: usize = 64 << 10;

/// The most pieces that one write is given.
const SLICES: usize = 16;

/// Unsent bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Goes first.
    pieces: VecDeque<Bytes>,
    /// Behind them, small things.
    tail: Vec<u8>,
    /// Of what goes first, so much has been sent.
    sent: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.pieces.is_empty()
    }

    /// Keeps no room, if nothing is unsent.
    pub(crate) fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The memory of what is unsent.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Adds bytes; many of them are not copied.
    pub(crate) fn push(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPIED_BYTES {
            self.tail.extend_from_slice(bytes);
            return;
        }
        let mut before = std::mem::take(&mut self.tail);
        if self.pieces.is_empty() && self.sent > 0 {
            before.drain(..std::mem::take(&mut self.sent));
        }
        if !before.is_empty() {
            self.pieces.push_back(before.into());
        }
        self.pieces.push_back(bytes.clone());
    }

    /// Where small things are written that go behind everything else.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Adds bytes as they are.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Hands what is unsent to `write`, in one piece or in a list of them.
    pub(crate) fn with_unsent<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let unsent = |piece: &'_ [u8]| piece.len().saturating_sub(self.sent);
        let Some(first) = self.pieces.front() else {
            return write(&[IoSlice::new(self.tail.get(self.sent..).unwrap_or_default())]);
        };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let first = first.get(first.len() - unsent(first)..).unwrap_or_default();
        let rest = self.pieces.iter().skip(1).map(|piece| &**piece).chain([&*self.tail]);
        let mut count = 0;
        for (slot, piece) in slices.iter_mut().zip([first].into_iter().chain(rest)) {
            *slot = IoSlice::new(piece);
            count += 1;
        }
        write(slices.get(..count).unwrap_or_default())
    }

    /// Sends what the peer takes of what is unsent, of which there is some; how much has left.
    ///
    /// # Errors
    /// The socket failed, or takes nothing more.
    pub(crate) fn poll_write(
        &mut self,
        stream: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let written = self.with_unsent(|slices| match slices {
            [one] => stream.poll_write(cx, one),
            several => stream.poll_write_vectored(cx, several),
        });
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            some => {
                self.advance(some);
                Poll::Ready(Ok(some))
            }
        }
    }

    /// Notes that so many bytes have left.
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        while let Some(first) = self.pieces.front()
            && self.sent >= first.len()
        {
            self.sent -= first.len();
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.sent >= self.tail.len() {
            self.sent = 0;
            self.tail.clear();
            self.tail.shrink_to(KEPT_BYTES);
        } else if self.pieces.is_empty() && self.sent >= KEPT_BYTES {
            self.tail.drain(..std::mem::take(&mut self.sent));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_written_at_a_time_all_of_it_leaves_in_order_and_large_pieces_are_not_copied() {
        for step in [1, 7, 4096, 1 << 20] {
            let (mut outbox, mut want, mut got) = (Outbox::default(), Vec::new(), Vec::new());
            for size in [10, COPIED_BYTES + 1, 20, 30, COPIED_BYTES * 2, COPIED_BYTES + 1] {
                let bytes = Bytes::from(vec![b'b'; size]);
                outbox.push_raw(b"head");
                outbox.push(&bytes);
                want.extend([b"head", &bytes[..]].concat());
                assert_eq!(outbox.tail.ends_with(&bytes), size <= COPIED_BYTES);
                // Some of it leaves before the next is added.
                got.extend(take(&mut outbox, step.min(50)));
            }
            assert_eq!(outbox.bytes() - outbox.sent, want.len() - got.len());
            while !outbox.is_empty() {
                got.extend(take(&mut outbox, step));
            }
            assert!(got == want, "step {step}: {} of {} bytes", got.len(), want.len());
        }
    }

    fn take(outbox: &mut Outbox, most: usize) -> Vec<u8> {
        let some =
            outbox.with_unsent(|slices| slices.iter().flat_map(|slice| slice.to_vec()).take(most).collect());
        let some: Vec<u8> = some;
        outbox.advance(some.len());
        some
    }
}
