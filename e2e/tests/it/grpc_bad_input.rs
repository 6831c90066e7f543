//! Bad input over gRPC: each a status whose words say what is wrong, and the server goes on.
use crate::rpc::{
    CANCELLED, INFER, INVALID_ARGUMENT, NOT_FOUND, OK, Outcome, RESOURCE_EXHAUSTED, UNAVAILABLE,
    UNIMPLEMENTED, call, connect, connect_with, finish, framed, head, input, is_scaled, run, scaler, start,
    still_serves,
};
use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use prost::Message as _;
use std::net::SocketAddr;
use xebec_e2e::server::Server;
use xebec_net::{
    body::Encoding,
    wire::inference::{
        InferTensorContents, ModelInferRequest,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
};

type Contents = InferTensorContents;

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

fn reals(count: usize) -> Option<Contents> {
    Some(Contents { fp32_contents: vec![1.0; count], ..Contents::default() })
}

fn typed(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
    ModelInferRequest { inputs, ..scaler() }
}

/// One input of `scaler` without contents, and raw contents of these sizes.
fn raw(shape: &[i64], sizes: &[usize]) -> ModelInferRequest {
    let raw_input_contents = sizes.iter().map(|size| vec![0; *size].into()).collect();
    ModelInferRequest { raw_input_contents, ..typed(vec![input("x", "FP32", shape, None)]) }
}

fn outputs(names: &[&str]) -> ModelInferRequest {
    let one = |name: &&str| InferRequestedOutputTensor { name: (*name).into(), ..Default::default() };
    ModelInferRequest { outputs: names.iter().map(one).collect(), ..scaler() }
}

fn refused(outcome: &Outcome, code: u8, words: &str) {
    assert!(outcome.code == code && outcome.words.contains(words), "not {code} with '{words}': {outcome:?}");
    assert_eq!(outcome.message, Bytes::new());
}

#[test]
fn a_call_that_does_not_fit_is_told_what_would() {
    let server = server(&[]);
    let ints = Some(Contents { int_contents: vec![1; 4], ..Contents::default() });
    let mixed = ModelInferRequest { raw_input_contents: vec![vec![0; 16].into()], ..scaler() };
    let lookup = ModelInferRequest {
        model_name: "lookup".into(),
        inputs: vec![input(
            "index",
            "INT64",
            &[1],
            Some(Contents { int64_contents: vec![99], ..Contents::default() }),
        )],
        ..ModelInferRequest::default()
    };
    let strings = ModelInferRequest {
        model_name: "identity_bytes".into(),
        inputs: vec![input("x", "BYTES", &[1, 2], None)],
        raw_input_contents: vec![Bytes::from_static(&[255, 0, 0, 0, b'a'])],
        ..ModelInferRequest::default()
    };
    let cases = [
        (
            mixed,
            "contents field must not be specified when using raw_input_contents for 'x' for model 'scaler'",
        ),
        (
            typed(vec![input("z", "FP32", &[1, 4], reals(4))]),
            "unexpected inference input 'z' for model 'scaler'",
        ),
        (typed(vec![]), "expected 1 inputs but got 0 inputs for model 'scaler'"),
        (
            typed(vec![input("x", "INT32", &[1, 4], ints.clone())]),
            "inference input 'x' data-type is 'INT32', but model 'scaler' expects 'FP32'",
        ),
        (typed(vec![input("x", "FP31", &[1, 4], reals(4))]), "input 'x': 'FP31' is not a datatype"),
        (
            typed(vec![input("x", "FP32", &[1, 4], ints)]),
            "input 'x' of FP32 has its elements in int_contents; put them into fp32_contents",
        ),
        (
            typed(vec![input("x", "FP32", &[4], reals(4))]),
            "unexpected shape for input 'x' for model 'scaler'. Expected [-1,4], got [4]",
        ),
        (
            typed(vec![input("x", "FP32", &[1, 3], reals(3))]),
            "unexpected shape for input 'x' for model 'scaler'. Expected [-1,4], got [1,3]",
        ),
        (
            typed(vec![input("x", "FP32", &[1, 4], reals(3))]),
            "input 'x' has 3 elements in contents where shape [1,4] needs 4",
        ),
        (
            typed(vec![input("x", "FP32", &[1, 4], reals(5))]),
            "input 'x' has more elements in contents than the 4 that shape [1,4] needs",
        ),
        (raw(&[1, 4], &[12]), "input 'x' has 12 bytes of data, but shape [1,4] of FP32 needs 16"),
        (raw(&[1, 4], &[17]), "input 'x' has 17 bytes of data, but shape [1,4] of FP32 needs 16"),
        (raw(&[1, 4], &[16, 16]), "request has 1 inputs but 2 raw_input_contents"),
        (raw(&[i64::MAX, 4], &[16]), "which is negative or holds more than can be"),
        (raw(&[1 << 62, 4], &[0]), "which is negative or holds more than can be"),
        (raw(&[-1, 4], &[16]), "input 'x' has shape [-1,4], which is negative or holds more than can be"),
        (raw(&[1 << 59, 4], &[16]), "but shape [576460752303423488,4] of FP32 needs"),
        (raw(&[0, 4], &[0]), "inference request for 'scaler' has no rows: its batch axis is 0"),
        (raw(&[65, 4], &[65 * 16]), "inference request batch-size must be <= 64 for 'scaler'"),
        (
            typed(vec![input("x", "FP16", &[1, 4], reals(4))]),
            "input 'x': FP16 has no typed contents in gRPC; send it in raw_input_contents",
        ),
        (outputs(&["z"]), "unexpected inference output 'z' for model 'scaler'"),
        (outputs(&["y", "y"]), "output 'y' is requested twice"),
        (lookup, "99"),
        (strings, "input 'x' of BYTES with shape [1,2]: element 0 ends after the data"),
    ];
    run(async {
        let client = connect(server.grpc).await;
        for (request, words) in cases {
            refused(&call(&client, INFER, &request).await.unwrap(), INVALID_ARGUMENT, words);
        }
        still_serves(server.grpc).await;
    });
}

#[test]
fn unknown_models_versions_and_methods_are_named() {
    let server = server(&[]);
    let target = |model: &str, version: &str| ModelInferRequest {
        model_name: model.into(),
        model_version: version.into(),
        ..scaler()
    };
    run(async {
        let client = connect(server.grpc).await;
        for (model, version, words) in [
            ("nobody", "", "Request for unknown model: 'nobody' is not found"),
            ("", "", "Request for unknown model: '' is not found"),
            ("../scaler", "", "Request for unknown model: '../scaler' is not found"),
            ("scaler", "9", "Request for unknown model: 'scaler' version 9 is not found"),
            ("scaler", "x", "Request for unknown model: 'scaler' version x is not found"),
            ("versions", "2", "Request for unknown model: 'versions' version 2 is not found"),
        ] {
            refused(&call(&client, INFER, &target(model, version)).await.unwrap(), NOT_FOUND, words);
        }
        for (path, words) in [
            ("/inference.GRPCInferenceService/Frobnicate", "Frobnicate"),
            ("/other.Service/ModelInfer", "/other.Service/ModelInfer"),
            ("/ModelInfer", "/ModelInfer"),
        ] {
            refused(&call(&client, path, &scaler()).await.unwrap(), UNIMPLEMENTED, words);
        }
        still_serves(server.grpc).await;
    });
}

async fn send(client: &SendRequest<Bytes>, headers: &[(&str, &str)], body: Bytes) -> Outcome {
    finish(start(client, INFER, headers, body).await.unwrap()).await.unwrap()
}

#[test]
fn messages_that_are_cut_wrongly_packed_or_no_message_at_all_are_refused() {
    let server = server(&[]);
    let whole = framed(0, &scaler().encode_to_vec());
    let gzip = [("grpc-encoding", "gzip")];
    type Case<'a> = (Bytes, &'a [(&'a str, &'a str)], u8, &'a str);
    let cases: [Case<'_>; 11] = [
        (Bytes::new(), &[], INVALID_ARGUMENT, "has no message"),
        (whole.slice(..3), &[], INVALID_ARGUMENT, "ends before its length"),
        (whole.slice(..whole.len() - 1), &[], INVALID_ARGUMENT, "ends before its length"),
        ([&whole[..], &whole].concat().into(), &[], UNIMPLEMENTED, "takes one message and got more"),
        (framed(2, b"x"), &[], INVALID_ARGUMENT, "compression flag is neither 0 nor 1"),
        (framed(1, b"x"), &[], INVALID_ARGUMENT, "compressed but grpc-encoding is not set"),
        (framed(1, b"x"), &gzip, INVALID_ARGUMENT, "not valid gzip"),
        (
            framed(1, &Encoding::Gzip.compress(&scaler().encode_to_vec())[..30]),
            &gzip,
            INVALID_ARGUMENT,
            "not valid gzip",
        ),
        (
            framed(1, b"x"),
            &[("grpc-encoding", "snappy")],
            UNIMPLEMENTED,
            "grpc-encoding is not one of identity, deflate, gzip",
        ),
        (framed(0, &[0xff; 40]), &[], INVALID_ARGUMENT, "the message is not a ModelInferRequest"),
        (framed(0, &[0x0a, 200, b'x']), &[], INVALID_ARGUMENT, "the message is not a ModelInferRequest"),
    ];
    run(async {
        let client = connect(server.grpc).await;
        for (body, headers, code, words) in cases {
            refused(&send(&client, headers, body).await, code, words);
        }
        let path = "/inference.GRPCInferenceService/ModelMetadata";
        let garbage = start(&client, path, &[], framed(0, &[0xff; 40])).await.unwrap();
        refused(&finish(garbage).await.unwrap(), INVALID_ARGUMENT, "the message is not what");
        let packed = framed(1, &Encoding::Gzip.compress(&scaler().encode_to_vec()));
        let right = send(&client, &gzip, packed).await;
        assert!(right.code == OK && is_scaled(&right.message), "{right:?}");
        still_serves(server.grpc).await;
    });
}

#[test]
fn messages_over_the_limit_are_refused_before_and_after_decompression() {
    const LIMIT: usize = 10_000;
    let server = server(&["--grpc-max-message-size", "10000"]);
    let words = "request message is larger than the limit of 10000 bytes; the operator can raise it with --grpc-max-message-size";
    let bomb = Encoding::Gzip.compress(&vec![0; 1 << 20]);
    assert!(bomb.len() < LIMIT, "the bomb is refused for its own size");
    run(async {
        let client = connect(server.grpc).await;
        for (headers, body) in [
            (&[][..], framed(0, &vec![0; LIMIT + 1])),
            // Judged by what is announced: the rest is never sent.
            (&[], Bytes::from_static(&[0, 255, 255, 255, 255])),
            (&[("grpc-encoding", "gzip")], framed(1, &bomb)),
        ] {
            refused(&send(&client, headers, body).await, RESOURCE_EXHAUSTED, words);
        }
        still_serves(server.grpc).await;
    });
}

#[test]
fn a_message_in_one_byte_frames_is_answered_and_one_in_too_many_is_not() {
    let server = server(&[]);
    let in_bytes = async |client: &SendRequest<Bytes>, body: Bytes| {
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(head(INFER, &[]), false).unwrap();
        for at in 0..body.len() {
            // The refusal may come while there is more to send.
            if stream.send_data(body.slice(at..=at), at + 1 == body.len()).is_err() {
                break;
            }
            if at % 1000 == 0 {
                tokio::task::yield_now().await;
            }
        }
        finish(response).await.unwrap()
    };
    run(async {
        let client = connect(server.grpc).await;
        let right = in_bytes(&client, framed(0, &scaler().encode_to_vec())).await;
        assert!(right.code == OK && is_scaled(&right.message), "{right:?}");
        let endless = in_bytes(&client, framed(0, &raw(&[1, 4], &[200_000]).encode_to_vec())).await;
        refused(&endless, INVALID_ARGUMENT, "too many pieces");
        still_serves(server.grpc).await;
    });
}

#[test]
fn a_message_that_stands_still_is_cut_and_the_calls_beside_it_go_on() {
    let server = server(&["--stall-timeout-secs", "0.3"]);
    run(async {
        let client = connect(server.grpc).await;
        let body = framed(0, &scaler().encode_to_vec());
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut stream) = ready.send_request(head(INFER, &[]), false).unwrap();
        stream.send_data(body.slice(..20), false).unwrap();
        refused(&finish(response).await.unwrap(), CANCELLED, "the message stood still for 0.3 s");
        let beside = call(&client, INFER, &scaler()).await.unwrap();
        assert_eq!(beside.code, OK, "{beside:?}");
        still_serves(server.grpc).await;
    });
}

