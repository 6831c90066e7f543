//! Committed generated code is what the proto files say.
use std::path::Path;
use xebec_e2e::generate;
use xebec_engine::repository::config::fields::{self, Verdict};

#[test]
fn generated_files_are_what_make_generate_writes() {
    for file in generate::all().unwrap() {
        let committed = std::fs::read(generate::root().join(file.path)).unwrap();
        assert!(committed == file.content, "{} is stale: run `make generate`", file.path);
    }
}

#[test]
fn every_test_that_a_field_of_the_configuration_names_exists() {
    let mut sources = String::new();
    for folder in ["crates", "e2e/src", "e2e/tests", "e2e/clients"] {
        read(&generate::root().join(folder), &mut sources);
    }
    for field in fields::FIELDS {
        if let Verdict::Honoured { test } | Verdict::Idle { test, .. } = field.verdict {
            let is_there =
                [format!("fn {test}("), format!("def {test}(")].iter().any(|line| sources.contains(line));
            assert!(is_there, "{} is said to be shown by '{test}', which is no test", field.path);
        }
    }
}

/// All Rust and Python below a folder.
fn read(folder: &Path, sources: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, sources);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "py") {
            sources.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}
