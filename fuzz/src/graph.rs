//! Graphs: the `ensemble_scheduling` of a `config.pbtxt`, or an `InferenceGraph` as JSON.
use crate::memory::within;
use xebec_core::resource::InferenceGraph;
use xebec_engine::{
    fuzzing::{ensemble, nodes},
    repository::config::parse,
};

/// What a graph may take beside what its text makes it take.
const GRAPH_BYTES: usize = 256 << 10;

/// Bytes for each byte of text: `step{}` is six and becomes a step with its maps, its plan, and its own words in an error.
const PER_BYTE: usize = 1024;

/// Takes the input as JSON if it begins as that, else as a file.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let outcome = if text.starts_with('{') {
        let Ok(graph) = serde_json::from_str::<InferenceGraph>(text) else { return false };
        within(GRAPH_BYTES, PER_BYTE, text.len(), || nodes(&graph))
    } else {
        let Ok(config) = parse(text) else { return false };
        within(GRAPH_BYTES, PER_BYTE, text.len(), || ensemble(&config))
    };
    match outcome {
        Ok(()) => true,
        Err(told) => {
            assert!(!told.is_empty(), "an error says something");
            false
        }
    }
}
