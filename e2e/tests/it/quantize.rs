//! `xebec quantize`, against onnxruntime's own quantiser called directly.
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use xebec_e2e::{
    generate::root,
    server::{binary, clients_python, engine_library},
};

const MODEL: &str = "examples/fraud-detection/models/fraud-mlp.onnx";

/// A folder with the example's transactions, without their label: the first half to calibrate, the second to measure.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(root().join("examples/fraud-detection/data/transactions.csv")).unwrap();
        let lines: Vec<&str> = text.lines().map(|line| line.rsplit_once(',').unwrap().0).collect();
        let (head, rows) = lines.split_first().unwrap();
        let (first, second) = rows.split_at(rows.len() / 2);
        for (name, rows) in [("calibration.csv", first), ("eval.csv", second)] {
            fs::write(folder.path().join(name), format!("{head}\n{}\n", rows.join("\n"))).unwrap();
        }
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn quantize(&self, mode: &str, out: &str, python: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(binary().unwrap());
        command.current_dir(root()).args(["quantize", MODEL, "--mode", mode, "--json"]);
        command.arg("--output").arg(self.at(out)).arg("--python").arg(python);
        command.arg("--calibration").arg(self.at("calibration.csv")).arg("--eval").arg(self.at("eval.csv"));
        command.args(more).env("ORT_DYLIB_PATH", engine_library().unwrap());
        command.output().unwrap()
    }
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn a_copy_is_what_onnxruntimes_own_quantiser_makes_and_its_loss_is_the_one_that_is_told() {
    let folder = Folder::new();
    for mode in ["dynamic", "static", "fp16"] {
        let copy = format!("{mode}.onnx");
        let output = folder.quantize(mode, &copy, &clients_python().unwrap(), &[]);
        let told = report(&output);
        assert!(output.status.success() && told["written"] == true, "{told}");
        let mut check = Command::new(clients_python().unwrap());
        check.current_dir(root()).arg("e2e/clients/quantize.py").args([mode, MODEL]);
        check.args([&copy, "calibration.csv", "eval.csv"].map(|name| folder.at(name)));
        let check = check.output().unwrap();
        let own = report(&check);
        // The tool appends the casts of an fp16 copy behind the nodes that read them; ours stand before.
        assert_eq!(own["same"], mode != "fp16", "{mode}");
        assert_eq!(own["equal"], true, "{mode}");
        for (metric, want) in own["losses"].as_object().unwrap() {
            let (want, got) =
                (want.as_f64().unwrap(), told["loss"]["probabilities"][metric].as_f64().unwrap());
            assert!((got - want).abs() <= 1e-6 + want * 1e-4, "{mode}, {metric}: {got} and not {want}");
        }
        // By the engine's own judgement of the file.
        assert_eq!(told["shares_runs"], mode != "dynamic", "{mode}: {}", told["why_not"]);
        let batches: Vec<i64> =
            told["runs"].as_array().unwrap().iter().map(|run| run["rows"].as_i64().unwrap()).collect();
        assert_eq!(batches, [1, 8, 32]);
        assert!(told["copy_bytes"].as_u64().unwrap() < told["original_bytes"].as_u64().unwrap() * 6 / 10);
    }
    let why =
        report(&folder.quantize("dynamic", "again.onnx", &clients_python().unwrap(), &[]))["why_not"].clone();
    assert!(why.as_str().unwrap().contains("DynamicQuantizeLinear"), "{why}");
}

#[test]
fn a_copy_that_loses_more_than_allowed_is_not_written_and_nothing_stays_behind() {
    let folder = Folder::new();
    let python = clients_python().unwrap();
    let before = folder.files();
    let output = folder.quantize("dynamic", "copy.onnx", &python, &["--max-loss", "1e-9"]);
    assert_eq!((output.status.code(), report(&output)["written"].clone()), (Some(1), Value::Bool(false)));
    assert_eq!(folder.files(), before);
    let output = folder.quantize("fp16", "copy.onnx", &python, &["--max-loss", "0.1", "--metric", "max-abs"]);
    assert_eq!(output.status.code(), Some(0));
    // A second time there is something already.
    let output = folder.quantize("fp16", "copy.onnx", &python, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is there already"));
    assert_eq!(folder.files(), ["calibration.csv", "copy.onnx", "eval.csv"]);
}

#[test]
fn what_is_wrong_with_python_or_the_data_is_told_with_the_way_out() {
    let folder = Folder::new();
    let bare = folder.at("bare");
    let made = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&bare).status().unwrap();
    assert!(made.success());
    let said = |python: &Path, more: &[&str]| {
        let output = folder.quantize("dynamic", "copy.onnx", python, more);
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let text = said(&bare.join("bin/python"), &[]);
    assert!(text.contains("-m pip install numpy onnx onnxruntime"), "{text}");
    assert!(said(&folder.at("nowhere"), &[]).contains("cannot start"), "no Python");
    let text = said(Path::new("/bin/false"), &[]);
    assert!(text.contains("Python said"), "{text}");
    fs::write(folder.at("eval.csv"), "1,2,3\n").unwrap();
    let text = said(&clients_python().unwrap(), &[]);
    assert!(text.contains("a line has 3 numbers"), "{text}");
    assert_eq!(folder.files(), ["bare", "calibration.csv", "eval.csv"]);
}
