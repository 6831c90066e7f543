//! Every input that is kept, of seeds, of searches and of findings.
use std::{collections::BTreeSet, fs, path::PathBuf};
use xebec_fuzz::{TARGETS, memory::peak, target};

/// A corpus of fewer inputs shows nothing.
const FEWEST: usize = 20;

fn corpora() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus"].iter().collect()
}

/// Tries all inputs of a target. Each kind of outcome is there: an input is taken, another one is refused.
fn replay(name: &str) {
    let target = target(name).unwrap();
    let mut outcomes = [0, 0];
    for entry in fs::read_dir(corpora().join(name)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        outcomes[usize::from(target(&fs::read(path).unwrap()))] += 1;
    }
    let [refused, taken] = outcomes;
    assert!(refused + taken >= FEWEST && refused > 0 && taken > 0, "{refused} refused, {taken} taken");
}

#[test]
fn every_kept_json_body_holds_what_was_promised() {
    replay("json");
}

#[test]
fn every_kept_binary_body_holds_what_was_promised() {
    replay("binary");
}

#[test]
fn every_kept_message_of_grpc_holds_what_was_promised() {
    replay("grpc");
}

#[test]
fn every_kept_stream_of_grpc_holds_what_was_promised() {
    replay("stream");
}

#[test]
fn every_kept_config_holds_what_was_promised() {
    replay("config");
}

#[test]
fn every_kept_connection_of_http1_holds_what_was_promised() {
    replay("http1");
}

#[test]
fn every_kept_connection_of_http2_holds_what_was_promised() {
    replay("http2");
}

#[test]
fn every_kept_graph_holds_what_was_promised() {
    replay("graph");
}

#[test]
fn every_kept_picture_holds_what_was_promised() {
    replay("image");
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders = fs::read_dir(corpora()).unwrap();
    let folders = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let targets = TARGETS.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(folders.collect::<BTreeSet<_>>(), targets.collect());
}

#[test]
fn memory_is_counted_at_its_peak() {
    let (_, took) = peak(|| {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(3000)));
        drop(std::hint::black_box(Vec::<u8>::with_capacity(2000)));
    });
    assert_eq!(took, 3000);
}