/// Resident memory of a process, in KiB.
fn resident_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn a_client_that_never_opens_its_window_holds_no_more_than_its_streams_and_is_cut() {
    const ROW: usize = 64 << 10;
    let server = server(&["--stall-timeout-secs", "0.5", "--grpc-max-concurrent-streams", "16"]);
    let request = ModelInferRequest {
        model_name: "identity_fp32".into(),
        inputs: vec![input("x", "FP32", &[1, 16384], None)],
        raw_input_contents: vec![vec![7; ROW].into()],
        ..ModelInferRequest::default()
    };
    run(async {
        let before = resident_kib(server.id());
        let client = connect_with(server.grpc, Builder::new().initial_window_size(0)).await;
        let body = framed(0, &request.encode_to_vec());
        let mut answers = Vec::new();
        for _ in 0..64 {
            // With every stream open and unread, the next may only begin when one is cut.
            let response = start(&client, INFER, &[], body.clone()).await.unwrap();
            answers.push(response.await.unwrap().into_body());
        }
        for mut answer in answers {
            let cut = answer.data().await.unwrap().unwrap_err();
            assert_eq!(cut.reason(), Some(h2::Reason::CANCEL), "{cut:?}");
        }
        let more = resident_kib(server.id()).saturating_sub(before);
        assert!(more < 64 << 10, "{more} KiB more are held");
        still_serves(server.grpc).await;
    });
}

