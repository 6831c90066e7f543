//! What of the protocol the stock clients do beside unary calls.
use crate::triton_client::pass;
use xebec_e2e::server::Server;

#[test]
fn the_stock_client_streams() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass("stream_client.py", "5", &server);
}

#[test]
fn the_stock_reflection_client_finds_what_it_needs_to_call_a_model() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass("reflection_client.py", "4", &server);
}
