//! A call that takes many messages: each is answered by itself, in the order in which they came.
//!
//! Messages run side by side, [`MOST_AT_ONCE`] of a call at most; with so many in flight, or with an answer that its
//! caller does not read, no more are begun, and the caller's window closes. What it has sent by then is kept, and counts
//! against the core's budget. Invariants: an answer is sent after those of all earlier messages; nothing that comes
//! behind the call's end is begun; dropped, a call drops what of it still waits.
use super::{
    call::send,
    message::{Pace, fail, no_room},
    split::Split,
};
use crate::{
    budget::Hold,
    caught::caught,
    http2::Stream,
    reactor::Core,
    service::{GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus, Message},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep};
use xebec_core::Code;

/// Messages of one call that run or wait for their turn to be sent: enough to fill a batch alone.
const MOST_AT_ONCE: usize = 64;

/// Answers that are ready together go out in one frame, so many bytes of them: clients that buffer take a burst of tiny
/// frames for an attack.
const TOGETHER_BYTES: usize = 16 << 10;

/// How a conversation ended.
pub(super) enum End {
    /// With this status; all is well if there is none.
    Status(Option<GrpcStatus>),
    /// The caller is gone.
    Gone,
}

/// What happened next.
enum Step {
    Message(Message),
    Answer(Result<GrpcMessage, GrpcStatus>, Hold),
    Send,
    /// The next message cannot be had.
    Refused(GrpcStatus),
    Ended(Option<GrpcStatus>),
    Gone,
}

/// Answers messages as they come, until the caller has sent its last or the call cannot go on.
pub(super) async fn converse<S: GrpcService>(
    split: Split,
    stream: &Stream,
    head: GrpcHead<'_>,
    service: &S,
    core: &Core,
) -> End {
    let mut incoming = Incoming::new(stream, split, core);
    let mut draining = core.draining();
    let mut drained = pin!(async move { draining.wait_for(|draining| *draining).await.is_ok() });
    let (mut answers, mut is_drained) = (FuturesOrdered::new(), false);
    let (mut ready, mut end) = (Ready::default(), None::<Option<GrpcStatus>>);
    loop {
        let step = poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Step::Gone);
            }
            if ready.bytes >= TOGETHER_BYTES {
                return Poll::Ready(Step::Send);
            }
            match answers.poll_next_unpin(cx) {
                Poll::Ready(Some((outcome, hold))) => return Poll::Ready(Step::Answer(outcome, hold)),
                Poll::Ready(None) if end.is_some() && ready.bytes == 0 => {
                    return Poll::Ready(Step::Ended(None));
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if end.is_none() {
                is_drained = is_drained || drained.as_mut().poll(cx).is_ready();
                let in_flight = answers.len() + ready.answers.len();
                if let Poll::Ready(step) = incoming.poll(cx, in_flight, is_drained) {
                    return Poll::Ready(step);
                }
            } else {
                incoming.discard(cx);
            }
            if ready.bytes > 0 { Poll::Ready(Step::Send) } else { Poll::Pending }
        });
        match step.await {
            Step::Message(message) => {
                core.expect_work();
                let GrpcHead { principal, path, metadata, until } = head;
                match service.begin(GrpcCall { principal, path, metadata, until, message }) {
                    Ok(answer) => answers.push_back(held(answer, core)),
                    Err(status) => end = Some(Some(status)),
                }
            }
            Step::Answer(Ok(answer), hold) => ready.push(answer, hold),
            Step::Answer(Err(status), _) => {
                // Nothing behind it is answered.
                answers = FuturesOrdered::new();
                end = Some(Some(status));
            }
            Step::Send => {
                let mut sent = pin!(send(stream, ready.take(), core));
                let sent = poll_fn(|cx| {
                    incoming.receive(cx);
                    sent.as_mut().poll(cx)
                });
                if sent.await.is_none() {
                    return End::Gone;
                }
                incoming.rests = None;
            }
            Step::Refused(status) => {
                service.refused(head, &status);
                end = Some(Some(status));
            }
            Step::Ended(status) => match end {
                Some(end) => return End::Status(end),
                None => end = Some(status),
            },
            Step::Gone => return End::Gone,
        }
    }
}

/// Answers whose turn to be sent has come, and what they hold.
#[derive(Default)]
struct Ready {
    answers: Vec<(Bytes, Hold)>,
    bytes: usize,
}

impl Ready {
    fn push(&mut self, answer: GrpcMessage, hold: Hold) {
        self.bytes += answer.0.len();
        self.answers.push((answer.0, hold));
    }

