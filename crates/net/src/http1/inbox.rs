//! What came over a connection and was not used yet: requests behind each other, and the body that is being read.
//!
//! No input or output, so that every cut of the bytes can be tried. Invariants: a head is read once; what it promises
//! of a body is taken before the next head is looked for; after a refusal nothing is read any more.
use super::{
    chunk::Next,
    head::{self, Framing, Head},
    refusal::Refusal,
    scan::Scan,
};
use bytes::{Buf as _, Bytes, BytesMut};

/// Room for a read between requests.
const READ_BYTES: usize = 8 << 10;

/// Room for a read within a body that needs so much.
const READ_BODY_BYTES: usize = 64 << 10;

/// What is left of a buffer is used up to this little.
const LEAST_BYTES: usize = 1 << 10;

/// Unread bytes of one connection.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) bytes: BytesMut,
    scan: Scan,
    /// An empty line before the head was skipped.
    skipped: bool,
    /// A head that was read ahead.
    ahead: Option<Head>,
    /// What is still to come of the body that is being read.
    body: Framing,
    refused: Option<Refusal>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            scan: Scan::default(),
            skipped: false,
            ahead: None,
            body: Framing::Length(0),
            refused: None,
        }
    }

    /// Makes room for a read.
    pub(crate) fn make_room(&mut self) {
        let wanted = match self.body {
            Framing::Length(0) => READ_BYTES,
            Framing::Length(left) => {
                usize::try_from(left).unwrap_or(usize::MAX).clamp(READ_BYTES, READ_BODY_BYTES)
            }
            Framing::Chunked(_) => READ_BODY_BYTES,
        };
        if self.bytes.is_empty() && self.bytes.capacity() > wanted {
            // What a large body needed is not kept between small requests.
            self.bytes = BytesMut::new();
        }
        // Between two requests nobody else looks at the buffer: then its beginning is used again, without an allocation.
        if self.bytes.is_empty() || self.bytes.capacity() - self.bytes.len() < LEAST_BYTES {
            self.bytes.reserve(wanted);
        }
    }

    /// Nothing has come of a next request.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.ahead.is_none()
    }

    /// The body that was begun has not been taken to its end.
    pub(crate) fn owes_body(&self) -> bool {
        self.body != Framing::Length(0)
    }

    /// Bytes that are still to come of it; `None` if nobody knows how many.
    pub(crate) fn owed_bytes(&self) -> Option<u64> {
        match self.body {
            Framing::Length(left) => Some(left),
            Framing::Chunked(_) => None,
        }
    }

    /// The next head, once its last line is there.
    ///
    /// # Errors
    /// What came is no request; the same error comes from then on.
    pub(crate) fn head(&mut self, most_bytes: u32, most_headers: usize) -> Result<Option<Head>, Refusal> {
        if let Some(head) = self.ahead.take() {
            return Ok(Some(head));
        }
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        self.read_head(most_bytes, most_headers).inspect_err(|refusal| self.refused = Some(*refusal))
    }

    fn read_head(&mut self, most_bytes: u32, most_headers: usize) -> Result<Option<Head>, Refusal> {
        // One empty line before a request is what old clients send behind a body.
        match self.bytes.as_ref() {
            [] => return Ok(None),
            [b'\r'] if !self.skipped => return Ok(None),
            [b'\r', b'\n', ..] if !self.skipped => {
                self.skipped = true;
                self.bytes.advance(2);
            }
            _ => {}
        }
        head::begins(&self.bytes)?;
        let most = usize::try_from(most_bytes).unwrap_or(usize::MAX);
        let start = self.bytes.get(..most).unwrap_or(&self.bytes);
        let Some(length) = self.scan.end(start)? else {
            let full = start.len() >= most;
            return if full { Err(Refusal::HeadTooLarge(most_bytes)) } else { Ok(None) };
        };
        (self.scan, self.skipped) = (Scan::default(), false);
        let head = head::read(&self.bytes.split_to(length).freeze(), most_headers)?;
        Ok(Some(head))
    }

    /// The whole body of `head` if it is here and has a length; else it is to be taken with [`Self::piece`].
    pub(crate) fn whole_body(&mut self, head: &Head) -> Option<Bytes> {
        match head.framing {
            Framing::Length(0) => Some(Bytes::new()),
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len())?;
                Some(self.bytes.split_to(length).freeze())
            }
            Framing::Chunked(_) => None,
        }
    }

    /// The next request if it lies here whole, so that it can be answered together with the one before it.
    pub(crate) fn whole_request(&mut self, most_bytes: u32, most_headers: usize) -> Option<(Head, Bytes)> {
        // An error is told when it is its turn.
        let head = self.head(most_bytes, most_headers).ok().flatten()?;
        match self.whole_body(&head) {
            Some(body) => Some((head, body)),
            None => {
                self.ahead = Some(head);
                None
            }
        }
    }

    /// Begins to take a body in pieces.
    pub(crate) fn begin_body(&mut self, framing: Framing) {
        self.body = framing;
    }

    /// The next piece of the body.
    ///
    /// # Errors
    /// Its chunks are framed wrongly; nobody knows where the next request begins.
    pub(crate) fn piece(&mut self) -> Result<Next, Refusal> {
        if let Some(refusal) = self.refused {
            return Err(refusal);
        }
        match &mut self.body {
            Framing::Length(0) => Ok(Next::End),
            Framing::Length(left) => {
                let some = usize::try_from(*left).unwrap_or(usize::MAX).min(self.bytes.len());
                if some == 0 {
                    return Ok(Next::More);
                }
                *left -= some as u64;
                Ok(Next::Piece(self.bytes.split_to(some).freeze()))
            }
            Framing::Chunked(chunks) => {
                let next = chunks.next(&mut self.bytes);
                match next {
                    Ok(Next::End) => self.body = Framing::Length(0),
                    Ok(_) => {}
                    Err(refusal) => self.refused = Some(refusal),
                }
                next
            }
        }
    }
}

#[cfg(test)]
mod tests;
