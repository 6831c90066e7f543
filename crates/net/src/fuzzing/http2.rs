//! Doors to HTTP/2: a connection without its socket, and the compression of its heads alone.
//!
//! A [`Link`] does what the connection's loop and its calls do, at times that its user chooses: what is understood must
//! not depend on how the bytes are cut, and what is answered between two of them would.
use crate::{
    http2::{
        Request, Session, Stream,
        hpack::{self, Decoder, Name},
    },
    limits::Limits,
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};
use std::task::{Context, Poll, Waker};

/// What every call is answered with.
const ANSWER: &[u8] = b"answer";

/// One connection.
#[derive(Debug)]
pub struct Link {
    session: Session,
    inbox: BytesMut,
    calls: Vec<Call>,
    understood: Vec<UnderstoodCall>,
    ended: Option<LinkEnd>,
    /// The peer does not read what is sent.
    deaf: bool,
    sent: Vec<u8>,
    most_unsent_bytes: usize,
}

/// A stream as it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderstoodCall {
    /// Its number.
    pub stream: u32,
    /// What is asked for.
    pub method: Method,
    /// Without its query.
    pub path: String,
    /// For which host.
    pub authority: Option<HeaderValue>,
    /// The rest of the head.
    pub headers: HeaderMap,
    /// What came of the body.
    pub body: Vec<u8>,
    /// The body was there to its end.
    pub whole: bool,
    /// One of the two gave the stream up before it was answered.
    pub reset: bool,
}

/// Why a connection could not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEnd {
    /// The error of HTTP/2.
    pub code: u32,
    /// In words.
    pub why: String,
}

/// All that became of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its streams whose heads were taken, in the order in which they were.
    pub calls: Vec<UnderstoodCall>,
    /// Nothing if it waits for more.
    pub ended: Option<LinkEnd>,
    /// What was sent.
    pub sent: Vec<u8>,
}

/// A call that is not at its end.
#[derive(Debug)]
struct Call {
    stream: Stream,
    /// Its place among the understood ones.
    place: usize,
    /// What is to be sent; nothing before the head is.
    answer: Option<Bytes>,
}

impl Link {
    /// A connection over which nothing has come.
    pub fn new(limits: &Limits) -> Self {
        let mut link = Self {
            session: Session::new(limits),
            inbox: BytesMut::new(),
            calls: Vec::new(),
            understood: Vec::new(),
            ended: None,
            deaf: false,
            sent: Vec::new(),
            most_unsent_bytes: 0,
        };
        link.send();
        link
    }

    /// Takes a piece of what comes.
    pub fn come(&mut self, piece: &[u8]) {
        if self.ended.is_none() {
            self.inbox.extend_from_slice(piece);
            self.take();
        }
    }

    /// Takes the frames that are there, as far as there is room for what is said to them.
    fn take(&mut self) {
        while self.ended.is_none() {
            if let Err(fault) = self.session.receive(&mut self.inbox) {
                self.ended = Some(LinkEnd { code: fault.reason.0, why: fault.to_string() });
                self.session.fail(fault);
                self.calls.clear();
            }
            let full = self.session.is_full();
            self.send();
            if !full || self.session.is_full() {
                break;
            }
        }
    }

    /// Sends what is to go, if the peer reads it.
    fn send(&mut self) {
        let mut outbox = self.session.outbox();
        self.most_unsent_bytes = self.most_unsent_bytes.max(outbox.bytes());
        while !self.deaf && !outbox.is_empty() {
            let before = self.sent.len();
            outbox.with_unsent(|pieces| pieces.iter().for_each(|piece| self.sent.extend_from_slice(piece)));
            outbox.advance(self.sent.len() - before);
        }
        drop(outbox);
        self.session.sent();
    }

    /// Takes the requests that have come, and what is there of their bodies.
    pub fn read(&mut self) {
        let cx = Context::from_waker(Waker::noop());
        while let Some(Request { head, stream }) = self.session.next() {
            self.understood.push(UnderstoodCall {
                stream: stream.id(),
                method: head.method.clone(),
                path: head.path.clone(),
                authority: head.authority.clone(),
                headers: head.headers.clone(),
                body: Vec::new(),
                whole: false,
                reset: false,
            });
            self.calls.push(Call { stream, place: self.understood.len() - 1, answer: None });
        }
        for call in &self.calls {
            if let Some(understood) = self.understood.get_mut(call.place) {
                call.read(understood, &cx);
            }
        }
    }

