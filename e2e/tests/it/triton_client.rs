//! The stock tritonclient from PyPI, against the binary.
use std::process::Command;
use xebec_e2e::{
    generate::root,
    server::{Server, clients_python},
};

#[test]
fn the_stock_tritonclient_works_unchanged() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    let run = Command::new(clients_python().unwrap())
        .arg(root().join("e2e/clients/triton_client.py"))
        .env("XEBEC_HTTP", server.http.to_string())
        .env("XEBEC_GRPC", server.grpc.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let ran = said.lines().find_map(|line| line.strip_prefix("Ran ")).and_then(|line| line.split(' ').next());
    assert_eq!(ran, Some("17"), "{said}");
}
