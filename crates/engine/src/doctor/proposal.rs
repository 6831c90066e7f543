//! A configuration that would be right: what was written, as far as it fits, over what the graph says.
use super::Read;
use crate::{
    onnx,
    repository::{
        Candidate,
        complete::{self, Defaults},
        config,
    },
};
use prost::Message as _;
use prost_reflect::{DynamicMessage, MessageDescriptor, Value};
use std::fmt::Write as _;
use xebec_core::{
    Version,
    model_config::{ModelConfig, ModelDynamicBatching, model_config::SchedulingChoice},
};

/// The text of a configuration with which this graph is served; `None` if there is none.
pub(super) fn propose(
    candidate: &Candidate,
    read: &Read,
    graph: &onnx::Model,
    defaults: &Defaults,
) -> Option<String> {
    let version = candidate.versions.keys().next_back().copied().unwrap_or(Version::FIRST);
    let given = read.config.clone().unwrap_or_default();
    attempts(candidate, &given, version, graph, defaults).into_iter().find_map(|config| {
        let text = print(&config, &config::schema().ok()?)?;
        let parsed = config::parse(&text).ok()?;
        let tried = Candidate { config: Some(parsed), ..candidate.clone() };
        complete::plan(&tried, version, graph, defaults).ok().map(|_| text)
    })
}

/// What was written; that with the graph's own shapes; the graph's own shapes alone.
fn attempts(
    candidate: &Candidate,
    given: &ModelConfig,
    version: Version,
    graph: &onnx::Model,
    defaults: &Defaults,
) -> Vec<ModelConfig> {
    let mut all = vec![given.clone()];
    let silent = Candidate { config: None, ..candidate.clone() };
    let Ok(own) = complete::plan(&silent, version, graph, defaults).map(|plan| plan.config) else {
        return all;
    };
    let batch = |most: i32| if own.max_batch_size == 0 { 0 } else { most };
    let most = if given.max_batch_size > 0 { batch(given.max_batch_size) } else { own.max_batch_size };
    let scheduling = |kept: Option<SchedulingChoice>| {
        let shares = most > 0 && own.scheduling_choice.is_some();
        kept.or_else(|| shares.then(|| SchedulingChoice::DynamicBatching(ModelDynamicBatching::default())))
    };
    let labels = |output: &xebec_core::model_config::ModelOutput| {
        let known = given.output.iter().find(|known| known.name == output.name);
        known.map(|known| known.label_filename.clone()).unwrap_or_default()
    };
    let mut outputs = own.output.clone();
    outputs.iter_mut().for_each(|output| output.label_filename = labels(output));
    let fitted = ModelConfig {
        max_batch_size: most,
        input: own.input.clone(),
        output: outputs,
        batch_input: Vec::new(),
        batch_output: Vec::new(),
        scheduling_choice: scheduling(given.scheduling_choice.clone()),
        ..given.clone()
    };
    all.push(ModelConfig { model_warmup: Vec::new(), ..fitted.clone() });
    all.insert(1, fitted);
    all.push(ModelConfig {
        platform: own.platform.clone(),
        max_batch_size: own.max_batch_size,
        input: own.input.clone(),
        output: own.output.clone(),
        scheduling_choice: scheduling(None),
        version_policy: given.version_policy.clone(),
        default_model_filename: given.default_model_filename.clone(),
        ..ModelConfig::default()
    });
    all
}

/// The text format, laid out as people lay it out.
pub(super) fn print(config: &ModelConfig, schema: &MessageDescriptor) -> Option<String> {
    let message = DynamicMessage::decode(schema.clone(), config.encode_to_vec().as_slice()).ok()?;
    let mut text = String::new();
    fields(&message, 0, &mut text);
    Some(text)
}

fn fields(message: &DynamicMessage, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for (field, value) in message.fields() {
        let name = field.name();
        // Writing into a String has no error to give.
        let _ = match value {
            Value::List(list) if matches!(list.first(), Some(Value::Message(_))) => {
                list.iter().for_each(|value| nested(name, value, depth, out));
                Ok(())
            }
            Value::List(list) => {
                let items: Vec<String> = list.iter().map(|value| scalar(&field, value)).collect();
                writeln!(out, "{indent}{name}: [ {} ]", items.join(", "))
            }
            Value::Map(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| format!("{key:?}"));
                for (key, value) in entries {
                    let key = scalar(&field, &Value::from(key.clone()));
                    let _ = writeln!(out, "{indent}{name} {{\n{indent}  key: {key}");
                    match value {
                        Value::Message(_) => nested("value", value, depth + 1, out),
                        plain => {
                            let _ = writeln!(out, "{indent}  value: {}", scalar(&field, plain));
                        }
                    }
                    let _ = writeln!(out, "{indent}}}");
                }
                Ok(())
            }
            Value::Message(_) => {
                nested(name, value, depth, out);
                Ok(())
            }
            plain => writeln!(out, "{indent}{name}: {}", scalar(&field, plain)),
        };
    }
}

fn nested(name: &str, value: &Value, depth: usize, out: &mut String) {
    let Value::Message(message) = value else { return };
    let indent = "  ".repeat(depth);
    let mut inner = String::new();
    fields(message, depth + 1, &mut inner);
    let _ = if inner.is_empty() {
        writeln!(out, "{indent}{name} {{ }}")
    } else {
        writeln!(out, "{indent}{name} {{\n{inner}{indent}}}")
    };
}

fn scalar(field: &prost_reflect::FieldDescriptor, value: &Value) -> String {
    match (value, field.kind()) {
        (Value::EnumNumber(number), prost_reflect::Kind::Enum(kind)) => {
            kind.get_value(*number).map_or_else(|| number.to_string(), |value| value.name().to_owned())
        }
        (Value::String(text), _) => quoted(text),
        (Value::Bool(value), _) => value.to_string(),
        (other, _) => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                let _ = write!(out, "\\{:03o}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
