//! The server that `xebec infer` asks: what its models take, and what they answer.
//!
//! Requests with tensors go and come as binary ones: pictures are no text, and no number is rounded on the way.
//!
//! Not here: what the tensors are made of (`pictures`, `texts`, `rows`), nor what an answer means (`found`).
use super::{
    answer::{Answer, with_strings},
    segment,
};
use crate::inputs::Slot;
use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use xebec_core::{Datatype, Tensor, tensor::element_count};

/// Largest answer that is read.
const ANSWER_BYTES: u64 = 1 << 30;
/// Connections that are kept for the next request.
const KEPT_CONNECTIONS: usize = 64;
/// How long it is waited before what a server could not take is sent again.
const PAUSE: Duration = Duration::from_secs(1);
/// How soon a pause sees that somebody wants to stop.
const GLANCE: Duration = Duration::from_millis(50);
/// Most names of models that an error lists.
const MOST_NAMES: usize = 20;

/// The header of the binary extension.
const JSON_LENGTH: &str = "Inference-Header-Content-Length";

/// An answer that is a fault, as the server told it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) status: u16,
    said: String,
    hint: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.status, self.said)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl std::error::Error for Fault {}

/// Where to ask, and for how long. Clones share their connections.
#[derive(Clone)]
pub(super) struct Server {
    url: String,
    patience: Duration,
    agent: ureq::Agent,
}

/// What a server sent: the status, the length of the JSON before binary tensors, and everything.
struct Sent {
    status: u16,
    json_length: Option<usize>,
    body: Bytes,
}

impl Server {
    pub(super) fn new(url: &str, patience: Duration) -> anyhow::Result<Self> {
        ensure!(url.starts_with("http://"), "{url}: write http://host:port");
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(patience))
            .http_status_as_error(false)
            .max_idle_connections(KEPT_CONNECTIONS)
            .max_idle_connections_per_host(KEPT_CONNECTIONS);
        let agent = config.build().new_agent();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), patience, agent })
    }

    /// What is at a path, as it is and read.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<(String, Value)> {
        self.json(self.agent.get(format!("{}{path}", self.url)).call())
    }

    /// The answer to a request as JSON, as it is and read.
    pub(super) fn post(&self, path: &str, request: &str) -> anyhow::Result<(String, Value)> {
        let post = self.agent.post(format!("{}{path}", self.url));
        self.json(post.content_type("application/json").send(request))
    }

    /// The answer to a request with binary tensors.
    fn post_binary(&self, path: &str, json: &str, tensors: &[u8]) -> anyhow::Result<Answer> {
        let post = self.agent.post(format!("{}{path}", self.url)).content_type("application/octet-stream");
        let body = [json.as_bytes(), tensors].concat();
        let sent = self.sent(post.header(JSON_LENGTH, json.len().to_string()).send(&body))?;
        let length = sent.json_length.unwrap_or(sent.body.len());
        ensure!(length <= sent.body.len(), "the answer says that its JSON is longer than all of it");
        let mut rest = sent.body;
        let (_, head) = read(sent.status, &rest.split_to(length))?;
        Answer::read(&head, rest)
    }

    fn json(&self, sent: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<(String, Value)> {
        let sent = self.sent(sent)?;
        read(sent.status, &sent.body)
    }

    fn sent(&self, sent: Result<http::Response<ureq::Body>, ureq::Error>) -> anyhow::Result<Sent> {
        let late = || format!("no answer from {} within {} s", self.url, self.patience.as_secs_f64());
        let mut answer = match sent {
            Err(ureq::Error::Timeout(_)) => bail!(late()),
            sent => sent.with_context(|| {
                format!("no answer from {}; is the server running? (xebec up DIR)", self.url)
            })?,
        };
        let length = answer.headers().get(JSON_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = match answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec() {
            Err(ureq::Error::Timeout(_)) => bail!(late()),
            body => body?,
        };
        Ok(Sent { status: answer.status().as_u16(), json_length: length, body: body.into() })
    }

    /// The names of the models that there are; none if the server does not tell.
    fn names(&self) -> Vec<String> {
        let told = self.get("/v2/models").map(|(_, told)| told["models"].clone());
        let rows = told.or_else(|_| self.post("/v2/repository/index", "{}").map(|(_, told)| told));
        let rows = rows.unwrap_or_default();
        let names = rows.as_array().into_iter().flatten().filter_map(|row| row["name"].as_str());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        without_steps(&names)
    }
}

/// The names without those of a graph's own steps (`GRAPH.STEP`), which nobody means.
fn without_steps(names: &[String]) -> Vec<String> {
    let graph_of = |name: &str| name.rfind('.').map(|dot| name[..dot].to_owned());
    let is_step = |name: &&String| graph_of(name).is_some_and(|graph| names.contains(&graph));
    names.iter().filter(|name| !is_step(name)).cloned().collect()
}

/// The JSON of an answer, as it is and read, if it is an answer and no fault.
fn read(status: u16, bytes: &[u8]) -> anyhow::Result<(String, Value)> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let body = serde_json::from_str(&text).or_else(|_| serde_json::from_str(&with_strings(&text)));
    let body: Value =
        body.with_context(|| format!("status {status}, and the answer is not JSON: {text:.200}"))?;
    if status == 200 {
        return Ok((text, body));
    }
    let said = body["error"].as_str().unwrap_or("no reason given").to_owned();
    let hint = body["hint"].as_str().map(str::to_owned);
    Err(Fault { status, said, hint }.into())
}

