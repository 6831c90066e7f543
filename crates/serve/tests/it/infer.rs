//! Inference over REST: JSON, binary tensors, compression and what is wrong with a body.
use crate::server::{Answer, MAX_BODY_BYTES, Server};
use xebec_net::body::Encoding;

const ROW: &[u8] = br#"{"id":"7","inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2.5]}]}"#;
const ANSWER: &str = concat!(
    r#"{"id":"7","model_name":"echo","model_version":"1","outputs":["#,
    r#"{"name":"y","datatype":"FP32","shape":[1,2],"data":[1.0,2.5]}]}"#
);

fn infer(server: &Server, body: &[u8]) -> Answer {
    server.post("/v2/models/echo/infer", &[], body)
}

fn blob() -> Vec<u8> {
    [1.0f32, 2.5].map(f32::to_le_bytes).concat()
}

const BINARY: &str = concat!(
    r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}],"#,
    r#""parameters":{"binary_data_output":true}}"#
);

fn binary(server: &Server, length: &str, body: &[u8]) -> Answer {
    server.post("/v2/models/echo/infer", &[("Inference-Header-Content-Length", length)], body)
}

#[test]
fn json_is_answered_in_json_with_the_requests_mark() {
    let server = Server::start();
    for path in ["/v2/models/echo/infer", "/v2/models/echo/versions/1/infer"] {
        let answer = server.post(path, &[], ROW);
        assert_eq!((answer.status, answer.text()), (200, ANSWER));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("inference-header-content-length"), None);
    }
}

#[test]
fn binary_tensors_come_back_binary_with_the_length_of_the_json_before_them() {
    let server = Server::start();
    let answer = binary(&server, &BINARY.len().to_string(), &[BINARY.as_bytes(), &blob()].concat());
    let json = concat!(
        r#"{"model_name":"echo","model_version":"1","outputs":["#,
        r#"{"name":"y","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#
    );
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(answer.header("inference-header-content-length"), Some(json.len().to_string().as_str()));
    assert_eq!(answer.body, [json.as_bytes(), &blob()].concat());
}

