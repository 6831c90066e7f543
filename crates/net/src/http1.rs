//! HTTP/1.1: one connection, from its first byte to its last.
//!
//! What a request is, and where it ends, is decided by the parts without input and output: `http1/head.rs`, `chunk.rs`,
//! `inbox.rs`. Whatever could be understood in two ways is refused there, and the connection ends. Time is the sweeper's
//! (`conn`), sizes are `body`'s, and here is the order of things: requests of one connection that lie in the buffer
//! together are answered together and leave in one write, in their order; a request whose first byte was read is
//! answered also while draining; a caller that is still sending gets to read why it was refused.
//!
//! A caller that ends its side of the connection while it waits is taken for one that has gone, and what it asked for is
//! dropped: from here the two cannot be told apart.
use crate::{
    body::Body,
    budget::Hold,
    caught::caught,
    conn::{Conn, GOODBYE, LINGER_BYTES, Order, Phase},
    outbox::COPIED_BYTES,
    reactor::{Core, Port},
    service::HttpService,
};
use answer::Manner;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesOrdered};
use head::Head;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
pub use refusal::Refusal;
use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;
pub use wire::BrokenBody;
pub(crate) use wire::Wire;
use xebec_core::{Principal, error::RETRY_AFTER_SECONDS};

mod answer;
pub(crate) mod chunk;
pub(crate) mod date;
pub(crate) mod head;
pub(crate) mod inbox;
mod refusal;
mod scan;
mod target;
mod wire;

/// A body of a refused request that is read to its end, so that the connection goes on.
const SKIPPED_BYTES: u64 = 64 << 10;

/// The most requests of one connection that are answered at the same time.
const MOST_TOGETHER: usize = 64;

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At once.
    Now,
    /// Behind an answer that the caller shall be able to read although it may still be sending.
    Politely,
}

/// An answer, and what about its request says how it is sent.
struct Answered {
    answer: Response<Bytes>,
    /// Until it is sent its memory counts as that of its request did.
    hold: Hold,
    head_only: bool,
    old: bool,
}

struct Connection<'a, S> {
    wire: Rc<Wire>,
    principal: &'a Principal,
    port: &'a Port<S>,
    conn: &'a Rc<Conn>,
    core: &'a Rc<Core>,
}

/// Serves one connection until it closes, is told to finish or outstays a limit.
pub(crate) async fn serve<S: HttpService>(
    stream: TcpStream,
    principal: Principal,
    port: Rc<Port<S>>,
    conn: Rc<Conn>,
    core: Rc<Core>,
) {
    let wire = Wire::new(stream, Rc::clone(&conn), &core.budget);
    let connection = Connection { wire, principal: &principal, port: &port, conn: &conn, core: &core };
    let mut live = pin!(connection.run());
    let end = poll_fn(|cx| match conn.order(cx) {
        Order::Abort => Poll::Ready(End::Now),
        Order::Go | Order::Finish => live.as_mut().poll(cx),
    });
    if end.await == End::Politely {
        // Closing a socket with unread bytes would take the answer away from a caller that is still sending. Whether it
        // went away or time ran out: there is nothing more to be done for it.
        let _ = tokio::time::timeout(GOODBYE, connection.wire.read_out(LINGER_BYTES)).await;
    }
}