/// Frames by hand, for what the client of `h2` would not do.
mod by_hand {
    use super::*;
    use std::io::{Read as _, Write as _};

    const HEADERS: u8 = 1;
    pub(super) const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const END_HEADERS: u8 = 4;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Headers as HPACK writes them without a table.
    fn block() -> Vec<u8> {
        let literal = |name: &str, value: &str| {
            let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
            [vec![0], text(name), text(value)].concat()
        };
        [
            literal(":method", "POST"),
            literal(":scheme", "http"),
            literal(":path", INFER),
            literal(":authority", "localhost"),
            literal("content-type", "application/grpc"),
        ]
        .concat()
    }

    /// Opens `count` streams and sends no message on any, then reads until a stream is reset: which, and why.
    pub(super) fn first_reset(address: SocketAddr, count: u32) -> (u32, u32) {
        let mut stream = crate::wire::connect(address);
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        (0..count).for_each(|at| bytes.extend(frame(HEADERS, END_HEADERS, 2 * at + 1, &block())));
        stream.write_all(&bytes).unwrap();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload).unwrap();
            if head[3] == RESET {
                let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                return (number(&head[5..9]), number(&payload));
            }
        }
    }
}

#[test]
fn a_stream_over_the_limit_is_refused_and_may_be_sent_again() {
    let server = server(&["--grpc-max-concurrent-streams", "4"]);
    let refused_stream = u32::from(h2::Reason::REFUSED_STREAM);
    assert_eq!(by_hand::first_reset(server.grpc, 5), (9, refused_stream));
    run(still_serves(server.grpc));
}

