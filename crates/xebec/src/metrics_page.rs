//! The metrics page, on a listener of its own.
use crate::{lines::Lines, telemetry::Outcomes};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use xebec_core::{
    Principal,
    error::FailureReason,
    metrics::{Phase, TenantMetrics, names},
    port::{Router, Upstream},
};
use xebec_engine::catalog::Catalog;
use xebec_net::{
    body::Body,
    drain::Drain,
    exposition::{Form, Page},
    process,
    reactor::{Counters, Listener},
    service::HttpService,
};
use xebec_serve::Unrouted;

/// What the page is made from.
#[derive(Clone)]
pub(crate) struct MetricsPage(Arc<Sources>);

pub(crate) struct Sources {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unrouted: Arc<Unrouted>,
    pub(crate) drain: Drain,
    /// What became of traces, if they are made.
    pub(crate) traces: Option<Arc<Outcomes>>,
    /// The logs, by name.
    pub(crate) logs: Vec<(&'static str, Arc<Lines>)>,
    /// Ticks of the machine at the last page, for a rate.
    pub(crate) last_ticks: Mutex<(u64, u64)>,
}

impl MetricsPage {
    pub(crate) fn new(sources: Sources) -> Self {
        Self(Arc::new(sources))
    }
}

impl HttpService for MetricsPage {
    async fn call(&self, _: &Principal, head: Parts, _: Body) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let status = match (head.uri.path(), head.method) {
            ("/metrics", Method::GET | Method::HEAD) => {
                let form = Form::accepted(head.headers.get(header::ACCEPT));
                *response.body_mut() = self.0.page(form).into();
                let kind = HeaderValue::from_static(form.content_type());
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
                StatusCode::OK
            }
            ("/metrics", _) => {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                StatusCode::METHOD_NOT_ALLOWED
            }
            _ => StatusCode::NOT_FOUND,
        };
        *response.status_mut() = status;
        response
    }
}

const REASONS: [(FailureReason, &str, &str); 4] = [
    (FailureReason::Rejected, "REJECTED", "rejected"),
    (FailureReason::Canceled, "CANCELED", "canceled"),
    (FailureReason::Backend, "BACKEND", "backend"),
    (FailureReason::Other, "OTHER", "other"),
];

/// Sums a number over the tenants of a model, as Triton has no tenants.
fn sum(upstream: &dyn Upstream, number: impl Fn(&TenantMetrics) -> u64) -> u64 {
    upstream.metrics().tenants().map(|(_, metrics)| number(metrics)).sum()
}

impl Sources {
    fn page(&self, form: Form) -> String {
        let mut page = Page::new(form);
        let upstreams = self.catalog.upstreams();
        inference(&mut page, &upstreams);
        cached(&mut page, &upstreams);
        self.machine(&mut page);
        phases(&mut page, &upstreams);
        self.server(&mut page);
        usage(&mut page);
        page.finish()
    }

    fn machine(&self, page: &mut Page) {
        let Some(machine) = process::machine() else { return };
        let mut last = self.last_ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let (busy, all) =
            (machine.cpu_ticks.0.saturating_sub(last.0), machine.cpu_ticks.1.saturating_sub(last.1));
        *last = machine.cpu_ticks;
        #[expect(clippy::cast_precision_loss, reason = "a share of two small numbers")]
        let share = if all == 0 { 0.0 } else { busy as f64 / all as f64 };
        page.family(&names::CPU_UTILIZATION).add(&[], share);
        page.family(&names::CPU_MEMORY_TOTAL).add(&[], machine.memory_total_bytes);
        page.family(&names::CPU_MEMORY_USED).add(&[], machine.memory_used_bytes);
    }

