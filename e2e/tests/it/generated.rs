//! Committed generated code is what the proto files say.
use xebec_e2e::generate;

#[test]
fn generated_files_are_what_make_generate_writes() {
    for file in generate::all().unwrap() {
        let committed = std::fs::read(generate::root().join(file.path)).unwrap();
        assert!(committed == file.content, "{} is stale: run `make generate`", file.path);
    }
}
