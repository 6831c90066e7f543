//! `config.pbtxt`: parsed by its schema, and refused by name where it asks for what is not honoured.
//!
//! Invariant: every field that is set is either honoured or named in the error, all of them at once. What a honoured
//! field means against a graph is in [`complete`](super::complete).
use super::RepositoryError;
use miette::Diagnostic as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Value, text_format::ParseError};
use std::path::Path;
use xebec_core::{
    ModelName,
    model_config::{DESCRIPTOR, ModelConfig, model_instance_group::Kind, model_queue_policy::TimeoutAction},
};

/// A `config.pbtxt` larger than this is refused unread.
const MOST_BYTES: u64 = 1 << 20;

/// Fields that are honoured, by path. A message stands here when it means something although it is empty.
const HONOURED: &[&str] = &[
    "name",
    "platform",
    "backend",
    "max_batch_size",
    "default_model_filename",
    "input.name",
    "input.data_type",
    "input.dims",
    "output.name",
    "output.data_type",
    "output.dims",
    "instance_group.name",
    "instance_group.count",
    "instance_group.kind",
    "version_policy.latest.num_versions",
    "version_policy.all",
    "version_policy.specific.versions",
    "dynamic_batching.preferred_batch_size",
    "dynamic_batching.max_queue_delay_microseconds",
    "dynamic_batching.default_queue_policy.max_queue_size",
    "dynamic_batching.default_queue_policy.default_timeout_microseconds",
    "dynamic_batching.default_queue_policy.allow_timeout_override",
    "dynamic_batching.default_queue_policy.timeout_action",
];

/// What to do instead, by the beginning of a path.
const INSTEAD: &[(&str, &str)] = &[
    ("input.reshape", "give the dims of the graph and reshape in the client"),
    ("output.reshape", "give the dims of the graph and reshape in the client"),
    ("input.optional", "every input is required; make a default an initializer of the graph"),
    ("input.allow_ragged_batch", "pad in the client; requests of different shape are run apart"),
    ("instance_group.gpus", "models run on the CPU; write kind: KIND_CPU"),
    ("instance_group", "only name, count and kind are honoured"),
    ("sequence_batching", "stateful models are not served; keep the state in the client"),
    ("ensemble_scheduling", "call the models one after another from the client"),
    ("dynamic_batching.priority", "requests are run in order of arrival; leave it out"),
    ("dynamic_batching.default_priority", "requests are run in order of arrival; leave it out"),
    ("dynamic_batching.preserve_ordering", "answers go out as they are ready; leave it out"),
    ("model_warmup", "every model is warmed up with zeros by itself; leave it out"),
    ("response_cache", "answers are not cached; leave it out"),
    ("optimization", "the graph is optimised in full by itself; leave it out"),
    ("model_transaction_policy", "one request has one answer; leave it out"),
    ("parameters", "threads follow from the flags --objective and --instances; leave it out"),
];

/// Reads and checks a `config.pbtxt`.
///
/// # Errors
/// Not text, not the schema, another model's name, or fields that are not honoured.
pub fn read(path: &Path, name: &ModelName) -> Result<ModelConfig, RepositoryError> {
    let read = |source| RepositoryError::Read { path: path.to_owned(), source };
    let fault = |message: String| RepositoryError::Config { path: path.to_owned(), message };
    let size = path.metadata().map_err(read)?.len();
    if size > MOST_BYTES {
        return Err(fault(format!("{size} bytes are more than a config.pbtxt can need ({MOST_BYTES})")));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    let config = parse(&text).map_err(fault)?;
    if !config.name.is_empty() && config.name != name.as_str() {
        return Err(fault(format!(
            "name is \"{}\", but the folder is '{name}'; make them equal or leave name out",
            config.name
        )));
    }
    Ok(config)
}

/// Parses and checks the text of a `config.pbtxt`.
///
/// # Errors
/// Everything that is wrong, as text.
pub fn parse(text: &str) -> Result<ModelConfig, String> {
    let pool = DescriptorPool::decode(DESCRIPTOR).map_err(|error| error.to_string())?;
    let schema = pool.get_message_by_name("inference.ModelConfig").ok_or("the schema has no ModelConfig")?;
    let text = &with_colons(text);
    let message = DynamicMessage::parse_text_format(schema, text).map_err(|error| place(&error, text))?;
    let mut refused = Vec::new();
    walk(&message, "", &mut refused);
    let config: ModelConfig = message.transcode_to().map_err(|error| error.to_string())?;
    values(&config, &mut refused);
    if refused.is_empty() { Ok(config) } else { Err(refused.join("; ")) }
}

/// Writes the colon before a list of messages, which the text format lets people leave out (`input [ { ... } ]`) and
/// the parser wants. It takes the place of a blank where there is one, so that columns stay what they are.
///
/// # Source
/// Protocol Buffers, "Text Format Language Specification", "Field": the colon is optional before messages and lists of
/// them.
fn with_colons(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut quote = None;
    let mut escaped = false;
    let mut comment = false;
    for letter in text.chars() {
        if comment {
            comment = letter != '\n';
        } else if let Some(open) = quote {
            if !escaped && letter == open {
                quote = None;
            }
            escaped = !escaped && letter == '\\';
        } else {
            match letter {
                '#' => comment = true,
                '"' | '\'' => quote = Some(letter),
                '[' => colon(&mut out),
                _ => (),
            }
        }
        out.push(letter);
    }
    out
}

/// Puts a colon behind the field's name that `out` ends with, if it does.
fn colon(out: &mut String) {
    let name = out.trim_end_matches([' ', '\t']);
    if !name.ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_') {
        return;
    }
    let at = name.len();
    if at < out.len() {
        out.replace_range(at..=at, ":");
    } else {
        out.push(':');
    }
}

