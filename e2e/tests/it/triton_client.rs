//! The stock tritonclient from PyPI, against the binary.
use crate::wire::until;
use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};
use xebec_e2e::{
    generate::root,
    server::{Server, clients_python},
};

/// The checks of `triton_client.py`: one that is not run is not passed.
const CHECKS: &str = "28";

pub(crate) fn python(script: &str, server: &Server) -> Command {
    let mut command = Command::new(clients_python().unwrap());
    command.arg(root().join("e2e/clients").join(script));
    command.env("XEBEC_HTTP", server.http.to_string()).env("XEBEC_GRPC", server.grpc.to_string());
    command
}

/// Runs a script of so many checks: all of them pass, and none is skipped.
pub(crate) fn pass(mut script: Command, checks: &str) {
    let run = script.output().unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")).and_then(|line| line.split(' ').next());
    assert_eq!(ran, Some(checks), "{said}");
    assert!(said.trim_end().ends_with("\nOK"), "nothing may be skipped: {said}");
}

#[test]
fn the_stock_tritonclient_works_unchanged() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass(python("triton_client.py", &server), CHECKS);
}

#[test]
fn a_drain_is_answers_or_unavailable_to_the_stock_grpc_client() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    let mut client =
        python("drain_client.py", &server).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert_eq!(said.next().as_deref(), Some("loaded"));
    server.terminate().unwrap();
    let last = said.next();
    until("the client ends", || client.try_wait().unwrap().is_some());
    let run = client.wait_with_output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    // Every lane ends with a call that was not taken.
    assert!(last.as_deref().is_some_and(|last| last.ends_with(", unavailable 16")), "{last:?}");
    assert_eq!(server.wait().unwrap().code(), Some(0));
}
