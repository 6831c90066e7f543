//! Load over gRPC: a few connections, many streams on each.
use super::{
    payload::{PREFIX_BYTES, Payload, framed},
    plan::{Plan, Turn},
    tally::{Answer, Outcome, Tally},
    target::Target,
};
use anyhow::{Context as _, bail};
use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, HeaderValue, Request, Uri, request::Parts};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    task::{JoinSet, spawn_local},
};

/// Windows that no answer of a bench fills.
const WINDOW_BYTES: u32 = 1 << 30;

async fn connect(target: &Target) -> anyhow::Result<SendRequest<Bytes>> {
    let address = target.address;
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
    let handshake = builder.handshake(stream).await;
    let (send, connection) = handshake.with_context(|| format!("{address} does not speak HTTP/2"))?;
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
        let call = async {
            let send = connect(target).await?;
            let mut whole = BytesMut::new();
            let request = request(target, path)?;
            let status =
                exchange(send, request, framed(message)?, |piece| whole.extend_from_slice(piece)).await?;
            if status.code != 0 {
                bail!("gRPC status {}: {}", status.code, status.said);
            }
            Ok(whole.split_off(PREFIX_BYTES.min(whole.len())).freeze())
        };
        let answer = tokio::time::timeout(super::target::PATIENCE, call).await;
        answer.with_context(|| format!("no answer within {} s", super::target::PATIENCE.as_secs()))?
    }))
}

/// A connection that its lanes share, and how often it was made anew.
struct Link(Mutex<(u64, SendRequest<Bytes>)>);

impl Link {
    async fn get(&self) -> (u64, SendRequest<Bytes>) {
        self.0.lock().await.clone()
    }

    /// Replaces the connection of this age; the first lane that saw it break does so for all.
    async fn renew(&self, target: &Target, age: u64) -> anyhow::Result<(u64, SendRequest<Bytes>)> {
        let mut link = self.0.lock().await;
        if link.0 == age {
            *link = (age + 1, connect(target).await?);
        }
        Ok(link.clone())
    }
}

/// Sends until the plan is over.
pub(super) async fn load(
    plan: &Arc<Plan>,
    payload: &Arc<Payload>,
    count: u32,
    connections: u32,
    tally: &Rc<RefCell<Tally>>,
) -> anyhow::Result<()> {
    let mut links = Vec::new();
    for _ in 0..connections {
        links.push(Rc::new(Link(Mutex::new((0, connect(&plan.target).await?)))));
    }
    let parts = request(&plan.target, &payload.path)?;
    let turn = Rc::new(Turn::default());
    let mut lanes = JoinSet::new();
    for (number, link) in (0..count as usize).zip(links.iter().cycle()) {
        let (plan, payload, parts) = (Arc::clone(plan), Arc::clone(payload), parts.clone());
        let (tally, turn, link) = (Rc::clone(tally), Rc::clone(&turn), Rc::clone(link));
        lanes.spawn_local(async move { lane((&plan, &payload, &parts), &tally, &turn, &link, number).await });
    }
    while let Some(lane) = lanes.join_next().await {
        lane?;
    }
    Ok(())
}

async fn lane(
    (plan, payload, parts): (&Plan, &Payload, &Parts),
    tally: &RefCell<Tally>,
    turn: &Turn,
    link: &Link,
    number: usize,
) {
    let (mut age, mut sender) = link.get().await;
    while let Some(ticket) = plan.next(turn).await {
        tally.borrow_mut().sent(number, &ticket, payload.bytes.len());
        let status = exchange(sender.clone(), parts.clone(), payload.bytes.clone(), |_| ()).await;
        let broken = status.is_err();
        let answer = match status {
            Ok(status) => Answer { outcome: Outcome::Grpc(status.code), bytes: status.bytes },
            Err(error) => Answer::broken(&error),
        };
        tally.borrow_mut().add(plan, number, &ticket, answer);
        if broken {
            let Ok(fresh) = link.renew(&plan.target, age).await else {
                tally.borrow_mut().gave_up += 1;
                return;
            };
            (age, sender) = fresh;
        }
    }
}

struct Status {
    code: u32,
    said: String,
    /// Of the messages.
    bytes: usize,
}

/// One call; its messages go to `each` as they come.
async fn exchange(
    send: SendRequest<Bytes>,
    parts: Parts,
    body: Bytes,
    mut each: impl FnMut(&[u8]),
) -> anyhow::Result<Status> {
    let mut send = send.ready().await?;
    let (response, mut stream) = send.send_request(Request::from_parts(parts, ()), false)?;
    stream.send_data(body, true)?;
    let (head, mut body) = response.await?.into_parts();
    if head.headers.contains_key("grpc-status") {
        return Ok(status(&head.headers, 0));
    }
    let mut bytes = 0;
    while let Some(piece) = next(&mut body).await? {
        bytes += piece.len();
        each(&piece);
    }
    match body.trailers().await? {
        Some(trailers) => Ok(status(&trailers, bytes)),
        None => bail!("the answer has no gRPC status (HTTP {})", head.status.as_u16()),
    }
}

async fn next(body: &mut RecvStream) -> anyhow::Result<Option<Bytes>> {
    let Some(piece) = body.data().await.transpose()? else { return Ok(None) };
    body.flow_control().release_capacity(piece.len())?;
    Ok(Some(piece))
}

fn status(headers: &HeaderMap, bytes: usize) -> Status {
    let text = |name: &str| headers.get(name).map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    // A status that is no number is as good as UNKNOWN.
    let code = text("grpc-status").and_then(|status| status.parse().ok()).unwrap_or(2);
    let said = if code == 0 { String::new() } else { text("grpc-message").unwrap_or_default().into_owned() };
    Status { code, said, bytes }
}
