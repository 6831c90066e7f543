//! Inferences in a stream: each message by itself, errors in band.
use crate::server::{Server, until_async};
use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream, client::SendRequest};
use http::Request;
use proptest::{collection::vec, prelude::*};
use prost::Message as _;
use std::sync::LazyLock;
use xebec_core::{TenantId, port::Upstream as _};
use xebec_net::wire::{
    inference::{
        InferParameter, ModelInferRequest, ModelStreamInferResponse, infer_parameter::ParameterChoice,
        model_infer_request::InferInputTensor,
    },
    reflection::{
        ServerReflectionRequest, ServerReflectionResponse, server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
    },
};
use xebec_serve::Dialect;

const STREAM: &str = "http://localhost/inference.GRPCInferenceService/ModelStreamInfer";

fn row(model: &str, id: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        id: id.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![[1.0f32, 2.5].map(f32::to_le_bytes).concat().into()],
        ..ModelInferRequest::default()
    }
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

async fn open(client: &mut SendRequest<Bytes>) -> (SendStream<Bytes>, RecvStream) {
    let request = Request::post(STREAM).header("content-type", "application/grpc").body(()).unwrap();
    let (response, up) = client.send_request(request, false).unwrap();
    (up, response.await.unwrap().into_body())
}

/// Every answer, the status and its words.
async fn rest(mut down: RecvStream) -> (Vec<ModelStreamInferResponse>, String, String) {
    let (mut answers, mut data) = (Vec::new(), bytes::BytesMut::new());
    while let Some(piece) = down.data().await {
        let piece = piece.unwrap();
        down.flow_control().release_capacity(piece.len()).unwrap();
        data.extend_from_slice(&piece);
    }
    let mut data = data.freeze();
    while data.has_remaining() {
        assert_eq!(data.get_u8(), 0);
        let length = data.get_u32() as usize;
        answers.push(ModelStreamInferResponse::decode(data.split_to(length)).unwrap());
    }
    let trailers = down.trailers().await.unwrap().unwrap();
    let get = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    (answers, get("grpc-status"), get("grpc-message"))
}

/// What is sent, and how it is answered.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Right,
    Marked,
    Last,
    Unknown,
    Full,
    TooWide,
    /// A message whose input is none.
    BrokenInput,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Right, Self::Marked, Self::Last, Self::Unknown, Self::Full, Self::TooWide, Self::BrokenInput];

    fn message(self, id: &str) -> Vec<u8> {
        let flag = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        match self {
            Self::Right => row("echo", ""),
            Self::Marked => row("echo", id),
            Self::Last => ModelInferRequest {
                parameters: [("triton_enable_empty_final_response".to_owned(), flag)].into(),
                ..row("echo", id)
            },
            Self::Unknown => row("none", id),
            Self::Full => row("full", id),
            Self::TooWide => ModelInferRequest {
                inputs: vec![InferInputTensor { datatype: "FP99".into(), ..row("", "").inputs.remove(0) }],
                ..row("echo", id)
            },
            Self::BrokenInput => {
                let mut bytes = ModelInferRequest { inputs: Vec::new(), ..row("echo", id) }.encode_to_vec();
                bytes.extend([0x2a, 2, 0x0a, 9]);
                return bytes;
            }
        }
        .encode_to_vec()
    }

    /// The words of the error, if it is one.
    fn words(self) -> Option<&'static str> {
        match self {
            Self::Right | Self::Marked | Self::Last => None,
            Self::Unknown => Some("Request for unknown model: 'none' is not found"),
            Self::Full => Some("Exceeds maximum queue size"),
            Self::TooWide => Some("input 'x': 'FP99' is not a datatype"),
            Self::BrokenInput => {
                Some("the message is not a ModelInferRequest: a field ends after the message")
            }
        }
    }

    fn check(self, id: &str, answer: &ModelStreamInferResponse) {
        let response = answer.infer_response.clone().unwrap_or_default();
        match self.words() {
            Some(words) => {
                assert!(answer.error_message.contains(words), "{self:?}: {}", answer.error_message);
                // The model is named before the mark stands in a message: of one that was not read, there is none.
                let marked = if matches!(self, Self::Unknown) { "" } else { id };
                assert_eq!((response.id.as_str(), response.outputs.len()), (marked, 0), "{self:?}");
            }
            None => {
                assert_eq!(answer.error_message, "");
                assert_eq!(response.raw_output_contents, row("", "").raw_input_contents);
                assert_eq!(response.id, if matches!(self, Self::Right) { "" } else { id });
                let last = response.parameters.get("triton_final_response");
                let said = last.and_then(|last| last.parameter_choice.clone());
                let wanted = matches!(self, Self::Last).then_some(ParameterChoice::BoolParam(true));
                assert_eq!(said, wanted, "{self:?}");
            }
        }
    }
}

/// One for all cases: its end takes a second.
static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_each_message_is_answered_by_itself_and_in_its_place(
        kinds in vec(proptest::sample::select(&Kind::ALL), 0..200),
        frame in 1usize..5000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = SERVER.connect().await;
            let (mut up, down) = open(&mut client).await;
            let messages = kinds.iter().enumerate().map(|(at, kind)| framed(&kind.message(&at.to_string())));
            let bytes: Vec<u8> = messages.flat_map(|message| message.to_vec()).collect();
            // Frames that end anywhere, and not so many that the client of h2 takes its own for a flood.
            for piece in bytes.chunks(frame.max(bytes.len() / 1000).max(1)) {
                up.send_data(Bytes::copy_from_slice(piece), false).unwrap();
            }
            up.send_data(Bytes::new(), true).unwrap();
            let (answers, status, _) = rest(down).await;
            assert_eq!((answers.len(), status.as_str()), (kinds.len(), "0"));
            for (at, (kind, answer)) in kinds.iter().zip(&answers).enumerate() {
                kind.check(&at.to_string(), answer);
            }
        });
    }
}

