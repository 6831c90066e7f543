//! Threads that a document asks for are there, and no others.
use crate::wire::until;
use std::fs;
use xebec_e2e::{generate::root, server::Server};

/// A server of one model on so many resources.
fn serve(resources: &str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let model = root().join("models/testdata/repository/medium.onnx");
    let text = format!(
        "apiVersion: xebec.dev/v1alpha1\nkind: InferenceService\nmetadata: {{name: medium}}\nspec:\n  model: {{uri: {}}}\n  resources: {resources}\n",
        model.display()
    );
    fs::write(folder.path().join("medium.yaml"), text).unwrap();
    Server::start(&["up", &folder.path().to_string_lossy()]).unwrap()
}

fn threads(server: &Server) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn a_model_gets_the_threads_its_document_asks_for() {
    let one = serve("{instances: 1, threads: 1}");
    let more = serve("{instances: 1, threads: 4}");
    let most = serve("{instances: 3, threads: 4}");
    // The instance that runs is one of the four. Threads that loaded the model may take a moment to be gone.
    until("three more threads run", || threads(&more) == threads(&one) + 3);
    until("two more instances are there", || threads(&most) == threads(&one) + 5);
}
