//! What of the protocol the stock clients do beside unary calls.
use crate::triton_client::{pass, python};
use xebec_e2e::server::Server;

#[test]
fn the_stock_client_streams() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass(python("stream_client.py", &server), "5");
}

#[test]
fn the_stock_reflection_client_finds_what_it_needs_to_call_a_model() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass(python("reflection_client.py", &server), "4");
}

#[test]
fn the_stock_client_shares_memory() {
    let keys = format!("xebec-test-{}-", std::process::id());
    let server = Server::start(&[
        "serve",
        "--model-repository",
        "models/testdata/repository",
        "--allow-shared-memory",
        &format!("{keys}*"),
    ])
    .unwrap();
    let mut client = python("shared_memory_client.py", &server);
    client.env("XEBEC_KEYS", keys);
    pass(client, "13");
}