    fn server(&self, page: &mut Page) {
        let mut unrouted = page.family(&names::UNROUTED_REQUESTS);
        for (status, count) in self.unrouted.counts() {
            unrouted.add(&[&status.to_string()], count);
        }
        let residents = self.catalog.residents();
        let mut loads = page.family(&names::MODEL_LOADS);
        loads.add(&["success"], residents.loads.get());
        loads.add(&["failure"], residents.failed_loads.get());
        page.family(&names::MODEL_EVICTIONS).add(&[], residents.evictions.get());
        if let Some((limit, used)) = self.catalog.memory() {
            page.family(&names::MODEL_MEMORY).add(&[], used);
            page.family(&names::MODEL_MEMORY_LIMIT).add(&[], limit);
        }
        page.family(&names::GRAPH_MEMORY).add(&[], self.catalog.graph_memory().0);
        if let Some(cache) = self.catalog.cache() {
            page.family(&names::CACHE_BYTES).add(&[], u64::try_from(cache.bytes.get()).unwrap_or(0));
            page.family(&names::CACHE_ENTRIES).add(&[], u64::try_from(cache.entries.get()).unwrap_or(0));
            page.family(&names::CACHE_EVICTIONS).add(&[], cache.evictions.get());
        }
        if let Some(traces) = &self.traces {
            let mut outcomes = page.family(&names::TRACES);
            outcomes.add(&["exported"], traces.exported.get());
            outcomes.add(&["dropped"], traces.dropped.get());
            outcomes.add(&["failed"], traces.failed.get());
        }
        let mut lost = page.family(&names::LOG_LINES_LOST);
        for (log, lines) in &self.logs {
            lost.add(&[log], lines.lost.get());
        }
        page.family(&names::PANICS).add(&[], self.counters.panics.get());
        let mut connections = page.family(&names::CONNECTIONS);
        for (listener, open) in Listener::ALL.into_iter().zip(&self.counters.connections) {
            connections.add(&[listener.as_str()], open.get());
        }
        let mut refused = page.family(&names::CONNECTIONS_REFUSED);
        for (listener, count) in Listener::ALL.into_iter().zip(&self.counters.refused) {
            refused.add(&[listener.as_str()], count.get());
        }
        let mut foreign = page.family(&names::FOREIGN);
        for (listener, count) in Listener::ALL.into_iter().zip(&self.counters.foreign) {
            foreign.add(&[listener.as_str()], count.get());
        }
        let ready = self.catalog.ready() && !self.drain.is_draining();
        page.family(&names::READY).add(&[], u8::from(ready));
        let engine = self.catalog.engine();
        page.family(&names::ENGINE).add(&[engine.name, &engine.version, &engine.reason], 1);
        page.family(&names::BUILD).add(&[env!("CARGO_PKG_VERSION")], 1);
    }
}

/// What `metric_tags` of a model say.
fn tags(upstream: &Arc<dyn Upstream>) -> &BTreeMap<String, String> {
    &upstream.config().metric_tags
}

