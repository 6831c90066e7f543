//! Streams of inferences against the real binary: order, garbage, clients that go, SIGTERM.
use crate::{
    rpc::{
        INVALID_ARGUMENT, OK, STREAM, Talk, UNAVAILABLE, connect, framed, input, is_scaled, run, scaler,
        still_serves,
    },
    wire::{counted, infer, metrics, until},
};
use bytes::Bytes;
use prost::Message as _;
use xebec_e2e::server::Server;
use xebec_net::wire::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
    infer_parameter::ParameterChoice,
};

fn server(more: &[&str]) -> Server {
    Server::start(&[&["serve", "--model-repository", "models/testdata/repository"], more].concat()).unwrap()
}

/// A request for `scaler` whose answer nobody else's is.
fn numbered(number: u16) -> ModelInferRequest {
    let fp32_contents = vec![f32::from(number); 4];
    let contents = InferTensorContents { fp32_contents, ..InferTensorContents::default() };
    ModelInferRequest { inputs: vec![input("x", "FP32", &[1, 4], Some(contents))], ..scaler() }
}

fn answer(message: Bytes) -> Result<ModelInferResponse, String> {
    let answer = ModelStreamInferResponse::decode(message).unwrap();
    if answer.error_message.is_empty() {
        Ok(answer.infer_response.unwrap())
    } else {
        Err(answer.error_message)
    }
}

fn is_the_answer_to(number: u16, message: Bytes) -> bool {
    let value = (2.0 * f32::from(number) + 1.0).to_le_bytes();
    answer(message).unwrap().raw_output_contents == [Bytes::from(value.repeat(4))]
}

#[test]
fn a_stream_that_sends_garbage_after_a_thousand_good_requests_gets_a_thousand_answers_and_a_clear_end() {
    for inline in ["0", "100"] {
        let server = server(&["--inline-below-us", inline]);
        run(async {
            let client = connect(server.grpc).await;
            for garbage in [framed(0, &[0xff; 60]), Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n")] {
                let mut talk = Talk::open(&client, STREAM).await;
                (0..1000).for_each(|number| talk.say(&numbered(number)));
                talk.up.send_data(garbage, false).unwrap();
                for number in 0..1000 {
                    assert!(is_the_answer_to(number, talk.hear().await.unwrap()), "{number}");
                }
                let (code, words) = talk.end().await;
                assert!(code == INVALID_ARGUMENT && words.contains("the message"), "{code} {words}");
            }
            still_serves(server.grpc).await;
        });
    }
}

#[test]
fn errors_come_in_band_and_the_stream_goes_on() {
    let server = server(&[]);
    run(async {
        let mut talk = Talk::open(&connect(server.grpc).await, STREAM).await;
        let nobody = ModelInferRequest { model_name: "nobody".into(), id: "9".into(), ..scaler() };
        let short = ModelInferRequest { inputs: Vec::new(), id: "8".into(), ..scaler() };
        talk.say(&scaler());
        talk.say(&nobody);
        talk.say(&short);
        talk.say(&scaler());
        let right = |message| is_scaled(&answer(message).unwrap().encode_to_vec().into());
        assert!(right(talk.hear().await.unwrap()));
        let words = answer(talk.hear().await.unwrap()).unwrap_err();
        assert_eq!(words, "Request for unknown model: 'nobody' is not found");
        let words = answer(talk.hear().await.unwrap()).unwrap_err();
        assert!(words.starts_with("[request id: 8] expected 1 inputs but got 0 inputs"), "{words}");
        assert!(right(talk.hear().await.unwrap()));
        talk.up.send_data(Bytes::new(), true).unwrap();
        assert_eq!(talk.end().await, (OK, String::new()));
    });
}

