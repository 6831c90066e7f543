//! A running server on free ports of loopback, and small clients for it.
use crate::fake::Models;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use xebec_core::{
    Gate, TenantId, Verb,
    log::{LogControl, LogSettings},
    permit::{Admit, Ask, Decision, Denied},
    port::Turn,
};
use xebec_net::{
    drain::Drain,
    limits::Limits,
    listener,
    reactor::{Counters, Listeners, Reactor, Shared},
};
use xebec_serve::{
    AccessEntry, AccessLog, Dialect, Parts, Service, Settings, Unrouted,
    memory::{Allowed, SharedMemory},
};

/// A bound on a failing test, not a wait.
const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const MAX_BODY_BYTES: usize = 2 << 20;

struct NoTurn;

impl Turn for NoTurn {
    fn flush(&self) {}
}

/// Allows everything, or nothing; shared memory as long as that is on.
struct All(bool, Arc<AtomicBool>);

impl Admit for All {
    fn decide(&self, ask: &Ask<'_>) -> Decision {
        if self.0 && (ask.verb != Verb::ShareMemory || self.1.load(SeqCst)) {
            Decision::Allow(TenantId::default_tenant())
        } else {
            Decision::Deny(Denied { reason: "not you".into() })
        }
    }
}

/// Keeps the settings of a log that there is not.
pub(crate) struct Levels(Mutex<LogSettings>);

impl Default for Levels {
    fn default() -> Self {
        Self(Mutex::new(LogSettings { error: true, warning: true, info: false, verbose_level: 0 }))
    }
}

impl LogControl for Levels {
    fn settings(&self) -> LogSettings {
        *self.0.lock().unwrap()
    }

    fn apply(&self, settings: LogSettings) {
        *self.0.lock().unwrap() = settings;
    }
}

/// Keeps lines of what was recorded.
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<String>>);

impl AccessLog for Log {
    fn record(&self, entry: &AccessEntry<'_>) {
        let AccessEntry { protocol, verb, model, version, tenant, status, request_id, .. } = entry;
        let error = entry.error.unwrap_or("-");
        let line = format!(
            "{} {verb} {model}/{version} {tenant} {status} '{request_id}' {} {} {error}",
            protocol.as_str(),
            entry.bytes_in,
            entry.bytes_out
        );
        self.0.lock().unwrap().push(line);
    }
}

