//! What the sweeper knows of one connection.
//!
//! A connection costs no timer: the core's sweeper looks at every connection once a tick and judges by
//! [`Conn::judge`], a pure function of what the connection last did. Times are counted in ticks for the same reason.
use crate::limits::Limits;
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Waker},
    time::Duration,
};

/// How often the sweeper looks; every timeout is a multiple.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How long a peer may take to acknowledge that an idle connection is closed.
pub(crate) const GOODBYE: Duration = Duration::from_secs(1);

/// The most that is read of a peer that was told the end and goes on sending, for it to come to read that.
pub(crate) const LINGER_BYTES: usize = 16 << 20;

/// A body or an answer that moves so far within the stall timeout is not stalled.
pub(crate) const PROGRESS_BYTES: usize = 16 << 10;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests.
    Idle,
    /// A head has begun and is not there whole.
    Head,
    /// A body has begun and is not there whole.
    Body,
    /// The request is with its handler.
    Busy,
    /// The answer is being written.
    Done,
}

/// What the sweeper wants of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing.
    Go,
    /// Answer what has begun, then close.
    Finish,
    /// Close now.
    Abort,
}

/// Whether a peer is asked if it is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// There is no way to ask it.
    Impossible,
    /// It was heard not long ago.
    None,
    /// It is to be asked.
    Wanted,
    /// It was asked.
    Sent,
}

/// The sweeper's record of a connection.
#[derive(Debug)]
pub(crate) struct Conn {
    phase: Cell<Phase>,
    since: Cell<u32>,
    /// Since when nothing was asked of us. Frames that are no call do not change it.
    rests: Cell<u32>,
    /// When something last came, of a peer that can be asked for it.
    heard: Cell<u32>,
    question: Cell<Question>,
    /// A frame, or the headers of a call, have begun and are not there whole; since when nothing of it is getting on, bytes
    /// that came since, and frames that had come whole by then.
    cut: Cell<bool>,
    cut_since: Cell<u32>,
    cut_bytes: Cell<usize>,
    frames: Cell<u64>,
    /// Bytes of a body since its clock was last set back.
    progress: Cell<usize>,
    blocked_since: Cell<Option<u32>>,
    /// Bytes written since then.
    unblocked: Cell<usize>,
    clock: Rc<Cell<u32>>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
}

