//! Messages of unary calls over gRPC, read by us beside prost.
use crate::{
    memory::bounded,
    model::Seen,
    service::{self, Listener, REFLECTION},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::HeaderMap;
use prost::Message as _;
use xebec_core::{Datatype, Tensor};
use xebec_net::{
    service::{GrpcAnswer, GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus},
    wire::inference::{InferTensorContents, ModelInferRequest, ModelInferResponse},
};

/// What the first byte chooses from; all others are infer calls.
const METHODS: [&str; 16] = [
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
    "/inference.GRPCInferenceService/ModelReady",
    "/inference.GRPCInferenceService/ServerMetadata",
    "/inference.GRPCInferenceService/ModelMetadata",
    "/inference.GRPCInferenceService/ModelConfig",
    "/inference.GRPCInferenceService/ModelStatistics",
    "/inference.GRPCInferenceService/RepositoryIndex",
    "/inference.GRPCInferenceService/RepositoryModelLoad",
    "/inference.GRPCInferenceService/RepositoryModelUnload",
    "/inference.GRPCInferenceService/LogSettings",
    "/inference.GRPCInferenceService/TraceSetting",
    "/inference.GRPCInferenceService/SystemSharedMemoryRegister",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    REFLECTION,
];
pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Codes of gRPC that are a fault of the server's own.
const OWN_FAULTS: [u8; 3] = [2, 13, 15];

/// The first byte chooses the method, the rest is the message.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Some((choice, message)) = bytes.split_first() else { return false };
    let (message, path) = (Bytes::copy_from_slice(message), METHODS.get(usize::from(*choice)));
    match path {
        Some(path) => service::with(|listener| other(listener, path, message)),
        None => service::with(|listener| infer(listener, &message)),
    }
}

fn other(listener: &Listener, path: &str, message: Bytes) -> bool {
    let answer = if listener.service.takes_many(path) {
        begin(listener, path, message)
    } else {
        listener.service.accept(path).and_then(|()| call(listener, path, message)).map(
            |answer| match answer {
                GrpcAnswer::One(message) => message,
                GrpcAnswer::Many(mut messages) => {
                    messages.next().now_or_never().flatten().expect("what is watched is told at once")
                }
            },
        )
    };
    answer.inspect_err(refused).map(|answer| unprefixed(&answer)).is_ok()
}

fn infer(listener: &Listener, message: &Bytes) -> bool {
    let (answer, seen) = once(listener, message);
    let Some(seen) = seen else { return false };
    // What we take, prost takes for the same.
    let read = ModelInferRequest::decode(message.clone()).expect("prost takes what we take");
    same(&read, &seen);
    let Ok(answer) = answer else { return false };
    let answer = ModelInferResponse::decode(answer).expect("an answer");
    gives_back(&answer, &seen);
    // Written by prost it is the same to us as well.
    let (again, repeated) = once(listener, &read.encode_to_vec().into());
    assert!(again.is_ok(), "{again:?}");
    assert_eq!(repeated.expect("the same message").came, seen.came);
    true
}

/// One infer call: the answer's message, and what reached the model.
fn once(listener: &Listener, message: &Bytes) -> (Result<Bytes, GrpcStatus>, Option<Seen>) {
    let start = message.get(..message.len() / 2).unwrap_or_default();
    let metadata = HeaderMap::new();
    let head = GrpcHead { principal: &listener.principal, path: INFER, metadata: &metadata, until: None };
    let ahead = listener.service.peek(head, start);
    let answer = match call(listener, INFER, message.clone()) {
        Ok(GrpcAnswer::One(message)) => Ok(unprefixed(&message)),
        Ok(GrpcAnswer::Many(_)) => panic!("one message has one answer"),
        Err(status) => Err(status),
    };
    assert!(ahead.is_ok() || answer.is_err(), "refused by its beginning and answered as a whole: {ahead:?}");
    let mut seen = listener.seen();
    assert!(seen.len() <= 1, "one call reached models {} times", seen.len());
    (answer.inspect_err(refused), seen.pop())
}

/// Asserts that a refusal is the caller's fault and says which.
pub(crate) fn refused(status: &GrpcStatus) {
    assert!(!OWN_FAULTS.contains(&status.code) && !status.message.is_empty(), "{status:?}");
}