#[test]
fn an_output_that_asks_for_json_gets_it_although_the_request_asks_for_binary() {
    let body = concat!(
        r#"{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2.5]}],"parameters":{"binary_data_output":true},"#,
        r#""outputs":[{"name":"y","parameters":{"binary_data":false}}]}"#
    );
    let answer = infer(&Server::start(), body.as_bytes());
    assert_eq!(answer.header("inference-header-content-length"), None);
    assert!(answer.text().ends_with(r#""data":[1.0,2.5]}]}"#));
}

#[test]
fn a_raw_body_is_answered_with_binary_tensors() {
    let server = Server::start();
    let answer = binary(&server, "0", &blob());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let json = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let (head, tensors) = answer.body.split_at(json);
    let head: serde_json::Value = serde_json::from_slice(head).unwrap();
    assert_eq!((&head["outputs"][0]["shape"], tensors), (&serde_json::json!([1, 2]), &blob()[..]));
}

#[test]
fn a_header_length_out_of_range_is_refused() {
    let server = Server::start();
    let body = [BINARY.as_bytes(), &blob()].concat();
    for (length, status) in [
        ((body.len() + 1).to_string().as_str(), 400),
        ("18446744073709551616", 400),
        ("-1", 400),
        ("x", 400),
        ("", 400),
        ("3", 400),
        (body.len().to_string().as_str(), 400),
    ] {
        let answer = binary(&server, length, &body);
        assert_eq!(answer.status, status, "{length}: {}", answer.text());
    }
    let past = binary(&server, &(body.len() + 1).to_string(), &body);
    let (length, has) = (body.len() + 1, body.len());
    let want = format!("header Inference-Header-Content-Length is {length}, but the body has {has} bytes");
    assert!(past.text().contains(&want), "{}", past.text());
    let answer = binary(&server, &BINARY.len().to_string(), &[BINARY.as_bytes(), &blob(), b"x"].concat());
    assert!(answer.text().contains("unexpected additional input data for model 'echo'"), "{}", answer.text());
    let answer = binary(&server, &BINARY.len().to_string(), &[BINARY.as_bytes(), &blob()[1..]].concat());
    assert!(answer.text().contains("only 7 bytes are left in the body"), "{}", answer.text());
    assert_eq!(infer(&server, ROW).status, 200);
}

#[test]
fn a_header_length_that_is_said_twice_is_refused() {
    let (server, length) = (Server::start(), BINARY.len().to_string());
    let body = [BINARY.as_bytes(), &blob()].concat();
    for other in [length.as_str(), "3"] {
        let headers = [
            ("Inference-Header-Content-Length", length.as_str()),
            ("inference-header-content-length", other),
        ];
        let answer = server.post("/v2/models/echo/infer", &headers, &body);
        assert!(answer.status == 400 && answer.text().contains("several headers"), "{}", answer.text());
    }
}

#[test]
fn what_answers_may_be_compressed_with_is_read_of_every_line_that_says_so() {
    let headers = [("accept-encoding", "br"), ("accept-encoding", "gzip;q=0, deflate")];
    let answer = Server::start().post("/v2/models/echo/infer", &headers, ROW);
    assert_eq!(answer.header("content-encoding"), Some("deflate"));
}

#[test]
fn bodies_are_taken_compressed_and_answers_compressed_on_demand() {
    let server = Server::start();
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let headers = [("content-encoding", encoding.as_str()), ("accept-encoding", encoding.as_str())];
        let answer = server.post("/v2/models/echo/infer", &headers, &encoding.compress(ROW));
        assert_eq!(answer.header("content-encoding"), Some(encoding.as_str()));
        assert_eq!(encoding.decompress(&answer.body, 10_000).unwrap(), ANSWER);
    }
    for refused in ["identity", "br", "gzip;q=0", "gzip; q=0.0, identity"] {
        let answer = server.post("/v2/models/echo/infer", &[("accept-encoding", refused)], ROW);
        assert_eq!((answer.header("content-encoding"), answer.text()), (None, ANSWER), "{refused}");
    }
}

#[test]
fn an_encoding_that_is_not_offered_is_told_which_are() {
    let answer = Server::start().post("/v2/models/echo/infer", &[("content-encoding", "br")], ROW);
    assert_eq!((answer.status, answer.header("accept-encoding")), (501, Some("gzip, deflate")));
    assert!(answer.text().contains("content encoding 'br' is not offered"));
}

#[test]
fn a_body_over_the_limit_is_refused_before_and_after_decompression() {
    let server = Server::start();
    let zeros = vec![b' '; MAX_BODY_BYTES + 1];
    let plain = infer(&server, &zeros);
    let packed = server.post(
        "/v2/models/echo/infer",
        &[("content-encoding", "gzip")],
        &Encoding::Gzip.compress(&zeros),
    );
    for answer in [plain, packed] {
        assert_eq!(answer.status, 413);
        assert!(answer.text().contains("request body is larger than the limit of 2097152 bytes"));
        assert!(answer.text().contains("--http-max-input-size"));
    }
    let corrupt = server.post("/v2/models/echo/infer", &[("content-encoding", "deflate")], ROW);
    assert_eq!(corrupt.status, 400);
    assert!(corrupt.text().contains("body is not valid deflate"));
    assert_eq!(infer(&server, ROW).status, 200);
}

#[test]
fn bodies_that_are_no_request_are_refused_and_the_server_goes_on() {
    let server = Server::start();
    let brackets = vec![b'['; 1 << 20];
    let deep = [br#"{"own":"#.as_slice(), &brackets].concat();
    let with = |data: &str, datatype: &str| {
        format!(r#"{{"inputs":[{{"name":"x","shape":[1,2],"datatype":"{datatype}","data":{data}}}]}}"#)
            .into_bytes()
    };
    for (body, status, part) in [
        (Vec::new(), 400, "failed to parse the request JSON: EOF"),
        (b"\xff\xfe".to_vec(), 400, "failed to parse the request JSON"),
        (brackets, 400, "expected an object with 'inputs'"),
        (deep, 400, "nested deeper than 100 levels"),
        (with("[1,NaN]", "FP32"), 400, "JSON has no NaN and no Infinity"),
        (with("[1,Infinity]", "FP32"), 400, "JSON has no NaN and no Infinity"),
        (with("[1,2]", "FP16"), 400, "FP16 has no JSON form"),
        (with("[1,2]", "BF16"), 400, "BF16 has no JSON form"),
        (with("[1,2]", "FLOAT"), 400, "'FLOAT' is not a datatype"),
        (with("[1]", "FP32"), 400, "input 'x' has 1 elements in data where shape [1,2] needs 2"),
        (with("[1,300]", "UINT8"), 400, "input 'x' element 1: 300 does not fit UINT8"),
        (br#"{"inputs":[],"parameters":{"sequence_id":1.5}}"#.to_vec(), 400, "parameter 'sequence_id'"),
    ] {
        let answer = infer(&server, &body);
        assert_eq!(answer.status, status, "{part}: {}", answer.text());
        assert!(answer.text().contains(part), "{part}: {}", answer.text());
    }
    assert_eq!(infer(&server, ROW).text(), ANSWER);
}

#[test]
fn nan_and_infinity_in_an_answer_are_written_as_triton_does() {
    let answer = Server::start().post("/v2/models/nan/infer", &[], ROW);
    assert!(answer.text().ends_with(r#""data":[NaN,-Infinity]}]}"#), "{}", answer.text());
}

#[test]
fn an_output_without_a_json_form_says_how_to_ask_for_it() {
    let server = Server::start();
    let answer = server.post("/v2/models/half/infer", &[], ROW);
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("output 'y' is FP16") && answer.text().contains("binary_data = true"));
    let body = String::from_utf8(ROW.to_vec()).unwrap();
    let body = body.replacen('{', r#"{"outputs":[{"name":"y","parameters":{"binary_data":true}}],"#, 1);
    let answer = server.post("/v2/models/half/infer", &[], body.as_bytes());
    assert_eq!(answer.status, 200);
    assert!(answer.body.ends_with(&[0, 0x3c, 0, 0x40]));
}

#[test]
fn a_full_queue_is_unavailable_with_the_words_and_the_time_to_wait() {
    let answer = Server::start().post("/v2/models/full/infer", &[], ROW);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().starts_with(r#"{"error":"[request id: 7] Exceeds maximum queue size""#));
}
