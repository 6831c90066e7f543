//! Answers on their way out: small ones are gathered and leave in one write, large bodies are not copied.
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use std::{collections::VecDeque, io::IoSlice};

/// A body up to this size is copied behind its head: the copy costs less than the kernel's walk over a list.
pub(crate) const COPIED_BYTES: usize = 16 << 10;

/// Room for small answers that is kept between them.
const KEPT_BYTES: usize = 64 << 10;

/// The most pieces that one write is given.
const SLICES: usize = 16;

/// What is said about an answer beside itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner<'a> {
    /// The moment, as a header has it.
    pub(crate) date: &'a [u8],
    /// No other answer follows on this connection.
    pub(crate) closes: bool,
    /// The caller is of HTTP/1.0 and has to be told that others may.
    pub(crate) keeps: bool,
    /// The request was HEAD: the body is not sent, but its length is told.
    pub(crate) head_only: bool,
}

/// Unsent bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Goes first.
    pieces: VecDeque<Bytes>,
    /// Behind them, small answers.
    tail: Vec<u8>,
    /// Of what goes first, so much has been sent.
    sent: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.pieces.is_empty()
    }

    /// The memory of what is unsent.
    pub(crate) fn bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum::<usize>() + self.tail.len()
    }

    /// Adds an answer.
    pub(crate) fn push(&mut self, answer: &Response<Bytes>, manner: Manner<'_>) {
        let (status, body) = (answer.status(), answer.body());
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.head(status, answer.headers(), (!bodiless).then_some(body.len()), manner);
        if bodiless || manner.head_only {
            return;
        }
        if body.len() <= COPIED_BYTES {
            self.tail.extend_from_slice(body);
            return;
        }
        let mut head = std::mem::take(&mut self.tail);
        if self.pieces.is_empty() && self.sent > 0 {
            head.drain(..std::mem::take(&mut self.sent));
        }
        self.pieces.extend([head.into(), body.clone()]);
    }

    /// Adds bytes as they are.
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    fn head(&mut self, status: StatusCode, headers: &HeaderMap, length: Option<usize>, manner: Manner<'_>) {
        let out = &mut self.tail;
        if status == StatusCode::OK {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let reason = status.canonical_reason().unwrap_or("Unknown");
            for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        for (name, value) in headers {
            // How long the body is and what becomes of the connection is ours to say.
            if name != header::CONTENT_LENGTH
                && name != header::CONNECTION
                && name != header::TRANSFER_ENCODING
            {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        if let Some(length) = length {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        match (manner.closes, manner.keeps) {
            (true, _) => out.extend_from_slice(b"connection: close\r\n"),
            (false, true) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (false, false) => {}
        }
        for part in [b"date: ", manner.date, b"\r\n\r\n"] {
            out.extend_from_slice(part);
        }
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Manner<'static> = Manner { date: b"now", closes: false, keeps: false, head_only: false };

    fn unsent(outbox: &Outbox) -> String {
        outbox.with_unsent(|slices| {
            let all = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
            String::from_utf8(all).unwrap()
        })
    }

    #[test]
    fn small_answers_leave_together_and_say_their_length_and_the_date() {
        let mut outbox = Outbox::default();
        let answer =
            Response::builder().header("x", "y").header("content-length", "9").body("hello".into()).unwrap();
        outbox.push(&answer, PLAIN);
        outbox.push(&answer, Manner { head_only: true, keeps: true, ..PLAIN });
        let none = Response::builder().status(204).body("never".into()).unwrap();
        outbox.push(&none, Manner { closes: true, ..PLAIN });
        let want = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\ndate: now\r\n\r\nhello\
                    HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 5\r\nconnection: keep-alive\r\ndate: now\r\n\r\n\
                    HTTP/1.1 204 No Content\r\nconnection: close\r\ndate: now\r\n\r\n";
        assert_eq!(unsent(&outbox), want);
        outbox.advance(10);
        assert_eq!(unsent(&outbox), want[10..]);
        outbox.advance(want.len() - 10);
        assert!(outbox.is_empty());
    }

    #[test]
    fn whatever_is_written_at_a_time_all_of_it_leaves_in_order_and_large_bodies_are_not_copied() {
        for step in [1, 7, 4096, 1 << 20] {
            let (mut outbox, mut want, mut got) = (Outbox::default(), Vec::new(), Vec::new());
            for size in [10, COPIED_BYTES + 1, 20, 30, COPIED_BYTES * 2] {
                let body = Bytes::from(vec![b'b'; size]);
                let answer = Response::new(body.clone());
                outbox.push(&answer, PLAIN);
                want.extend_from_slice(
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\ndate: now\r\n\r\n").as_bytes(),
                );
                want.extend_from_slice(&body);
                // Some of it leaves before the next is added.
                got.extend(take(&mut outbox, step.min(50)));
            }
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