fn call(listener: &Listener, path: &str, message: Bytes) -> Result<GrpcAnswer, GrpcStatus> {
    let (size, metadata) = (message.len(), HeaderMap::new());
    let message = listener.desk.message(message);
    let call = GrpcCall { principal: &listener.principal, path, metadata: &metadata, until: None, message };
    let answer = bounded(size, || GrpcService::call(&listener.service, call).now_or_never());
    answer.expect("nothing in memory is waited for")
}

/// Begins one message of a call that takes many, and gives its answer.
pub(crate) fn begin(listener: &Listener, path: &str, message: Bytes) -> Result<GrpcMessage, GrpcStatus> {
    let (size, metadata) = (message.len(), HeaderMap::new());
    let message = listener.desk.message(message);
    let call = GrpcCall { principal: &listener.principal, path, metadata: &metadata, until: None, message };
    let answer = bounded(size, || listener.service.begin(call).map(|answer| answer.now_or_never()));
    answer.map(|answer| answer.expect("nothing in memory is waited for"))
}

/// The message of an answer, behind a prefix that is right.
pub(crate) fn unprefixed(message: &GrpcMessage) -> Bytes {
    let bytes = message.as_bytes();
    let (prefix, rest) = bytes.split_first_chunk::<5>().expect("a prefix");
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    assert_eq!((prefix[0], length as usize), (0, rest.len()), "the prefix");
    bytes.slice(5..)
}

/// Asserts that we and prost understood a message alike.
fn same(read: &ModelInferRequest, seen: &Seen) {
    assert_eq!(read.id, seen.id, "id");
    let wanted: Vec<&str> = read.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(wanted, seen.wanted, "outputs");
    assert_eq!(read.inputs.len(), seen.came.len(), "inputs");
    for (at, (input, came)) in read.inputs.iter().zip(&seen.came).enumerate() {
        let Tensor { name, datatype, shape, data } = came;
        assert_eq!((input.name.as_str(), input.datatype.as_str()), (&**name, datatype.as_str()));
        assert_eq!(input.shape, *shape, "shape of {name}");
        let nothing = InferTensorContents::default();
        let contents = input.contents.as_ref().unwrap_or(&nothing);
        let want = match read.raw_input_contents.get(at) {
            Some(raw) => raw.to_vec(),
            None => elements(*datatype, contents),
        };
        assert_eq!(want, *data, "data of {name}");
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what does not fit was refused")]
fn elements(datatype: Datatype, contents: &InferTensorContents) -> Vec<u8> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let text = |element: &Bytes| [&(element.len() as u32).to_le_bytes(), element.as_ref()].concat();
    match datatype {
        Datatype::Bool => bool_contents.iter().map(|flag| u8::from(*flag)).collect(),
        Datatype::Int8 => int_contents.iter().map(|number| *number as u8).collect(),
        Datatype::Int16 => int_contents.iter().flat_map(|number| (*number as i16).to_le_bytes()).collect(),
        Datatype::Int32 => int_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Int64 => int64_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Uint8 => uint_contents.iter().map(|number| *number as u8).collect(),
        Datatype::Uint16 => uint_contents.iter().flat_map(|number| (*number as u16).to_le_bytes()).collect(),
        Datatype::Uint32 => uint_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Uint64 => uint64_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Fp32 => fp32_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Fp64 => fp64_contents.iter().flat_map(|number| number.to_le_bytes()).collect(),
        Datatype::Bytes => bytes_contents.iter().flat_map(text).collect(),
        Datatype::Fp16 | Datatype::Bf16 => Vec::new(),
    }
}

/// Asserts that an answer is what the model gave.
pub(crate) fn gives_back(answer: &ModelInferResponse, seen: &Seen) {
    assert_eq!(answer.id, seen.id, "id");
    let given = seen.answered.as_ref().expect("a good answer is that of a model");
    assert_eq!(answer.outputs.len(), given.len(), "outputs");
    for (at, (output, given)) in answer.outputs.iter().zip(given).enumerate() {
        assert_eq!(output.name, *given.name);
        if output.datatype == given.datatype.as_str() {
            assert_eq!(
                (&output.shape, answer.raw_output_contents.get(at)),
                (&given.shape, Some(&given.data))
            );
        } else {
            // Classes are text.
            assert_eq!(output.datatype, Datatype::Bytes.as_str());
        }
    }
}
