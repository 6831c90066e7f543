//! gRPC on HTTP/2, without a framework: one connection, its calls, and the wire of one call.
//!
//! All calls of a connection are driven by the connection's own task: what one read of the socket brought is decoded,
//! submitted and answered together, and one write takes all the answers. Not here: what methods mean.
use crate::{
    conn::{Conn, GOODBYE, LINGER_BYTES, Order, Phase},
    http2::Session,
    reactor::{Core, Port},
    service::GrpcService,
};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};
use xebec_core::Principal;

mod call;
mod message;
pub(crate) mod split;
mod status;
mod stream;

/// Room for a read.
const READ_BYTES: usize = 16 << 10;

/// Room for a read within a frame that is larger.
const READ_FRAME_BYTES: usize = 64 << 10;

/// What is left of a buffer is used up to this little.
const LEAST_BYTES: usize = 1 << 10;

/// Serves one connection until it closes, is told to finish or outstays a limit.
pub(crate) async fn serve<S: GrpcService>(
    stream: TcpStream,
    principal: Principal,
    port: Rc<Port<S>>,
    conn: Rc<Conn>,
    core: Rc<Core>,
) {
    let mut pipe = Pipe { stream, inbox: BytesMut::new(), session: Session::new(&core.limits) };
    match pipe.drive(&principal, &port, &conn, &core).await {
        Ok(End::Now) => {}
        Ok(End::Over) => pipe.read_out(core.limits.stall_timeout).await,
        Ok(End::Refused) => pipe.read_out(GOODBYE).await,
        Err(error) => tracing::debug!(error = %error, "grpc connection ended with an error"),
    }
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once: nobody is there.
    Now,
    /// Behind the last answer, which the peer shall be able to read although it may still be sending.
    Over,
    /// Behind the reason why it cannot go on. There is nothing more to read, and a moment is enough.
    Refused,
}

/// One connection's socket, and what its bytes mean.
#[derive(Debug)]
struct Pipe {
    stream: TcpStream,
    /// What came and is no whole frame, or has to wait.
    inbox: BytesMut,
    session: Session,
}

impl Pipe {
    async fn drive<S: GrpcService>(
        &mut self,
        principal: &Principal,
        port: &Port<S>,
        conn: &Conn,
        core: &Core,
    ) -> io::Result<End> {
        let (mut calls, mut failed) = (FuturesUnordered::new(), false);
        conn.can_be_asked();
        poll_fn(|cx| {
            match conn.order(cx) {
                Order::Finish => self.session.finish(),
                Order::Abort => return Poll::Ready(Ok(End::Now)),
                Order::Go => {}
            }
            if conn.is_to_be_asked() {
                self.session.ask();
            }
            let mut came = false;
            loop {
                let mut moved = false;
                if !failed {
                    if let Err(fault) = self.session.receive(&mut self.inbox) {
                        tracing::debug!(error = %fault, "grpc connection is ended for what came over it");
                        self.session.fail(fault);
                        calls.clear();
                        failed = true;
                    }
                    while let Some(request) = self.session.next() {
                        (came, moved) = (true, true);
                        calls.push(call::answer(request, principal, port, core));
                    }
                }
                moved |= advance(&mut calls, cx);
                let full = self.session.is_full();
                let flushed = self.poll_flush(cx, conn)?.is_ready();
                // Frames that had to wait may be there whole.
                moved |= full && !self.session.is_full();
                if flushed && (failed || self.session.is_over()) {
                    let end = if failed { End::Refused } else { End::Over };
                    return Poll::Ready(Ok(end));
                }
                if !failed && !self.session.is_full() {
                    match self.poll_fill(cx)? {
                        Poll::Ready(0) => return Poll::Ready(Ok(End::Now)),
                        Poll::Ready(some) => {
                            moved = true;
                            conn.heard(some);
                        }
                        Poll::Pending => {}
                    }
                }
                if !moved {
                    break;
                }
            }
            conn.stands(!self.inbox.is_empty() || self.session.is_inside_a_head(), self.session.frames());
            note_phase(conn, calls.is_empty(), came);
            if calls.is_empty() && self.inbox.is_empty() {
                // One that rests keeps no buffers.
                self.inbox = BytesMut::new();
                self.session.outbox().rest();
            }
            Poll::Pending
        })
        .await
    }

    /// Reads and throws away what the peer still sends, until it has closed its side too. A socket that is closed before
    /// would answer that with a reset, which takes away what the peer has not read yet. While it reads, it sends now and then:
    /// it has a second each time.
    async fn read_out(&mut self, most: Duration) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let (end, mut left) = (Instant::now() + most, LINGER_BYTES);
        let mut buffer = vec![0; READ_BYTES];
        while left > 0 {
            let until = end.min(Instant::now() + GOODBYE);
            match tokio::time::timeout_at(until, self.stream.read(&mut buffer)).await {
                Ok(Ok(some)) if some > 0 => left = left.saturating_sub(some),
                _ => return,
            }
        }
    }

    /// Reads once; 0 at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        ready!(self.stream.poll_read_ready(cx))?;
        if self.inbox.capacity() - self.inbox.len() < LEAST_BYTES {
            let more = if self.inbox.len() < READ_BYTES { READ_BYTES } else { READ_FRAME_BYTES };
            self.inbox.reserve(more);
        }
        pin!(self.stream.read_buf(&mut self.inbox)).poll(cx)
    }

    /// Sends what is to go, as far as the peer takes it.
    fn poll_flush(&mut self, cx: &mut Context<'_>, conn: &Conn) -> io::Result<Poll<()>> {
        let mut outbox = self.session.outbox();
        if outbox.is_empty() {
            return Ok(Poll::Ready(()));
        }
        while !outbox.is_empty() {
            match outbox.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(some)) => conn.wrote(some),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    conn.blocked();
                    drop(outbox);
                    self.session.sent();
                    return Ok(Poll::Pending);
                }
            }
        }
        conn.drained();
        drop(outbox);
        self.session.sent();
        Ok(Poll::Ready(()))
    }
}

/// Polls the calls that were woken; whether any came to its end.
fn advance<F: Future<Output = ()>>(calls: &mut FuturesUnordered<F>, cx: &mut Context<'_>) -> bool {
    let mut ended = false;
    while let Poll::Ready(Some(())) = calls.poll_next_unpin(cx) {
        ended = true;
    }
    ended
}

fn note_phase(conn: &Conn, no_calls: bool, came: bool) {
    match (conn.phase(), no_calls) {
        (Phase::Busy, false) => {}
        (_, false) => conn.enter(Phase::Busy),
        (phase, true) if came || phase == Phase::Busy => conn.rest(),
        // Whatever else has come is with the frames.
        (_, true) => {}
    }
}
