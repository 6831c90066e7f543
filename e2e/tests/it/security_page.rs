//! What SECURITY.md promises is held by tests that are there.
use std::fs;
use xebec_e2e::generate::root;

/// The text of every file of tests.
fn sources() -> String {
    let mut folders = vec![root().join("e2e/tests"), root().join("crates"), root().join("fuzz/tests")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => text.push_str(&fs::read_to_string(path).unwrap()),
                _ => {}
            }
        }
    }
    text
}

#[test]
fn every_test_that_the_security_page_and_the_architecture_name_is_there() {
    let sources = sources();
    let mut named = 0;
    for (page, heading) in [("SECURITY.md", "What fell elsewhere"), ("ARCHITECTURE.md", "Invariants")] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        let part = text.split("\n## ").find(|part| part.starts_with(heading)).unwrap();
        for row in part.lines().filter(|line| line.starts_with('|')) {
            let Some(tests) = row.trim_end_matches('|').rsplit('|').next() else { continue };
            for name in tests.split('`').skip(1).step_by(2).filter(|name| !name.contains(['/', '.'])) {
                assert!(sources.contains(&format!("fn {name}(")), "{page} names {name}");
                named += 1;
            }
        }
    }
    assert!(named > 60, "only {named}");
}