impl<S: HttpService> Connection<'_, S> {
    async fn run(&self) -> End {
        loop {
            let closes = match self.next_head().await {
                Ok(None) => return End::Now,
                Ok(Some(head)) => {
                    self.conn.enter(Phase::Busy);
                    let Some(closes) = self.answer(head).await else { return End::Now };
                    closes
                }
                Err(refusal) => {
                    tracing::debug!(error = %refusal, "not a request");
                    let answer = fault(refusal.status(), refusal.body());
                    let hold = Hold::new(Rc::clone(&self.core.budget));
                    self.push(Answered { answer, hold, head_only: false, old: false }, true);
                    true
                }
            };
            self.conn.enter(Phase::Done);
            if self.wire.flush().await.is_err() {
                return End::Now;
            }
            if closes {
                return End::Politely;
            }
            let begun = !self.wire.pipe().inbox.is_empty();
            self.conn.enter(if begun { Phase::Head } else { Phase::Idle });
        }
    }

    /// Waits for the next request; `None` if there is none and the connection is to end.
    async fn next_head(&self) -> Result<Option<Head>, Refusal> {
        let limits = &self.core.limits;
        poll_fn(|cx| {
            loop {
                let mut pipe = self.wire.pipe();
                let head = pipe.inbox.head(limits.max_header_bytes, limits.max_headers)?;
                let (ended, empty) = (pipe.ended, pipe.inbox.is_empty());
                drop(pipe);
                if head.is_some() || ended {
                    return Poll::Ready(Ok(head));
                }
                match self.wire.poll_fill(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(None)),
                    Poll::Pending if empty && self.conn.is_finishing() => return Poll::Ready(Ok(None)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }

    /// Answers a request, and with it those that lie whole behind it. Whether the connection ends with the answer; `None`
    /// if the caller is gone.
    async fn answer(&self, head: Head) -> Option<bool> {
        let (body, alone) = self.body(&head);
        if alone { self.one(head, body).await } else { self.several(head, body).await }
    }

    /// The body of a request, and whether nothing can be answered together with it.
    fn body(&self, head: &Head) -> (Body, bool) {
        let mut pipe = self.wire.pipe();
        if let Some(bytes) = pipe.inbox.whole_body(head) {
            return (Body::here(bytes, Rc::clone(self.core)), head.last || pipe.inbox.is_empty());
        }
        pipe.inbox.begin_body(head.framing);
        pipe.asked_first = head.asks_first;
        (Body::coming(Rc::clone(&self.wire), Rc::clone(self.conn), Rc::clone(self.core)), true)
    }

    async fn one(&self, head: Head, body: Body) -> Option<bool> {
        let (last, asks_first) = (head.last, head.asks_first);
        let mut call = pin!(self.call(head, body));
        let answered = poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(answered) => Poll::Ready(Some(answered)),
            Poll::Pending => self.wire.poll_gone(cx).map(|()| None),
        });
        let answered = answered.await?;
        let owes = self.wire.pipe().inbox.owes_body();
        // Who asks before sending has sent nothing that would have to be skipped.
        let closes = last || (owes && (asks_first || !self.skip().await)) || self.ends_here().await;
        self.push(answered, closes);
        Some(closes)
    }

    /// Answers requests that came together at the same time. Their answers leave in their order.
    async fn several(&self, head: Head, body: Body) -> Option<bool> {
        let (mut calls, mut last, limits) = (FuturesOrdered::new(), false, &self.core.limits);
        calls.push_back(self.call(head, body));
        while calls.len() < MOST_TOGETHER && !last {
            let next = self.wire.pipe().inbox.whole_request(limits.max_header_bytes, limits.max_headers);
            let Some((head, bytes)) = next else { break };
            last = head.last;
            calls.push_back(self.call(head, Body::here(bytes, Rc::clone(self.core))));
        }
        let answered = poll_fn(|cx| self.poll_several(&mut calls, cx)).await?;
        let closes = last || self.ends_here().await;
        self.push(answered, closes);
        Some(closes)
    }

    /// Ready with the last answer when the others are on their way.
    fn poll_several<F: Future<Output = Answered>>(
        &self,
        calls: &mut FuturesOrdered<F>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Answered>> {
        while let Poll::Ready(answered) = calls.poll_next_unpin(cx) {
            match answered {
                Some(answered) if !calls.is_empty() => self.push(answered, false),
                answered => return Poll::Ready(answered),
            }
        }
        // Whoever is done need not wait for who is not.
        if matches!(self.wire.poll_flush(cx), Poll::Ready(Err(_))) {
            return Poll::Ready(None);
        }
        self.wire.poll_gone(cx).map(|()| None)
    }

    async fn call(&self, head: Head, body: Body) -> Answered {
        let Head { parts, old, .. } = head;
        let head_only = parts.method == Method::HEAD;
        let target = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
        let answer = if let Err(foreign) = self.port.check(target, &parts.headers, self.core) {
            fault(foreign.status(), refusal::body(&foreign.to_string(), Some(foreign.hint())))
        } else if is_ping(&parts) {
            let mut nothing = Response::new(Bytes::new());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            nothing
        } else {
            caught(pin!(self.port.service.call(self.principal, parts, body))).await.unwrap_or_else(|_| {
                self.core.counters.panics.add(1);
                let said = refusal::body("internal error", Some("the server's log has the reason"));
                fault(StatusCode::INTERNAL_SERVER_ERROR, said)
            })
        };
        let mut hold = Hold::new(Rc::clone(&self.core.budget));
        let size = answer.body().len();
        // What is small is told all the same: that there is no room, for one.
        let fits = hold.grow(size).is_ok() || size <= COPIED_BYTES;
        let answer = if fits { answer } else { no_room() };
        Answered { answer, hold, head_only, old }
    }

    fn push(&self, answered: Answered, closes: bool) {
        let Answered { answer, hold, head_only, old } = answered;
        let date = self.core.date.get();
        let manner = Manner { date: date.as_bytes(), closes, keeps: old, head_only };
        let mut pipe = self.wire.pipe();
        answer::put(&mut pipe.outbox, &answer, manner);
        pipe.held.take_over(hold);
    }

    /// Whether an answer is the last because the server stops. Behind a close no answer may follow, so it is said only if
    /// no request waits behind this one.
    async fn ends_here(&self) -> bool {
        if !self.core.drain.is_draining() || !self.wire.pipe().inbox.is_empty() {
            return false;
        }
        let came = |poll: Poll<std::io::Result<usize>>| matches!(poll, Poll::Ready(Ok(some)) if some > 0);
        !poll_fn(|cx| Poll::Ready(came(self.wire.poll_fill(cx)))).await
    }

    /// Reads a short body that nobody wanted, because the next request stands behind it. Whether its end was reached.
    async fn skip(&self) -> bool {
        if self.wire.pipe().inbox.owed_bytes().is_none_or(|owed| owed > SKIPPED_BYTES) {
            return false;
        }
        self.conn.enter(Phase::Body);
        let read_on = async {
            loop {
                match self.wire.piece().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return true,
                    Err(_) => return false,
                }
            }
        };
        // Who waits for the answer before sending on gets it.
        tokio::time::timeout(GOODBYE, read_on).await.unwrap_or(false)
    }
}

/// The whole answer to a connection that there is no room for.
pub(crate) fn too_many_connections() -> Vec<u8> {
    let hint = "the operator can raise the limit with --max-connections";
    let body = refusal::body("this server has as many open connections as it may have", Some(hint));
    let length = body.len();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Retry-After: {RETRY_AFTER_SECONDS}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

/// `OPTIONS *` asks the server as a whole whether it is there.
fn is_ping(head: &Parts) -> bool {
    head.method == Method::OPTIONS && head.uri.path() == "*"
}

/// The answer is made, and there is no memory to keep it until its caller has read it.
fn no_room() -> Response<Bytes> {
    let hint = "try again in a moment; the operator can raise the limit with --max-buffered-bytes";
    let said = refusal::body("the requests and answers that wait fill the memory for them", Some(hint));
    let mut response = fault(StatusCode::SERVICE_UNAVAILABLE, said);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    response
}

/// What the network side itself has to say.
fn fault(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
