//! One process: engine, listeners, models, and the way to its end.
//!
//! The listeners are bound before the models are loaded, so that probes are answered from the first moment: live at
//! once, ready when everything is warm. SIGTERM and SIGINT drain; a second one ends at once.
use crate::{
    access_log::Lines,
    admission::Laptop,
    config::{Config, Listener},
    logging,
    metrics_page::{MetricsPage, Sources},
};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use xebec_core::{Gate, port::Router};
use xebec_engine::{
    TurnEnd, backend,
    catalog::{Catalog, Failure, Settings as CatalogSettings},
    repository::{self, Candidate, Scan},
};
use xebec_net::{
    drain::Drain,
    listener::{Bound, bind},
    reactor::{Counters, Listeners, Reactor, Shared},
};
use xebec_serve::{AccessLog, Parts, Service, Settings, Unrouted};

/// A progress bar is worth its lines from so many models on.
const MODELS_WORTH_A_BAR: usize = 8;

/// Serves until told to end. `services` are the models of `up`; without them the repositories are scanned.
///
/// # Errors
/// The engine, a listener or a repository is not to be had.
pub(crate) fn run(config: &Config, services: Option<Vec<Candidate>>) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    logging::start(config);
    let backend = backend::choose(&config.search)?;
    let scan = match services {
        Some(candidates) => Scan { candidates, faults: Vec::new() },
        None => repository::scan(&config.repositories)?,
    };
    let catalog = Arc::new(Catalog::new(
        backend,
        CatalogSettings {
            defaults: config.defaults,
            strict_readiness: config.strict_readiness,
            observer: None,
        },
    ));
    let (ready, readiness) = watch::channel(false);
    let server = Running::start(config, &catalog, readiness)?;
    server.greet(&catalog)?;
    let failures = load(&catalog, scan);
    report(&failures);
    if !failures.is_empty() && config.exit_on_error {
        server.stop(&ready);
        anyhow::bail!(
            "{} of the models cannot be served; --exit-on-error=false serves the others",
            failures.len()
        );
    }
    ready.send_replace(true);
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready    {} in {} ms", models(&*catalog), started.elapsed().as_millis())?;
    out.flush()?;
    drop(out);
    wait_for_the_end(&server.drain, &ready, config.exit_timeout)?;
    server.stop(&ready);
    Ok(ExitCode::SUCCESS)
}

fn models(router: &dyn Router) -> String {
    let count = router.upstreams().len();
    format!("{count} model version{}", if count == 1 { "" } else { "s" })
}

