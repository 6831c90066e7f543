//! HTTP/1.1 by hyper: one connection, from its first byte to its last.
//!
//! Framing, chunks and header syntax are hyper's, and strict; time and size are ours (`conn`, `body`, `limits`).
use crate::{
    body::Body,
    caught::caught,
    conn::{Conn, Order, Phase, Watched},
    reactor::Core,
    service::HttpService,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
};
use tokio::net::TcpStream;
use xebec_core::Principal;

/// Serves one connection until it closes, is told to finish or outstays a limit.
pub(crate) async fn serve<S: HttpService>(
    stream: TcpStream,
    principal: Principal,
    service: Rc<S>,
    conn: Rc<Conn>,
    core: Rc<Core>,
) {
    let io = TokioIo::new(Watched::new(stream, Rc::clone(&conn)));
    let answer = service_fn(|request| respond(request, &principal, &*service, &conn, &core));
    let connection = http1::Builder::new()
        .half_close(false)
        // The sweeper holds the time limits.
        .header_read_timeout(None)
        .max_headers(core.limits.max_headers)
        .max_buf_size(core.limits.max_header_bytes.max(8192) as usize)
        .serve_connection(io, answer);
    let mut connection = pin!(connection);
    let mut finishing = false;
    let ended = poll_fn(|cx| {
        match conn.order(cx) {
            Order::Finish if !finishing => {
                finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            Order::Abort => return Poll::Ready(Ok(())),
            Order::Go | Order::Finish => {}
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(error = %error, "http connection ended with an error");
    }
}

async fn respond<S: HttpService>(
    request: Request<Incoming>,
    principal: &Principal,
    service: &S,
    conn: &Rc<Conn>,
    core: &Core,
) -> Result<Response<Full<Bytes>>, Infallible> {
    conn.enter(Phase::Busy);
    let (head, incoming) = request.into_parts();
    let body = Body::new(incoming, Rc::clone(conn), Rc::clone(&core.budget), core.limits.max_body_pieces);
    let answered = caught(pin!(service.call(principal, head, body))).await;
    let mut response = answered.unwrap_or_else(|_| {
        core.counters.panics.add(1);
        broken()
    });
    if core.drain.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    conn.enter(Phase::Done);
    Ok(response.map(Full::new))
}

fn broken() -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(br#"{"error":"internal error"}"#));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
