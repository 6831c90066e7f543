//! What a connection knows of its streams, and what the call of a stream does with it.
use super::{
    frame::{FIRST_MOST_FRAME, FIRST_WINDOW, MOST_WINDOW, Reason, flag, kind, put, put_head},
    hpack,
};
use crate::outbox::Outbox;
use bytes::Bytes;
use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// How much a client may send ahead of being read, on one connection: enough for the largest message not to crawl.
pub(super) const CONNECTION_WINDOW: i64 = 8 << 20;
/// The same for one stream.
pub(super) const STREAM_WINDOW: i64 = 2 << 20;

/// Bytes of answers that wait for the socket; no more is taken from calls with so many.
const MOST_UNSENT_BYTES: usize = 256 << 10;

/// What may come on top of them: frames that are no answers. With so many, what the peer sends is not looked at.
const MOST_CONTROL_BYTES: usize = 32 << 10;

/// What one call may add before the next that waits has its turn.
const TURN_BYTES: i64 = 64 << 10;

/// What the streams of a connection share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    /// What the peer lets us send on the connection.
    pub(super) window: i64,
    /// The same for a stream that is new.
    pub(super) first_window: i64,
    /// The largest payload of a frame that the peer takes.
    pub(super) most_frame: usize,
    /// What the peer may send on the connection, and what of it was taken from us without its knowledge.
    pub(super) own_window: i64,
    taken: i64,
    /// Open streams by their numbers, which only grow.
    pub(super) open: Vec<(u32, Rc<RefCell<State>>)>,
    /// Those of them that the peer has reset: it does not count them any more.
    pub(super) gone: usize,
    /// Streams that we reset and whose frames may still be on their way, and how many of them are remembered.
    cut: BTreeSet<u32>,
    most_cut: usize,
    /// Streams that wait for the connection to have room, in their order.
    waiting: VecDeque<u32>,
    /// The peer keeps a smaller table for heads than everybody may assume, and is to be told that none is used.
    pub(super) tells_table: bool,
    /// Streams that had to be reset for what is wrong with them, less those that went well since.
    pub(super) mistakes: usize,
}

impl Shared {
    pub(super) fn new(most_cut: usize) -> Self {
        Self {
            outbox: Outbox::default(),
            window: FIRST_WINDOW,
            first_window: FIRST_WINDOW,
            most_frame: FIRST_MOST_FRAME as usize,
            own_window: FIRST_WINDOW,
            taken: 0,
            open: Vec::new(),
            gone: 0,
            cut: BTreeSet::new(),
            most_cut,
            waiting: VecDeque::new(),
            tells_table: false,
            mistakes: 0,
        }
    }

    pub(super) fn find(&self, id: u32) -> Option<&Rc<RefCell<State>>> {
        let place = self.open.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.open.get(place).map(|(_, state)| state)
    }

    /// Lets the peer send as much more on the connection.
    pub(super) fn release(&mut self, bytes: i64) {
        self.taken += bytes;
        if self.taken * 2 >= CONNECTION_WINDOW {
            self.own_window += self.taken;
            put_window(&mut self.outbox, 0, std::mem::take(&mut self.taken));
        }
    }

    /// Opens the connection's window to its whole width.
    pub(super) fn widen(&mut self) {
        self.release(CONNECTION_WINDOW - FIRST_WINDOW);
    }

    /// Gives new streams another window, and those that are open as much more, or less.
    ///
    /// # Errors
    /// One of them gets more than a window may be.
    pub(super) fn change_first_window(&mut self, window: i64) -> Result<(), Reason> {
        let more = window - std::mem::replace(&mut self.first_window, window);
        // One that was reset sends nothing more, and may have been so for its window.
        let mut open = self.open.iter().filter(|(_, open)| more != 0 && !open.borrow().reset);
        open.try_for_each(|(_, open)| open.borrow_mut().widen(more))
    }

    pub(super) fn put_reset(&mut self, id: u32, reason: Reason) {
        put(&mut self.outbox, kind::RESET, 0, id, &reason.0.to_be_bytes());
        self.cut.insert(id);
        if self.cut.len() > self.most_cut {
            self.cut.pop_first();
        }
    }

    /// Whether what comes for a stream may have been sent before our reset of it was read.
    pub(super) fn was_cut(&self, id: u32) -> bool {
        self.cut.contains(&id)
    }

    /// Bytes of answers that may be added now.
    fn room(&self) -> i64 {
        let room = MOST_UNSENT_BYTES.saturating_sub(self.outbox.bytes());
        self.window.min(i64::try_from(room).unwrap_or(0))
    }

