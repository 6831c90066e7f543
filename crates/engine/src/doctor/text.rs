//! A `config.pbtxt` with all its faults, and as much of it as can be used.
use super::{Diagnosis, Finding, Gravity, Read};
use crate::repository::{
    agents,
    config::{self, fields},
    labels, read,
};
use prost_reflect::{DynamicMessage, Kind, Value};
use std::path::Path;
use xebec_core::model_config::ModelConfig;

/// Most misspelt names that are put right.
const MOST_NAMES: usize = 100;

pub(super) fn read(file: &Path, name: &str, diagnosis: &mut Diagnosis) -> Read {
    let broken = Read { is_broken: true, is_changed: true, ..Read::default() };
    let text = match read::whole(file).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(_)) => {
            diagnosis.say(Gravity::Fault, file, "it is not UTF-8 text");
            return broken;
        }
        Err(error) => {
            diagnosis.say(Gravity::Fault, file, format!("it cannot be read: {error}"));
            return broken;
        }
    };
    let Some((mut message, mut is_changed)) = parse(text, file, diagnosis) else { return broken };
    for refusal in config::refusals(&message) {
        is_changed = true;
        diagnosis.say(Gravity::Fault, file, refusal);
    }
    let on_gpu = config::decode(&message).is_ok_and(|config| config::on_gpu(&config));
    clear(&mut message, "", on_gpu);
    let Ok(mut config) = config::decode(&message) else { return broken };
    if !config.name.is_empty() && config.name != name {
        let message = format!(
            "name is \"{}\", but the folder is '{name}'; make them equal or leave name out",
            config.name
        );
        diagnosis.say(Gravity::Fault, file, message);
        config.name = name.to_owned();
        is_changed = true;
    }
    settle(&mut config);
    Read { config: Some(config), is_changed, is_broken: false }
}

/// Parses the text, and goes on behind a misspelt name with the one that was perhaps meant.
fn parse(mut text: String, file: &Path, diagnosis: &mut Diagnosis) -> Option<(DynamicMessage, bool)> {
    let schema = config::schema().ok()?;
    // What was put right has moved what stands behind it in its line.
    let mut moved: Vec<(usize, usize, usize, usize)> = Vec::new();
    for round in 0..MOST_NAMES {
        let fault = match config::text::parse(&schema, &text) {
            Ok(message) => return Some((message, round > 0)),
            Err(fault) => fault,
        };
        let before = moved.iter().filter(|(line, column, ..)| *line == fault.line && *column < fault.column);
        let (shorter, longer) = before.fold((0, 0), |(a, b), (_, _, was, is)| (a + was, b + is));
        diagnosis.findings.push(Finding {
            gravity: Gravity::Fault,
            path: file.to_owned(),
            place: Some((fault.line, fault.column + shorter - longer)),
            message: fault.message.clone(),
        });
        let (next, was, is) = corrected(&text, &fault)?;
        moved.push((fault.line, fault.column, was, is));
        text = next;
    }
    None
}

/// The text with the name that was perhaps meant in the place of the fault, and how long both are.
fn corrected(text: &str, fault: &config::text::Fault) -> Option<(String, usize, usize)> {
    let (_, rest) = fault.message.split_once("did you mean '")?;
    let (meant, _) = rest.split_once('\'')?;
    let line_start = text.split_inclusive('\n').take(fault.line - 1).map(str::len).sum::<usize>();
    let line = text.get(line_start..)?;
    let at = line_start + line.char_indices().nth(fault.column - 1).map_or(line.len(), |(at, _)| at);
    let name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let wrong: usize = text.get(at..)?.chars().take_while(|letter| name(*letter)).map(char::len_utf8).sum();
    // A fault that is not at a name would be found again for ever.
    (wrong > 0).then(|| (format!("{}{meant}{}", &text[..at], &text[at + wrong..]), wrong, meant.len()))
}

/// Takes out what is not honoured.
fn clear(message: &mut DynamicMessage, prefix: &str, on_gpu: bool) {
    let set: Vec<_> = message.fields().map(|(field, _)| field).collect();
    for field in set {
        let path = format!("{prefix}{}", field.name());
        if fields::goes_on_below(&path) {
            each(message.get_field_mut(&field), &mut |inner| clear(inner, &format!("{path}."), on_gpu));
            continue;
        }
        let value = message.get_field(&field).into_owned();
        let spoken = match (&value, field.kind()) {
            (Value::Bool(value), _) => format!("{path} {value}"),
            (Value::EnumNumber(number), Kind::Enum(kind)) => {
                kind.get_value(*number).map_or(path.clone(), |value| format!("{path} {}", value.name()))
            }
            _ => path.clone(),
        };
        let refused = |path: &str| fields::row(path).is_some_and(|row| row.verdict.refuses(on_gpu));
        if refused(&spoken) {
            message.clear_field(&field);
        }
    }
}

fn each(value: &mut Value, then: &mut dyn FnMut(&mut DynamicMessage)) {
    match value {
        Value::Message(message) => then(message),
        Value::List(list) => list.iter_mut().for_each(|value| each(value, then)),
        Value::Map(map) => map.values_mut().for_each(|value| each(value, then)),
        _ => (),
    }
}

/// Puts values right that have no row of their own.
fn settle(config: &mut ModelConfig) {
    config.max_batch_size = config.max_batch_size.max(0);
    config.parameters.retain(|key, value| labels::one(key, &value.string_value).is_ok());
    for text in [&mut config.platform, &mut config.backend] {
        if !matches!(text.as_str(), "onnxruntime_onnx" | "onnxruntime" | "onnx") {
            text.clear();
        }
    }
    for group in &mut config.instance_group {
        group.count = group.count.max(0);
    }
    if !agents::faults(config).is_empty() {
        config.model_repository_agents = None;
    }
    use xebec_core::model_config::model_config::SchedulingChoice::DynamicBatching;
    if let Some(DynamicBatching(batching)) = &mut config.scheduling_choice {
        let most = config.max_batch_size;
        batching.preferred_batch_size.retain(|size| *size >= 1 && (most == 0 || *size <= most));
    }
}