    /// All of them as one; a large one, which is alone, as it is.
    fn take(&mut self) -> Bytes {
        let bytes = std::mem::take(&mut self.bytes);
        let mut answers = std::mem::take(&mut self.answers);
        match answers.pop() {
            Some((only, _)) if answers.is_empty() => only,
            last => {
                let mut together = BytesMut::with_capacity(bytes);
                answers.iter().chain(&last).for_each(|(answer, _)| together.extend_from_slice(answer));
                together.freeze()
            }
        }
    }
}

/// Runs one message. The memory of its answer, until those before it are sent, counts as that of the message did.
async fn held(
    answer: impl Future<Output = GrpcMessage>,
    core: &Core,
) -> (Result<GrpcMessage, GrpcStatus>, Hold) {
    let outcome = {
        let answer = pin!(answer);
        caught(answer).await
    };
    // Here the message is gone, and what it held.
    let outcome = outcome.map_err(|_| {
        core.counters.panics.add(1);
        fail(Code::Internal, "internal error")
    });
    let mut hold = Hold::new(Rc::clone(&core.budget));
    let outcome = outcome.and_then(|answer| match hold.grow(answer.0.len()) {
        Ok(()) => Ok(answer),
        Err(_) => Err(no_room()),
    });
    (outcome, hold)
}

/// The caller's side of a call.
struct Incoming<'a> {
    stream: &'a Stream,
    split: Split,
    core: &'a Core,
    /// The caller has sent its last, or what it sent is not taken any more.
    done: bool,
    fault: Option<GrpcStatus>,
    pace: Pace,
    /// Since when nothing has come and nothing was answered.
    rests: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<'a> Incoming<'a> {
    fn new(stream: &'a Stream, split: Split, core: &'a Core) -> Self {
        let pace = Pace::new(core.limits.stall_timeout);
        Self { stream, split, core, done: false, fault: None, pace, rests: None, timer: None }
    }

    /// The next message, while fewer than may are in flight, or why there is none any more.
    fn poll(&mut self, cx: &mut Context<'_>, in_flight: usize, draining: bool) -> Poll<Step> {
        self.receive(cx);
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Step::Refused(fault));
        }
        if in_flight >= MOST_AT_ONCE {
            return Poll::Pending;
        }
        let next = self.split.next();
        self.stream.release(self.split.taken());
        match next {
            Ok(Some(message)) => {
                (self.rests, self.pace) = (None, Pace::new(self.core.limits.stall_timeout));
                Poll::Ready(Step::Message(Message::new(message)))
            }
            Ok(None) => self.judge(cx, in_flight, draining),
            Err(status) => Poll::Ready(Step::Refused(status)),
        }
    }

    /// Throws away what comes behind the end. Nothing is released for it: the window closes.
    fn discard(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(Ok(_))) = self.stream.poll_data(cx) {}
    }

    /// Takes what has come from the stream, where it would count against nothing.
    fn receive(&mut self, cx: &mut Context<'_>) {
        while !self.done {
            let taken = match self.stream.poll_data(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.pace.moved(frame.len());
                    self.split.push(frame)
                }
                Poll::Ready(Some(Err(_))) => Err(fail(Code::Cancelled, "the stream ended early")),
                Poll::Ready(None) => {
                    self.done = true;
                    Ok(())
                }
                Poll::Pending => return,
            };
            if let Err(fault) = taken {
                (self.done, self.fault) = (true, Some(fault));
            }
        }
    }

    /// Whether the call ends here, with nothing more to be begun.
    fn judge(&mut self, cx: &mut Context<'_>, in_flight: usize, draining: bool) -> Poll<Step> {
        let inside = self.split.is_inside_a_message();
        if self.done {
            let cut = || fail(Code::InvalidArgument, "the message ends before its length");
            return Poll::Ready(if inside { Step::Refused(cut()) } else { Step::Ended(None) });
        }
        if inside {
            return self.past(cx, Self::stalls).map(|()| Step::Refused(self.pace.stood_still()));
        }
        if in_flight > 0 {
            return Poll::Pending;
        }
        if draining {
            let status = fail(Code::Unavailable, "server is draining and takes no new requests");
            return Poll::Ready(Step::Ended(Some(status)));
        }
        let rested = self.past(cx, Self::tires);
        let seconds = self.core.limits.idle_timeout.as_secs_f32();
        rested.map(|()| {
            Step::Ended(Some(fail(Code::Unavailable, format!("the stream was idle for {seconds} s"))))
        })
    }

    fn stalls(&mut self) -> Instant {
        self.pace.until()
    }

    fn tires(&mut self) -> Instant {
        *self.rests.get_or_insert_with(Instant::now) + self.core.limits.idle_timeout
    }

    /// Whether a time has passed. One timer serves all of them: it is set anew only once it has fired or is too late.
    fn past(&mut self, cx: &mut Context<'_>, until: fn(&mut Self) -> Instant) -> Poll<()> {
        let until = until(self);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
    }
}
