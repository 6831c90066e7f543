//! One process: engine, listeners, models, and the way to its end.
//!
//! The listeners are bound before the models are loaded, so that probes are answered from the first moment: live at
//! once, ready when everything is warm. SIGTERM and SIGINT drain from the first moment too (`ending`).
use crate::{
    access_log::Calls,
    admission::Laptop,
    config::{Config, ControlMode, Listener, Wanted},
    ending,
    lines::Lines,
    logging,
    metrics_page::{MetricsPage, Sources},
    telemetry::{self, Exporter},
};
use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeSet,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::sync::watch;
use xebec_core::{Gate, ModelName, port::Router, trace::Tracer};
use xebec_engine::{
    TurnEnd,
    backend::{self, library},
    catalog::{Catalog, Failure, Poll, Settings as CatalogSettings, Source},
    limiter::Limiter,
    repository::{Candidate, Scan},
};
use xebec_net::{
    drain::Drain,
    listener::{Bound, bind},
    process::raise_open_files,
    reactor::{Counters, Listeners, Reactor, Shared},
};
use xebec_serve::{
    AccessLog, Parts, Service, Settings, Unrouted,
    memory::{FOLDER, SharedMemory},
};

/// A progress bar is worth its lines from so many models on.
const MODELS_WORTH_A_BAR: usize = 8;

