//! OTLP over gRPC: one connection, made when it is needed.
use super::{ANSWER_BYTES, ATTEMPT, Fault, Send, partial};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::{HeaderMap, Request};
use std::{io, time::Duration};
use tokio::{net::TcpStream, runtime::Runtime};
use xebec_net::wire::otlp::PartialSuccess;

const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What stands before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A collector that speaks gRPC.
pub(super) struct Grpc {
    runtime: Runtime,
    authority: String,
    connection: Option<SendRequest<Bytes>>,
}

impl Grpc {
    pub(super) fn new(authority: &str) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, authority: authority.to_owned(), connection: None })
    }
}

impl Send for Grpc {
    fn send(&mut self, request: Bytes) -> Result<Option<PartialSuccess>, Fault> {
        let Self { runtime, authority, connection } = self;
        let call = async { tokio::time::timeout(ATTEMPT, call(authority, connection, &request)).await };
        let outcome = runtime.block_on(call).unwrap_or_else(|_| {
            Err(Fault::later(format!("the collector does not answer within {} s", ATTEMPT.as_secs())))
        });
        if outcome.is_err() {
            // The next attempt has a connection of its own.
            self.connection = None;
        }
        outcome
    }
}

async fn connect(authority: &str) -> Result<SendRequest<Bytes>, Fault> {
    let lost = |error: &dyn std::fmt::Display| Fault::later(format!("cannot connect: {error}"));
    let stream = TcpStream::connect(authority).await.map_err(|error| lost(&error))?;
    stream.set_nodelay(true).map_err(|error| lost(&error))?;
    let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| lost(&error))?;
    tokio::spawn(async move {
        // How it ended shows in the next request.
        let _ = connection.await;
    });
    Ok(sender)
}

/// The connection from before, if it is still good, or a new one.
async fn ready(
    authority: &str,
    connection: &mut Option<SendRequest<Bytes>>,
) -> Result<SendRequest<Bytes>, Fault> {
    if let Some(before) = connection.take()
        && let Ok(ready) = before.ready().await
    {
        return Ok(ready);
    }
    let broken = |error: h2::Error| Fault::later(error.to_string());
    connect(authority).await?.ready().await.map_err(broken)
}

async fn call(
    authority: &str,
    connection: &mut Option<SendRequest<Bytes>>,
    request: &Bytes,
) -> Result<Option<PartialSuccess>, Fault> {
    let mut sender = ready(authority, connection).await?;
    let broken = |error: h2::Error| Fault::later(error.to_string());
    let head = Request::post(format!("http://{authority}{METHOD}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| Fault::Never { why: error.to_string() })?;
    let (response, mut stream) = sender.send_request(head, false).map_err(broken)?;
    let mut message = BytesMut::with_capacity(PREFIX_BYTES + request.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(request.len()).unwrap_or(u32::MAX));
    message.extend_from_slice(request);
    stream.send_data(message.freeze(), true).map_err(broken)?;
    let (head, body) = response.await.map_err(broken)?.into_parts();
    if !head.status.is_success() {
        return Err(Fault::Never { why: format!("the collector answers with status {}", head.status) });
    }
    let answered = answer(&head.headers, body).await?;
    *connection = Some(sender);
    Ok(answered)
}

async fn answer(head: &HeaderMap, mut body: RecvStream) -> Result<Option<PartialSuccess>, Fault> {
    let broken = |error: h2::Error| Fault::later(error.to_string());
    let mut message = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(broken)?;
        body.flow_control().release_capacity(piece.len()).map_err(broken)?;
        if message.len() + piece.len() > ANSWER_BYTES {
            return Err(Fault::Never { why: format!("its answer has more than {ANSWER_BYTES} bytes") });
        }
        message.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    let said =
        |name: &str| trailers.get(name).or_else(|| head.get(name)).and_then(|value| value.to_str().ok());
    let status: Option<u32> = said("grpc-status").and_then(|status| status.parse().ok());
    let why = || {
        let text: String = said("grpc-message").unwrap_or_default().chars().take(200).collect();
        format!("the collector answers with gRPC status {}: {text}", status.unwrap_or(2))
    };
    match status {
        Some(0) => Ok(partial(message.get(PREFIX_BYTES..).unwrap_or_default())),
        // Cancelled, deadline exceeded, aborted, out of range, unavailable, data loss.
        Some(1 | 4 | 10 | 11 | 14 | 15) => Err(Fault::Later { after: None::<Duration>, why: why() }),
        _ => Err(Fault::Never { why: why() }),
    }
}
