//! gRPC on `h2`, without a framework: one connection, its streams, and the wire of one call.
//!
//! All streams of a connection are driven by the connection's own task: what one read of the socket brought is
//! decoded, submitted and answered together, and one write takes all the answers. Not here: what methods mean.
use crate::{
    conn::{Conn, Order, Phase, Watched},
    reactor::{Core, Port},
    service::GrpcService,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use h2::{
    Ping,
    server::{Builder, Connection},
};
use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::net::TcpStream;
use xebec_core::Principal;

mod call;
mod frames;
mod message;
pub(crate) mod split;
mod status;
mod stream;

pub(crate) use frames::Frames;

/// How much a client may send ahead of being read, on one connection: enough for the largest message not to crawl.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// The same for one stream.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Frames a peer may send us at once; larger ones save a tensor of megabytes its frame heads.
const MAX_FRAME_BYTES: u32 = 256 << 10;

type H2 = Connection<Watched<TcpStream>, Bytes>;

/// Serves one connection until it closes, is told to finish or outstays a limit.
pub(crate) async fn serve<S: GrpcService>(
    stream: TcpStream,
    principal: Principal,
    port: Rc<Port<S>>,
    conn: Rc<Conn>,
    core: Rc<Core>,
) {
    let Some(h2) = handshake(Watched::new(stream, Rc::clone(&conn)), &conn, &core).await else { return };
    if let Err(error) = drive(h2, &principal, &port, &conn, &core).await {
        tracing::debug!(error = %error, "grpc connection ended with an error");
    }
}

async fn handshake(io: Watched<TcpStream>, conn: &Conn, core: &Core) -> Option<H2> {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(core.limits.max_concurrent_streams)
        .max_header_list_size(core.limits.max_header_bytes)
        .max_pending_accept_reset_streams(core.limits.max_pending_resets)
        .max_concurrent_reset_streams(core.limits.max_pending_resets)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    let mut handshake = pin!(builder.handshake(io));
    poll_fn(|cx| match conn.order(cx) {
        Order::Abort => Poll::Ready(None),
        Order::Go | Order::Finish => handshake.as_mut().poll(cx).map(Result::ok),
    })
    .await
}

async fn drive<S: GrpcService>(
    mut h2: H2,
    principal: &Principal,
    port: &Port<S>,
    conn: &Conn,
    core: &Core,
) -> Result<(), h2::Error> {
    let (mut calls, mut pings) = (FuturesUnordered::new(), None);
    let mut finishing = false;
    conn.can_be_asked();
    poll_fn(|cx| {
        match conn.order(cx) {
            Order::Finish if !finishing => {
                finishing = true;
                h2.graceful_shutdown();
            }
            Order::Abort => return Poll::Ready(Ok(())),
            Order::Go | Order::Finish => {}
        }
        if conn.is_to_be_asked() {
            pings = pings.take().or_else(|| h2.ping_pong());
            if let Some(pings) = &mut pings {
                // The last answer has to be taken before there is another; what comes counts, and not what it is.
                let _ = pings.poll_pong(cx);
                let _ = pings.send_ping(Ping::opaque());
            }
        }
        let mut came = false;
        loop {
            while let Poll::Ready(accepted) = h2.poll_accept(cx) {
                let Some(accepted) = accepted else { return Poll::Ready(Ok(())) };
                let (request, respond) = accepted?;
                came = true;
                calls.push(call::answer(request, respond, principal, port, core));
            }
            if !advance(&mut calls, cx) {
                break;
            }
            // Answers wait in h2's buffers now: accepting once more writes them.
        }
        note_phase(conn, calls.is_empty(), came);
        Poll::Pending
    })
    .await
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