#[test]
fn a_stream_whose_client_goes_drops_what_still_waits() {
    let server = server(&["--instances", "1", "--default-max-batch-size", "8"]);
    let slow = ModelInferRequest {
        model_name: "slow".into(),
        inputs: vec![input(
            "x",
            "FP32",
            &[5, 4],
            Some(InferTensorContents { fp32_contents: vec![1.0; 20], ..InferTensorContents::default() }),
        )],
        ..ModelInferRequest::default()
    };
    let labels = "{model=\"slow\",version=\"1\"}";
    let number = |series: &str| counted(&metrics(&server), series).unwrap();
    let runs = || number(&format!("nv_inference_exec_count{labels}"));
    let before = runs();
    run(async {
        let client = connect(server.grpc).await;
        let mut talk = Talk::open(&client, STREAM).await;
        (0..5).for_each(|_| talk.say(&slow));
        let waiting = || number(&format!("nv_inference_pending_request_count{labels}"));
        while waiting() != 4 {
            tokio::task::yield_now().await;
        }
        talk.up.send_reset(h2::Reason::CANCEL);
        while waiting() != 0 {
            tokio::task::yield_now().await;
        }
        still_serves(server.grpc).await;
    });
    until("the one that ran has ended", || runs() > before);
    assert_eq!(runs(), before + 1);
}

#[test]
fn sigterm_ends_a_busy_stream_with_every_answer_or_refusal_and_an_idle_one_at_once() {
    let server = server(&[]);
    run(async {
        let client = connect(server.grpc).await;
        let mut idle = Talk::open(&client, STREAM).await;
        let mut busy = Talk::open(&client, STREAM).await;
        (0..150).for_each(|number| busy.say(&numbered(number)));
        // Few enough that all of them were written at once.
        for number in 0..100 {
            assert!(is_the_answer_to(number, busy.hear().await.unwrap()), "{number}");
        }
        server.terminate().unwrap();
        let mut refused = 0;
        for number in 100..150 {
            let message = busy.hear().await.unwrap();
            match answer(message.clone()) {
                Ok(_) => assert!(refused == 0 && is_the_answer_to(number, message), "{number}"),
                Err(words) => {
                    assert_eq!(words, "server is draining and takes no new requests");
                    refused += 1;
                }
            }
        }
        for talk in [&mut busy, &mut idle] {
            let (code, words) = talk.end().await;
            assert_eq!((code, words.as_str()), (UNAVAILABLE, "server is draining and takes no new requests"));
        }
    });
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[test]
fn a_message_that_is_too_old_when_its_turn_comes_is_answered_in_its_place_without_outputs() {
    // One run at a time, of one message: what comes behind waits for longer than a millisecond.
    let server = server(&["--instances", "1", "--default-max-batch-size", "1"]);
    let slow = |number: u32, max_age_ms: Option<i64>| {
        let contents = InferTensorContents { fp32_contents: vec![1.0; 4], ..InferTensorContents::default() };
        let age = |age| InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(age)) };
        ModelInferRequest {
            model_name: "slow".into(),
            id: number.to_string(),
            parameters: max_age_ms.map(|most| ("max_age_ms".to_owned(), age(most))).into_iter().collect(),
            inputs: vec![input("x", "FP32", &[1, 4], Some(contents))],
            ..ModelInferRequest::default()
        }
    };
    run(async {
        let mut talk = Talk::open(&connect(server.grpc).await, STREAM).await;
        (0..40).for_each(|number| talk.say(&slow(number, (number % 2 == 1).then_some(1))));
        let mut dropped = 0;
        for number in 0..40 {
            let told = answer(talk.hear().await.unwrap()).unwrap();
            assert_eq!((told.model_name.as_str(), told.id), ("slow", number.to_string()));
            let Some(mark) = told.parameters.get("dropped") else {
                assert_eq!(told.outputs.len(), 1, "{number}");
                continue;
            };
            assert!(number % 2 == 1 && told.outputs.is_empty() && told.raw_output_contents.is_empty());
            assert_eq!(mark.parameter_choice, Some(ParameterChoice::BoolParam(true)));
            let age = told.parameters["age_ms"].parameter_choice.clone();
            assert!(matches!(age, Some(ParameterChoice::Int64Param(1..))), "{age:?}");
            dropped += 1;
        }
        // The first may still have been in time.
        assert!(dropped >= 10, "{dropped}");
        talk.say(&slow(0, Some(0)));
        let words = answer(talk.hear().await.unwrap()).unwrap_err();
        assert!(words.contains("'max_age_ms' must be a number of milliseconds, from 1"), "{words}");
        talk.say(&slow(1, Some(86_400_000)));
        assert_eq!(answer(talk.hear().await.unwrap()).unwrap().outputs.len(), 1);
    });
    let body = r#"{"parameters":{"max_age_ms":5},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    let refused = infer(server.http, "slow", body);
    assert!(
        refused.status == 501 && refused.error().contains("for messages of a stream"),
        "{}",
        refused.json()
    );
}
