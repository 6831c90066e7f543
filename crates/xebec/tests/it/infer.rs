//! `xebec infer` as the shell sees it: what is printed, where, and the exit status.
use crate::server::{self, Reply, Seen};
use serde_json::{Value, json};
use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
};

fn infer(address: SocketAddr, flags: &[&str], input: &str) -> Output {
    let url = format!("http://{address}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_xebec"));
    command.args(["infer", "m", "--url", &url]).args(flags);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that refuses its flags does not read.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A model that adds up the two columns of its rows.
fn adder(seen: Seen<'_>) -> Reply {
    if seen.line.starts_with("GET") {
        let inputs = json!([{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]);
        return Reply::Answer(200, json!({"name": "m", "inputs": inputs}).to_string());
    }
    let request: Value = serde_json::from_slice(seen.body).unwrap();
    let rows = request["inputs"][0]["shape"][0].as_u64().unwrap();
    let output =
        json!({"name": "y", "datatype": "FP32", "shape": [rows, 1], "data": vec![4.5; rows as usize]});
    let answer = json!({"model_name": "m", "model_version": "3", "outputs": [output]});
    Reply::Answer(200, answer.to_string())
}

#[test]
fn lines_of_numbers_become_a_request_and_the_answer_a_table() {
    let output = infer(server::http(adder), &[], "1.5, 3\n2, 2.5\n");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.starts_with("m version 3\n") && table.contains("y FP32 [2,1]"), "{table}");
    assert_eq!(table.matches("4.5").count(), 2, "{table}");
}

#[test]
fn the_answer_as_json_is_the_servers() {
    let output = infer(server::http(adder), &["--output", "json"], "[[1, 2]]");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["outputs"][0]["data"], json!([4.5]));
}

#[test]
fn a_fault_shows_status_error_and_hint_and_exits_with_1() {
    let address = server::http(|_| {
        Reply::Answer(
            400,
            json!({"error": "unexpected shape for input 'x'", "hint": "send [-1,2]"}).to_string(),
        )
    });
    let output = infer(address, &[], r#"{"inputs": []}"#);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert_eq!(said, "error: status 400: unexpected shape for input 'x'\n  hint: send [-1,2]\n");
}

#[test]
fn an_answer_that_is_not_json_is_shown_with_its_status() {
    let address = server::http(|_| Reply::Answer(502, "<html>bad gateway</html>".into()));
    for input in [r#"{"inputs": []}"#, "[1, 2]"] {
        let output = infer(address, &[], input);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        assert!(said.contains("502") && said.contains("<html>bad gateway</html>"), "{said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // A port that was free a moment ago and on which nobody listens.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for input in [r#"{"inputs": []}"#, "[1, 2]"] {
        let output = infer(address, &[], input);
        assert_eq!(output.status.code(), Some(1));
        let said = text(&output.stderr);
        let want = format!("no answer from http://{address}; is the server running?");
        assert!(said.contains(&want), "{said}");
    }
}

#[test]
fn an_empty_input_is_refused_before_anything_is_sent() {
    let output = infer(server::http(|_| Reply::Silence), &[], "\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the input is empty"), "{}", text(&output.stderr));
}

#[test]
fn an_answer_with_nan_is_shown_in_both_forms() {
    let answer =
        r#"{"model_name":"m","outputs":[{"name":"y","datatype":"FP32","shape":[2],"data":[NaN,-Infinity]}]}"#;
    let address = server::http(move |_| Reply::Answer(200, answer.into()));
    let output = infer(address, &["--output", "json"], r#"{"inputs": []}"#);
    assert_eq!(text(&output.stdout).trim_end(), answer, "the raw text: {}", text(&output.stderr));
    let output = infer(address, &[], r#"{"inputs": []}"#);
    let table = text(&output.stdout);
    assert!(table.contains("NaN") && table.contains("-Infinity"), "{table} {}", text(&output.stderr));
}

#[test]
fn a_server_that_never_answers_is_waited_for_as_long_as_was_said() {
    let address = server::http(|_| Reply::Silence);
    let output = infer(address, &["--timeout", "0.3"], r#"{"inputs": []}"#);
    assert_eq!(output.status.code(), Some(1));
    let want = format!("error: no answer from http://{address} within 0.3 s\n");
    assert_eq!(text(&output.stderr), want);
}

#[test]
fn a_version_is_one_segment_of_the_path() {
    let address = server::http(|seen| Reply::Answer(400, json!({"error": seen.line}).to_string()));
    let output = infer(address, &["--model-version", "1/x"], r#"{"inputs": []}"#);
    assert!(text(&output.stderr).contains("/v2/models/m/versions/1%2Fx/infer"), "{}", text(&output.stderr));
}