pub(crate) struct Server {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) ready: watch::Sender<bool>,
    pub(crate) models: Arc<Models>,
    pub(crate) log: Arc<Log>,
    pub(crate) unrouted: Arc<Unrouted>,
    pub(crate) log_settings: Arc<Levels>,
    /// In place of the machine's shared memory; names that begin with `xebec-` are allowed.
    pub(crate) memory: tempfile::TempDir,
    /// Whether callers may use shared memory.
    pub(crate) shares: Arc<AtomicBool>,
    reactor: Option<Reactor>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Dialect::Triton, true)
    }

    pub(crate) fn with(dialect: Dialect, allow: bool) -> Self {
        Self::with_memory(dialect, allow, true)
    }

    pub(crate) fn with_memory(dialect: Dialect, allow: bool, shared_memory: bool) -> Self {
        let models = Arc::new(Models::default());
        let (ready, readiness) = watch::channel(true);
        let (log, unrouted) = (Arc::new(Log::default()), Arc::new(Unrouted::default()));
        let drain = Drain::new(PATIENCE);
        let (memory, shares) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(true)));
        let log_settings = Arc::new(Levels::default());
        let service = Service::new(Parts {
            gate: Gate::new(Arc::new(All(allow, Arc::clone(&shares)))),
            router: Arc::<Models>::clone(&models),
            control: Arc::<Models>::clone(&models),
            dialect,
            settings: Settings {
                server_name: "triton".into(),
                server_version: "1.2.3".into(),
                max_body_bytes: MAX_BODY_BYTES,
                max_message_bytes: MAX_BODY_BYTES,
                max_json_depth: 100,
            },
            drain: drain.clone(),
            readiness,
            access_log: Some(Arc::<Log>::clone(&log)),
            tracer: None,
            unrouted: Arc::clone(&unrouted),
            shared_memory: shared_memory
                .then(|| SharedMemory::new(Allowed::parse("xebec-*").unwrap(), memory.path().to_owned())),
            log: Arc::<Levels>::clone(&log_settings),
        });
        let bind = || listener::bind(([127, 0, 0, 1], 0).into(), 1).unwrap();
        let (http, grpc) = (bind(), bind());
        let (http_address, grpc_address) = (http.address, grpc.address);
        let listeners: Listeners<Service, Service, Service> =
            Listeners { http: Some((http, service.clone())), grpc: Some((grpc, service)), metrics: None };
        let counters = Arc::new(Counters::default());
        let shared = Shared {
            limits: Limits::default(),
            drain: drain.clone(),
            turn: Arc::new(NoTurn),
            counters,
            hosts: Default::default(),
        };
        let reactor = Some(Reactor::start(1, listeners, &shared).unwrap());
        Self {
            http: http_address,
            grpc: grpc_address,
            drain,
            ready,
            models,
            log,
            unrouted,
            log_settings,
            memory,
            shares,
            reactor,
        }
    }

    /// Begins the drain as the binary does.
    pub(crate) fn begin_drain(&self) {
        self.drain.begin(Instant::now());
        self.ready.send_replace(false);
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.exchange("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.exchange("POST", path, headers, body)
    }

    pub(crate) fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.send(method, path, headers, body);
        let mut bytes = Vec::new();
        // A reset behind the answer, for a body that was not read, is as good as an end.
        let _ = stream.read_to_end(&mut bytes);
        Answer::parse(&bytes)
    }

    /// Sends a request and leaves the answer where it is.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        // The server may refuse by the head alone and stop reading.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        stream
    }

    pub(crate) async fn connect(&self) -> SendRequest<Bytes> {
        let stream = tokio::net::TcpStream::connect(self.grpc).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        client.ready().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_drain();
        self.models.get("hold").release();
        if let Some(reactor) = self.reactor.take() {
            reactor.join();
        }
    }
}

/// Waits for a state that other threads bring about.
pub(crate) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// The same inside a runtime whose own tasks have to go on.
pub(crate) async fn until_async(what: &str, mut reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !reached() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::task::yield_now().await;
    }
}

/// An answer of HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of =
            |line: &str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).is_some();
        self.head.lines().find(|line| of(line)).and_then(|line| line.split_once(": ")).map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Calls a method of gRPC: the answer's message, the status and its text.
pub(crate) async fn call(
    client: &mut SendRequest<Bytes>,
    path: &str,
    message: &impl prost::Message,
) -> (Bytes, u8, String) {
    let (head, mut body) = start(client, path, message).await.into_parts();
    let mut data = Vec::new();
    while let Some(piece) = body.data().await {
        data.extend_from_slice(&piece.unwrap());
    }
    let trailers = body.trailers().await.unwrap().unwrap_or_default();
    let get = |map: &HeaderMap, name: &str| map.get(name).map(|value| value.to_str().unwrap().to_owned());
    let status = get(&head.headers, "grpc-status").or(get(&trailers, "grpc-status")).unwrap();
    let text = get(&head.headers, "grpc-message").or(get(&trailers, "grpc-message")).unwrap_or_default();
    let text = percent_encoding::percent_decode_str(&text).decode_utf8().unwrap().into_owned();
    (Bytes::from(data.split_off(data.len().min(5))), status.parse().unwrap(), text)
}

/// Starts a call and waits for the head of its answer.
pub(crate) async fn start(
    client: &mut SendRequest<Bytes>,
    path: &str,
    message: &impl prost::Message,
) -> http::Response<h2::RecvStream> {
    let request = Request::post(format!("http://localhost{path}")).header("content-type", "application/grpc");
    let (response, mut stream) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    stream.send_data([&[0][..], &length, &bytes].concat().into(), true).unwrap();
    response.await.unwrap()
}