#[tokio::test]
async fn a_message_that_is_no_request_ends_the_stream_behind_the_answers_to_those_before() {
    let server = Server::start();
    let mut client = server.connect().await;
    let (mut up, down) = open(&mut client).await;
    let right = framed(&row("echo", "7").encode_to_vec());
    let garbage = framed(&[0xff; 40]);
    up.send_data([&right[..], &right, &garbage, &right].concat().into(), false).unwrap();
    let (answers, status, words) = rest(down).await;
    assert_eq!((answers.len(), status.as_str()), (2, "3"));
    assert!(words.contains("the message is not a ModelInferRequest"), "{words}");
    assert_eq!(server.unrouted.counts(), [(400, 1)]);
    let logged = server.log.0.lock().unwrap();
    assert!(logged.iter().any(|line| line.starts_with("grpc infer /0  400 '' 40 0 ")), "{logged:?}");
}

#[tokio::test]
async fn every_message_is_admitted_recorded_and_counted_by_itself() {
    let server = Server::start();
    let mut client = server.connect().await;
    let (mut up, down) = open(&mut client).await;
    let kinds = [Kind::Marked, Kind::Full, Kind::Unknown];
    let messages: Vec<Bytes> = kinds.iter().map(|kind| framed(&kind.message("7"))).collect();
    up.send_data(messages.concat().into(), true).unwrap();
    rest(down).await;
    let echo = server.models.get("echo").metrics().tenant(&TenantId::default_tenant());
    assert_eq!((echo.success.get(), echo.rows.get()), (1, 1));
    assert_eq!(server.unrouted.counts(), [(404, 1)]);
    let lines: Vec<String> =
        server.log.0.lock().unwrap().iter().map(|line| line.chars().take(32).collect()).collect();
    assert!(lines[0].starts_with("grpc infer echo/1 default 200 '7"), "{lines:?}");
    assert!(lines[1].starts_with("grpc infer full/1 default 503 '7"), "{lines:?}");
    assert!(lines[2].starts_with("grpc infer none/0  404 "), "{lines:?}");
    let closed = Server::with(Dialect::Triton, false);
    let (mut up, down) = open(&mut closed.connect().await).await;
    up.send_data(framed(&Kind::Right.message("")), true).unwrap();
    let (answers, ..) = rest(down).await;
    assert_eq!((answers.len(), answers[0].error_message.as_str()), (1, "not you"));
}

#[tokio::test]
async fn both_versions_of_reflection_answer_and_ask_the_gate() {
    for (allow, wanted) in [(true, 4), (false, 0)] {
        let server = Server::with(Dialect::Triton, allow);
        let mut client = server.connect().await;
        for version in ["v1", "v1alpha"] {
            let path =
                format!("http://localhost/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let request = Request::post(path).header("content-type", "application/grpc").body(()).unwrap();
            let (response, mut up) = client.send_request(request, false).unwrap();
            let list = MessageRequest::ListServices(String::new());
            let request =
                ServerReflectionRequest { message_request: Some(list), ..ServerReflectionRequest::default() };
            up.send_data(framed(&request.encode_to_vec()), true).unwrap();
            let mut down = response.await.unwrap().into_body();
            let answer = down.data().await.unwrap().unwrap().slice(5..);
            let answer = ServerReflectionResponse::decode(answer).unwrap();
            let services = match answer.message_response {
                Some(MessageResponse::ListServicesResponse(list)) => list.service.len(),
                Some(MessageResponse::ErrorResponse(error)) => {
                    assert_eq!((error.error_code, error.error_message.as_str()), (7, "not you"));
                    0
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(services, wanted, "{version}");
        }
    }
}

#[tokio::test]
async fn a_drain_answers_what_runs_refuses_what_is_new_in_band_and_ends_the_stream() {
    let server = Server::start();
    let hold = server.models.get("hold");
    let mut client = server.connect().await;
    let (mut up, down) = open(&mut client).await;
    up.send_data(framed(&row("hold", "1").encode_to_vec()), false).unwrap();
    until_async("the message reaches the model", || hold.held().0 == 1).await;
    server.begin_drain();
    up.send_data(framed(&row("echo", "2").encode_to_vec()), false).unwrap();
    let refused =
        || server.log.0.lock().unwrap().iter().any(|line| line.contains("echo/0") || line.contains("echo"));
    until_async("the second one is refused", refused).await;
    hold.release();
    let (answers, status, words) = rest(down).await;
    let said: Vec<&str> = answers.iter().map(|answer| answer.error_message.as_str()).collect();
    let draining = "server is draining and takes no new requests";
    assert_eq!(said, ["[request id: 1] Request timeout expired", draining]);
    assert_eq!((status.as_str(), words.as_str()), ("14", draining));
}

#[tokio::test]
async fn a_stream_that_is_reset_is_gone_for_the_model() {
    let server = Server::start();
    let hold = server.models.get("hold");
    let mut client = server.connect().await;
    let (mut up, _down) = open(&mut client).await;
    up.send_data(framed(&row("hold", "1").encode_to_vec()), false).unwrap();
    up.send_data(framed(&row("hold", "2").encode_to_vec()), false).unwrap();
    until_async("the messages reach the model", || hold.held() == (2, false)).await;
    up.send_reset(h2::Reason::CANCEL);
    until_async("the model sees that nobody waits", || hold.held() == (2, true)).await;
}
