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
    reactor::{Core, Port},
    service::{GrpcAnswer, GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus, Message},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};
use tokio::time::Instant;
use xebec_core::{Code, Principal};

/// Answers one stream; returns when the answer is with h2 or the caller is gone.
pub(super) async fn answer<S: GrpcService>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    principal: &Principal,
    port: &Port<S>,
    core: &Core,
) {
    let (head, body) = request.into_parts();
    if let Err(refusal) = check_head(&head.method, &head.headers) {
        let _ = respond.send_response(refusal, true);
        return;
    }
    if let Err(foreign) = port.check(&head.uri, &head.headers, core) {
        let refused = GrpcStatus { code: foreign.code(), message: format!("{foreign}; {}", foreign.hint()) };
        let _ = respond.send_response(status::trailers_only(&refused), true);
        return;
    }
    let (path, service) = (head.uri.path(), &port.service);
    let until = status::until(&head.headers);
    let metadata = &head.headers;
    let call = GrpcHead { principal, path, metadata, until: until.map(Instant::into_std) };
    if service.takes_many(path) {
        return answer_many(call, until, body, respond, service, core).await;
    }
    // Whether whoever answers the call has heard of it.
    let known = Cell::new(false);
    let work = async {
        service.accept(path).inspect_err(|_| known.set(true))?;
        let encoding = message::encoding(metadata)?;
        let peek = |start: &[u8]| service.peek(call, start).inspect_err(|_| known.set(true));
        // Held until the answer is made: what waits counts like what is being read.
        let message = Message::new(message::read(body, encoding, core, peek).await?);
        known.set(true);
        core.expect_work();
        let until = call.until;
        service.call(GrpcCall { principal, path, metadata, until, message }).await
    };
    let mut work = pin!(work);
    let timed = pin!(deadline(until, caught(work.as_mut())));
    let Some(outcome) = unless_reset(timed, &mut respond).await else { return };
    let outcome = outcome.unwrap_or_else(|_| {
        core.counters.panics.add(1);
        Err(GrpcStatus { code: Code::Internal.grpc(), message: "internal error".into() })
    });
    if let (Err(refused), false) = (&outcome, known.get()) {
        service.refused(call, refused);
    }
    match outcome {
        Ok(GrpcAnswer::One(message)) => send_one(respond, message, core).await,
        Ok(GrpcAnswer::Many(messages)) => send_many(respond, messages, until, core).await,
        Err(refused) => {
            let _ = respond.send_response(status::trailers_only(&refused), true);
        }
    }
}

/// Answers a stream of messages. The answer's head goes out at once: some clients wait for it before they send.
async fn answer_many<S: GrpcService>(
    call: GrpcHead<'_>,
    until: Option<Instant>,
    body: RecvStream,
    mut respond: SendResponse<Bytes>,
    service: &S,
    core: &Core,
) {
    let encoding = match service.accept(call.path).and_then(|()| message::encoding(call.metadata)) {
        Ok(encoding) => encoding,
        Err(refused) => {
            let _ = respond.send_response(status::trailers_only(&refused), true);
            return;
        }
    };
    let Ok(mut stream) = respond.send_response(status::ok_head(), false) else { return };
    let work = async {
        let split = Split::new(&core.budget, core.limits, encoding);
        let talk = pin!(converse(body, split, &mut stream, call, service, core));
        match caught(talk).await {
            Ok(End::Status(status)) => Ok(status.map_or(Ok(()), Err)),
            Ok(End::Gone) => Err(()),
            Err(_) => {
                core.counters.panics.add(1);
                Ok(Err(message::fail(Code::Internal, "internal error")))
            }
        }
    };
    let trailers = match deadline(until, work).await {
        Ok(Ok(())) => status::ok_trailers(),
        Ok(Err(status)) => status::trailers(&status),
        Err(()) => return,
    };
    let _ = stream.send_trailers(trailers);
}

/// What is not gRPC at all is answered in HTTP.
///
/// # Source
/// gRPC over HTTP2, "Requests": a content type that does not begin with `application/grpc` gets 415.
fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), Response<()>> {
    let refuse = |status: StatusCode| {
        let mut response = Response::new(());
        *response.status_mut() = status;
        response
    };
    if method != Method::POST {
        return Err(refuse(StatusCode::METHOD_NOT_ALLOWED));
    }
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if content_type.starts_with(b"application/grpc") {
        Ok(())
    } else {
        Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    }
}

/// Runs `work`; `None` once the caller resets the stream.
async fn unless_reset<F: Future>(
    mut work: Pin<&mut F>,
    respond: &mut SendResponse<Bytes>,
) -> Option<F::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        respond.poll_reset(cx).map(|_| None)
    })
    .await
}

async fn send_one(mut respond: SendResponse<Bytes>, message: GrpcMessage, core: &Core) {
    // An error here means the stream is gone: there is nobody to tell.
    if let Ok(mut stream) = respond.send_response(status::ok_head(), false)
        && send(&mut stream, message.0, core).await.is_some()
    {
        let _ = stream.send_trailers(status::ok_trailers());
    }
}

async fn send_many(
    mut respond: SendResponse<Bytes>,
    mut messages: Pin<Box<dyn futures_core::Stream<Item = GrpcMessage>>>,
    until: Option<Instant>,
    core: &Core,
) {
    let Ok(mut stream) = respond.send_response(status::ok_head(), false) else { return };
    let work = async {
        while let Some(message) = next_unless_reset(&mut messages, &mut stream).await {
            send(&mut stream, message.0, core).await.ok_or(())?;
        }
        Ok(Ok(()))
    };
    let trailers = match deadline(until, work).await {
        Ok(Ok(())) => status::ok_trailers(),
        Ok(Err(status)) => status::trailers(&status),
        Err(()) => return,
    };
    let _ = stream.send_trailers(trailers);
}

async fn next_unless_reset(
    messages: &mut Pin<Box<dyn futures_core::Stream<Item = GrpcMessage>>>,
    stream: &mut SendStream<Bytes>,
) -> Option<GrpcMessage> {
    poll_fn(|cx| match messages.poll_next_unpin(cx) {
        Poll::Ready(message) => Poll::Ready(message),
        Poll::Pending if reset_of(stream, cx) => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Whether the caller has reset the stream; its task is woken when it does.
pub(super) fn reset_of(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> bool {
    let reset = stream.poll_reset(cx).is_ready();
    if reset {
        stream.send_reset(Reason::CANCEL);
    }
    reset
}

/// Sends a message as fast as the caller makes room for it; `None` if it is gone, or makes less than 16 KiB of it for too
/// long.
///
/// An answer that waits for room counts like a request that waits: callers who never read are not a way to fill the
/// memory.
pub(super) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, core: &Core) -> Option<()> {
    stream.reserve_capacity(data.len());
    if stream.capacity() >= data.len() {
        return stream.send_data(data, false).ok();
    }
    let mut hold = Hold::new(Rc::clone(&core.budget));
    if hold.grow(data.len()).is_err() {
        stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        return None;
    }
    let mut pace = Pace::new(core.limits.stall_timeout);
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx));
        match tokio::time::timeout_at(pace.until(), room).await {
            Ok(room) => {
                let some = room?.ok()?.min(data.len());
                pace.moved(some);
                stream.send_data(data.split_to(some), false).ok()?;
            }
            Err(_) => {
                stream.send_reset(Reason::CANCEL);
                return None;
            }
        }
    }
    Some(())
}
