//! `config.pbtxt`: parsed by its schema, and refused by name where it asks for what is not honoured.
//!
//! Invariant: every field that is set is honoured, or named at load because there is nothing to do, or named in the error, all
//! of them at once; which is which stands in [`fields`]. What a honoured field means against a graph is in [`complete`](super::complete).
use super::{RepositoryError, agents};
use crate::{builtin, graph};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use std::{path::Path, sync::OnceLock};
use text::Fault;
use xebec_core::{
    ModelName,
    model_config::{
        DESCRIPTOR, ModelConfig, ModelInstanceGroup, model_config::SchedulingChoice,
        model_instance_group::Kind,
    },
};

pub mod fields;
pub mod text;

/// A `config.pbtxt` larger than this is refused unread.
const MOST_BYTES: u64 = 1 << 20;

/// Reads and checks a `config.pbtxt`.
///
/// # Errors
/// Not text, not the schema, another model's name, or fields that are not honoured.
pub fn read(path: &Path, name: &ModelName) -> Result<ModelConfig, RepositoryError> {
    let read = |source| RepositoryError::Read { path: path.to_owned(), source };
    let fault = |message: String| RepositoryError::Config { path: path.to_owned(), message };
    let bytes = super::read::at_most(path, MOST_BYTES).map_err(read)?;
    let bytes = bytes.ok_or_else(|| {
        fault(format!("it has more than {MOST_BYTES} bytes, which no config.pbtxt can need"))
    })?;
    let text = String::from_utf8(bytes).map_err(|_| fault("it is not UTF-8 text".into()))?;
    let config = parse(&text).map_err(fault)?;
    if !config.name.is_empty() && config.name != name.as_str() {
        return Err(fault(format!(
            "name is \"{}\", but the folder is '{name}'; make them equal or leave name out",
            config.name
        )));
    }
    Ok(config)
}

/// The schema of a configuration.
///
/// # Errors
/// The descriptor in this binary is broken.
pub fn schema() -> Result<MessageDescriptor, String> {
    static SCHEMA: OnceLock<Result<MessageDescriptor, String>> = OnceLock::new();
    let read = || {
        let pool = DescriptorPool::decode(DESCRIPTOR).map_err(|error| error.to_string())?;
        pool.get_message_by_name("inference.ModelConfig")
            .ok_or_else(|| "the schema has no ModelConfig".to_owned())
    };
    SCHEMA.get_or_init(read).clone()
}

/// Parses and checks the text of a `config.pbtxt`.
///
/// # Errors
/// Everything that is wrong, as text.
pub fn parse(text: &str) -> Result<ModelConfig, String> {
    checked(&message(text)?)
}

/// Parses and checks a configuration in the JSON form of Protocol Buffers, as the repository's verb takes it.
///
/// # Errors
/// Everything that is wrong, as text.
pub fn parse_json(text: &str) -> Result<ModelConfig, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let message = DynamicMessage::deserialize(schema()?, &mut json).map_err(|error| error.to_string())?;
    json.end().map_err(|error| error.to_string())?;
    checked(&message)
}

fn checked(message: &DynamicMessage) -> Result<ModelConfig, String> {
    let refused = refusals(message);
    if refused.is_empty() { decode(message) } else { Err(refused.join("; ")) }
}

/// Parses the text of a `config.pbtxt`, whatever it asks for.
///
/// # Errors
/// The place of the first fault of syntax, and what is wrong there.
pub fn message(text: &str) -> Result<DynamicMessage, String> {
    text::parse(&schema()?, text).map_err(|fault: Fault| fault.to_string())
}

/// A parsed configuration in its own type.
///
/// # Errors
/// Never for what [`message`] gave.
pub fn decode(message: &DynamicMessage) -> Result<ModelConfig, String> {
    message.transcode_to().map_err(|error| error.to_string())
}

