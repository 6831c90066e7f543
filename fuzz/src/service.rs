//! The protocols of a whole listener in memory, over models that give their inputs back.
use crate::model::{Models, Seen};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use xebec_core::{
    Gate, Principal, TenantId,
    log::{LogControl, LogSettings},
    permit::{Admit, Ask, Decision},
};
use xebec_net::{
    drain::Drain,
    fuzzing::Desk,
    limits::Limits,
    service::{GrpcCall, GrpcService, HttpService},
};
use xebec_serve::{Dialect, Parts, Service, Settings, Unrouted};

/// Largest body and message, also decompressed.
pub(crate) const MOST_BYTES: usize = 1 << 20;

/// What tells which methods there are.
pub(crate) const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// Protocols, and what stands before and behind them.
pub(crate) struct Listener {
    pub(crate) service: Service,
    pub(crate) desk: Desk,
    pub(crate) principal: Principal,
    models: Arc<Models>,
}

struct All;

impl Admit for All {
    fn decide(&self, _: &Ask<'_>) -> Decision {
        Decision::Allow(TenantId::default_tenant())
    }
}

/// A log whose settings stay what they are, so that no input depends on another.
struct Still;

impl LogControl for Still {
    fn settings(&self) -> LogSettings {
        LogSettings { error: true, warning: true, info: true, verbose_level: 0 }
    }

    fn apply(&self, _: LogSettings) {}
}

impl Listener {
    fn new() -> Self {
        let models = Arc::new(Models::new());
        let service = Service::new(Parts {
            gate: Gate::new(Arc::new(All)),
            router: Arc::<Models>::clone(&models),
            control: Arc::<Models>::clone(&models),
            dialect: Dialect::Triton,
            settings: Settings {
                server_name: "triton".into(),
                server_version: "1".into(),
                max_body_bytes: MOST_BYTES,
                max_message_bytes: MOST_BYTES,
                max_json_depth: 100,
            },
            drain: Drain::new(Duration::ZERO),
            readiness: watch::channel(true).1,
            access_log: None,
            tracer: None,
            unrouted: Arc::new(Unrouted::default()),
            shared_memory: None,
            log: Arc::new(Still),
        });
        let limits = Limits {
            max_body_bytes: MOST_BYTES,
            max_message_bytes: MOST_BYTES,
            max_header_bytes: 8 << 10,
            ..Limits::default()
        };
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let listener =
            Self { service, desk: Desk::new(limits), principal: Principal::Anonymous { peer }, models };
        listener.read_schemas();
        listener
    }

    /// Schemas are read once, when they are first asked for: no input pays for that.
    fn read_schemas(&self) {
        let config = Request::get("/v2/models/any/config").body(()).expect("a head").into_parts().0;
        let body = self.desk.body(Bytes::new());
        let answer = HttpService::call(&self.service, &self.principal, config, body).now_or_never();
        assert!(answer.is_some_and(|answer| answer.status() == 200), "a configuration");
        let (message, metadata) = (self.desk.message(Bytes::from_static(b"\x3a\0")), HeaderMap::new());
        let call = GrpcCall {
            principal: &self.principal,
            path: REFLECTION,
            metadata: &metadata,
            until: None,
            message,
        };
        let answer = self.service.begin(call).map(|answer| answer.now_or_never());
        assert!(answer.is_ok_and(|answer| answer.is_some()), "the list of services");
    }

    /// What reached models since this was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.models.seen()
    }
}

/// Lends this thread's listener.
pub(crate) fn with<T>(work: impl FnOnce(&Listener) -> T) -> T {
    thread_local! {
        static LISTENER: Listener = Listener::new();
    }
    LISTENER.with(work)
}
