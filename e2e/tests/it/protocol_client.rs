//! What of the protocol the stock clients do beside unary calls.
use crate::triton_client::pass;
use xebec_e2e::server::Server;

#[test]
fn the_stock_client_streams() {
    let server = Server::start(&["serve", "--model-repository", "models/testdata/repository"]).unwrap();
    pass("stream_client.py", "5", &server);
}
