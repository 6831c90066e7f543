//! A stream of messages over gRPC: cut out of its frames, each answered by itself.
use crate::{
    grpc::{begin, gives_back, refused, unprefixed},
    memory::bounded,
    service::{self, Listener, MOST_BYTES},
};
use bytes::Bytes;
use prost::Message as _;
use xebec_net::{
    body::Encoding,
    fuzzing::StreamEnd,
    wire::inference::{ModelInferResponse, ModelStreamInferResponse},
};

const PATH: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

/// The first byte chooses the compression, the second where frames end, the rest is what came.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Some(([encoding, size], came)) = bytes.split_first_chunk() else { return false };
    let encoding = match encoding & 3 {
        0 => Some(Encoding::Gzip),
        1 => Some(Encoding::Deflate),
        _ => None,
    };
    service::with(|listener| {
        let whole = read(listener, came, encoding, came.len());
        // However the bytes are cut into frames, they are the same messages.
        assert_eq!(whole, read(listener, came, encoding, usize::from(*size)), "frames of {size}");
        let (messages, _) = whole;
        let mut taken = false;
        for message in messages {
            match answer(listener, message) {
                Some(answered) => taken |= answered,
                None => break,
            }
        }
        taken
    })
}

fn read(
    listener: &Listener,
    came: &[u8],
    encoding: Option<Encoding>,
    size: usize,
) -> (Vec<Bytes>, StreamEnd) {
    let frames = came.chunks(size.max(1)).map(Bytes::copy_from_slice);
    let most = if encoding.is_some() { MOST_BYTES } else { came.len() };
    let (messages, end) = bounded(most, || listener.desk.messages(frames, encoding));
    let messages: Vec<Bytes> = messages.iter().map(|message| Bytes::clone(message)).collect();
    if let StreamEnd::Over { taken, inside } = end {
        assert!(taken <= came.len(), "more was taken than came");
        assert!(inside || taken == came.len(), "{} bytes are lost", came.len() - taken);
    }
    (messages, end)
}

/// Answers one message, and whether it was an inference; nothing if the stream ends with it.
fn answer(listener: &Listener, message: Bytes) -> Option<bool> {
    let answer = begin(listener, PATH, message).inspect_err(refused).ok()?;
    let answer = ModelStreamInferResponse::decode(unprefixed(&answer)).expect("an answer");
    let seen = listener.seen().pop();
    let ModelStreamInferResponse { error_message, infer_response } = answer;
    match infer_response {
        Some(response) if error_message.is_empty() => {
            gives_back(&response, &seen.expect("what was answered"));
            Some(true)
        }
        // A refusal has the request's mark and nothing else.
        rest => {
            assert!(!error_message.is_empty(), "neither an answer nor a reason");
            let only_id = |response: ModelInferResponse| ModelInferResponse { id: String::new(), ..response };
            assert_eq!(rest.map(only_id).unwrap_or_default(), ModelInferResponse::default());
            Some(false)
        }
    }
}
