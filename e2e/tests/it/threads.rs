//! Threads that a document asks for are there, and no others.
use crate::wire::{send, until};
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

/// Scheduling policies of a server's threads (proc_pid_stat(5), field 41), by their names.
fn policies(server: &Server) -> Vec<(String, u32)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let policy = |stat: String| {
        let (before, after) = stat.rsplit_once(')').unwrap();
        let name = before.split_once('(').unwrap().1.to_owned();
        (name, after.split_whitespace().nth(38).unwrap().parse().unwrap())
    };
    stats.map(policy).collect()
}

#[test]
fn a_load_beside_requests_leaves_no_thread_that_gives_way_to_others() {
    let folder = tempfile::tempdir().unwrap();
    let model = root().join("models/testdata/repository/medium.onnx");
    for (name, config) in [
        ("one", "instance_group { count: 2 kind: KIND_CPU }"),
        ("pooled", "parameters { key: 'intra_op_thread_count' value { string_value: '3' } }"),
    ] {
        fs::create_dir_all(folder.path().join(name).join("1")).unwrap();
        fs::copy(&model, folder.path().join(name).join("1/model.onnx")).unwrap();
        fs::write(folder.path().join(name).join("config.pbtxt"), config).unwrap();
    }
    let repository = folder.path().to_string_lossy();
    let server =
        Server::start(&["serve", "--model-repository", &repository, "--model-control-mode", "explicit"])
            .unwrap();
    let before = policies(&server).len();
    for name in ["one", "pooled"] {
        let path = format!("/v2/repository/models/{name}/load");
        assert_eq!(send(server.http, "POST", &path, &[], b"").status, 200);
    }
    let loads = |name: &str| ["loader-", "aside"].iter().any(|load| name.starts_with(load));
    until("two instances of the one, one and a pool of two more of the other answer", || {
        let policies = policies(&server);
        assert!(policies.iter().all(|(name, policy)| *policy == 0 || loads(name)), "{policies:?}");
        policies.len() >= before + 5
    });
    assert!(policies(&server).iter().any(|(name, policy)| loads(name) && *policy == 5), "no load gave way");
}
