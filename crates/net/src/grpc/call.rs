//! One call: its head, its message, its answer.
use super::{
    message::{self, Pace},
    split::Split,
    status::{self, deadline},
    stream::{End, converse},
};
use crate::{
    budget::Hold,
    caught::caught,
    http2::{self, Head, Reason, Request, Stream},
    reactor::{Core, Port},
    service::{GrpcAnswer, GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus, Message},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderValue, Method, header};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};
use tokio::time::Instant;
use xebec_core::{Code, Principal};

/// Answers one stream; returns when the answer is on its way or the caller is gone.
pub(super) async fn answer<S: GrpcService>(
    Request { head, stream }: Request,
    principal: &Principal,
    port: &Port<S>,
    core: &Core,
) {
    if !head.accepted.get() {
        if let Err(code) = check_head(&head) {
            let _ = stream.send_fields(&http2::status(code), true);
            return;
        }
        let target = head.authority.as_ref().map(HeaderValue::as_bytes);
        if let Err(foreign) = port.check(target, &head.headers, core) {
            let refused =
                GrpcStatus { code: foreign.code(), message: format!("{foreign}; {}", foreign.hint()) };
            return refuse(&stream, &refused);
        }
        head.accepted.set(true);
    }
    let (path, service) = (head.path.as_str(), &port.service);
    let until = status::until(&head.headers);
    let metadata = &head.headers;
    let call = GrpcHead { principal, path, metadata, until: until.map(Instant::into_std) };
    if service.takes_many(path) {
        // On the heap: every call would be as large as this one.
        return Box::pin(answer_many(call, until, &stream, service, core)).await;
    }
    // Whether whoever answers the call has heard of it.
    let known = Cell::new(false);
    let work = async {
        service.accept(path).inspect_err(|_| known.set(true))?;
        let encoding = message::encoding(metadata)?;
        let peek = |start: &[u8]| service.peek(call, start).inspect_err(|_| known.set(true));
        // Held until the answer is made: what waits counts like what is being read.
        let message = Message::new(message::read(&stream, encoding, core, peek).await?);
        known.set(true);
        core.expect_work();
        let until = call.until;
        service.call(GrpcCall { principal, path, metadata, until, message }).await
    };
    let mut work = pin!(work);
    let timed = pin!(deadline(until, caught(work.as_mut())));
    let Some(outcome) = unless_reset(timed, &stream).await else { return };
    let outcome = outcome.unwrap_or_else(|_| {
        core.counters.panics.add(1);
        Err(GrpcStatus { code: Code::Internal.grpc(), message: "internal error".into() })
    });
    if let (Err(refused), false) = (&outcome, known.get()) {
        service.refused(call, refused);
    }
    match outcome {
        Ok(GrpcAnswer::One(message)) => send_one(&stream, message, core).await,
        Ok(GrpcAnswer::Many(messages)) => Box::pin(send_many(&stream, messages, until, core)).await,
        Err(refused) => refuse(&stream, &refused),
    }
}

fn refuse(stream: &Stream, status: &GrpcStatus) {
    // An error here means that the stream is gone: there is nobody to tell.
    let _ = stream.send_fields(&status::trailers_only(status), true);
}

/// Answers a stream of messages. The answer's head goes out at once: some clients wait for it before they send.
async fn answer_many<S: GrpcService>(
    call: GrpcHead<'_>,
    until: Option<Instant>,
    stream: &Stream,
    service: &S,
    core: &Core,
) {
    let encoding = match service.accept(call.path).and_then(|()| message::encoding(call.metadata)) {
        Ok(encoding) => encoding,
        Err(refused) => return refuse(stream, &refused),
    };
    if stream.send_fields(status::OK_HEAD, false).is_err() {
        return;
    }
    let work = async {
        let split = Split::new(&core.budget, core.limits, encoding);
        let talk = pin!(converse(split, stream, call, service, core));
        match caught(talk).await {
            Ok(End::Status(status)) => Ok(status.map_or(Ok(()), Err)),
            Ok(End::Gone) => Err(()),
            Err(_) => {
                core.counters.panics.add(1);
                Ok(Err(message::fail(Code::Internal, "internal error")))
            }
        }
    };
    if let Ok(outcome) = deadline(until, work).await {
        end(stream, outcome);
    }
}

fn end(stream: &Stream, outcome: Result<(), GrpcStatus>) {
    let _ = match outcome {
        Ok(()) => stream.send_fields(status::OK_TRAILERS, true),
        Err(status) => stream.send_fields(&status::trailers(&status), true),
    };
}

/// What is not gRPC at all is answered in HTTP, with this status.
///
/// # Source
/// gRPC over HTTP2, "Requests": a content type that does not begin with `application/grpc` gets 415.
fn check_head(head: &Head) -> Result<(), u16> {
    if head.method != Method::POST {
        return Err(405);
    }
    let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") { Ok(()) } else { Err(415) }
}

/// Runs `work`; `None` once the caller resets the stream.
async fn unless_reset<F: Future>(mut work: Pin<&mut F>, stream: &Stream) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        stream.poll_reset(cx).map(|()| None)
    })
    .await
}

async fn send_one(stream: &Stream, message: GrpcMessage, core: &Core) {
    if stream.send_fields(status::OK_HEAD, false).is_ok() && send(stream, message.0, core).await.is_some() {
        end(stream, Ok(()));
    }
}

async fn send_many(
    stream: &Stream,
    mut messages: Pin<Box<dyn futures_core::Stream<Item = GrpcMessage>>>,
    until: Option<Instant>,
    core: &Core,
) {
    if stream.send_fields(status::OK_HEAD, false).is_err() {
        return;
    }
    let work = async {
        while let Some(message) = next_unless_reset(&mut messages, stream).await {
            send(stream, message.0, core).await.ok_or(())?;
        }
        Ok::<_, ()>(Ok(()))
    };
    if let Ok(outcome) = deadline(until, work).await {
        end(stream, outcome);
    }
}

async fn next_unless_reset(
    messages: &mut Pin<Box<dyn futures_core::Stream<Item = GrpcMessage>>>,
    stream: &Stream,
) -> Option<GrpcMessage> {
    poll_fn(|cx| match messages.poll_next_unpin(cx) {
        Poll::Ready(message) => Poll::Ready(message),
        Poll::Pending => stream.poll_reset(cx).map(|()| None),
    })
    .await
}

/// Sends a message as fast as the caller makes room for it; `None` if it is gone, or makes less than 16 KiB of it for too
/// long.
///
/// An answer that waits for room counts like a request that waits: callers who never read are not a way to fill the
/// memory.
pub(super) async fn send(stream: &Stream, mut data: Bytes, core: &Core) -> Option<()> {
    if stream.room() >= data.len() {
        return stream.send_data(data).ok();
    }
    let mut hold = Hold::new(Rc::clone(&core.budget));
    if hold.grow(data.len()).is_err() {
        stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        return None;
    }
    let mut pace = Pace::new(core.limits.stall_timeout);
    while !data.is_empty() {
        let room = poll_fn(|cx| stream.poll_room(cx));
        match tokio::time::timeout_at(pace.until(), room).await {
            Ok(room) => {
                let some = room.ok()?.min(data.len());
                pace.moved(some);
                stream.send_data(data.split_to(some)).ok()?;
            }
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return None;
            }
        }
    }
    Some(())
}