/// Everything of a parsed configuration that is not honoured or makes no sense.
#[must_use]
pub fn refusals(message: &DynamicMessage) -> Vec<String> {
    let mut refused = Vec::new();
    let decoded = decode(message);
    let on_gpu = decoded.as_ref().is_ok_and(on_gpu);
    walk(message, "", &mut |path, field| {
        let said = format!("{path} is not honoured by this version: {}", field.text);
        if field.verdict.refuses(on_gpu) && !refused.contains(&said) {
            refused.push(said);
        }
    });
    match decoded {
        Ok(config) => values(&config, &mut refused),
        Err(error) => refused.push(error),
    }
    refused
}

/// A field that is set and does nothing here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Names joined by dots.
    pub path: String,
    /// Why, and perhaps the way to an effect.
    pub why: String,
}

/// What of a configuration is accepted and does nothing; `limited` says whether runs take turns.
#[must_use]
pub fn idle(config: &ModelConfig, limited: bool) -> Vec<Idle> {
    let mut all = Vec::new();
    let message = schema().map(|schema| DynamicMessage::decode(schema, config.encode_to_vec().as_slice()));
    if let Ok(Ok(message)) = message {
        walk(&message, "", &mut |path, field| {
            let found = Idle { path: path.to_owned(), why: field.text.to_owned() };
            if matches!(field.verdict, fields::Verdict::Idle { .. }) && !all.contains(&found) {
                all.push(found);
            }
        });
    }
    if !limited && config.instance_group.iter().any(|group| group.rate_limiter.is_some()) {
        let why = "runs take no turns while --rate-limit is off; start the server with --rate-limit execution_count";
        all.push(Idle { path: "instance_group.rate_limiter".into(), why: why.into() });
    }
    all
}

/// Whether a group of it is to run on a GPU.
pub(crate) fn on_gpu(config: &ModelConfig) -> bool {
    let on_gpu = |group: &ModelInstanceGroup| match group.kind() {
        Kind::Gpu => true,
        Kind::Auto => !group.gpus.is_empty(),
        Kind::Cpu | Kind::Model => false,
    };
    config.instance_group.iter().any(on_gpu)
}

