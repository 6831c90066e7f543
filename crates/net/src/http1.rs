//! HTTP/1.1 by hyper: one connection, from its first byte to its last.
//!
//! Framing, chunks and header syntax are hyper's; time and size are ours (`conn`, `body`, `limits`), and so is the
//! end: a request whose first byte was read is answered also while draining, and a caller that is still sending gets
//! to read why it was refused.
use crate::{
    body::Body,
    caught::caught,
    conn::{Conn, GOODBYE, Order, Phase, Watched},
    reactor::Core,
    service::HttpService,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use xebec_core::Principal;

/// hyper takes no smaller buffer.
const HYPERS_LEAST_BUFFER: usize = 8192;

/// Most of a refused body that is read for the caller to come to its answer.
const LINGER_BYTES: usize = 16 << 20;

/// A body of a refused request that is read to its end, so that the connection goes on.
const SKIPPED_BYTES: u64 = 64 << 10;

/// Serves one connection until it closes, is told to finish or outstays a limit.
pub(crate) async fn serve<S: HttpService>(
    stream: TcpStream,
    principal: Principal,
    service: Rc<S>,
    conn: Rc<Conn>,
    core: Rc<Core>,
) {
    let mut io = Watched::new(stream, Rc::clone(&conn));
    loop {
        let closes = Cell::new(false);
        let Some((mut rest, unused)) = live(io, &principal, &*service, &conn, &core, &closes).await else {
            return;
        };
        if closes.get() {
            return linger(rest.into_inner()).await;
        }
        if unused.is_empty() {
            return;
        }
        // The beginning of a request was read before the connection was told to finish: it gets its answer.
        rest.put_back(unused);
        io = rest;
    }
}

/// Serves until hyper is done; returns the stream and what was read of it and not used, unless it was cut off. `closes`
/// tells that a body was left unread.
async fn live<S: HttpService>(
    io: Watched<TcpStream>,
    principal: &Principal,
    service: &S,
    conn: &Rc<Conn>,
    core: &Rc<Core>,
    closes: &Cell<bool>,
) -> Option<(Watched<TcpStream>, Bytes)> {
    let answer = service_fn(|request| respond(request, principal, service, conn, core, closes));
    let mut connection = http1::Builder::new()
        .half_close(false)
        // The sweeper holds the time limits.
        .header_read_timeout(None)
        .max_headers(core.limits.max_headers)
        // A little more than a head may have, so that one a little too large is told so in our words.
        .max_buf_size(core.limits.max_header_bytes as usize + HYPERS_LEAST_BUFFER)
        .serve_connection(TokioIo::new(io), answer);
    let mut finishing = false;
    let ended = poll_fn(|cx| {
        loop {
            let order = conn.order(cx);
            if order == Order::Abort {
                return Poll::Ready(None);
            }
            let poll = Pin::new(&mut connection).poll(cx);
            // Only between requests: one that waits behind another in hyper's buffer has been read as well.
            if poll.is_pending() && order == Order::Finish && !finishing && conn.phase() == Phase::Idle {
                finishing = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return poll.map(Some);
        }
    });
    if let Err(error) = ended.await? {
        tracing::debug!(error = %error, "http connection ended with an error");
        closes.set(true);
        // What is in hyper's buffer is what it could not read.
        return Some((connection.into_parts().io.into_inner(), Bytes::new()));
    }
    let parts = connection.into_parts();
    let unused = if finishing { parts.read_buf } else { Bytes::new() };
    Some((parts.io.into_inner(), unused))
}

/// Says that nothing more comes, and reads on for a moment: closing a socket with unread bytes would take the answer
/// away from a caller that is still sending.
async fn linger(mut stream: TcpStream) {
    let read_on = async {
        let (mut left, mut buffer) = (LINGER_BYTES, vec![0; 64 << 10]);
        stream.shutdown().await?;
        while left > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                some => left = left.saturating_sub(some),
            }
        }
        std::io::Result::Ok(())
    };
    // Whether the caller went away or time ran out: there is nothing more to be done for it.
    let _ = tokio::time::timeout(GOODBYE, read_on).await;
}

async fn respond<S: HttpService>(
    request: Request<Incoming>,
    principal: &Principal,
    service: &S,
    conn: &Rc<Conn>,
    core: &Rc<Core>,
    closes: &Cell<bool>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    conn.enter(Phase::Busy);
    let (head, incoming) = request.into_parts();
    let head_bytes = wire_bytes(&head);
    let whole_bytes = incoming.size_hint().exact().map(|body| head_bytes.saturating_add(body));
    let asks_first = head.headers.contains_key(header::EXPECT);
    let body = Body::new(incoming, Rc::clone(conn), Rc::clone(core));
    let mut response = if head_bytes > u64::from(core.limits.max_header_bytes) {
        drop(body);
        conn.take_unread();
        closes.set(true);
        head_too_large(core.limits.max_header_bytes)
    } else {
        let answered = caught(pin!(service.call(principal, head, body))).await;
        answered.unwrap_or_else(|_| {
            core.counters.panics.add(1);
            fault(StatusCode::INTERNAL_SERVER_ERROR, "internal error", "the server's log has the reason")
        })
    };
    if let Some(body) = conn.take_unread() {
        // Who asks before sending has sent nothing that would have to be skipped.
        closes.set(asks_first || !skip(body, conn).await);
    }
    let own = whole_bytes.and_then(|bytes| usize::try_from(bytes).ok());
    let nothing_behind = own == Some(conn.received());
    // Of a body without a length nobody knows how much of what came was its.
    conn.hand_out(own.unwrap_or(usize::MAX));
    // Behind a close no answer may follow, so it is said only if no request can be waiting behind this one.
    if closes.get() || (core.drain.is_draining() && nothing_behind) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    conn.enter(Phase::Done);
    Ok(response.map(Full::new))
}

/// Reads a short body that nobody wanted, because the next request stands behind it. Whether its end was reached.
async fn skip(mut body: Incoming, conn: &Conn) -> bool {
    if body.size_hint().upper().is_none_or(|most| most > SKIPPED_BYTES) {
        return false;
    }
    conn.enter(Phase::Body);
    let read_on = async {
        while let Some(frame) = body.frame().await {
            if frame.is_err() {
                return false;
            }
        }
        true
    };
    // Who waits for the answer before sending on gets it.
    tokio::time::timeout(GOODBYE, read_on).await.unwrap_or(false)
}

/// Size of a head as clients write it, in bytes.
fn wire_bytes(head: &Parts) -> u64 {
    let line = head.method.as_str().len() + head.uri.path_and_query().map_or(1, |path| path.as_str().len());
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    (line + "  HTTP/1.1\r\n\r\n".len() + headers.sum::<usize>()) as u64
}

fn head_too_large(limit_bytes: u32) -> Response<Bytes> {
    let message = format!("the request's head is larger than the limit of {limit_bytes} bytes");
    let hint = "the operator can raise the limit with --max-header-bytes";
    fault(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &message, hint)
}

/// What the network side itself has to say. No text here needs escaping.
fn fault(status: StatusCode, error: &str, hint: &str) -> Response<Bytes> {
    let mut response = Response::new(format!(r#"{{"error":"{error}","hint":"{hint}"}}"#).into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
