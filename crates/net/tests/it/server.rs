//! A server whose protocols echo, on free ports of loopback, drained when dropped.
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Response, request::Parts};
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use xebec_core::{Code, Principal, port::Turn};
use xebec_net::{
    body::{Body, ReadError},
    drain::Drain,
    limits::Limits,
    listener,
    reactor::{Counters, Listeners, Reactor, Shared},
    service::{GrpcAnswer, GrpcCall, GrpcHead, GrpcMessage, GrpcService, GrpcStatus, HttpService},
    wire::inference::ServerReadyResponse,
};

/// Counts turns.
#[derive(Default)]
pub(crate) struct Turns(pub(crate) AtomicUsize);

impl Turn for Turns {
    fn flush(&self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Echoes bodies; `/hold` waits until released, `/panic` panics, `/big` answers megabytes.
#[derive(Clone, Default)]
pub(crate) struct Echo {
    pub(crate) held: Arc<Notify>,
    /// Calls of `/hold` that were begun.
    pub(crate) holds: Arc<AtomicUsize>,
    pub(crate) release: Arc<Notify>,
    pub(crate) dropped: Arc<AtomicUsize>,
    /// Messages of streams that were begun.
    pub(crate) begun: Arc<AtomicUsize>,
}

struct OnDrop(Arc<AtomicUsize>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Echo {
    async fn hold(&self) {
        let _on_drop = OnDrop(Arc::clone(&self.dropped));
        // Whoever sees that a call is held may release it.
        let mut released = pin!(self.release.notified());
        released.as_mut().enable();
        self.holds.fetch_add(1, SeqCst);
        self.held.notify_one();
        released.await;
    }
}

impl HttpService for Echo {
    async fn call(&self, principal: &Principal, head: Parts, body: Body) -> Response<Bytes> {
        assert!(principal.is_loopback());
        match head.uri.path() {
            "/hold" => self.hold().await,
            "/panic" => panic!("a bug"),
            "/big" => return Response::new(vec![b'x'; 64 << 20].into()),
            _ => {}
        }
        let keeps = head.uri.path() == "/keep";
        let body = body.read(1 << 20).await;
        if keeps && body.is_ok() {
            // Held by a test that looks at what others get meanwhile.
            tokio::time::timeout(Duration::from_secs(2), self.hold()).await.unwrap_or_default();
        }
        match body {
            Ok(received) => Response::new(received.clone()),
            Err(error) => {
                let status = if matches!(error, ReadError::TooLarge { .. }) { 413 } else { 400 };
                Response::builder().status(status).body(error.to_string().into()).unwrap()
            }
        }
    }
}

impl GrpcService for Echo {
    fn accept(&self, path: &str) -> Result<(), GrpcStatus> {
        if path.starts_with("/echo/") {
            return Ok(());
        }
        Err(GrpcStatus { code: Code::Unsupported.grpc(), message: format!("{path} is not offered: 100 %") })
    }

    fn peek(&self, head: GrpcHead<'_>, start: &[u8]) -> Result<(), GrpcStatus> {
        if head.path != "/echo/peek" {
            return Ok(());
        }
        Err(GrpcStatus {
            code: Code::PermissionDenied.grpc(),
            message: format!("not with {} bytes", start.len()),
        })
    }

    async fn call(&self, call: GrpcCall<'_>) -> Result<GrpcAnswer, GrpcStatus> {
        match call.path {
            "/echo/hold" => self.hold().await,
            "/echo/hold-big" => {
                self.hold().await;
                return Ok(GrpcAnswer::One(GrpcMessage::raw(&vec![b'x'; 1 << 20])));
            }
            "/echo/panic" => panic!("a bug"),
            "/echo/watch" => {
                let first = GrpcMessage::encode(&ServerReadyResponse { ready: true });
                let messages = stream::iter([first]).chain(stream::pending());
                return Ok(GrpcAnswer::Many(Box::pin(messages)));
            }
            "/echo/big" => return Ok(GrpcAnswer::One(GrpcMessage::raw(&vec![b'x'; 1 << 20]))),
            _ => {}
        }
        let ready = !call.message.is_empty();
        Ok(GrpcAnswer::One(GrpcMessage::encode(&ServerReadyResponse { ready })))
    }

    fn takes_many(&self, path: &str) -> bool {
        path.ends_with("/many")
    }

    /// Echoes a message. One that begins with `h` is held, with `p` a panic, with `!` the end of the call.
    fn begin<'c>(&'c self, call: GrpcCall<'c>) -> Result<impl Future<Output = GrpcMessage> + 'c, GrpcStatus> {
        if call.message.starts_with(b"!") {
            return Err(GrpcStatus { code: Code::InvalidArgument.grpc(), message: "garbage".into() });
        }
        self.begun.fetch_add(1, SeqCst);
        Ok(async move {
            match call.message.first() {
                Some(b'h') => self.hold().await,
                Some(b'p') => panic!("a bug"),
                _ => {}
            }
            GrpcMessage::raw(&call.message)
        })
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) counters: Arc<Counters>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) echo: Echo,
    reactor: Option<Reactor>,
}

impl Server {
    pub(crate) fn start(limits: Limits) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let echo = Echo::default();
        let listeners: Listeners<Echo, Echo, Echo> = Listeners {
            http: Some((listener::bind(loopback, 2).unwrap(), echo.clone())),
            grpc: Some((listener::bind(loopback, 2).unwrap(), echo.clone())),
            metrics: None,
        };
        let (http, grpc) =
            (listeners.http.as_ref().unwrap().0.address, listeners.grpc.as_ref().unwrap().0.address);
        let (turns, counters) = (Arc::new(Turns::default()), Arc::new(Counters::default()));
        let drain = Drain::new(Duration::from_secs(20));
        let turn: Arc<dyn Turn> = Arc::<Turns>::clone(&turns);
        let shared = Shared {
            limits,
            drain: drain.clone(),
            turn,
            counters: Arc::clone(&counters),
            hosts: Default::default(),
        };
        let reactor = Reactor::start(2, listeners, &shared).unwrap();
        Self { http, grpc, drain, counters, turns, echo, reactor: Some(reactor) }
    }

    /// Waits until the drained server has stopped.
    pub(crate) fn join(&mut self) {
        self.reactor.take().unwrap().join();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drain.begin(Instant::now());
        self.echo.release.notify_waiters();
        if let Some(reactor) = self.reactor.take() {
            reactor.join();
        }
    }
}