/// Triton's families.
fn inference(page: &mut Page, upstreams: &[Arc<dyn Upstream>]) {
    let labels = |upstream: &Arc<dyn Upstream>| {
        let info = upstream.info();
        (info.name.to_string(), info.version.to_string())
    };
    let mut each = |family, number: &dyn Fn(&dyn Upstream) -> u64| {
        let mut samples = page.family(family);
        for upstream in upstreams {
            let (model, version) = labels(upstream);
            samples.tagged(&[&model, &version], tags(upstream), number(&**upstream));
        }
    };
    each(&names::REQUEST_SUCCESS, &|upstream| sum(upstream, |m| m.success.get()));
    let mut failures = page.family(&names::REQUEST_FAILURE);
    for upstream in upstreams {
        let (model, version) = labels(upstream);
        for (reason, label, _) in REASONS {
            failures.tagged(
                &[&model, &version, label],
                tags(upstream),
                sum(&**upstream, |m| m.failure(reason).get()),
            );
        }
    }
    let mut each = |family, number: &dyn Fn(&dyn Upstream) -> u64| {
        let mut samples = page.family(family);
        for upstream in upstreams {
            let (model, version) = labels(upstream);
            samples.tagged(&[&model, &version], tags(upstream), number(&**upstream));
        }
    };
    each(&names::INFERENCE_COUNT, &|upstream| sum(upstream, |m| m.rows.get()));
    each(&names::EXEC_COUNT, &|upstream| upstream.metrics().executions.get());
    each(&names::REQUEST_US, &|upstream| sum(upstream, |m| m.request_ns.get()) / 1000);
    each(&names::QUEUE_US, &|upstream| sum(upstream, |m| m.queue_ns.get()) / 1000);
    each(&names::COMPUTE_INPUT_US, &|upstream| sum(upstream, |m| m.compute_input_ns.get()) / 1000);
    each(&names::COMPUTE_INFER_US, &|upstream| sum(upstream, |m| m.compute_infer_ns.get()) / 1000);
    each(&names::COMPUTE_OUTPUT_US, &|upstream| sum(upstream, |m| m.compute_output_ns.get()) / 1000);
    each(&names::PENDING, &|upstream| u64::try_from(upstream.metrics().pending.get()).unwrap_or(0));
    let mut load = page.family(&names::LOAD_SECONDS);
    for upstream in upstreams {
        let (model, version) = labels(upstream);
        let us = u64::try_from(upstream.metrics().load_us.get()).unwrap_or(0);
        load.tagged(&[&model, &version], tags(upstream), Duration::from_micros(us).as_secs_f64());
    }
}

/// Triton's families of models whose answers are kept.
fn cached(page: &mut Page, upstreams: &[Arc<dyn Upstream>]) {
    let keeps = |upstream: &&Arc<dyn Upstream>| {
        upstream.config().response_cache.as_ref().is_some_and(|cache| cache.enable)
    };
    let upstreams: Vec<&Arc<dyn Upstream>> = upstreams.iter().filter(keeps).collect();
    let mut each = |family, number: fn(&TenantMetrics) -> u64| {
        let mut samples = page.family(family);
        for upstream in &upstreams {
            let (info, number) = (upstream.info(), sum(&***upstream, number));
            samples.tagged(&[info.name.as_str(), &info.version.to_string()], tags(upstream), number);
        }
    };
    each(&names::CACHE_HITS, |tenant| tenant.cache.hits.get());
    each(&names::CACHE_MISSES, |tenant| tenant.cache.misses.get());
    each(&names::CACHE_HIT_US, |tenant| tenant.cache.hit_ns.get() / 1000);
    each(&names::CACHE_MISS_US, |tenant| tenant.cache.miss_ns.get() / 1000);
}

/// Our own histograms, by tenant.
fn phases(page: &mut Page, upstreams: &[Arc<dyn Upstream>]) {
    for phase in Phase::ALL {
        let mut samples = page.family(phase.family());
        for upstream in upstreams {
            let info = upstream.info();
            for (tenant, metrics) in upstream.metrics().tenants() {
                let labels = [tenant.as_str(), info.name.as_str(), &info.version.to_string()];
                samples.histogram(&labels, metrics.phase(phase));
            }
        }
    }
    let mut requests = page.family(&names::TENANT_REQUESTS);
    for upstream in upstreams {
        let info = upstream.info();
        let version = info.version.to_string();
        for (tenant, metrics) in upstream.metrics().tenants() {
            let labels = |outcome| [tenant.as_str(), info.name.as_str(), version.as_str(), outcome];
            requests.add(&labels("success"), metrics.success.get());
            for (reason, _, outcome) in REASONS {
                requests.add(&labels(outcome), metrics.failure(reason).get());
            }
        }
    }
}

fn usage(page: &mut Page) {
    let Some(usage) = process::usage() else { return };
    page.family(&names::PROCESS_CPU).add(&[], usage.cpu.as_secs_f64());
    page.family(&names::PROCESS_MEMORY).add(&[], usage.resident_bytes);
    page.family(&names::PROCESS_START).add(&[], usage.start_seconds);
    page.family(&names::PROCESS_FDS).add(&[], usage.open_fds);
}
