//! The socket of one connection with what came over it and what is to go, shared by the connection and the body that is
//! being read.
//!
//! Invariants: nothing is read while more lies unread than [`READ_AHEAD`]; a read that filled less than it was offered is
//! not followed by another before the kernel says that there is more.
use super::{chunk::Next, inbox::Inbox, refusal::Refusal};
use crate::{
    budget::{Budget, Hold},
    conn::{Conn, Phase},
    outbox::Outbox,
};
use bytes::Bytes;
use std::{
    cell::{RefCell, RefMut},
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _},
    net::TcpStream,
};

/// Room for what is read and thrown away.
const THROWN_BYTES: usize = 64 << 10;

/// The most unread bytes with which more is read while a request is answered.
const READ_AHEAD: usize = 32 << 10;

/// Why the next piece of a body does not come.
#[derive(Debug, thiserror::Error)]
pub enum BrokenBody {
    /// The caller is gone.
    #[error("the caller ended the connection")]
    Ended,
    /// The chunks are framed wrongly.
    #[error(transparent)]
    Framing(Refusal),
    /// The socket failed.
    #[error("the connection failed")]
    Socket(#[source] io::Error),
}

/// One connection's socket and buffers.
#[derive(Debug)]
pub(crate) struct Wire {
    pipe: RefCell<Pipe>,
    conn: Rc<Conn>,
}

/// What the two sides of a connection work on.
#[derive(Debug)]
pub(crate) struct Pipe {
    stream: TcpStream,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Outbox,
    /// What the answers in the outbox hold.
    pub(crate) held: Hold,
    /// The caller sends no more.
    pub(crate) ended: bool,
    /// The caller waits for a word before it sends its body.
    pub(crate) asked_first: bool,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, conn: Rc<Conn>, budget: &Rc<Budget>) -> Rc<Self> {
        let pipe = Pipe {
            stream,
            inbox: Inbox::new(),
            outbox: Outbox::default(),
            held: Hold::new(Rc::clone(budget)),
            ended: false,
            asked_first: false,
        };
        Rc::new(Self { pipe: RefCell::new(pipe), conn })
    }

    /// Never held over an await.
    pub(crate) fn pipe(&self) -> RefMut<'_, Pipe> {
        self.pipe.borrow_mut()
    }

    /// Reads once; 0 at the end.
    pub(crate) fn poll_fill(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut pipe = self.pipe();
        let some = ready!(pipe.poll_fill(cx))?;
        if some > 0 {
            self.conn.read_some(some);
        }
        Poll::Ready(Ok(some))
    }

    /// Sends what is to go, as far as the caller takes it. What stays counts like a request that waits: callers who never
    /// read are not a way to fill the memory.
    ///
    /// # Errors
    /// The socket failed, or there is no room for what stays.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pipe = &mut *self.pipe();
        while !pipe.outbox.is_empty() {
            let Poll::Ready(written) = pipe.poll_write(cx) else {
                self.conn.blocked();
                let room = pipe.held.set(pipe.outbox.bytes());
                return room.map_or_else(
                    |_| Poll::Ready(Err(io::ErrorKind::OutOfMemory.into())),
                    |()| Poll::Pending,
                );
            };
            self.conn.wrote(written?);
        }
        self.conn.drained();
        pipe.held.release();
        Poll::Ready(Ok(()))
    }

    /// Sends everything.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ready once the caller of what is being answered is gone. Reads ahead meanwhile.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        // Whoever reads the body sees by itself when it ends.
        if self.conn.phase() == Phase::Body {
            return Poll::Pending;
        }
        loop {
            let pipe = self.pipe();
            if pipe.ended {
                return Poll::Ready(());
            }
            if pipe.inbox.bytes.len() >= READ_AHEAD {
                return Poll::Pending;
            }
            drop(pipe);
            if ready!(self.poll_fill(cx)).is_err() {
                return Poll::Ready(());
            }
        }
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn piece(&self) -> Result<Option<Bytes>, BrokenBody> {
        loop {
            let next = self.pipe().inbox.piece().map_err(BrokenBody::Framing)?;
            match next {
                Next::Piece(piece) => return Ok(Some(piece)),
                Next::End => return Ok(None),
                Next::More => self.await_more().await?,
            }
        }
    }

    async fn await_more(&self) -> Result<(), BrokenBody> {
        if std::mem::take(&mut self.pipe().asked_first) {
            self.pipe().outbox.push_raw(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.flush().await.map_err(BrokenBody::Socket)?;
        }
        match poll_fn(|cx| self.poll_fill(cx)).await {
            Ok(0) => Err(BrokenBody::Ended),
            Ok(_) => Ok(()),
            Err(error) => Err(BrokenBody::Socket(error)),
        }
    }

    /// Says that nothing more comes, and reads on until the caller has ended too, or `most` bytes.
    pub(crate) async fn read_out(&self, most: usize) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut self.pipe().stream).poll_shutdown(cx)).await?;
        let (mut left, mut buffer) = (most, vec![0; THROWN_BYTES]);
        while left > 0 {
            let some = poll_fn(|cx| pin!(self.pipe().stream.read(&mut buffer)).poll(cx)).await?;
            if some == 0 {
                break;
            }
            left = left.saturating_sub(some);
        }
        Ok(())
    }
}

impl Pipe {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Room is made when there is something to read: an idle connection that never sent anything has none.
        ready!(self.stream.poll_read_ready(cx))?;
        self.inbox.make_room();
        let some = ready!(pin!(self.stream.read_buf(&mut self.inbox.bytes)).poll(cx))?;
        self.ended |= some == 0;
        Poll::Ready(Ok(some))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { stream, outbox, .. } = self;
        outbox.poll_write(stream, cx)
    }
}
