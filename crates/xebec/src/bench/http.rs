//! Load over HTTP/1.1: a connection per request in flight, the same bytes again and again.
use super::{
    payload::Payload,
    plan::{Plan, Turn},
    tally::{Answer, Outcome, Tally},
};
use anyhow::{Context as _, bail};
use std::{cell::RefCell, rc::Rc, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Most headers of an answer.
const HEADERS: usize = 32;
/// Largest head of an answer.
const HEAD_BYTES: usize = 64 << 10;

/// Sends until the plan is over.
pub(super) async fn load(
    plan: &Arc<Plan>,
    payload: &Arc<Payload>,
    count: u32,
    tally: &Rc<RefCell<Tally>>,
) -> anyhow::Result<()> {
    let turn = Rc::new(Turn::default());
    let mut lanes = JoinSet::new();
    for number in 0..count as usize {
        let (plan, payload) = (Arc::clone(plan), Arc::clone(payload));
        let (tally, turn) = (Rc::clone(tally), Rc::clone(&turn));
        lanes.spawn_local(async move { lane(&plan, &payload, &tally, &turn, number).await });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    Ok(())
}

async fn lane(
    plan: &Plan,
    payload: &Payload,
    tally: &RefCell<Tally>,
    turn: &Turn,
    number: usize,
) -> anyhow::Result<()> {
    let mut connection = Connection::open(plan).await?;
    while let Some(ticket) = plan.next(turn).await {
        tally.borrow_mut().sent(number, &ticket, payload.bytes.len());
        let answer = connection.request(&payload.bytes).await;
        let over = connection.closing || answer.is_err();
        let answer = answer.unwrap_or_else(|error| Answer::broken(&error));
        tally.borrow_mut().add(plan, number, &ticket, answer);
        // A server may close a connection, for example when it drains: only a request that it broke is a failure, and
        // the lane goes on.
        if over {
            let Ok(fresh) = Connection::open(plan).await else {
                tally.borrow_mut().gave_up += 1;
                return Ok(());
            };
            connection = fresh;
        }
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The server has said that it takes no more requests here.
    closing: bool,
}

impl Connection {
    async fn open(plan: &Plan) -> anyhow::Result<Self> {
        let address = plan.target.address;
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10), closing: false })
    }

    /// Sends a request and reads its answer whole.
    async fn request(&mut self, bytes: &[u8]) -> anyhow::Result<Answer> {
        self.stream.write_all(bytes).await?;
        self.buffer.clear();
        let Head { status, wanted, closing } = loop {
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
        self.closing = closing;
        Ok(Answer { outcome: Outcome::Http(status), bytes: wanted })
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Size of the whole answer.
    wanted: usize,
    /// No other request is answered on this connection.
    closing: bool,
}

/// Reads the head of an answer, once it is there.
fn head(buffer: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(buffer).context("the answer is not HTTP/1.1")?
    else {
        if buffer.len() > HEAD_BYTES {
            bail!("the answer's head is larger than {HEAD_BYTES} bytes");
        }
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let length = value("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.context("the answer has no Content-Length; this generator reads no other framing")?;
    let wanted = head.checked_add(length).context("the answer's Content-Length is out of range")?;
    // Before HTTP/1.1 a connection ended with its answer unless both sides agreed.
    let closing = match value("connection") {
        Some(said) => !said.eq_ignore_ascii_case("keep-alive"),
        None => response.version == Some(0),
    };
    Ok(Some(Head { status: response.code.unwrap_or(0), wanted, closing }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_an_answer_is_known_once_its_head_is_there() {
        let whole = b"HTTP/1.1 503 Busy\r\ncontent-LENGTH: 5\r\n\r\nhello";
        let want = Head { status: 503, wanted: whole.len(), closing: false };
        assert_eq!(head(whole).unwrap(), Some(want));
        assert_eq!(head(&whole[..30]).unwrap(), None);
    }

    #[test]
    fn a_connection_that_the_server_will_close_is_known_by_its_answer() {
        let closing =
            |head_lines: &str| head(format!("{head_lines}\r\n\r\n").as_bytes()).unwrap().unwrap().closing;
        assert!(closing("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nConnection: Close"));
        assert!(closing("HTTP/1.0 200 OK\r\ncontent-length: 0"));
        assert!(!closing("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive"));
    }

    #[test]
    fn an_answer_that_cannot_be_measured_is_refused_with_the_reason() {
        let said = |answer: &[u8]| head(answer).unwrap_err().to_string();
        assert!(said(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").contains("no Content-Length"));
        assert!(said(b"SSH-2.0-x\r\n\r\n").contains("not HTTP/1.1"));
        let huge = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", usize::MAX);
        assert!(said(huge.as_bytes()).contains("out of range"));
    }
}
