//! The text of a `config.pbtxt`.
use crate::memory::within;
use prost::Message as _;
use prost_reflect::DynamicMessage;
use xebec_core::model_config::ModelConfig;
use xebec_engine::repository::config::{decode, message, parse, parse_json, refusals};

/// What a configuration may take beside what its text makes it take.
const CONFIG_BYTES: usize = 256 << 10;

/// Bytes for each byte of text: `input{}` is seven, and a message with room for all its fields.
const PER_BYTE: usize = 256;

/// Takes the input as the file.
pub(crate) fn target(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    // The schema is read once, and not for this input.
    let _ = message("");
    let read = within(CONFIG_BYTES, PER_BYTE, text.len(), || message(text));
    let parsed = parse(text);
    let read = match read {
        Ok(read) => read,
        Err(fault) => {
            assert_eq!(parsed.err().as_ref(), Some(&fault));
            points_into(text, &fault);
            return false;
        }
    };
    let config = decode(&read).expect("what has the schema has its type");
    prints_the_same(&read, &config);
    // Either all of it is honoured, or something is named that is not.
    let refused = refusals(&read);
    assert_eq!(parsed.is_ok(), refused.is_empty(), "{refused:?}");
    parsed.is_ok_and(|parsed| {
        assert!(same(&parsed, &config), "{parsed:?} is not {config:?}");
        true
    })
}

/// Asserts that a configuration that is printed parses to the same, as text, as JSON and as bytes.
fn prints_the_same(read: &DynamicMessage, config: &ModelConfig) {
    let printed = read.to_text_format();
    let again = message(&printed).and_then(|again| decode(&again));
    assert!(again.is_ok_and(|again| same(&again, config)), "{printed} is not {config:?}");
    let again = ModelConfig::decode(config.encode_to_vec().as_slice());
    assert!(again.is_ok_and(|again| same(&again, config)), "{config:?}");
    let json = serde_json::to_string(read).expect("JSON");
    match (parse_json(&json), parse(&printed)) {
        (Ok(by_json), Ok(by_text)) => assert!(same(&by_json, &by_text), "{json} is not {printed}"),
        (Err(_), Err(_)) => {}
        (by_json, by_text) => panic!("{json} is {by_json:?}, {printed} is {by_text:?}"),
    }
}

/// By their bytes: a number that is none is not equal to itself.
fn same(a: &ModelConfig, b: &ModelConfig) -> bool {
    a.encode_to_vec() == b.encode_to_vec()
}

/// Asserts that the place of a fault is one of the text.
fn points_into(text: &str, fault: &str) {
    let number = |before: &str| {
        let (_, rest) = fault.split_once(before)?;
        rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    let (line, column) = (number("line ").expect("a line"), number("column ").expect("a column"));
    let lines = text.split('\n').count();
    assert!((1..=lines).contains(&line) && column >= 1, "{fault} in a text of {lines} lines");
}
