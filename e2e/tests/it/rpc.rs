//! gRPC over the `h2` client: every frame of a call is in the test's hands.
use crate::wire::BOUND;
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, Response};
use prost::Message;
use std::net::SocketAddr;
use tokio::net::TcpStream;
use xebec_net::wire::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, model_infer_request::InferInputTensor,
};

/// The method that infers as long as messages come.
pub(crate) const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The method that infers.
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Status codes of gRPC.
pub(crate) const OK: u8 = 0;
pub(crate) const CANCELLED: u8 = 1;
pub(crate) const INVALID_ARGUMENT: u8 = 3;
pub(crate) const NOT_FOUND: u8 = 5;
pub(crate) const PERMISSION_DENIED: u8 = 7;
pub(crate) const RESOURCE_EXHAUSTED: u8 = 8;
pub(crate) const UNIMPLEMENTED: u8 = 12;
pub(crate) const UNAVAILABLE: u8 = 14;

/// What a call came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) words: String,
    /// The answer without its prefix; empty if there is none.
    pub(crate) message: Bytes,
}

/// Runs a test's calls; the bound fails one that hangs.
pub(crate) fn run<T>(calls: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(BOUND, calls).await.unwrap() })
}

pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    connect_with(address, &Builder::new()).await
}

pub(crate) async fn connect_with(address: SocketAddr, settings: &Builder) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = settings.handshake(stream).await.unwrap();
    // Its end is seen by every call on it.
    tokio::spawn(connection);
    client
}

/// The message behind its prefix.
pub(crate) fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(flag);
    bytes.put_u32(message.len().try_into().unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}

/// The head of a call.
pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
}

/// Sends a whole call.
///
/// # Errors
/// The connection takes no more calls.
pub(crate) async fn start(
    client: &SendRequest<Bytes>,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<ResponseFuture, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut stream) = client.send_request(head(path, headers), false)?;
    stream.send_data(body, true)?;
    Ok(response)
}

/// Reads an answer to its end.
///
/// # Errors
/// The stream or the connection ended before it.
pub(crate) async fn finish(response: ResponseFuture) -> Result<Outcome, h2::Error> {
    let (head, mut body) = response.await.map(Response::into_parts)?;
    let data = whole(&mut body).await?;
    let trailers = body.trailers().await?.unwrap_or_default();
    let ends = |name: &str| text(&head.headers, name).or_else(|| text(&trailers, name));
    Ok(Outcome {
        code: ends("grpc-status").unwrap_or_else(|| panic!("no grpc-status: {head:?}")).parse().unwrap(),
        words: ends("grpc-message").unwrap_or_default(),
        message: data.slice(data.len().min(5)..),
    })
}

async fn whole(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut data = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

/// One call from its start to its end.
///
/// # Errors
/// As [`start`] and [`finish`].
pub(crate) async fn call(
    client: &SendRequest<Bytes>,
    path: &str,
    message: &impl Message,
) -> Result<Outcome, h2::Error> {
    finish(start(client, path, &[], framed(0, &message.encode_to_vec())).await?).await
}

/// A call of many messages, both ways open.
pub(crate) struct Talk {
    pub(crate) up: SendStream<Bytes>,
    down: RecvStream,
    left: BytesMut,
}

impl Talk {
    pub(crate) async fn open(client: &SendRequest<Bytes>, path: &str) -> Self {
        Self::open_with(client, path, &[]).await
    }

    pub(crate) async fn open_with(
        client: &SendRequest<Bytes>,
        path: &str,
        metadata: &[(&str, &str)],
    ) -> Self {
        let mut client = client.clone().ready().await.unwrap();
        let (response, up) = client.send_request(head(path, metadata), false).unwrap();
        Self { up, down: response.await.unwrap().into_body(), left: BytesMut::new() }
    }

    pub(crate) fn say(&mut self, message: &impl Message) {
        self.up.send_data(framed(0, &message.encode_to_vec()), false).unwrap();
    }

    /// The next answer, or nothing at the end.
    pub(crate) async fn hear(&mut self) -> Option<Bytes> {
        loop {
            if let Some(([_, length @ ..], rest)) = self.left.split_first_chunk::<5>() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    return Some(self.left.split_to(5 + length).freeze().slice(5..));
                }
            }
            let piece = self.down.data().await?.unwrap();
            self.down.flow_control().release_capacity(piece.len()).unwrap();
            self.left.extend_from_slice(&piece);
        }
    }

    /// The status and its words, where there are no more answers.
    pub(crate) async fn end(&mut self) -> (u8, String) {
        assert_eq!(self.hear().await, None);
        let trailers = self.down.trailers().await.unwrap().unwrap();
        let words = text(&trailers, "grpc-message").unwrap_or_default();
        (text(&trailers, "grpc-status").unwrap().parse().unwrap(), words)
    }
}

/// A request for `scaler` of one row.
pub(crate) fn scaler() -> ModelInferRequest {
    let contents =
        InferTensorContents { fp32_contents: vec![1.0, 2.0, 3.0, 4.0], ..InferTensorContents::default() };
    ModelInferRequest {
        model_name: "scaler".into(),
        inputs: vec![input("x", "FP32", &[1, 4], Some(contents))],
        ..ModelInferRequest::default()
    }
}

pub(crate) fn input(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Option<InferTensorContents>,
) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents,
        ..InferInputTensor::default()
    }
}

/// Whether this is the right answer to [`scaler`].
pub(crate) fn is_scaled(message: &Bytes) -> bool {
    let answer = ModelInferResponse::decode(message.clone()).unwrap();
    answer.raw_output_contents == [Bytes::from([3f32, 5.0, 7.0, 9.0].map(f32::to_le_bytes).concat())]
}

/// The server still does its job on a new connection.
pub(crate) async fn still_serves(address: SocketAddr) {
    let outcome = call(&connect(address).await, INFER, &scaler()).await.unwrap();
    assert!(outcome.code == OK && is_scaled(&outcome.message), "{outcome:?}");
}
