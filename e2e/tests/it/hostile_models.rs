//! Model files and names of models that other servers let out of their folder, and files that are code elsewhere. A test
//! for each row, beside clients whose calls go on.
use crate::{
    hostile_http2::beside,
    rpc::{self, INVALID_ARGUMENT, NOT_FOUND},
    wire::{get, send},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;
use xebec_e2e::{
    generate::root,
    server::{Server, binary},
};
use xebec_net::wire::inference::RepositoryModelLoadRequest;

/// A repository with the model that the clients beside call, and a secret next to it.
fn repository() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    fs::create_dir(&repository).unwrap();
    fs::copy(root().join("models/testdata/repository/scaler.onnx"), repository.join("scaler.onnx")).unwrap();
    fs::write(folder.path().join("secret"), [7; 4096]).unwrap();
    (folder, repository)
}

fn server(repository: &Path) -> Server {
    let path = repository.to_string_lossy();
    let explicit =
        ["--model-control-mode", "explicit", "--load-model", "scaler", "--allow-model-upload", "true"];
    Server::start(&[&["serve", "--model-repository", &*path], &explicit[..]].concat()).unwrap()
}

fn load(server: &Server, model: &str, parameters: &Value) -> (u16, String) {
    let body = json!({"parameters": parameters}).to_string();
    let path = format!("/v2/repository/models/{model}/load");
    let reply = send(server.http, "POST", &path, &[], body.as_bytes());
    (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
}

/// Every file below a folder, with its size.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push((entry.path(), entry.metadata().unwrap().len())),
            }
        }
    }
    found.sort();
    found
}

