//! Answers that are kept, over real sockets.
use crate::wire::{counted, infer, metrics, send};
use std::{fs, path::Path};
use xebec_e2e::{generate::root, server::Server};

/// A repository with the model `slow` twice: one whose answers are kept, and one whose are not.
fn repository(folder: &Path) {
    for (name, config) in [("kept", "response_cache { enable: true }"), ("run", "")] {
        let house = folder.join(name);
        fs::create_dir_all(house.join("1")).unwrap();
        fs::write(house.join("config.pbtxt"), config).unwrap();
        fs::copy(root().join("models/testdata/repository/slow.onnx"), house.join("1/model.onnx")).unwrap();
    }
}

fn body(number: usize) -> String {
    format!(r#"{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"FP32","data":[{number},2,3,4]}}]}}"#)
}

#[test]
fn equal_requests_are_answered_by_one_run_and_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path());
    let server = Server::start(&["serve", "--model-repository", &folder.path().to_string_lossy()]).unwrap();
    let outputs = |model: &str, number: usize| {
        let reply = infer(server.http, model, &body(number));
        assert_eq!(reply.status, 200, "{}", reply.json());
        reply.json()["outputs"].clone()
    };
    let count =
        |name: &str| counted(&metrics(&server), &format!("{name}{{model=\"kept\",version=\"1\"}}")).unwrap();
    let before = count("nv_inference_exec_count");
    // A hundred at the same time: the model takes long enough that they meet.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..100).map(|_| scope.spawn(|| outputs("kept", 7))).collect();
        let answers: Vec<_> = asking.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
    });
    assert_eq!(count("nv_inference_exec_count") - before, 1);
    assert_eq!((count("nv_cache_num_hits_per_model"), count("nv_cache_num_misses_per_model")), (99, 1));
    assert_eq!((count("nv_inference_request_success"), count("nv_inference_count")), (100, 1));
    // With and without, to the last digit.
    for number in 0..4 {
        let run = outputs("run", number);
        assert_eq!([outputs("kept", number), outputs("kept", number)], [run.clone(), run]);
    }
    let statistics = send(server.http, "GET", "/v2/models/kept/stats", &[], b"").json();
    let stats = &statistics["model_stats"][0]["inference_stats"];
    assert_eq!((&stats["cache_hit"]["count"], &stats["cache_miss"]["count"]), (&103.into(), &5.into()));
    assert_eq!((&stats["success"]["count"], &stats["compute_infer"]["count"]), (&108.into(), &5.into()));
}