/// Tells the path of every field that is set, perhaps with its value, and the row that speaks for it.
fn walk(message: &DynamicMessage, prefix: &str, tell: &mut dyn FnMut(&str, &'static fields::Field)) {
    for (field, value) in message.fields() {
        let path = format!("{prefix}{}", field.name());
        if fields::goes_on_below(&path) {
            messages(value).for_each(|message| walk(message, &format!("{path}."), tell));
            continue;
        }
        for path in spoken(&field, value, &path) {
            if let Some(row) = fields::row(&path) {
                tell(&path, row);
            }
        }
    }
}

/// The path of a field, with its value where that has a name.
fn spoken(field: &FieldDescriptor, value: &Value, path: &str) -> Vec<String> {
    match (value, field.kind()) {
        (Value::Bool(value), _) => vec![format!("{path} {value}")],
        (Value::EnumNumber(number), prost_reflect::Kind::Enum(kind)) => match kind.get_value(*number) {
            Some(value) => vec![format!("{path} {}", value.name())],
            None => vec![path.to_owned()],
        },
        (Value::List(list), _) if !list.is_empty() => {
            list.iter().flat_map(|value| spoken(field, value, path)).collect()
        }
        _ => vec![path.to_owned()],
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

/// Checks values that have no name of their own in the schema.
fn values(config: &ModelConfig, refused: &mut Vec<String>) {
    let is_graph = graph::scheduling(config).is_some();
    if is_graph {
        of_graph(config, refused);
    } else if super::is_step(config) {
        of_step(config, refused);
    } else if !matches!(config.platform.as_str(), "" | "onnxruntime_onnx" | "onnx") {
        refused.push(format!(
            "platform \"{}\" is not served: export the model to ONNX and write platform: \"onnxruntime_onnx\"",
            config.platform
        ));
    }
    if !matches!(config.backend.as_str(), "" | "onnxruntime" | "onnx") && !is_graph && !super::is_step(config)
    {
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
    for group in config.instance_group.iter().filter(|group| group.count < 0) {
        refused.push(format!("instance_group.count {} is negative", group.count));
    }
    tags(config, refused);
    refused.extend(agents::faults(config));
    refused.extend(super::labels::read(config).err().unwrap_or_default());
    let Some(SchedulingChoice::DynamicBatching(batching)) = &config.scheduling_choice else { return };
    for size in &batching.preferred_batch_size {
        if *size < 1 || (*size > config.max_batch_size && config.max_batch_size > 0) {
            refused.push(format!(
                "preferred_batch_size {size} is not between 1 and max_batch_size ({})",
                config.max_batch_size
            ));
        }
    }
}

/// What a graph has no use for, because it has no runs of its own.
fn of_graph(config: &ModelConfig, refused: &mut Vec<String>) {
    if !matches!(config.platform.as_str(), "" | "ensemble") || !config.backend.is_empty() {
        refused.push(format!(
            "ensemble_scheduling makes a graph of other models: write platform: \"ensemble\" and no backend, not \"{}\"",
            if config.backend.is_empty() { &config.platform } else { &config.backend }
        ));
    }
    for field in of_runs(config) {
        refused.push(format!(
            "{field} is for a model with runs of its own: write it into the config.pbtxt of a member of the graph"
        ));
    }
}

/// What a built-in step has no use for.
fn of_step(config: &ModelConfig, refused: &mut Vec<String>) {
    if !matches!(config.platform.as_str(), "" | builtin::PLATFORM) {
        refused
            .push(format!("platform \"{}\" is not that of a built-in step: leave it out", config.platform));
    }
    if config.max_batch_size > 0 {
        refused.push(
            "max_batch_size is for models: a request to a built-in step is one piece of work; leave it out"
                .into(),
        );
    }
    let scheduled = config.scheduling_choice.is_some().then_some("dynamic_batching or sequence_batching");
    for field in of_runs(config).into_iter().chain(scheduled) {
        refused.push(format!("{field} is for a model of an engine: a built-in step has none; leave it out"));
    }
}

/// Fields that are set and speak of runs of an engine.
fn of_runs(config: &ModelConfig) -> Vec<&'static str> {
    let all = [
        ("instance_group", !config.instance_group.is_empty()),
        ("optimization", config.optimization.is_some()),
        ("model_warmup", !config.model_warmup.is_empty()),
        ("batch_input", !config.batch_input.is_empty()),
        ("batch_output", !config.batch_output.is_empty()),
        ("default_model_filename", !config.default_model_filename.is_empty()),
        ("input.reshape", config.input.iter().any(|input| input.reshape.is_some())),
        ("input.optional", config.input.iter().any(|input| input.optional)),
        ("input.allow_ragged_batch", config.input.iter().any(|input| input.allow_ragged_batch)),
        ("output.reshape", config.output.iter().any(|output| output.reshape.is_some())),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(field, _)| field).collect()
}

/// Most tags of a model, and most bytes of one: each stands on every line of the model on the metrics page.
const MOST_TAGS: usize = 32;
const MOST_TAG_BYTES: usize = 255;

fn tags(config: &ModelConfig, refused: &mut Vec<String>) {
    if config.metric_tags.len() > MOST_TAGS {
        refused.push(format!("metric_tags has {} tags; {MOST_TAGS} are the most", config.metric_tags.len()));
    }
    for (key, value) in &config.metric_tags {
        let named = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !named || key.len().max(value.len()) > MOST_TAG_BYTES {
            refused.push(format!(
                "metric_tags '{}' cannot be a label: a key is letters, digits and '_', and neither it nor its value is longer than {MOST_TAG_BYTES} bytes",
                key.chars().take(100).collect::<String>()
            ));
        }
    }
}
