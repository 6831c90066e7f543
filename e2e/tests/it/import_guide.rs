//! The scripts of docs/guide/import.md make models that xebec serves, and whose answers are the frameworks'.
use crate::wire::{get, send};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use xebec_e2e::{
    generate::root,
    server::{Server, peer_python},
};

/// A block of code of the page.
struct Block {
    language: String,
    text: String,
}

/// The blocks that are marked `<!-- run: NAME -->`, in order.
fn blocks(name: &str) -> Vec<Block> {
    let page = fs::read_to_string(root().join("docs/guide/import.md")).unwrap();
    let mark = format!("<!-- run: {name} -->\n```");
    let found = page.split(&mark).skip(1).map(|rest| {
        let (language, rest) = rest.split_once('\n').unwrap();
        let (text, _) = rest.split_once("\n```").unwrap();
        Block { language: language.to_owned(), text: text.to_owned() }
    });
    found.collect()
}

/// Runs the blocks of a framework in a folder; returns what it answers.
fn convert(name: &str, python: &Path, folder: &Path) -> Value {
    let blocks = blocks(name);
    assert!(!blocks.is_empty(), "the page has nothing for {name}");
    for (number, block) in blocks.iter().enumerate() {
        let mut command = match block.language.as_str() {
            "python" => {
                let script = folder.join(format!("{number}.py"));
                fs::write(&script, &block.text).unwrap();
                let mut command = Command::new(python);
                command.arg("-I").arg(root().join("e2e/clients/import_guide.py"));
                command.arg(script).arg(folder.join("answers.json"));
                command
            }
            "sh" => {
                let mut command = Command::new("bash");
                command.args(["-euc", &block.text]).env("PATH", path_with(python.parent().unwrap()));
                command
            }
            other => panic!("a block of {other} cannot be run"),
        };
        let run = command.current_dir(folder).output().unwrap();
        assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stderr));
    }
    serde_json::from_str(&fs::read_to_string(folder.join("answers.json")).unwrap()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a command of the page runs as in a shell")]
fn path_with(folder: &Path) -> String {
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default())
}

/// Converts, serves and compares.
fn check(name: &str, environment: &str) {
    let (work, models) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let python: PathBuf = peer_python(environment).unwrap();
    let answers = convert(name, &python, work.path());
    let file = format!("{name}.onnx");
    fs::copy(work.path().join(&file), models.path().join(&file)).unwrap();
    let server = Server::start(&["serve", "--model-repository", &models.path().to_string_lossy()]).unwrap();
    let model = format!("/v2/models/{name}");
    let metadata = get(server.http, &model).json();
    let config = get(server.http, &format!("{model}/config")).json();
    assert!(config["max_batch_size"].as_u64() > Some(1), "{name} has no axis of rows: {metadata}");
    assert!(config.get("dynamic_batching").is_some(), "requests to {name} do not share runs: {config}");
    let inputs = metadata["inputs"].as_array().unwrap();
    assert_eq!((inputs.len(), &answers["dtype"]), (1, &Value::from("float32")));
    let output = &metadata["outputs"].as_array().unwrap().last().unwrap()["name"];
    let width = answers["shape"][1].as_u64().unwrap() as usize;
    let rows: Vec<&[Value]> = answers["x"].as_array().unwrap().chunks(width).collect();
    let mut got = Vec::new();
    for rows in rows.chunks(50) {
        let tensor = json!({"name": inputs[0]["name"], "datatype": "FP32", "shape": [rows.len(), width], "data": rows});
        let body = json!({"inputs": [tensor], "outputs": [{"name": output}]}).to_string();
        let reply = send(server.http, "POST", &format!("{model}/infer"), &[], body.as_bytes()).json();
        let data = reply["outputs"][0]["data"].as_array().unwrap_or_else(|| panic!("{name}: {reply}"));
        got.extend(data.iter().map(|number| number.as_f64().unwrap()));
    }
    let want: Vec<f64> =
        answers["want"].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    assert_eq!((got.len(), got.is_empty()), (want.len(), false), "{name}");
    let apart = got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
    assert!(apart < 1e-5, "{name}: up to {apart} from the framework's own answers");
}

#[test]
fn models_of_scikit_learn_answer_as_the_framework_does() {
    check("scikit-learn", "import");
}

#[test]
fn models_of_xgboost_answer_as_the_framework_does() {
    check("xgboost", "import");
}

#[test]
fn models_of_lightgbm_answer_as_the_framework_does() {
    check("lightgbm", "import");
}

#[test]
#[ignore = "large: make test-import"]
fn models_of_pytorch_answer_as_the_framework_does() {
    check("pytorch", "import-pytorch");
}

#[test]
#[ignore = "large: make test-import"]
fn models_of_tensorflow_answer_as_the_framework_does() {
    check("tensorflow", "import-tensorflow");
}

#[test]
#[ignore = "large: make test-import"]
fn models_of_jax_answer_as_the_framework_does() {
    check("jax", "import-jax");
}

#[test]
fn every_framework_of_the_page_is_run_by_a_test() {
    let page = fs::read_to_string(root().join("docs/guide/import.md")).unwrap();
    let mut marked: Vec<&str> =
        page.split("<!-- run: ").skip(1).map(|rest| rest.split_once(" -->").unwrap().0).collect();
    marked.sort_unstable();
    marked.dedup();
    assert_eq!(marked, ["jax", "lightgbm", "pytorch", "scikit-learn", "tensorflow", "xgboost"]);
}