/// Serves until told to end. `services` are the models of `up`; without them the repositories are scanned.
///
/// # Errors
/// The system has no room for the thread that writes the log. What else goes wrong is told there.
pub(crate) fn run(config: &Config, services: Option<Vec<Candidate>>) -> anyhow::Result<ExitCode> {
    let lines = Lines::start("log", config.log_form, std::io::stderr());
    let lines = lines.context("cannot start the thread that writes the log")?;
    let ended = serve(config, services, &lines);
    if let Err(error) = &ended {
        lines.push(format!("error: {error:#}\n").as_bytes());
    }
    lines.finish();
    Ok(ended.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

fn serve(config: &Config, services: Option<Vec<Candidate>>, lines: &Arc<Lines>) -> anyhow::Result<()> {
    let started = Instant::now();
    let log = logging::start(config, Arc::clone(lines));
    logging::tell_of_panics();
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let most = config.limits.max_connections as u64;
    match raise_open_files() {
        Ok(files) if files < most => {
            tracing::warn!(
                files,
                most,
                "--max-connections is more than the files this process may open: raise `ulimit -Hn`"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(error = %error, "cannot raise the number of open files"),
    }
    let drain = Drain::new(config.exit_timeout);
    let backend = backend::choose(&config.search)?;
    let source = match services {
        Some(candidates) => Source::Given(candidates),
        None => Source::Repositories(config.repositories.clone()),
    };
    let settings = CatalogSettings {
        strict_readiness: config.strict_readiness,
        loaders: config.loaders,
        memory: config.model_memory,
        uploads: config.uploads,
        cache: config.cache,
        graph_memory: config.graph_memory,
        steps: Some(Arc::new(xebec_steps::Library)),
        limiter: config.rate_limit.clone().map(|declared| Arc::new(Limiter::new(declared))),
        ..CatalogSettings::new(config.defaults)
    };
    let catalog = Catalog::new(backend, source.clone(), settings).context("cannot start the loaders")?;
    let catalog = Arc::new(catalog);
    let (ready, readiness) = watch::channel(false);
    let told = ending::on_signal(config.exit_timeout, {
        let (drain, ready, catalog) = (drain.clone(), ready.clone(), Arc::clone(&catalog));
        let (lines, seconds) = (Arc::clone(lines), config.exit_timeout.as_secs_f64());
        move || {
            drain.begin(Instant::now());
            ready.send_replace(false);
            catalog.stop_loading();
            let notice =
                format!("draining: requests in flight get {seconds} s; a second signal ends at once\n");
            lines.push(notice.as_bytes());
        }
    })
    .context("cannot watch for signals")?;
    let scan = source.scan()?;
    let seen = Poll::new(&scan);
    let server = Running::start(config, &catalog, readiness, drain, (log, lines))?;
    server.greet(&catalog);
    let all = versions(&scan, &config.control);
    let may_come = matches!(config.control, ControlMode::Poll { .. } | ControlMode::Explicit { .. });
    if all == 0 && !may_come {
        tracing::warn!("there is no model in what is to be served");
    }
    let mut failures = load(&catalog, scan, &config.control);
    let missing = missing(&catalog, &config.control);
    let all = all + missing.len();
    failures.extend(missing);
    if !server.drain.is_draining() {
        if !failures.is_empty() && config.exit_on_error {
            server.stop(&ready);
            anyhow::bail!(
                "{} of {all} model versions cannot be served, the log says why; --exit-on-error=false serves the others",
                failures.len()
            );
        }
        // A signal may come in between: who is draining is never ready.
        ready.send_replace(true);
        ready.send_replace(!server.drain.is_draining());
        greet_ready(&*catalog, started);
        let poller = match config.control {
            ControlMode::Poll { every } => {
                Some(catalog.follow(seen, every).context("cannot follow the models")?)
            }
            ControlMode::None | ControlMode::Explicit { .. } => None,
        };
        // The sender lives as long as the process.
        let _ = told.recv();
        drop(poller);
    }
    server.stop(&ready);
    Ok(())
}

/// Says that the server is ready. Nobody may listen any more: it serves all the same.
fn greet_ready(router: &dyn Router, started: Instant) {
    let (count, ms) = (router.upstreams().len(), started.elapsed().as_millis());
    let versions = if count == 1 { "version" } else { "versions" };
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "ready    {count} model {versions} in {ms} ms").and_then(|()| out.flush());
}

/// Model versions that are to be served from the start, found or not.
fn versions(scan: &Scan, control: &ControlMode) -> usize {
    let wanted = scan.candidates.iter().filter(|candidate| control.wants(&candidate.name));
    let faults = scan.faults.iter().filter(|(name, _)| control.wants(name));
    wanted.map(|candidate| candidate.versions.len()).sum::<usize>() + faults.count()
}

/// Models that were named and are not there.
fn missing(catalog: &Catalog, control: &ControlMode) -> Vec<Failure> {
    let ControlMode::Explicit { wanted: Wanted::Named(names) } = control else { return Vec::new() };
    let there: BTreeSet<ModelName> = catalog.models().into_iter().map(|row| row.name).collect();
    let missing = names.iter().filter(|name| !there.contains(*name));
    let failure = |name: &ModelName| {
        let reason = "--load-model names it, but no --model-repository has it".to_owned();
        tracing::error!(model = %name, error = %reason, "model is not served");
        Failure { model: name.clone(), version: None, reason }
    };
    missing.map(failure).collect()
}

/// Loads everything, with a bar where it takes long and somebody watches. The catalog logs what cannot be served.
fn load(catalog: &Catalog, scan: Scan, control: &ControlMode) -> Vec<Failure> {
    let wanted = |name: &ModelName| control.wants(name);
    let models = scan.candidates.iter().filter(|candidate| wanted(&candidate.name)).count();
    let watched = models >= MODELS_WORTH_A_BAR && std::io::stderr().is_terminal();
    let bar = if watched { ProgressBar::new(models as u64) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("loading {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let failures = catalog.load(scan, &wanted, &|name| {
        bar.set_message(name.to_string());
        bar.inc(1);
    });
    bar.finish_and_clear();
    failures
}

/// The listeners and their threads.
struct Running {
    reactor: Reactor,
    drain: Drain,
    access_log: Option<Arc<Lines>>,
    exporter: Option<Exporter>,
    http: Option<SocketAddr>,
    grpc: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

impl Running {
    fn start(
        config: &Config,
        catalog: &Arc<Catalog>,
        readiness: watch::Receiver<bool>,
        drain: Drain,
        (log, lines): (Arc<logging::Log>, &Arc<Lines>),
    ) -> anyhow::Result<Self> {
        let (unrouted, counters) = (Arc::new(Unrouted::default()), Arc::new(Counters::default()));
        let (calls, access_log) = access_log(config)?.unzip();
        let traces = config.trace.as_ref().map(telemetry::start).transpose();
        let (telemetry, exporter) = traces.context("cannot start the thread that sends traces")?.unzip();
        let explicit = matches!(config.control, ControlMode::Explicit { .. });
        let service = Service::new(Parts {
            gate: Gate::new(Arc::new(Laptop::new(config.insecure, config.shared_memory.is_some(), explicit))),
            router: Arc::<Catalog>::clone(catalog),
            control: Arc::<Catalog>::clone(catalog),
            dialect: config.dialect,
            settings: Settings {
                server_name: config.server_name.clone(),
                server_version: env!("CARGO_PKG_VERSION").into(),
                max_body_bytes: config.limits.max_body_bytes,
                max_message_bytes: config.limits.max_message_bytes,
                max_json_depth: config.max_json_depth,
            },
            drain: drain.clone(),
            readiness,
            access_log: calls.map(|calls| Arc::new(calls) as Arc<dyn AccessLog>),
            tracer: telemetry.map(|telemetry| Arc::new(telemetry) as Arc<dyn Tracer>),
            unrouted: Arc::clone(&unrouted),
            shared_memory: config
                .shared_memory
                .clone()
                .map(|allowed| SharedMemory::new(allowed, FOLDER.into())),
            log,
        });
        let page = MetricsPage::new(Sources {
            catalog: Arc::<Catalog>::clone(catalog),
            counters: Arc::clone(&counters),
            unrouted,
            drain: drain.clone(),
            traces: exporter.as_ref().map(|exporter: &Exporter| Arc::clone(&exporter.outcomes)),
            logs: [("server", lines)]
                .into_iter()
                .chain(access_log.as_ref().map(|lines| ("access", lines)))
                .map(|(name, lines)| (name, Arc::clone(lines)))
                .collect(),
            last_ticks: Mutex::new((0, 0)),
        });
        let cores = config.io_threads;
        let listeners = Listeners {
            http: listen("http", config.http, cores)?.map(|bound| (bound, service.clone())),
            grpc: listen("grpc", config.grpc, cores)?.map(|bound| (bound, service)),
            metrics: listen("metrics", config.metrics, 1)?.map(|bound| (bound, page)),
        };
        let http = listeners.http.as_ref().map(|(bound, _)| bound.address);
        let grpc = listeners.grpc.as_ref().map(|(bound, _)| bound.address);
        let metrics = listeners.metrics.as_ref().map(|(bound, _)| bound.address);
        let shared = Shared {
            limits: config.limits,
            drain: drain.clone(),
            turn: Arc::new(TurnEnd),
            counters,
            hosts: config.hosts.clone(),
        };
        let reactor = Reactor::start(cores, listeners, &shared).context("cannot start the I/O threads")?;
        Ok(Self { reactor, drain, access_log, exporter, http, grpc, metrics })
    }

    /// Says where the server is, and which engine it has. Nobody may listen: it serves all the same.
    fn greet(&self, catalog: &Catalog) {
        let engine = catalog.engine();
        let named = [library::FLAG, library::VARIABLE].contains(&engine.reason.as_str());
        let by = if named { "named by " } else { "" };
        let mut text = format!(
            "xebec    {}\nengine   {} {} ({by}{})\n",
            env!("CARGO_PKG_VERSION"),
            engine.name,
            engine.version,
            engine.reason
        );
        let lines = [
            self.http.map(|address| format!("http     http://{address}\n")),
            self.grpc.map(|address| format!("grpc     {address}\n")),
            self.metrics.map(|address| format!("metrics  http://{address}/metrics\n")),
        ];
        text.extend(lines.into_iter().flatten());
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Drains, waits for the threads, writes what is left of the access log and sends the last traces.
    fn stop(self, ready: &watch::Sender<bool>) {
        self.drain.begin(Instant::now());
        ready.send_replace(false);
        self.reactor.join();
        if let Some(lines) = self.access_log {
            lines.finish();
        }
        if let Some(exporter) = self.exporter {
            exporter.finish();
        }
    }
}

fn listen(name: &str, listener: Listener, cores: usize) -> anyhow::Result<Option<Bound>> {
    let bound = listener.address.map(|address| bind(address, cores)).transpose();
    bound.with_context(|| format!("--{name}-address and --{name}-port"))
}

fn access_log(config: &Config) -> anyhow::Result<Option<(Calls, Arc<Lines>)>> {
    let Some(form) = config.access_log else { return Ok(None) };
    let file = config.access_log_file.as_deref();
    let started = Calls::start(form, file).with_context(|| {
        let path = file.map_or_else(|| PathBuf::from("standard error"), PathBuf::from);
        format!("cannot write the access log to {}", path.display())
    })?;
    Ok(Some(started))
}
