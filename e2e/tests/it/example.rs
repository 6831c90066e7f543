//! The example runs as its README says, and its answers are onnxruntime-python's.
use crate::wire::send;
use serde_json::{Value, json};
use std::process::Command;
use xebec_e2e::{
    generate::root,
    server::{Server, binary, clients_python},
};

fn transactions() -> Vec<Vec<f64>> {
    let text =
        std::fs::read_to_string(root().join("examples/fraud-detection/data/transactions.csv")).unwrap();
    let row = |line: &str| line.split(',').map(|cell| cell.parse().unwrap()).collect();
    let mut rows: Vec<Vec<f64>> = text.lines().skip(1).map(row).collect();
    rows.iter_mut().for_each(|row| row.truncate(30));
    rows
}

#[test]
fn both_models_answer_as_onnxruntime_does() {
    let server = Server::start(&["up", "examples/fraud-detection"]).unwrap();
    let text = std::fs::read_to_string(root().join("examples/fraud-detection/data/expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    let rows = transactions();
    for model in ["fraud-mlp", "fraud-trees"] {
        let mut seen = 0;
        for (chunk, want) in rows.chunks(50).zip(expected[model].as_array().unwrap().chunks(50)) {
            let tensor = json!({"name": "transactions", "shape": [chunk.len(), 30], "datatype": "FP32", "data": chunk});
            let body = json!({"inputs": [tensor], "outputs": [{"name": "probabilities"}]}).to_string();
            let reply =
                send(server.http, "POST", &format!("/v2/models/{model}/infer"), &[], body.as_bytes()).json();
            let data = reply["outputs"][0]["data"].as_array().unwrap();
            for (got, want) in data.chunks(2).zip(want) {
                let (got, want) = (got[1].as_f64().unwrap(), want.as_f64().unwrap());
                assert!((got - want).abs() < 1e-5, "{model}: {got} and not {want}");
                seen += 1;
            }
        }
        assert_eq!(seen, 200);
    }
}

#[test]
fn the_clients_of_the_readme_work() {
    let server = Server::start(&["up", "examples"]).unwrap();
    for (protocol, url) in [("http", server.http), ("grpc", server.grpc)] {
        let run = Command::new(clients_python().unwrap())
            .arg(root().join("examples/fraud-detection/client.py"))
            .args(["--protocol", protocol, "--url", &url.to_string()])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.contains("AUC"),
            "{said} {}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
    let url = format!("http://{}", server.http);
    let run = |args: &[&str]| {
        let output = Command::new(binary().unwrap()).current_dir(root()).args(args).output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (good, said) =
        run(&["infer", "fraud-mlp", "--url", &url, "--input", "examples/fraud-detection/request.json"]);
    assert!(good && said.contains("probabilities FP32 [3,2]"), "{said}");
    let (good, said) =
        run(&["infer", "nobody", "--url", &url, "--input", "examples/fraud-detection/request.json"]);
    assert!(!good && said.contains("'nobody' is not found") && said.contains("hint:"), "{said}");
    for (protocol, url) in [("json", url.clone()), ("binary", url), ("grpc", server.grpc.to_string())] {
        let args = [
            "bench",
            "fraud-mlp",
            "--url",
            &url,
            "--protocol",
            protocol,
            "--requests",
            "50",
            "--duration",
            "30",
            "--warm-up",
            "0",
            "--output",
            "json",
            "-c",
            "4",
        ];
        let (good, said) = run(&args);
        let report: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(good && report["good"].as_u64() >= Some(50) && report["failures"] == json!({}), "{said}");
    }
}
