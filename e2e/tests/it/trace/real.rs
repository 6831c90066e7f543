//! OpenTelemetry's own collector, and the spans that it says it was sent.
use crate::wire::until;
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};
use xebec_e2e::server;

/// A running collector.
pub(super) struct Collector {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    pub(super) grpc: u16,
    pub(super) http: u16,
}

/// A span as the collector writes it down.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// By the names that the collector gives them.
    pub(super) fields: HashMap<String, String>,
    pub(super) attributes: HashMap<String, String>,
    /// Trace and span of each.
    pub(super) links: Vec<(String, String)>,
}

impl Seen {
    pub(super) fn field(&self, name: &str) -> &str {
        &self.fields[name]
    }

    /// Trace and span.
    pub(super) fn context(&self) -> (String, String) {
        (self.field("Trace ID").to_owned(), self.field("ID").to_owned())
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

impl Collector {
    /// Starts it. It cannot tell which port it took, so free ones are chosen for it, anew if another took them meanwhile.
    pub(super) fn start() -> Self {
        (0..5).find_map(|_| Self::try_start(free_port(), free_port())).unwrap()
    }

    fn try_start(grpc: u16, http: u16) -> Option<Self> {
        let config = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{grpc}'}}, http: {{endpoint: '127.0.0.1:{http}'}}}}}}}}\n\
             exporters: {{debug: {{verbosity: detailed, sampling_initial: 100000}}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}}}"
        );
        let mut command = Command::new(server::collector().unwrap());
        let mut child =
            command.arg("--config").arg(format!("yaml:{config}")).stderr(Stdio::piped()).spawn().unwrap();
        let (said, lines) = (Arc::<Mutex<Vec<String>>>::default(), child.stderr.take().unwrap());
        let kept = Arc::clone(&said);
        std::thread::spawn(move || {
            BufReader::new(lines)
                .lines()
                .map_while(Result::ok)
                .for_each(|line| kept.lock().unwrap().push(line));
        });
        let mut collector = Self { child, said, grpc, http };
        let mut ready = false;
        until("the collector is ready or has ended", || {
            ready = collector.said.lock().unwrap().iter().any(|line| line.contains("Everything is ready"));
            ready || collector.child.try_wait().unwrap().is_some()
        });
        ready.then_some(collector)
    }

    /// Every span that it was sent.
    pub(super) fn spans(&self) -> Vec<Seen> {
        let said = self.said.lock().unwrap().clone();
        let mut spans: Vec<Seen> = Vec::new();
        let mut inside = "";
        for line in &said {
            let (key, value) = line.split_once(':').unwrap_or((line, ""));
            let (key, value) = (key.trim(), value.trim());
            match key {
                key if key.starts_with("Span #") => {
                    inside = "fields";
                    spans.push(Seen::default());
                }
                "Attributes" => inside = "attributes",
                "Links" => inside = "links",
                key if key.contains("ResourceSpans #") => inside = "",
                _ => {}
            }
            let (Some(span), name) = (spans.last_mut(), key.trim_start_matches("-> ")) else { continue };
            match inside {
                "fields" => drop(span.fields.insert(key.to_owned(), value.to_owned())),
                "attributes" => {
                    let value = value.split_once('(').map_or(value, |(_, value)| value.trim_end_matches(')'));
                    span.attributes.insert(name.to_owned(), value.to_owned());
                }
                "links" if name == "Trace ID" => span.links.push((value.to_owned(), String::new())),
                "links" if name == "ID" => {
                    span.links.last_mut().into_iter().for_each(|link| value.clone_into(&mut link.1));
                }
                _ => (),
            }
        }
        // The last one may not have been read to its end.
        spans.retain(|span| span.fields.contains_key("DroppedLinksCount"));
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