/// The parser's words with line and column.
fn place(error: &ParseError, text: &str) -> String {
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let before = text.get(..offset.unwrap_or(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    format!("line {line}, column {column}: {error}")
}

/// Collects every field that is set and not honoured.
fn walk(message: &DynamicMessage, prefix: &str, refused: &mut Vec<String>) {
    for (field, value) in message.fields() {
        let path = format!("{prefix}{}", field.name());
        let inner = format!("{path}.");
        let goes_on = HONOURED.iter().any(|honoured| honoured.starts_with(&inner));
        if HONOURED.contains(&path.as_str()) {
            continue;
        }
        if goes_on {
            messages(value).for_each(|message| walk(message, &inner, refused));
        } else if !refused.iter().any(|said| said.starts_with(&format!("{path} "))) {
            refused.push(format!("{path} is not honoured by this version: {}", instead(&path)));
        }
    }
}

fn messages(value: &Value) -> Box<dyn Iterator<Item = &DynamicMessage> + '_> {
    match value {
        Value::Message(message) => Box::new(std::iter::once(message)),
        Value::List(list) => Box::new(list.iter().flat_map(messages)),
        Value::Map(map) => Box::new(map.values().flat_map(messages)),
        _ => Box::new(std::iter::empty()),
    }
}

fn instead(path: &str) -> &'static str {
    let known = INSTEAD.iter().find(|(beginning, _)| path.starts_with(beginning));
    known.map_or("leave it out", |(_, instead)| instead)
}

/// Checks values whose field is honoured for some of them only.
fn values(config: &ModelConfig, refused: &mut Vec<String>) {
    if !matches!(config.platform.as_str(), "" | "onnxruntime_onnx" | "onnx") {
        refused.push(format!(
            "platform \"{}\" is not served: export the model to ONNX and write platform: \"onnxruntime_onnx\"",
            config.platform
        ));
    }
    if !matches!(config.backend.as_str(), "" | "onnxruntime" | "onnx") {
        refused.push(format!(
            "backend \"{}\" is not served: export the model to ONNX and write backend: \"onnxruntime\"",
            config.backend
        ));
    }
    if config.max_batch_size < 0 {
        refused.push(format!(
            "max_batch_size {} is negative: write 0 for a model without batch axis",
            config.max_batch_size
        ));
    }
    for group in &config.instance_group {
        match Kind::try_from(group.kind) {
            Ok(Kind::Auto | Kind::Cpu) => (),
            Ok(kind) => refused.push(format!(
                "instance_group.kind {} is not honoured by this version: models run on the CPU; write KIND_CPU",
                kind.as_str_name()
            )),
            Err(_) => refused.push(format!("instance_group.kind {} is not a kind; write KIND_CPU", group.kind)),
        }
        if group.count < 0 {
            refused.push(format!("instance_group.count {} is negative", group.count));
        }
    }
    let policy = config.scheduling_choice.as_ref().and_then(|choice| match choice {
        xebec_core::model_config::model_config::SchedulingChoice::DynamicBatching(batching) => Some(batching),
        _ => None,
    });
    for size in policy.iter().flat_map(|batching| &batching.preferred_batch_size) {
        if *size < 1 || (*size > config.max_batch_size && config.max_batch_size > 0) {
            refused.push(format!(
                "preferred_batch_size {size} is not between 1 and max_batch_size ({})",
                config.max_batch_size
            ));
        }
    }
    let action = policy
        .and_then(|batching| batching.default_queue_policy.as_ref())
        .map(|policy| policy.timeout_action);
    if action.is_some_and(|action| action == TimeoutAction::Delay as i32) {
        refused.push("timeout_action DELAY is not honoured by this version: a request that waited too long is refused; write REJECT".into());
    }
}
