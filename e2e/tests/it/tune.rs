//! `xebec tune`: what it writes is served, and what cannot be tuned is told.
use crate::wire::get;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};
use xebec_e2e::{
    generate::root,
    server::{Server, binary, engine_library},
};

/// A search that is over soon: two arrangements or three.
const SHORT: [&str; 8] = ["--concurrency", "4", "--instances", "1", "--batch", "8", "--delay", "0"];

fn tune(model: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.current_dir(root()).arg("tune").arg(model).args(["--threads", "1", "--time", "8s"]).args(more);
    command.env("ORT_DYLIB_PATH", engine_library().unwrap()).output().unwrap()
}

fn copy(folder: &Path, name: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::copy(root().join("models/testdata/repository/scaler.onnx"), folder.join(name)).unwrap();
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_folders_config_is_changed_with_its_comments_kept_and_is_served_as_it_was_chosen() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), "scaler/1/model.onnx");
    let config = folder.path().join("scaler/config.pbtxt");
    let bad = "# ours\nmax_batch_size: 1\ninstance_group [ { count: 3 kind: KIND_CPU } ]\n";
    fs::write(&config, bad).unwrap();
    let chart = folder.path().join("chart.svg");
    let drawn = chart.to_string_lossy();
    let more = ["--json", "--write", "--svg", &drawn];
    let (code, out, err) = said(&tune(&folder.path().join("scaler"), &[SHORT.as_slice(), &more].concat()));
    assert_eq!(code, Some(0), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["does"], &report["chosen"]["batch"]), (&Value::Bool(true), &Value::from(8)), "{out}");
    assert!(report["start"]["per_second"].as_f64().unwrap() > 0.0, "the model as it is was measured: {out}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("# ours\n") && text.contains("max_batch_size: 8\n"), "{text}");
    assert_eq!(fs::read_to_string(config.with_extension("pbtxt.bak")).unwrap(), bad);
    let chart = fs::read_to_string(&chart).unwrap();
    for part in ["<svg ", "chosen: ", "as it is", "in milliseconds", "requests a second", "</svg>"] {
        assert!(chart.contains(part), "the chart lacks {part}");
    }
    let server = Server::start(&["serve", "--model-repository", &folder.path().to_string_lossy()]).unwrap();
    let served = get(server.http, "/v2/models/scaler/config").json();
    assert_eq!(served["max_batch_size"], 8, "{served}");
    let instances = &report["chosen"]["instances"];
    if !instances.is_null() {
        assert_eq!(&served["instance_group"][0]["count"], instances, "{served}");
    }
}

#[test]
fn a_bare_file_gets_a_document_that_up_serves_and_that_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), "scaler.onnx");
    let more = [SHORT.as_slice(), &["--write"]].concat();
    let (code, out, err) = said(&tune(&folder.path().join("scaler.onnx"), &more));
    assert_eq!(code, Some(0), "{out}{err}");
    for part in ["chosen: ", "inline (no instance count)", "# config.pbtxt", "maxBatchSize: 8"] {
        assert!(out.contains(part), "{part} is missing in\n{out}");
    }
    let server = Server::start(&["up", &folder.path().to_string_lossy()]).unwrap();
    assert!(server.greeting.contains("ready"), "{}", server.greeting);
    let (code, _, err) = said(&tune(&folder.path().join("scaler.onnx"), &more));
    assert!(code == Some(1) && err.contains("scaler.yaml is there already"), "{err}");
}

#[test]
fn what_no_arrangement_can_do_is_told_and_not_written() {
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), "scaler.onnx");
    let more =
        [SHORT.as_slice(), &["--write", "--slo-p99", "1us", "--concurrency", "64", "--rows", "8"]].concat();
    let more: Vec<&str> = more.into_iter().skip(2).collect();
    let (code, out, err) = said(&tune(&folder.path().join("scaler.onnx"), &more));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("no point keeps a p99 of 0.001 ms; the nearest is"), "{out}");
    assert!(!folder.path().join("scaler.yaml").exists());
}

#[test]
fn a_search_at_a_rate_keeps_up_with_it() {
    let more = ["--rate", "100", "--instances", "1", "--batch", "8", "--delay", "0", "--json"];
    let (code, out, err) = said(&tune(&root().join("models/testdata/repository/scaler.onnx"), &more));
    assert_eq!(code, Some(0), "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["does"], &report["rate"]), (&Value::Bool(true), &Value::from(100.0)), "{out}");
}

#[test]
fn requests_of_models_that_mix_rows_are_tuned_alone_and_wrong_use_is_refused() {
    let mixes = root().join("models/testdata/repository/softmax_over_batch.onnx");
    let (code, out, _) = said(&tune(&mixes, &["--concurrency", "2", "--instances", "1"]));
    assert!(
        code == Some(0) && out.contains("requests never share a run: ") && out.contains("requests run alone"),
        "{out}"
    );
    let scaler = root().join("models/testdata/repository/scaler.onnx");
    for (more, words) in [
        (&["--batch", "2", "--rows", "4"][..], "no batch of the list holds so many"),
        (&["--data", "README.md"], "data is a .json, .csv or .npz file"),
        (&["--slo-p99", "10"], "with its unit"),
        (&["--rate", "5", "--concurrency", "2"], "cannot be used with"),
    ] {
        let (code, _, err) = said(&tune(&scaler, more));
        assert!(code != Some(0) && err.contains(words), "{words} is missing in {err}");
    }
    let folder = tempfile::tempdir().unwrap();
    copy(folder.path(), "gpu/1/model.onnx");
    fs::write(folder.path().join("gpu/config.pbtxt"), "instance_group [ { kind: KIND_GPU } ]").unwrap();
    let (code, _, err) = said(&tune(&folder.path().join("gpu"), &["--write"]));
    assert!(code == Some(1) && err.contains("instance_group.kind of config.pbtxt"), "{err}");
    let (code, _, err) = said(&tune(&root().join("README.md"), &[]));
    assert!(code == Some(1) && err.contains("neither an .onnx file nor a model folder"), "{err}");
}