/// Loads everything, with a bar where it takes long and somebody watches.
fn load(catalog: &Catalog, scan: Scan) -> Vec<Failure> {
    let versions: usize = scan.candidates.iter().map(|candidate| candidate.versions.len()).sum();
    let watched = versions >= MODELS_WORTH_A_BAR && std::io::stderr().is_terminal();
    let bar = if watched { ProgressBar::new(versions as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("loading {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let failures = catalog.load(scan, &|name, _| {
        bar.set_message(name.to_string());
        bar.inc(1);
    });
    bar.finish_and_clear();
    failures
}

fn report(failures: &[Failure]) {
    let mut err = std::io::stderr().lock();
    for failure in failures {
        let version = failure.version.map(|version| format!(" version {version}")).unwrap_or_default();
        // The same is in the index of models; if standard error is gone nothing is lost.
        let _ = writeln!(err, "error: model '{}'{version} is not served: {}", failure.model, failure.reason);
    }
}

/// The listeners and their threads.
struct Running {
    reactor: Reactor,
    drain: Drain,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl Running {
    fn start(
        config: &Config,
        catalog: &Arc<Catalog>,
        readiness: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let drain = Drain::new(config.exit_timeout);
        let (unrouted, counters) = (Arc::new(Unrouted::default()), Arc::new(Counters::default()));
        let access_log = match config.access_log {
            Some(form) => {
                let lines = Lines::start(form, config.access_log_file.as_deref());
                let path = config.access_log_file.clone().unwrap_or_else(|| PathBuf::from("standard error"));
                let lines =
                    lines.with_context(|| format!("cannot write the access log to {}", path.display()))?;
                Some(Arc::new(lines) as Arc<dyn AccessLog>)
            }
            None => None,
        };
        let service = Service::new(Parts {
            gate: Gate::new(Arc::new(Laptop::new(config.insecure))),
            router: Arc::<Catalog>::clone(catalog),
            dialect: config.dialect,
            settings: Settings {
                server_name: config.server_name.clone(),
                server_version: env!("CARGO_PKG_VERSION").into(),
                max_body_bytes: config.max_body_bytes,
                max_json_depth: config.max_json_depth,
            },
            drain: drain.clone(),
            readiness,
            access_log,
            unrouted: Arc::clone(&unrouted),
        });
        let page = MetricsPage::new(Sources {
            router: Arc::<Catalog>::clone(catalog),
            counters: Arc::clone(&counters),
            unrouted,
            drain: drain.clone(),
            last_ticks: Mutex::new((0, 0)),
        });
        let listen = |listener: Listener, cores: usize| -> anyhow::Result<Option<Bound>> {
            Ok(listener.address.map(|address| bind(address, cores)).transpose()?)
        };
        let cores = config.io_threads;
        let listeners = Listeners {
            http: listen(config.http, cores)?.map(|bound| (bound, service.clone())),
            grpc: listen(config.grpc, cores)?.map(|bound| (bound, service)),
            metrics: listen(config.metrics, 1)?.map(|bound| (bound, page)),
        };
        let http = listeners.http.as_ref().map(|(bound, _)| bound.address);
        let grpc = listeners.grpc.as_ref().map(|(bound, _)| bound.address);
        let metrics = listeners.metrics.as_ref().map(|(bound, _)| bound.address);
        let shared =
            Shared { limits: config.limits, drain: drain.clone(), turn: Arc::new(TurnEnd), counters };
        let reactor = Reactor::start(cores, listeners, &shared).context("cannot start the I/O threads")?;
        Ok(Self { reactor, drain, http, grpc, metrics })
    }

    /// Says where the server is, and which engine it has.
    fn greet(&self, catalog: &Catalog) -> std::io::Result<()> {
        let engine = catalog.engine();
        let mut out = std::io::stdout().lock();
        writeln!(out, "xebec    {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "engine   {} {} ({})", engine.name, engine.version, engine.reason)?;
        if let Some(http) = self.http {
            writeln!(out, "http     http://{http}")?;
        }
        if let Some(grpc) = self.grpc {
            writeln!(out, "grpc     {grpc}")?;
        }
        if let Some(metrics) = self.metrics {
            writeln!(out, "metrics  http://{metrics}/metrics")?;
        }
        out.flush()
    }

    /// Drains and waits for the threads.
    fn stop(self, ready: &watch::Sender<bool>) {
        self.drain.begin(Instant::now());
        ready.send_replace(false);
        self.reactor.join();
    }
}

/// Waits for a signal; a second one, or the end of the time to drain, ends the process at once.
fn wait_for_the_end(drain: &Drain, ready: &watch::Sender<bool>, bound: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut terminate, mut interrupt) = runtime.block_on(async {
        anyhow::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    })?;
    runtime.block_on(either(&mut terminate, &mut interrupt));
    drain.begin(Instant::now());
    ready.send_replace(false);
    let mut err = std::io::stderr().lock();
    // Nobody may listen any more: the drain goes on all the same.
    let _ =
        writeln!(err, "draining: requests in flight get {} s; a second signal ends at once", bound.as_secs());
    drop(err);
    std::thread::Builder::new().name("second-signal".into()).spawn(move || {
        runtime.block_on(either(&mut terminate, &mut interrupt));
        std::process::exit(1);
    })?;
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => (),
        _ = interrupt.recv() => (),
    }
}