#[test]
fn triton_cve_2026_24208_and_24209_a_name_that_is_loaded_is_never_a_path() {
    let (folder, repository) = repository();
    fs::create_dir_all(repository.join("folder/1")).unwrap();
    fs::copy(repository.join("scaler.onnx"), repository.join("folder/1/model.onnx")).unwrap();
    let server = server(&repository);
    let before = files(folder.path());
    beside(&server, || {
        for name in [
            "..%2f..%2f..%2fetc%2fpasswd",
            "%2e%2e%2fsecret",
            "..%252fsecret",
            "..%5csecret",
            "%2fetc%2fpasswd",
            "..",
            "%2e%2e",
            ".",
            "scaler%00",
            "%00",
            "scaler%0a",
            "scaler.onnx",
            "1%2f..%2fscaler",
        ] {
            for verb in ["load", "unload"] {
                let path = format!("/v2/repository/models/{name}/{verb}");
                let refused = send(server.http, "POST", &path, &[], b"");
                assert!([400, 404].contains(&refused.status), "{path}: {}", refused.error());
                let text = String::from_utf8_lossy(&refused.body).into_owned();
                assert!(!text.contains(&*folder.path().to_string_lossy()), "{text}");
            }
        }
        for path in ["/v2/repository/models/../../etc/passwd/load", "/v2/repository/models//etc/passwd/load"]
        {
            assert_eq!(send(server.http, "POST", path, &[], b"").status, 404, "{path}");
        }
        // The names of files that come with an order.
        let model = fs::read(repository.join("scaler.onnx")).unwrap();
        let config = r#"{"backend": "onnxruntime"}"#;
        for file in
            ["../x", "1/../../x", "/tmp/x", "1//x", "1/a/b", "..", "", "1/\u{0}", "1/..", "x", "-1/x", "1\\x"]
        {
            let parameters = json!({"config": config, format!("file:{file}"): base64(&model)});
            let (status, text) = load(&server, "came", &parameters);
            assert_eq!(status, 400, "{file}: {text}");
        }
        for file in ["../secret", "/etc/passwd", "1/../../secret"] {
            let config = json!({"default_model_filename": file}).to_string();
            let (status, text) = load(&server, "folder", &json!({"config": config}));
            assert!(status == 400 && text.contains("is not the name of a file"), "{file}: {text}");
        }
        rpc::run(async {
            let client = rpc::connect(server.grpc).await;
            for name in ["../../etc/passwd", "/etc/passwd", "..", "a\0b", "", "a\\b"] {
                let request = RepositoryModelLoadRequest { model_name: name.into(), ..Default::default() };
                let path = "/inference.GRPCInferenceService/RepositoryModelLoad";
                let outcome = rpc::call(&client, path, &request).await.unwrap();
                assert!([INVALID_ARGUMENT, NOT_FOUND].contains(&outcome.code), "{name:?}: {outcome:?}");
            }
        });
    });
    assert_eq!(files(folder.path()), before, "a file came or went");
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let of = |group: &[u8]| {
        let bits =
            group.iter().chain(&[0; 2]).take(3).fold(0usize, |bits, byte| bits << 8 | usize::from(*byte));
        let letter = |at: usize| char::from(LETTERS[bits >> (18 - 6 * at) & 63]);
        let used = group.len() + 1;
        (0..4).map(move |at| if at < used { letter(at) } else { '=' }).collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

/// Puts the model with external data under another name, reading `location`, which has as many letters as its own.
fn external(repository: &Path, model: &str, location: &str) -> PathBuf {
    let folder = repository.join(model).join("1");
    fs::create_dir_all(&folder).unwrap();
    let mut bytes = fs::read(root().join("models/testdata/repository/external_data/1/model.onnx")).unwrap();
    let own = b"weights.bin";
    let at = bytes.windows(own.len()).position(|window| window == own).unwrap();
    assert_eq!(location.len(), own.len());
    bytes[at..at + own.len()].copy_from_slice(location.as_bytes());
    fs::write(folder.join("model.onnx"), bytes).unwrap();
    folder
}

#[test]
fn onnx_cve_2022_25882_cve_2024_27318_and_cve_2026_27489_external_data_stays_in_its_folder_whatever_links_say()
 {
    let (outside, repository) = repository();
    let data = fs::read(root().join("models/testdata/repository/external_data/1/weights.bin")).unwrap();
    let secret = outside.path().join("weights.bin");
    fs::write(&secret, &data).unwrap();
    external(&repository, "up", "../../w.bin");
    fs::write(repository.join("w.bin"), &data).unwrap();
    external(&repository, "absolute", "/etc/passwd");
    symlink(&secret, external(&repository, "link", "weights.bin").join("weights.bin")).unwrap();
    symlink(outside.path(), external(&repository, "parent", "d/ights.bin").join("d")).unwrap();
    fs::write(outside.path().join("ights.bin"), &data).unwrap();
    fs::hard_link(&secret, external(&repository, "hard", "weights.bin").join("weights.bin")).unwrap();
    fs::create_dir(external(&repository, "folder", "weights.bin").join("weights.bin")).unwrap();
    fs::write(external(&repository, "whole", "weights.bin").join("weights.bin"), &data).unwrap();
    let server = server(&repository);
    beside(&server, || {
        for (model, words) in [
            ("up", "without '..'"),
            ("absolute", "must be a relative path"),
            ("link", "a link out of the model's folder"),
            ("parent", "a link out of the model's folder"),
            ("hard", "is one file under 2 names"),
            ("folder", "not a regular file"),
        ] {
            let (status, text) = load(&server, model, &json!({}));
            assert!(status == 400 && text.contains(words), "{model}: {status} {text}");
            assert_eq!(get(server.http, &format!("/v2/models/{model}/ready")).status, 400, "{model}");
        }
        assert_eq!(load(&server, "whole", &json!({})).0, 200);
    });
}

#[test]
fn ollama_cve_2026_7482_a_tensor_past_the_end_of_its_file_is_refused() {
    let (_outside, repository) = repository();
    let data = fs::read(root().join("models/testdata/repository/external_data/1/weights.bin")).unwrap();
    let folder = external(&repository, "short", "weights.bin");
    let server = server(&repository);
    beside(&server, || {
        for length in [data.len() - 1, 1, 0] {
            fs::write(folder.join("weights.bin"), &data[..length]).unwrap();
            let (status, text) = load(&server, "short", &json!({}));
            assert!(status == 400 && text.contains(&format!("it has {length} bytes, but")), "{text}");
        }
    });
}

#[test]
fn torch_cve_2025_32434_and_keras_cve_2026_12479_files_that_are_code_are_known_by_their_content() {
    let (_outside, repository) = repository();
    let archive = |names: &[&str]| [b"PK\x03\x04".to_vec(), names.join("...").into_bytes()].concat();
    let cases = [
        ("torch", archive(&["m/data.pkl", "m/data/0"]), "PyTorch"),
        ("script", archive(&["m/data.pkl", "m/code/x.py", "m/constants.pkl"]), "TorchScript"),
        ("keras", archive(&["metadata.json", "config.json", "model.weights.h5"]), "Keras"),
        ("numpy", archive(&["../../x.npy"]), "NumPy"),
        ("hdf5", b"\x89HDF\r\n\x1a\n and layers".to_vec(), "HDF5"),
        ("pickle", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.".to_vec(), "pickle"),
        ("sklearn", b"\x80\x05\x95sklearn.linear_model".to_vec(), "pickle"),
        ("gguf", b"GGUF\x03\0\0\0".to_vec(), "GGUF"),
    ];
    for (model, bytes, _) in &cases {
        // The names of files say that it is ONNX.
        fs::create_dir_all(repository.join(model).join("1")).unwrap();
        fs::write(repository.join(model).join("1/model.onnx"), bytes).unwrap();
    }
    let server = server(&repository);
    beside(&server, || {
        for (model, bytes, words) in &cases {
            let (status, text) = load(&server, model, &json!({}));
            assert!(status == 400 && text.contains(words), "{model}: {status} {text}");
            // And so they are when they come with an order.
            let config = r#"{"backend": "onnxruntime"}"#;
            let parameters = json!({"config": config, "file:1/model.onnx": base64(bytes)});
            let (status, text) = load(&server, "came", &parameters);
            assert!(status == 400 && text.contains(words), "{model}: {status} {text}");
        }
    });
}

#[test]
fn torchserve_tags_of_yaml_are_inert() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let file = made.to_string_lossy();
    let repository = root().join("models/testdata/repository");
    let other = folder.path().join("other");
    fs::write(&other, "read-from-another-file").unwrap();
    for tag in [
        format!("!!python/object/apply:os.system [\"touch {file}\"]"),
        format!(
            "!!javax.script.ScriptEngineManager [!!java.net.URLClassLoader [[!!java.net.URL [\"file:{file}\"]]]]"
        ),
        format!("!!ruby/object:Gem::Installer {{i: \"{file}\"}}"),
        format!("!include {}", other.display()),
        "&a [*a, *a]".to_owned(),
    ] {
        let document = format!(
            "apiVersion: xebec.dev/v1alpha1\nkind: InferenceService\nmetadata: {{name: a}}\nspec:\n  model: {tag}\n"
        );
        let documents = folder.path().join("a.yaml");
        fs::write(&documents, document).unwrap();
        let settings = folder.path().join("settings.yaml");
        fs::write(&settings, format!("model-repository: {}\nserver-name: {tag}\n", repository.display()))
            .unwrap();
        for args in [
            vec!["up", &*documents.to_string_lossy()],
            vec!["serve", "--check-config", "--config", &*settings.to_string_lossy()],
        ] {
            let output = Command::new(binary().unwrap()).args(&args).output().unwrap();
            // A tag before a text changes nothing of the text; what is no text is refused.
            let text = tag.starts_with("!include") && args[0] == "serve";
            assert_eq!(output.status.code(), Some(if text { 0 } else { 64 }), "{tag}: {output:?}");
            let said = [output.stdout, output.stderr].concat();
            assert!(!String::from_utf8_lossy(&said).contains("read-from-another-file"), "{tag}");
        }
        assert!(!made.exists(), "{tag} was carried out");
    }
}
