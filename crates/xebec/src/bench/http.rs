//! Load over HTTP/1.1: a connection per request in flight, the same bytes again and again.
use super::{
    payload::Payload,
    plan::Plan,
    report::{Outcome, Tally},
};
use anyhow::{Context as _, bail};
use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::spawn_local,
};

/// Most headers of an answer.
const HEADERS: usize = 32;

/// Sends until the plan is over.
pub(super) async fn load(plan: &Arc<Plan>, payload: &Arc<Payload>, count: u32, tally: &Rc<RefCell<Tally>>) -> anyhow::Result<()> {
    let mut lanes = Vec::new();
    for _ in 0..count {
        let (plan, payload, tally) = (Arc::clone(plan), Arc::clone(payload), Rc::clone(tally));
        lanes.push(spawn_local(async move { lane(&plan, &payload, &tally).await }));
    }
    for lane in lanes {
        lane.await??;
    }
    Ok(())
}

async fn lane(plan: &Plan, payload: &Payload, tally: &RefCell<Tally>) -> anyhow::Result<()> {
    let mut connection = Connection::open(plan).await?;
    while let Some(due) = plan.next().await {
        let outcome = match connection.request(&payload.bytes).await {
            Ok(status) => Outcome::Http(status),
            Err(error) => {
                // A server may close a connection, for example when it drains: the request counts as broken.
                connection = match Connection::open(plan).await {
                    Ok(connection) => connection,
                    Err(_) => {
                        tally.borrow_mut().broken(&error.to_string());
                        return Ok(());
                    }
                };
                Outcome::Broken(error.to_string())
            }
        };
        let done = Instant::now();
        if plan.counts(due) {
            tally.borrow_mut().add(outcome, done - due, payload.bytes.len());
        }
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(plan: &Plan) -> anyhow::Result<Self> {
        let address = plan.target.address;
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    /// Sends a request and reads its answer whole; returns the status.
    async fn request(&mut self, bytes: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(bytes).await?;
        self.buffer.clear();
        let (status, wanted) = loop {
            self.read().await?;
            if let Some(head) = head(&self.buffer)? {
                break head;
            }
        };
        while self.buffer.len() < wanted {
            self.read().await?;
        }
        if self.buffer.len() > wanted {
            bail!("the server sent more than its answer");
        }
        Ok(status)
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// Status and size of an answer, once its head is there.
fn head(buffer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(buffer)? else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
    let length = length.context("the answer has no Content-Length; this generator reads no other framing")?;
    Ok(Some((response.code.unwrap_or(0), head + length)))
}