/// Whether what went wrong may be right in a moment: nobody is there, or has no room.
fn passes(error: &anyhow::Error) -> bool {
    use ureq::Error::{ConnectionFailed, Io};
    let refused = error.downcast_ref().is_some_and(|fault: &Fault| matches!(fault.status, 429 | 502..=504));
    refused || error.downcast_ref().is_some_and(|error| matches!(error, Io(_) | ConnectionFailed))
}

/// A model of a server.
pub(super) struct Model {
    server: Server,
    name: String,
    path: String,
    pub(super) inputs: Vec<Slot>,
    pub(super) outputs: Vec<Slot>,
    /// Most rows of a request; 0 if the model has no batch axis.
    pub(super) max_batch_size: usize,
}

/// An output that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// As so many classes in place of numbers.
    pub(super) classes: Option<usize>,
}

impl Model {
    /// Asks what a model takes and gives.
    ///
    /// # Errors
    /// There is no such model, or nobody who knows.
    pub(super) fn find(server: Server, name: &str, version: Option<&str>) -> anyhow::Result<Self> {
        let path = path(name, version);
        let about = match server.get(&path) {
            Ok((_, about)) => about,
            Err(error) => return Err(with_names(error, name, &server)),
        };
        // A server that does not tell takes a row at a time.
        let config = server.get(&format!("{path}/config")).map(|(_, config)| config).unwrap_or_default();
        let most = config["max_batch_size"].as_u64().and_then(|most| usize::try_from(most).ok());
        let slots = |kind: &str| slots(&about[kind]).with_context(|| format!("in the {kind} of '{name}'"));
        let (inputs, outputs) = (slots("inputs")?, slots("outputs")?);
        Ok(Self { inputs, outputs, max_batch_size: most.unwrap_or(0), name: name.to_owned(), path, server })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The input that takes bytes, by its name or as the only one.
    ///
    /// # Errors
    /// There is none, or there are several and none is named.
    pub(super) fn bytes_input(&self, name: Option<&str>, what: &str) -> anyhow::Result<&Slot> {
        let list = |slots: &[&Slot]| {
            let one = |slot: &&Slot| format!("'{}' {} {:?}", slot.name, slot.datatype, slot.shape);
            slots.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let all: Vec<&Slot> = self.inputs.iter().collect();
        let bytes =
            |slot: &&Slot| slot.datatype == Datatype::Bytes && name.is_none_or(|name| slot.name == name);
        let found: Vec<&Slot> = all.iter().copied().filter(bytes).collect();
        match found.as_slice() {
            [only] => Ok(only),
            [] => match name {
                Some(name) => bail!(
                    "--input-name {name}: model '{}' has no such input of BYTES; it takes {}",
                    self.name,
                    list(&all)
                ),
                None => bail!(
                    "model '{}' takes no {what}: no input is BYTES, it takes {}; a graph with built-in steps before it does \
                     (docs/guide/steps.md)",
                    self.name,
                    list(&all)
                ),
            },
            several => bail!(
                "model '{}' has several inputs of BYTES ({}); name one with --input-name",
                self.name,
                list(several)
            ),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// No answer, or one that is a fault.
    pub(super) fn ask(&self, inputs: &[Tensor], wanted: &[Wanted]) -> anyhow::Result<Answer> {
        let (json, tensors) = body(inputs, wanted);
        self.server.post_binary(&format!("{}/infer", self.path), &json, &tensors)
    }

    /// Sends a request, and again as long as the server is full or gone, within the time that one answer may take.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn ask_patiently(
        &self,
        inputs: &[Tensor],
        wanted: &[Wanted],
        stop: &AtomicBool,
    ) -> anyhow::Result<Answer> {
        let begun = Instant::now();
        loop {
            match self.ask(inputs, wanted) {
                Err(error) if passes(&error) && begun.elapsed() < self.server.patience => {
                    let until = Instant::now() + PAUSE;
                    while Instant::now() < until && !stop.load(Relaxed) {
                        std::thread::park_timeout(GLANCE);
                    }
                    if stop.load(Relaxed) {
                        return Err(error);
                    }
                }
                answered => return answered,
            }
        }
    }
}

/// The outputs to ask for; none means all.
///
/// # Errors
/// The model has no such output.
pub(super) fn wanted(model: &Model, names: &[String]) -> anyhow::Result<Vec<Wanted>> {
    let one = |name: &String| {
        let known = model.outputs.iter().map(|output| output.name.as_str());
        let known: Vec<&str> = known.collect();
        ensure!(
            known.contains(&name.as_str()),
            "--outputs {name}: model '{}' has no such output; its outputs are {}",
            model.name,
            known.join(", ")
        );
        Ok(Wanted { name: name.clone(), classes: None })
    };
    names.iter().map(one).collect()
}

/// The path of a model, or of one of its versions.
pub(super) fn path(model: &str, version: Option<&str>) -> String {
    let version = version.map(|version| format!("/versions/{}", segment(version)));
    format!("/v2/models/{}{}", segment(model), version.unwrap_or_default())
}

/// An error about a model that is not there, with the names of those that are.
fn with_names(error: anyhow::Error, name: &str, server: &Server) -> anyhow::Error {
    let missing = error.downcast_ref().is_some_and(|fault: &Fault| matches!(fault.status, 400 | 404));
    let names = if missing { server.names() } else { Vec::new() };
    if names.is_empty() || names.iter().any(|known| known == name) {
        return error;
    }
    let more = if names.len() > MOST_NAMES { ", ..." } else { "" };
    let list = names[..names.len().min(MOST_NAMES)].join(", ");
    anyhow::anyhow!("there is no model '{name}' at {}; its models are {list}{more}", server.url)
}

fn slots(told: &Value) -> anyhow::Result<Vec<Slot>> {
    let one = |told: &Value| -> anyhow::Result<Slot> {
        let text = |key: &str| told[key].as_str().with_context(|| format!("there is no '{key}'"));
        let shape = serde_json::from_value(told["shape"].clone()).context("a shape is no list of numbers")?;
        Ok(Slot { name: text("name")?.to_owned(), datatype: text("datatype")?.parse()?, shape })
    };
    told.as_array().into_iter().flatten().map(one).collect()
}

/// The JSON of a request, and the tensors behind it.
fn body(inputs: &[Tensor], wanted: &[Wanted]) -> (String, Vec<u8>) {
    let input = |tensor: &Tensor| {
        json!({
            "name": &*tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype.as_str(),
            "parameters": {"binary_data_size": tensor.data.len()},
        })
    };
    let output = |wanted: &Wanted| {
        let mut parameters = json!({"binary_data": true});
        if let Some(classes) = wanted.classes {
            parameters["classification"] = classes.into();
        }
        json!({"name": wanted.name, "parameters": parameters})
    };
    let mut request = json!({"inputs": inputs.iter().map(input).collect::<Vec<_>>()});
    if wanted.is_empty() {
        request["parameters"] = json!({"binary_data_output": true});
    } else {
        request["outputs"] = wanted.iter().map(output).collect();
    }
    let tensors: Vec<&[u8]> = inputs.iter().map(|tensor| &tensor.data[..]).collect();
    (request.to_string(), tensors.concat())
}

/// The tensor of one element of BYTES.
///
/// # Errors
/// The input takes more than one.
pub(super) fn one_element(slot: &Slot, bytes: &[u8]) -> anyhow::Result<Tensor> {
    let shape: Vec<i64> = slot.shape.iter().map(|extent| if *extent == -1 { 1 } else { *extent }).collect();
    ensure!(
        element_count(&shape) == Some(1),
        "input '{}' takes {:?} texts or files at once; send them as a whole request with --input",
        slot.name,
        slot.shape
    );
    let mut data = Vec::with_capacity(bytes.len() + 4);
    data.extend_from_slice(&u32::try_from(bytes.len()).context("more than 4 GiB")?.to_le_bytes());
    data.extend_from_slice(bytes);
    Ok(Tensor { name: slot.name.as_str().into(), datatype: slot.datatype, shape, data: data.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_its_tensors_are_and_which_outputs_it_wants() {
        let (name, data) = ("x".into(), Bytes::from_static(&[1, 2, 3]));
        let tensor = Tensor { name, datatype: Datatype::Uint8, shape: vec![3], data };
        let (json, tensors) = body(&[tensor.clone(), tensor], &[]);
        let told: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(told["inputs"][1]["parameters"]["binary_data_size"], 3);
        assert_eq!(told["parameters"]["binary_data_output"], true);
        assert_eq!(tensors, [1, 2, 3, 1, 2, 3]);
        let (json, _) = body(&[], &[Wanted { name: "y".into(), classes: Some(5) }]);
        let told: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(told["outputs"][0]["parameters"], json!({"binary_data": true, "classification": 5}));
    }

    #[test]
    fn the_steps_of_a_graph_are_not_among_the_models_that_an_error_lists() {
        let names = ["a.b", "see", "see.decode", "see.nms"].map(str::to_owned);
        assert_eq!(without_steps(&names), ["a.b", "see"]);
    }

    #[test]
    fn a_fault_is_told_with_its_hint_and_known_by_its_status() {
        let error = read(503, br#"{"error": "full", "hint": "wait"}"#).unwrap_err();
        assert_eq!(error.to_string(), "status 503: full\n  hint: wait");
        assert!(passes(&error));
        assert!(!passes(&read(400, br#"{"error": "wrong"}"#).unwrap_err()));
        let refused = ureq::Error::Io(std::io::Error::other("refused"));
        assert!(passes(&anyhow::Error::from(refused).context("no answer")));
    }
}