    /// Reads, and answers the requests that are whole, as far as the peer lets it.
    pub fn answer(&mut self) {
        self.read();
        let (cx, understood) = (Context::from_waker(Waker::noop()), &self.understood);
        self.calls.retain_mut(|call| {
            understood.get(call.place).is_some_and(|understood| !understood.reset)
                && (!call.stream.is_read() || call.answer(&cx).is_pending())
        });
        self.send();
        self.take();
    }

    /// From here on the peer does not read, or reads again.
    pub fn turn_deaf_or_hear(&mut self) {
        self.deaf = !self.deaf;
        self.send();
        self.take();
    }

    /// Tells the peer to begin no more streams.
    pub fn finish(&mut self) {
        self.session.finish();
        self.send();
    }

    /// The streams that were understood until now.
    pub fn calls(&self) -> &[UnderstoodCall] {
        &self.understood
    }

    /// What was sent until now.
    pub fn sent(&self) -> &[u8] {
        &self.sent
    }

    /// Why the connection ended, if it has.
    pub fn ended(&self) -> Option<&LinkEnd> {
        self.ended.as_ref()
    }

    /// Nothing more comes: reads and answers what is there. Tells what became of the connection, and how many bytes
    /// waited to be sent at the most.
    pub fn end(mut self) -> (Outcome, usize) {
        if self.deaf {
            self.turn_deaf_or_hear();
        }
        self.answer();
        self.calls.clear();
        self.send();
        let Self { understood, ended, sent, most_unsent_bytes, .. } = self;
        (Outcome { calls: understood, ended, sent }, most_unsent_bytes)
    }
}

impl Call {
    fn read(&self, understood: &mut UnderstoodCall, cx: &Context<'_>) {
        loop {
            match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    understood.body.extend_from_slice(&piece);
                    self.stream.release(piece.len());
                }
                Poll::Ready(Some(Err(_))) => {
                    understood.reset = true;
                    return;
                }
                Poll::Ready(None) => {
                    understood.whole = true;
                    return;
                }
                Poll::Pending => return,
            }
        }
    }

    /// Sends a head, some data and trailers; ready when the last is on its way or nobody wants it.
    fn answer(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.answer.is_none() && self.stream.send_fields(b"\x88", false).is_err() {
            return Poll::Ready(());
        }
        let data = self.answer.get_or_insert(Bytes::from_static(ANSWER));
        while !data.is_empty() {
            let Poll::Ready(room) = self.stream.poll_room(cx) else { return Poll::Pending };
            let Ok(room) = room else { return Poll::Ready(()) };
            let some = data.split_to(room.min(data.len()));
            if self.stream.send_data(some).is_err() {
                return Poll::Ready(());
            }
        }
        let mut trailers = Vec::new();
        hpack::put(&mut trailers, "grpc-status", b"0");
        let _ = self.stream.send_fields(&trailers, true);
        Poll::Ready(())
    }
}

/// The blocks of heads of one connection, and the table that they share.
#[derive(Debug)]
pub struct Blocks(Decoder);

/// What a block says: names and values, in their order. A name or a value that no request may have is not there.
pub type BlockFields = Vec<(Option<String>, Option<HeaderValue>)>;

impl Default for Blocks {
    fn default() -> Self {
        Self(Decoder::new())
    }
}

impl Blocks {
    /// Reads the next block; nothing if it breaks the rules of the compression.
    pub fn read(&mut self, block: &[u8]) -> Option<BlockFields> {
        let mut fields = Vec::new();
        let read = self.0.decode(block, |field| {
            let name = match &field.name {
                Name::Method => Some(":method"),
                Name::Scheme => Some(":scheme"),
                Name::Authority => Some(":authority"),
                Name::Path => Some(":path"),
                Name::Plain(name) => Some(name.as_str()),
                Name::Wrong => None,
            };
            fields.push((name.map(str::to_owned), field.value.clone()));
        });
        read.is_ok().then_some(fields)
    }
}
