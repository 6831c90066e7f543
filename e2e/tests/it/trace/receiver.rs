//! A collector of OTLP over HTTP that keeps what it is sent, and one that behaves badly.
use crate::wire::until;
use prost::Message as _;
use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};
use xebec_net::wire::otlp::{ExportTraceServiceRequest, Span, any_value::Value};

/// How a collector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should.
    Good,
    /// Never, though it reads.
    Silent,
    /// Always with this status.
    Status(u16),
    /// The first time with this status, then as it should.
    Once(u16),
}

/// A running collector; it ends with the test.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    asked: Arc<AtomicUsize>,
}

impl Receiver {
    pub(super) fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, asked) = (Arc::<Mutex<Vec<Span>>>::default(), Arc::<AtomicUsize>::default());
        let (kept, count) = (Arc::clone(&spans), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, count) = (Arc::clone(&kept), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, manner, &kept, &count));
            }
        });
        Self { address, spans, asked }
    }

    /// As a flag of the server has it.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests it was sent.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits until it has a span of which this is true.
    pub(super) fn wait_for(&self, what: &str, is: impl Fn(&Span) -> bool) -> Span {
        let mut found = None;
        until(what, || {
            found = self.spans().into_iter().find(|span| is(span));
            found.is_some()
        });
        found.unwrap()
    }
}

/// Reads requests one after the other; `None` when there are no more.
fn request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().to_ascii_lowercase().split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().unwrap(),
            Some(("content-type", value)) => assert_eq!(value.trim(), "application/x-protobuf"),
            None if line.trim().is_empty() => break,
            _ => (),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn serve(stream: TcpStream, manner: Manner, kept: &Mutex<Vec<Span>>, asked: &AtomicUsize) {
    if manner == Manner::Silent {
        // Whatever it is: it is read, and nothing is said.
        drop(std::io::copy(&mut { stream }, &mut std::io::sink()));
        return;
    }
    let mut out = stream.try_clone().unwrap();
    let mut stream = BufReader::new(stream);
    while let Some(body) = request(&mut stream) {
        let before = asked.fetch_add(1, Relaxed);
        let status = match manner {
            Manner::Status(status) => status,
            Manner::Once(status) if before == 0 => status,
            Manner::Silent | Manner::Good | Manner::Once(_) => 200,
        };
        if status == 200 {
            let request = ExportTraceServiceRequest::decode(&*body).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            kept.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        }
        let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A span's attributes as text.
pub(super) fn attributes(span: &Span) -> HashMap<&str, String> {
    let value = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::DoubleValue(number) => number.to_string(),
    };
    let all = span.attributes.iter();
    all.filter_map(|one| Some((one.key.as_str(), value(one.value.as_ref()?.value.as_ref()?)))).collect()
}

pub(super) fn is_call(span: &Span) -> bool {
    attributes(span).contains_key("xebec.request.bytes")
}
