//! `xebec doctor` and `xebec inspect` as commands, with ONNX Runtime.
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use xebec_e2e::{
    generate::root,
    server::{binary, engine_library},
};

fn xebec(args: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command.args(args).current_dir(root()).env("ORT_DYLIB_PATH", engine_library().unwrap());
    command.output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A model folder with this configuration.
fn house(config: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("m");
    fs::create_dir_all(model.join("1")).unwrap();
    fs::copy(root().join("models/testdata/repository/scaler.onnx"), model.join("1/model.onnx")).unwrap();
    fs::write(model.join("config.pbtxt"), config).unwrap();
    (folder, model)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_doctor_corrects_a_config_and_keeps_the_old_one_with_its_comments() {
    let old = "# ours\nmax_batchsize: 8\ninput [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] } ]\n";
    let (_folder, model) = house(old);
    let said = xebec(&["doctor", path(&model)]);
    assert_eq!(said.status.code(), Some(1));
    let text = out(&said);
    assert!(text.contains("config.pbtxt:2:1: field 'max_batchsize' not found"), "{text}");
    assert!(text.contains("did you mean 'max_batch_size'?") && text.contains("dims: [ 4 ]"), "{text}");
    assert_eq!(fs::read_to_string(model.join("config.pbtxt")).unwrap(), old, "nothing is written unasked");
    let written = xebec(&["doctor", path(&model), "--write"]);
    assert!(out(&written).contains("is written anew"), "{}", out(&written));
    assert_eq!(written.status.code(), Some(0), "nothing is left to fix");
    assert_eq!(fs::read_to_string(model.join("config.pbtxt.bak")).unwrap(), old);
    let cured = xebec(&["doctor", path(&model)]);
    assert_eq!(cured.status.code(), Some(0), "{}", out(&cured));
    // A second time the first copy is not lost.
    fs::write(model.join("config.pbtxt"), "max_batch_size: -1").unwrap();
    xebec(&["doctor", path(&model), "--write"]);
    assert_eq!(fs::read_to_string(model.join("config.pbtxt.bak")).unwrap(), old);
    assert_eq!(fs::read_to_string(model.join("config.pbtxt.bak.1")).unwrap(), "max_batch_size: -1");
}

#[test]
fn the_doctor_loads_what_it_looks_at_and_tells_it_as_json() {
    let run = xebec(&["doctor", "models/testdata/broken", "--json"]);
    assert_eq!(run.status.code(), Some(1));
    let all: Value = serde_json::from_slice(&run.stdout).unwrap();
    let models = all["models"].as_array().unwrap();
    let of = |name: &str| {
        let model = models.iter().find(|model| model["model"] == name).unwrap();
        model["findings"][0]["message"].as_str().unwrap().to_owned()
    };
    // The file is whole: only the engine knows that it has no such operator.
    assert!(of("unknown_op").contains("no operator Frobnicate"), "{}", of("unknown_op"));
    assert!(of("pickle").contains("a Python pickle"));
    let misfit = models.iter().find(|model| model["model"] == "misfit").unwrap();
    assert!(misfit["corrected"]["text"].as_str().unwrap().contains("dims: [ 4 ]"));
    assert_eq!(misfit["corrected"]["written"], false);
    let unloaded = xebec(&["doctor", "models/testdata/broken/unknown_op.onnx", "--no-load"]);
    assert_eq!(unloaded.status.code(), Some(0), "{}", out(&unloaded));
    assert_eq!(xebec(&["doctor", "nowhere"]).status.code(), Some(1));
}

#[test]
fn versions_and_labels_are_shown() {
    let label = "parameters { key: \"version_label.stable\" value: { string_value: \"1\" } }";
    let (folder, model) = house(&format!("version_policy {{ all {{ }} }} {label}"));
    fs::create_dir_all(model.join("2")).unwrap();
    fs::copy(model.join("1/model.onnx"), model.join("2/model.onnx")).unwrap();
    let said = out(&xebec(&["doctor", path(folder.path()), "--no-load"]));
    assert!(said.starts_with("m: fine, versions 1 (stable), 2\n"), "{said}");
    let run = xebec(&["doctor", path(folder.path()), "--no-load", "--json"]);
    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(told["models"][0]["versions"][0], serde_json::json!({"version": 1, "labels": ["stable"]}));
    let said = out(&xebec(&["inspect", path(&model), "--no-run"]));
    assert!(said.contains("\nversion     2; stable is 1\n"), "{said}");
    let told: Value =
        serde_json::from_slice(&xebec(&["inspect", path(&model), "--no-run", "--json"]).stdout).unwrap();
    assert_eq!((&told["version"], &told["labels"]["stable"]), (&Value::from(2), &Value::from(1)));
}

/// The exit status, and standard output and error.
fn ended(args: &[&str]) -> (Option<i32>, String, String) {
    let output = xebec(args);
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    (output.status.code(), out(&output), errors)
}

#[test]
fn the_doctors_exit_status_says_whether_something_is_to_be_done() {
    let (folder, model) = house("max_batch_size: 8 dynamic_batching { }");
    let (status, said, _) = ended(&["doctor", path(&model)]);
    assert_eq!((status, said.as_str()), (Some(0), "m: fine\n1 model looked at, 0 with something to fix\n"));
    // A doubt is no fault.
    fs::write(model.join("config.pbtxt"), "max_batch_size: 8").unwrap();
    let (status, said, _) = ended(&["doctor", path(&model), "--no-load"]);
    assert!(
        status == Some(0) && said.contains("warning: ") && said.contains("write dynamic_batching { }"),
        "{said}"
    );
    // A fault is one, by whatever part of the model it is asked for.
    fs::write(model.join("config.pbtxt"), "max_batchsize: 8 dynamic_batching { }").unwrap();
    for part in [folder.path(), &model, &model.join("1"), &model.join("config.pbtxt")] {
        let (status, said, _) = ended(&["doctor", path(part), "--no-load"]);
        assert!(status == Some(1) && said.starts_with("m\n  error: "), "{said}");
        assert!(
            said.ends_with("1 with something to fix; --write puts what is corrected in its place\n"),
            "{said}"
        );
    }
    // Without loading no engine is needed.
    let mut without = Command::new(binary().unwrap());
    without.args(["doctor", path(&model), "--no-load"]).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    let without = without.output().unwrap();
    assert!(out(&without).contains("did you mean 'max_batch_size'?"), "{without:?}");
    for (wrong, words) in [
        (path(&model.join("none")), "cannot read "),
        ("README.md", "README.md has no models: neither .onnx files nor folders such as NAME/1/model.onnx"),
    ] {
        let (status, said, errors) = ended(&["doctor", wrong, "--json"]);
        assert!(status == Some(1) && said.is_empty() && errors.contains(words), "{said}{errors}");
    }
    assert_eq!(ended(&["doctor"]).0, Some(64));
    assert_eq!(ended(&["doctor", path(&model), "--jsn"]).0, Some(64));
}

#[test]
fn inspects_exit_status_says_whether_the_file_was_read() {
    let (folder, model) =
        house("max_batch_size: 8 input { name: \"x\" data_type: TYPE_FP32 dims: [ -1, 4 ] }");
    // It cannot be run as it is configured; what the file says is told all the same.
    let (status, said, errors) = ended(&["inspect", path(&model)]);
    assert!(
        status == Some(0) && said.contains("x  FLOAT [batch, 4]") && !said.contains("cost per run"),
        "{said}"
    );
    assert!(errors.starts_with("warning: it cannot be run as it is: config says input 'x'"), "{errors}");
    let (status, said, errors) = ended(&["inspect", path(&model), "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert!(
        status == Some(0) && told["cost_error"].as_str().unwrap().contains("config says input 'x'"),
        "{said}"
    );
    assert_eq!(errors, "");
    let version = model.join("1");
    for (wrong, words) in [
        (path(folder.path()), " is a folder of models; name "),
        (path(&version), " is a part of a model; name "),
        ("README.md", "is neither an .onnx file nor a model folder such as NAME/1/model.onnx"),
        ("models/testdata/broken/truncated.onnx", "the file is damaged or not ONNX"),
        ("nowhere", "cannot read nowhere"),
    ] {
        let (status, said, errors) = ended(&["inspect", wrong, "--json", "--no-run"]);
        assert!(status == Some(1) && said.is_empty() && errors.contains(words), "{wrong}: {said}{errors}");
    }
    assert_eq!(ended(&["inspect"]).0, Some(64));
}

#[test]
fn a_repository_that_serves_has_nothing_to_fix() {
    let run = xebec(&["doctor", "models/testdata/repository"]);
    assert_eq!(run.status.code(), Some(0), "{}", out(&run));
    assert!(
        out(&run).contains("0 with something to fix") && out(&run).contains("scaler: fine"),
        "{}",
        out(&run)
    );
}

#[test]
fn inspect_tells_what_a_model_holds_and_what_it_costs() {
    let run = xebec(&["inspect", "models/testdata/repository/scaler.onnx"]);
    let text = out(&run);
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    for part in [
        "sha256      ",
        "x  FLOAT [",
        "no operator stops it",
        "cost per run, on zeros, by onnxruntime",
        "us a row",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let run = xebec(&["inspect", "models/testdata/repository/softmax_over_batch.onnx", "--json"]);
    let model: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(model["operators"]["Softmax"], 1);
    assert!(model["stops_batching"][0].as_str().unwrap().contains("over the batch axis"));
    assert!(model["cost"][0]["microseconds"].as_f64().unwrap() > 0.0);
    let bare = xebec(&["inspect", "models/testdata/repository/scaler.onnx", "--no-run", "--json"]);
    let model: Value = serde_json::from_slice(&bare.stdout).unwrap();
    assert!(model["engine"].is_null() && model["sha256"].as_str().unwrap().len() == 64);
    let refused = xebec(&["inspect", "models/testdata/broken/pickle.onnx"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is a Python pickle"));
}