#[test]
fn messages_over_the_memory_for_them_are_unavailable_until_there_is_room() {
    let server = server(&[
        "--io-threads",
        "1",
        "--max-buffered-bytes",
        "1048576",
        "--http-max-input-size",
        "1000000",
        "--grpc-max-message-size",
        "1000000",
    ]);
    let large = framed(0, &raw(&[1, 4], &[900_000]).encode_to_vec());
    run(async {
        let client = connect(server.grpc).await;
        let mut ready = client.clone().ready().await.unwrap();
        let (response, mut held) = ready.send_request(head(INFER, &[]), false).unwrap();
        held.send_data(large.slice(..800_000), false).unwrap();
        // Frames of one connection are read by turns: with these answered, the first ones were read.
        for _ in 0..100 {
            assert_eq!(call(&client, INFER, &scaler()).await.unwrap().code, OK);
        }
        refused(&send(&client, &[], large.clone()).await, UNAVAILABLE, "fill the memory for them");
        held.send_data(large.slice(800_000..), true).unwrap();
        refused(&finish(response).await.unwrap(), INVALID_ARGUMENT, "900000 bytes of data");
        refused(&send(&client, &[], large).await, INVALID_ARGUMENT, "900000 bytes of data");
        still_serves(server.grpc).await;
    });
}
