//! h2's server over the same bytes, driven by hand.
//!
//! Its limits are those of our session where it has such, and else so wide that no input reaches them: what is compared is
//! what is understood.
use super::LIMITS;
use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, Connection, Handshake, SendResponse},
};
use http::{HeaderMap, Request, Response, request::Parts};
use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};

/// Room for what is on its way in either direction.
const WIRE_BYTES: usize = 1 << 20;

/// One connection.
pub(super) struct Other {
    side: Side,
    /// The end of the wire that the client has.
    wire: DuplexStream,
    pub(super) calls: Vec<OtherCall>,
    /// The connection is over, and for what error.
    pub(super) ended: Option<String>,
    pub(super) sent: Vec<u8>,
}

enum Side {
    Greets(Box<Handshake<DuplexStream, Bytes>>),
    Open(Box<Connection<DuplexStream, Bytes>>),
}

/// A stream as it was understood.
pub(super) struct OtherCall {
    pub(super) stream: u32,
    pub(super) head: Parts,
    pub(super) body: Vec<u8>,
    pub(super) whole: bool,
    pub(super) reset: bool,
    /// Nothing once it is answered, or reset.
    open: Option<(RecvStream, SendResponse<Bytes>)>,
}

impl Other {
    pub(super) fn new() -> Self {
        let (wire, server) = tokio::io::duplex(WIRE_BYTES);
        let greets = Builder::new()
            .max_concurrent_streams(LIMITS.max_concurrent_streams)
            .initial_window_size(2 << 20)
            .initial_connection_window_size(8 << 20)
            .max_frame_size(256 << 10)
            // It refuses a list of so many bytes, where ours refuses one of more.
            .max_header_list_size(LIMITS.max_header_bytes + 1)
            .max_concurrent_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None)
            .max_pending_accept_reset_streams(usize::MAX)
            .reset_stream_duration(Duration::MAX)
            .data_frame_budget(usize::MAX)
            .handshake(server);
        Self { side: Side::Greets(Box::new(greets)), wire, calls: Vec::new(), ended: None, sent: Vec::new() }
    }

    /// Takes what comes, and reads what is there of the bodies.
    pub(super) fn come(&mut self, bytes: &[u8]) {
        let cx = &mut Context::from_waker(Waker::noop());
        let written = Pin::new(&mut self.wire).poll_write(cx, bytes);
        // A connection that is over reads no more.
        let all = matches!(written, Poll::Ready(Ok(some)) if some == bytes.len());
        assert!(all || self.ended.is_some(), "no room on the wire");
        self.advance(cx);
        self.calls.iter_mut().for_each(|call| call.read(cx));
        // What was read makes room, which the client is told.
        self.advance(cx);
    }

    /// Answers what is whole.
    pub(super) fn answer(&mut self) {
        let cx = &mut Context::from_waker(Waker::noop());
        self.calls.iter_mut().for_each(OtherCall::answer);
        self.advance(cx);
    }

    fn advance(&mut self, cx: &mut Context<'_>) {
        while self.ended.is_none() && (self.step(cx) | self.hear(cx)) {}
    }

    /// Whether something was done.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.side {
            Side::Greets(greets) => match Pin::new(greets).poll(cx) {
                Poll::Ready(Ok(open)) => self.side = Side::Open(Box::new(open)),
                Poll::Ready(Err(error)) => self.ended = Some(error.to_string()),
                Poll::Pending => return false,
            },
            Side::Open(open) => match open.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.calls.push(OtherCall::new(request, respond))
                }
                Poll::Ready(Some(Err(error))) => self.ended = Some(error.to_string()),
                Poll::Ready(None) => self.ended = Some("is closed".to_owned()),
                Poll::Pending => return false,
            },
        }
        true
    }

    /// Takes from the wire what was sent; whether there was something.
    fn hear(&mut self, cx: &mut Context<'_>) -> bool {
        let (mut room, mut heard) = ([0; 4096], false);
        loop {
            let mut into = ReadBuf::new(&mut room);
            let read = Pin::new(&mut self.wire).poll_read(cx, &mut into);
            if !read.is_ready() || into.filled().is_empty() {
                break;
            }
            self.sent.extend_from_slice(into.filled());
            heard = true;
        }
        heard
    }
}

impl OtherCall {
    fn new(request: Request<RecvStream>, respond: SendResponse<Bytes>) -> Self {
        let (head, body) = request.into_parts();
        Self {
            stream: respond.stream_id().as_u32(),
            head,
            body: Vec::new(),
            whole: false,
            reset: false,
            open: Some((body, respond)),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) {
        let Some((body, _)) = &mut self.open else { return };
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    self.body.extend_from_slice(&piece);
                    // It fails for a stream that is gone.
                    let _ = body.flow_control().release_capacity(piece.len());
                }
                Poll::Ready(Some(Err(_))) => break self.reset = true,
                Poll::Ready(None) => match body.poll_trailers(cx) {
                    Poll::Ready(Ok(_)) => break self.whole = true,
                    Poll::Ready(Err(_)) => break self.reset = true,
                    Poll::Pending => break,
                },
                Poll::Pending => break,
            }
        }
        if self.reset {
            self.open = None;
        }
    }

    fn answer(&mut self) {
        if !self.whole {
            return;
        }
        let Some((_, mut respond)) = self.open.take() else { return };
        // Errors say that the stream is gone.
        if let Ok(mut send) = respond.send_response(Response::new(()), false) {
            let _ = send.send_data(Bytes::from_static(b"answer"), false);
            let _ = send.send_trailers(HeaderMap::new());
        }
    }
}