    /// Whether so much waits to be sent that nothing more is to be answered.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.bytes() >= MOST_UNSENT_BYTES + MOST_CONTROL_BYTES
    }

    /// Wakes the call whose turn it is to use room, if there is some.
    pub(super) fn wake_waiting(&self) {
        self.wake_next(0);
    }

    /// The same for a stream that is in use itself.
    fn wake_next(&self, own: u32) {
        if self.room() > 0
            && let Some(first) = self.waiting.front().filter(|first| **first != own)
            && let Some(state) = self.find(*first)
        {
            state.borrow_mut().wake();
        }
    }

    /// Takes a stream out of the line.
    fn leave(&mut self, id: u32) {
        self.waiting.retain(|waiting| *waiting != id);
    }
}

fn put_window(outbox: &mut Outbox, id: u32, bytes: i64) {
    let increment = u32::try_from(bytes).unwrap_or_default();
    put(outbox, kind::WINDOW_UPDATE, 0, id, &increment.to_be_bytes());
}

/// One stream.
#[derive(Debug)]
pub(super) struct State {
    id: u32,
    /// What came and was not read.
    pieces: VecDeque<Bytes>,
    /// The peer has sent its last.
    pub(super) ended: bool,
    /// What it may send, and what of it was taken from us without its knowledge.
    own_window: i64,
    taken: i64,
    /// What came and was not released.
    held: i64,
    /// What is still to come of a body whose length was told.
    owed: Option<u64>,
    /// What it lets us send.
    window: i64,
    /// We have sent our last.
    finished: bool,
    /// One of the two gave the stream up.
    pub(super) reset: bool,
    /// It was the peer, who may not use it any more.
    pub(super) left: bool,
    /// Its call was begun.
    pub(super) begun: bool,
    waker: Option<Waker>,
}

impl State {
    pub(super) fn new(id: u32, window: i64, length: Option<u64>, ended: bool) -> Self {
        Self {
            id,
            pieces: VecDeque::new(),
            ended,
            own_window: STREAM_WINDOW,
            taken: 0,
            held: 0,
            owed: length,
            window,
            finished: false,
            reset: false,
            left: false,
            begun: false,
            waker: None,
        }
    }

    /// Takes a piece of the body, for which the peer used up `bytes` of the window.
    ///
    /// # Errors
    /// There was no such window, or the body has another length than was told.
    pub(super) fn receive(&mut self, piece: Bytes, bytes: i64, last: bool) -> Result<(), Reason> {
        self.own_window -= bytes;
        if self.own_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        if let Some(owed) = &mut self.owed {
            *owed = owed.checked_sub(piece.len() as u64).ok_or(Reason::PROTOCOL_ERROR)?;
        }
        if last {
            self.end()?;
        }
        // Padding is read at once.
        let held = i64::try_from(piece.len()).unwrap_or(0);
        (self.held, self.taken) = (self.held + held, self.taken + bytes - held);
        if !piece.is_empty() {
            self.pieces.push_back(piece);
        }
        self.wake();
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Something was still owed.
    pub(super) fn end(&mut self) -> Result<(), Reason> {
        if self.owed.is_some_and(|owed| owed > 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.ended = true;
        self.wake();
        Ok(())
    }

    /// Lets us send more, or less.
    ///
    /// # Errors
    /// It is more than a window may be.
    pub(super) fn widen(&mut self, bytes: i64) -> Result<(), Reason> {
        let shut = self.window <= 0;
        self.window += bytes;
        if self.window > MOST_WINDOW {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        if shut && self.window > 0 {
            self.wake();
        }
        Ok(())
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The peer is not there any more, or has given the stream up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// One stream, for the call that answers it. It is one task's: the last that waited for something is woken, whatever
/// came. Dropped, it is reset if it is not at its end.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(super) state: Rc<RefCell<State>>,
    pub(super) shared: Rc<RefCell<Shared>>,
}

impl Stream {
    /// Its number.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn id(&self) -> u32 {
        self.state.borrow().id
    }

    /// The next piece of the body; `None` behind its last. What was taken in is to be [released](Self::release).
    pub(crate) fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Gone>>> {
        let state = &mut *self.state.borrow_mut();
        if state.reset {
            return Poll::Ready(Some(Err(Gone)));
        }
        match state.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(piece))),
            None if state.ended => Poll::Ready(None),
            None => state.wait(cx),
        }
    }

    /// Whether the body was read to its end.
    pub(crate) fn is_read(&self) -> bool {
        let state = self.state.borrow();
        state.ended && state.pieces.is_empty() && !state.reset
    }

