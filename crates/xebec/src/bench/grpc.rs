//! Load over gRPC: a few connections, many streams on each.
use super::{
    payload::Payload,
    plan::Plan,
    report::{Outcome, Tally},
    target::Target,
};
use anyhow::{Context as _, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{self, SendRequest};
use http::{HeaderMap, HeaderValue, Request, Uri, request::Parts};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};
use tokio::{net::TcpStream, task::spawn_local};

/// Windows that no answer of a bench fills.
const WINDOW_BYTES: u32 = 1 << 30;

async fn connect(target: &Target) -> anyhow::Result<SendRequest<Bytes>> {
    let address = target.address;
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
    let (send, connection) = builder.handshake(stream).await.with_context(|| format!("{address} does not speak HTTP/2"))?;
    spawn_local(async move {
        // How it ended shows in the requests that were on it.
        let _ = connection.await;
    });
    Ok(send)
}

fn request(target: &Target, path: &str) -> anyhow::Result<Parts> {
    let uri: Uri = format!("http://{}{path}", target.authority).parse()?;
    let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
    Ok(request.body(())?.into_parts().0)
}

/// Calls a method once, outside of any load.
pub(super) fn unary(target: &Target, path: &str, message: &[u8]) -> anyhow::Result<Bytes> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(tokio::task::LocalSet::new().run_until(async {
        let send = connect(target).await?;
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len())?);
        framed.extend_from_slice(message);
        let (status, said, body) = exchange(send, request(target, path)?, framed.freeze()).await?;
        if status != 0 {
            bail!("gRPC status {status}: {said}");
        }
        Ok(body.slice(5.min(body.len())..))
    }))
}

/// Sends until the plan is over.
pub(super) async fn load(
    plan: &Arc<Plan>,
    payload: &Arc<Payload>,
    count: u32,
    connections: u32,
    tally: &Rc<RefCell<Tally>>,
) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    for _ in 0..connections {
        senders.push(connect(&plan.target).await?);
    }
    let parts = request(&plan.target, &payload.path)?;
    let mut lanes = Vec::new();
    for (_, sender) in (0..count).zip(senders.iter().cycle()) {
        let (plan, payload, tally) = (Arc::clone(plan), Arc::clone(payload), Rc::clone(tally));
        let (sender, parts) = (sender.clone(), parts.clone());
        lanes.push(spawn_local(async move { lane(&plan, &payload, &tally, sender, &parts).await }));
    }
    for lane in lanes {
        lane.await?;
    }
    Ok(())
}

async fn lane(plan: &Plan, payload: &Payload, tally: &RefCell<Tally>, mut sender: SendRequest<Bytes>, parts: &Parts) {
    while let Some(due) = plan.next().await {
        let outcome = match exchange(sender.clone(), parts.clone(), payload.bytes.clone()).await {
            Ok((status, _, _)) => Outcome::Grpc(status),
            Err(error) => {
                if let Ok(fresh) = connect(&plan.target).await {
                    sender = fresh;
                } else {
                    tally.borrow_mut().broken(&error.to_string());
                    return;
                }
                Outcome::Broken(error.to_string())
            }
        };
        let done = Instant::now();
        if plan.counts(due) {
            tally.borrow_mut().add(outcome, done - due, payload.bytes.len());
        }
    }
}

/// One call: its status, message and body.
async fn exchange(send: SendRequest<Bytes>, parts: Parts, body: Bytes) -> anyhow::Result<(u32, String, Bytes)> {
    let mut send = send.ready().await?;
    let (response, mut stream) = send.send_request(Request::from_parts(parts, ()), false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.headers.contains_key("grpc-status") {
        let (status, said) = status(&head.headers);
        return Ok((status, said, Bytes::new()));
    }
    let mut whole = Bytes::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let _ = body.flow_control().release_capacity(piece.len());
        whole = if whole.is_empty() { piece } else { [whole, piece].concat().into() };
    }
    match body.trailers().await? {
        Some(trailers) => {
            let (status, said) = status(&trailers);
            Ok((status, said, whole))
        }
        None => bail!("the answer has no gRPC status (HTTP {})", head.status.as_u16()),
    }
}

fn status(headers: &HeaderMap) -> (u32, String) {
    let text = |name: &str| headers.get(name).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    let status = text("grpc-status").and_then(|status| status.parse().ok()).unwrap_or(2);
    (status, text("grpc-message").unwrap_or_default().into_owned())
}