impl Conn {
    /// A connection that has just been accepted; `clock` counts the core's ticks.
    pub(crate) fn new(clock: Rc<Cell<u32>>) -> Rc<Self> {
        let now = clock.get();
        Rc::new(Self {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            rests: Cell::new(now),
            heard: Cell::new(now),
            question: Cell::new(Question::Impossible),
            cut: Cell::new(false),
            cut_since: Cell::new(now),
            cut_bytes: Cell::new(0),
            frames: Cell::new(0),
            progress: Cell::new(0),
            blocked_since: Cell::new(None),
            unblocked: Cell::new(0),
            clock,
            order: Cell::new(Order::Go),
            waker: RefCell::new(None),
        })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Notes what the connection does from now on.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.get());
        self.progress.set(0);
    }

    /// Notes that bytes came.
    pub(crate) fn read_some(&self, bytes: usize) {
        match self.phase.get() {
            Phase::Idle => self.enter(Phase::Head),
            Phase::Body => {
                // A byte now and then is no progress: else a body could take days.
                self.progress.set(self.progress.get() + bytes);
                if self.progress.get() >= PROGRESS_BYTES {
                    self.enter(Phase::Body);
                }
            }
            // What comes behind a request is its own when that is answered: its time has not begun.
            Phase::Head | Phase::Busy | Phase::Done => {}
        }
    }

    /// Notes that bytes came over HTTP/2.
    pub(crate) fn heard(&self, bytes: usize) {
        self.heard.set(self.clock.get());
        self.cut_bytes.set(self.cut_bytes.get() + bytes);
        if self.question.get() == Question::Sent {
            self.question.set(Question::None);
        }
    }

    /// Notes whether a frame or a head has begun and is not there whole. Frames that are there whole and are no call leave
    /// the time for which nothing was asked. `frames` counts them.
    pub(crate) fn stands(&self, cut: bool, frames: u64) {
        self.cut.set(cut);
        if !cut || self.frames.get() != frames || self.cut_bytes.get() >= PROGRESS_BYTES {
            self.frames.set(frames);
            self.cut_since.set(self.clock.get());
            self.cut_bytes.set(0);
        }
        match (self.phase.get(), cut) {
            (Phase::Idle, true) => self.enter(Phase::Head),
            (Phase::Head, false) => {
                self.phase.set(Phase::Idle);
                self.since.set(self.rests.get());
            }
            _ => {}
        }
    }

    /// Notes that the last call has ended.
    pub(crate) fn rest(&self) {
        self.rests.set(self.clock.get());
        self.enter(if self.cut.get() { Phase::Head } else { Phase::Idle });
    }

    /// From here on a peer that is silent for too long, while it waits for an answer, is asked whether it is there.
    pub(crate) fn can_be_asked(&self) {
        self.question.set(Question::None);
    }

    /// Whether the peer is to be asked now.
    pub(crate) fn is_to_be_asked(&self) -> bool {
        let wanted = self.question.get() == Question::Wanted;
        if wanted {
            self.question.set(Question::Sent);
        }
        wanted
    }

    /// Wakes the connection's task to ask its peer, if that is silent for too long.
    pub(crate) fn break_silence(&self, limits: &Limits) {
        let silent = self.past(self.heard.get(), limits.idle_timeout);
        if self.phase.get() == Phase::Busy && self.question.get() == Question::None && silent {
            self.question.set(Question::Wanted);
            self.wake();
        }
    }

    /// Notes that a write waits for the peer.
    pub(crate) fn blocked(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.clock.get()));
            self.unblocked.set(0);
        }
    }

    /// Notes that bytes left.
    pub(crate) fn wrote(&self, bytes: usize) {
        if self.blocked_since.get().is_some() {
            // A byte now and then is no progress here either.
            self.unblocked.set(self.unblocked.get() + bytes);
            if self.unblocked.get() >= PROGRESS_BYTES {
                self.drained();
            }
        }
    }

    /// Notes that everything has left.
    pub(crate) fn drained(&self) {
        if self.blocked_since.take().is_some() {
            // Whoever reads at last is given time from here on.
            self.since.set(self.clock.get());
        }
    }

    /// Whether the connection has outstayed a limit.
    pub(crate) fn judge(&self, limits: &Limits) -> Order {
        let phase_limit = match self.phase.get() {
            // An answer may be written still, and its own clock runs below.
            Phase::Idle if self.order.get() == Order::Finish => {
                self.blocked_since.get().is_none().then_some(GOODBYE)
            }
            Phase::Idle if self.past(self.since.get(), limits.idle_timeout) => return Order::Finish,
            Phase::Idle => None,
            Phase::Head => Some(limits.header_timeout),
            Phase::Body => Some(limits.stall_timeout),
            // The model's queue bounds how long a handler takes; a blocked write has its own clock below.
            Phase::Busy | Phase::Done => None,
        };
        let late = phase_limit.is_some_and(|limit| self.past(self.since.get(), limit));
        let blocked = self.blocked_since.get().is_some_and(|since| self.past(since, limits.stall_timeout));
        // It was asked, and is given the time that an answer may stand still to say that it is there.
        let silence = limits.idle_timeout.saturating_add(limits.stall_timeout);
        let gone = self.question.get() == Question::Sent
            && self.phase.get() == Phase::Busy
            && self.past(self.heard.get(), silence);
        // Beside a call as well, what has begun is not kept for good.
        let stuck = self.cut.get()
            && self.phase.get() == Phase::Busy
            && self.past(self.cut_since.get(), limits.stall_timeout);
        if late || blocked || gone || stuck { Order::Abort } else { Order::Go }
    }

    fn past(&self, since: u32, limit: Duration) -> bool {
        self.clock.get().wrapping_sub(since) > ticks(limit)
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Gives an order and wakes the connection's task to see it. What is idle then gets its goodbye and a moment.
    pub(crate) fn command(&self, order: Order) {
        if self.order.get() != order {
            self.order.set(order);
            if self.phase.get() == Phase::Idle {
                self.since.set(self.clock.get());
                self.rests.set(self.clock.get());
            }
            self.wake();
        }
    }

    /// Whether the connection is to end once what has begun is answered.
    pub(crate) fn is_finishing(&self) -> bool {
        self.order.get() == Order::Finish
    }

    /// The order in force; the task is woken when it changes.
    pub(crate) fn order(&self, cx: &Context<'_>) -> Order {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.order.get()
    }
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase) -> (Rc<Conn>, Rc<Cell<u32>>) {
        let clock = Rc::new(Cell::new(7));
        let conn = Conn::new(Rc::clone(&clock));
        conn.enter(phase);
        (conn, clock)
    }

    #[test]
    fn a_head_that_trickles_in_is_cut_off_although_bytes_keep_coming() {
        let limits = Limits { header_timeout: TICK * 4, ..Limits::default() };
        let (conn, clock) = at(Phase::Idle);
        for _ in 0..5 {
            conn.read_some(1);
            assert_eq!(conn.judge(&limits), Order::Go);
            clock.set(clock.get() + 1);
        }
        assert_eq!(conn.judge(&limits), Order::Abort);
    }

    #[test]
    fn a_body_that_keeps_coming_is_not_cut_off_and_one_that_stalls_is() {
        let limits = Limits { stall_timeout: TICK * 4, ..Limits::default() };
        let (conn, clock) = at(Phase::Body);
        for _ in 0..20 {
            clock.set(clock.get() + 3);
            conn.read_some(PROGRESS_BYTES);
            assert_eq!(conn.judge(&limits), Order::Go);
        }
        // A byte at a time is as good as none.
        for _ in 0..5 {
            clock.set(clock.get() + 1);
            conn.read_some(1);
        }
        assert_eq!(conn.judge(&limits), Order::Abort);
    }

    #[test]
    fn over_http_2_what_has_begun_is_cut_off_and_what_is_no_call_keeps_nothing_open() {
        let limits = Limits { header_timeout: TICK * 4, idle_timeout: TICK * 20, ..Limits::default() };
        let (conn, clock) = at(Phase::Idle);
        for _ in 0..4 {
            clock.set(clock.get() + 4);
            conn.stands(true, 0);
            clock.set(clock.get() + 1);
            conn.stands(false, 0);
            assert_eq!((conn.phase(), conn.judge(&limits)), (Phase::Idle, Order::Go));
        }
        clock.set(clock.get() + 1);
        conn.stands(false, 0);
        assert_eq!(conn.judge(&limits), Order::Finish);
        // A call begins the time anew; one that ends in the middle of a frame leaves the time for that.
        conn.enter(Phase::Busy);
        conn.stands(true, 0);
        conn.rest();
        assert_eq!((conn.phase(), conn.judge(&limits)), (Phase::Head, Order::Go));
        clock.set(clock.get() + 5);
        conn.stands(true, 0);
        assert_eq!(conn.judge(&limits), Order::Abort);
        conn.stands(false, 0);
        assert_eq!((conn.phase(), conn.judge(&limits)), (Phase::Idle, Order::Go));
    }

    #[test]
    fn a_peer_that_waits_in_silence_is_asked_and_cut_off_only_if_it_does_not_answer() {
        let limits = Limits { idle_timeout: TICK * 10, stall_timeout: TICK * 4, ..Limits::default() };
        let (conn, clock) = at(Phase::Busy);
        let silence = |ticks| {
            clock.set(clock.get() + ticks);
            conn.break_silence(&limits);
            (conn.is_to_be_asked(), conn.judge(&limits))
        };
        // Over HTTP/1.1 there is no question.
        assert_eq!(silence(1000), (false, Order::Go));
        conn.can_be_asked();
        conn.heard(1);
        for _ in 0..3 {
            assert_eq!(silence(10), (false, Order::Go));
            assert_eq!(silence(1), (true, Order::Go));
            assert_eq!(silence(3), (false, Order::Go));
            conn.heard(1);
        }
        assert_eq!(silence(14), (true, Order::Go));
        assert_eq!(silence(1), (false, Order::Abort));
    }

    #[test]
    fn a_handler_may_take_its_time_but_an_answer_that_is_not_read_may_not() {
        let limits = Limits { stall_timeout: TICK * 4, idle_timeout: TICK, ..Limits::default() };
        let (conn, clock) = at(Phase::Busy);
        clock.set(clock.get() + 1000);
        assert_eq!(conn.judge(&limits), Order::Go);
        conn.blocked();
        clock.set(clock.get() + 5);
        assert_eq!(conn.judge(&limits), Order::Abort);
        conn.drained();
        assert_eq!(conn.judge(&limits), Order::Go);
    }

    #[test]
    fn an_answer_that_keeps_being_read_is_not_cut_off_and_one_of_which_a_byte_is_read_now_and_then_is() {
        let limits = Limits { stall_timeout: TICK * 4, ..Limits::default() };
        let (conn, clock) = at(Phase::Done);
        for _ in 0..20 {
            conn.blocked();
            clock.set(clock.get() + 3);
            conn.wrote(PROGRESS_BYTES);
            assert_eq!(conn.judge(&limits), Order::Go);
        }
        for _ in 0..5 {
            conn.blocked();
            clock.set(clock.get() + 1);
            conn.wrote(1);
        }
        assert_eq!(conn.judge(&limits), Order::Abort);
    }

    #[test]
    fn an_idle_peer_that_ignores_the_goodbye_is_cut_off() {
        let (conn, clock) = at(Phase::Idle);
        clock.set(clock.get() + 100);
        conn.command(Order::Finish);
        assert_eq!(conn.judge(&Limits::default()), Order::Go);
        clock.set(clock.get() + ticks(GOODBYE) + 1);
        assert_eq!(conn.judge(&Limits::default()), Order::Abort);
    }

    #[test]
    fn what_comes_behind_a_request_has_its_time_when_that_is_answered() {
        let (conn, clock) = at(Phase::Done);
        conn.read_some(1);
        clock.set(clock.get() + 10_000);
        assert_eq!((conn.phase(), conn.judge(&Limits::default())), (Phase::Done, Order::Go));
        conn.enter(Phase::Head);
        assert_eq!(conn.judge(&Limits::default()), Order::Go);
    }

    #[test]
    fn an_answer_that_is_still_read_is_not_cut_off_by_the_goodbye() {
        let (conn, clock) = at(Phase::Idle);
        conn.command(Order::Finish);
        for _ in 0..5 {
            conn.blocked();
            clock.set(clock.get() + ticks(GOODBYE) + 1);
            assert_eq!(conn.judge(&Limits::default()), Order::Go);
            conn.drained();
            assert_eq!(conn.judge(&Limits::default()), Order::Go);
        }
        clock.set(clock.get() + ticks(GOODBYE) + 1);
        assert_eq!(conn.judge(&Limits::default()), Order::Abort);
    }

    #[test]
    fn beside_a_call_too_a_frame_that_stands_still_is_cut_off_and_one_that_gets_on_is_not() {
        let limits = Limits { stall_timeout: TICK * 4, ..Limits::default() };
        let (conn, clock) = at(Phase::Busy);
        let mut frames = 0;
        let stands = |bytes, whole: bool| {
            clock.set(clock.get() + 3);
            conn.heard(bytes);
            frames += u64::from(whole);
            conn.stands(true, frames);
            conn.judge(&limits)
        };
        // Much of it comes, or always another one.
        let mut stands = stands;
        for _ in 0..5 {
            assert_eq!(stands(PROGRESS_BYTES, false), Order::Go);
        }
        for _ in 0..5 {
            assert_eq!(stands(1, true), Order::Go);
        }
        assert_eq!(stands(1, false), Order::Go);
        assert_eq!(stands(1, false), Order::Abort);
    }
}