    /// Lets the peer send as much more as was read.
    pub(crate) fn release(&self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(0);
        let (state, shared) = (&mut *self.state.borrow_mut(), &mut *self.shared.borrow_mut());
        shared.release(bytes);
        state.held -= bytes;
        if state.ended || state.reset {
            return;
        }
        state.taken += bytes;
        if state.taken * 2 >= STREAM_WINDOW {
            state.own_window += state.taken;
            put_window(&mut shared.outbox, state.id, std::mem::take(&mut state.taken));
        }
    }

    /// Waits until the stream is given up.
    pub(crate) fn poll_reset(&self, cx: &Context<'_>) -> Poll<()> {
        let state = &mut *self.state.borrow_mut();
        if state.reset { Poll::Ready(()) } else { state.wait(cx) }
    }

    /// Bytes that can be sent now, if nobody else waits to send.
    pub(crate) fn room(&self) -> usize {
        let shared = self.shared.borrow();
        if !shared.waiting.is_empty() {
            return 0;
        }
        usize::try_from(self.state.borrow().window.min(shared.room())).unwrap_or(0)
    }

    /// Waits until something can be sent, and tells how much. Those who wait take turns: a long answer does not hold up a
    /// short one.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, Gone>> {
        let (state, shared) = (&mut *self.state.borrow_mut(), &mut *self.shared.borrow_mut());
        if state.reset {
            return Poll::Ready(Err(Gone));
        }
        let first = shared.waiting.front().is_none_or(|first| *first == state.id);
        let room = state.window.min(shared.room()).min(TURN_BYTES);
        if state.window <= 0 {
            // It is the peer who has to do something.
            shared.leave(state.id);
        } else if room > 0 && first {
            shared.waiting.pop_front();
            return Poll::Ready(Ok(usize::try_from(room).unwrap_or(0)));
        } else if !shared.waiting.contains(&state.id) {
            shared.waiting.push_back(state.id);
        }
        let waits = state.wait(cx);
        if first && state.window <= 0 {
            shared.wake_next(state.id);
        }
        waits
    }

    /// Sends fields: the head, or with `last` the end of the answer.
    ///
    /// # Errors
    /// Nobody is there to get them.
    pub(crate) fn send_fields(&self, block: &[u8], last: bool) -> Result<(), Gone> {
        let (state, shared) = (&mut *self.state.borrow_mut(), &mut *self.shared.borrow_mut());
        if state.reset || state.finished {
            return Err(Gone);
        }
        state.finished = last;
        let flags = if last { flag::END_HEADERS | flag::END_STREAM } else { flag::END_HEADERS };
        let update: &[u8] = if std::mem::take(&mut shared.tells_table) { &hpack::NO_TABLE } else { &[] };
        put_head(&mut shared.outbox, kind::HEADERS, flags, state.id, update.len() + block.len());
        shared.outbox.push_raw(update);
        shared.outbox.push_raw(block);
        Ok(())
    }

    /// Sends a part of the answer for which there is [room](Self::room).
    ///
    /// # Errors
    /// Nobody is there to get it.
    pub(crate) fn send_data(&self, mut data: Bytes) -> Result<(), Gone> {
        let (state, shared) = (&mut *self.state.borrow_mut(), &mut *self.shared.borrow_mut());
        if state.reset || state.finished {
            return Err(Gone);
        }
        let bytes = i64::try_from(data.len()).unwrap_or(i64::MAX);
        (state.window, shared.window) = (state.window - bytes, shared.window - bytes);
        while !data.is_empty() {
            let some = data.split_to(data.len().min(shared.most_frame));
            put_head(&mut shared.outbox, kind::DATA, 0, state.id, some.len());
            shared.outbox.push(&some);
        }
        shared.wake_next(state.id);
        Ok(())
    }

    /// Gives the stream up.
    pub(crate) fn send_reset(&self, reason: Reason) {
        let state = &mut *self.state.borrow_mut();
        if !state.reset {
            state.reset = true;
            let shared = &mut *self.shared.borrow_mut();
            shared.put_reset(state.id, reason);
            shared.gone += 1;
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let (state, shared) = (&mut *self.state.borrow_mut(), &mut *self.shared.borrow_mut());
        if let Ok(place) = shared.open.binary_search_by_key(&state.id, |(id, _)| *id) {
            shared.open.remove(place);
        }
        shared.leave(state.id);
        shared.wake_waiting();
        // What its call had in its hands is gone with it.
        shared.release(state.held);
        if state.reset {
            shared.gone = shared.gone.saturating_sub(1);
        } else if !state.finished {
            shared.put_reset(state.id, Reason::CANCEL);
        } else if !state.ended {
            // The answer was there before the whole of what was asked (RFC 9113, section 8.1).
            shared.put_reset(state.id, Reason::NO_ERROR);
        } else {
            shared.mistakes = shared.mistakes.saturating_sub(1);
        }
    }
}
