//! Configuration: defaults, then a file, then `XEBEC_*`, then flags, into one checked value.
//!
//! Invariant: [`load`] reports every fault it can find in one pass, and nothing is opened or bound before it is done.
use crate::telemetry::TraceConfig;
use flags::{Flags, SETTINGS, Setting};
use layers::Layers;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};
use xebec_core::{ModelName, resource::Objective};
use xebec_engine::{backend::library, limiter::Declared, repository::complete::Defaults};
use xebec_net::{hosts::AllowedHosts, limits::Limits};
use xebec_serve::{
    Dialect,
    memory::{Allowed, FOLDER},
};

mod file;
pub mod flags;
mod layers;
pub mod machine;
mod trace;
pub(crate) use file::{options as yaml_options, said as yaml_said};

#[cfg(test)]
mod tests;

/// Everything that was wrong.
#[derive(Debug, Default)]
pub struct Faults(Vec<String>);

impl Faults {
    /// Notes a fault.
    pub fn add(&mut self, fault: impl Into<String>) {
        self.0.push(fault.into());
    }

    /// Whether all is right.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The faults, in the order found.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Prints them.
    ///
    /// # Errors
    /// The writer's.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = self.0.len();
        writeln!(out, "error: the configuration has {count} fault{}", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|fault| writeln!(out, "  - {fault}"))
    }
}

/// One listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where; `None` if it is switched off.
    pub address: Option<SocketAddr>,
}

/// When models are loaded and unloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlMode {
    /// At start.
    None,
    /// At start, and when their files change.
    Poll {
        /// Time between two looks.
        every: Duration,
    },
    /// By order of callers on this machine.
    Explicit {
        /** At start. */
        wanted: Wanted,
    },
}

/// Models that are loaded at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All that are there.
    All,
    /// These.
    Named(BTreeSet<ModelName>),
}

impl ControlMode {
    /// Whether a model is to be loaded at start.
    pub(crate) fn wants(&self, name: &ModelName) -> bool {
        match self {
            Self::None | Self::Poll { .. } | Self::Explicit { wanted: Wanted::All } => true,
            Self::Explicit { wanted: Wanted::Named(names) } => names.contains(name),
        }
    }
}

/// Form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogForm {
    /// For people.
    Text,
    /// For machines, a JSON object a line.
    Json,
}

/// The checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folders of models; empty with `up`.
    pub repositories: Vec<PathBuf>,
    /// HTTP.
    pub http: Listener,
    /// gRPC.
    pub grpc: Listener,
    /// Metrics.
    pub metrics: Listener,
    /// Hosts that requests may be for.
    pub hosts: AllowedHosts,
    /// Listeners off loopback are allowed.
    pub insecure: bool,
    /// How the HTTP listener behaves.
    pub dialect: Dialect,
    /// Name in the server's metadata.
    pub server_name: String,
    /// I/O threads.
    pub io_threads: usize,
    /// When models are loaded.
    pub control: ControlMode,
    /// An order may bring files.
    pub uploads: bool,
    /// Models loaded at the same time.
    pub loaders: usize,
    /// Bytes that all models together may take.
    pub model_memory: Option<u64>,
    /// Bytes of answers that are kept.
    pub cache: u64,
    /// Bytes of tensors that graphs may keep between their steps.
    pub graph_memory: u64,
    /// Runs take turns, and there is so much of these resources.
    pub rate_limit: Option<Vec<Declared>>,
    /// A model that cannot be served ends the server.
    pub exit_on_error: bool,
    /// A model that cannot be served makes the server not ready.
    pub strict_readiness: bool,
    /// What models get that do not say.
    pub defaults: Defaults,
    /// Where the engine's library may be.
    pub search: library::Search,
    /// Limits of the network side.
    pub limits: Limits,
    /// Deepest nesting of JSON.
    pub max_json_depth: usize,
    /// Time that requests in flight get to finish.
    pub exit_timeout: Duration,
    /// Names of shared memory that callers may register, if any.
    pub shared_memory: Option<Allowed>,
    /// Form of the log.
    pub log_form: LogForm,
    /// Levels of the log.
    pub log_level: String,
    /// Form of the access log, if there is one.
    pub access_log: Option<LogForm>,
    /// Where the access log goes; standard error if `None`.
    pub access_log_file: Option<PathBuf>,
    /// Where traces go, if they are made.
    pub trace: Option<TraceConfig>,
    /// What is odd in what was written, but no fault.
    pub warnings: Vec<String>,
    /// Every setting in force, as text.
    effective: Vec<(&'static str, String)>,
}

impl Config {
    /// Prints every setting in force.
    ///
    /// # Errors
    /// The writer's.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "configuration is valid")?;
        for folder in &self.repositories {
            writeln!(out, "model-repository: {}", folder.display())?;
        }
        self.effective.iter().try_for_each(|(name, value)| writeln!(out, "{name}: {value}"))
    }

    /// Checks what only a start would find out: files that are named.
    pub fn check_files(&self, faults: &mut Faults) {
        if let Some(candidate) = self.search.candidates().iter().find(|candidate| candidate.named)
            && !candidate.path.is_file()
        {
            let (path, by) = (candidate.path.display(), candidate.found_by);
            faults.add(format!("{by} names {path}, but there is no such file"));
        }
        if self.shared_memory.is_some() && !Path::new(FOLDER).is_dir() {
            faults.add(format!("--allow-shared-memory: this system keeps no shared memory in {FOLDER}"));
        }
        if let Some(Err(error)) = self.access_log_file.as_deref().map(writable) {
            faults.add(format!("--access-log-file cannot be written: {error}"));
        }
    }
}

/// Whether a file can be appended to or, if it is not there, made; a check makes none.
fn writable(path: &Path) -> io::Result<()> {
    match OpenOptions::new().append(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            folder.unwrap_or(Path::new(".")).metadata().map(drop)
        }
        opened => opened.map(drop),
    }
}

/// Merges all layers and checks them; `environment` has the variables with our prefix. `None` if anything is wrong; all
/// of it is in `faults`.
pub fn load(
    flags: &Flags,
    environment: &BTreeMap<String, String>,
    wants_repository: bool,
    faults: &mut Faults,
) -> Option<Config> {
    let layers = Layers::gather(flags, environment, faults);
    let config = Reader { layers: &layers, faults }.config(wants_repository);
    faults.is_empty().then_some(config)
}

/// `NAME:COUNT` or `NAME:COUNT:DEVICE`.
fn resource(text: &str) -> Option<Declared> {
    let mut parts = text.split(':');
    let name = parts.next().filter(|name| !name.is_empty() && !name.contains(char::is_whitespace))?;
    let count = parts.next()?.parse().ok()?;
    let device = parts.next().map(|device| device.parse().ok().filter(|device| *device >= 0));
    let well_formed = parts.next().is_none() && device != Some(None);
    well_formed.then(|| Declared { name: name.to_owned(), count, device: device.flatten() })
}

/// Reads settings by name, noting what is wrong and going on with the default.
struct Reader<'a> {
    layers: &'a Layers,
    faults: &'a mut Faults,
}

impl<'a> Reader<'a> {
    /// The text of a setting, written or default.
    fn text(&self, name: &str) -> &'a str {
        let default = || Setting::named(name).map_or("", |setting| setting.default);
        self.layers.get(name).map_or_else(default, |(text, _)| text)
    }

    /// A file that a setting names, if it does.
    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    fn fault(&mut self, name: &str, wants: &str) {
        let variable = Setting::named(name).map_or("", |setting| setting.variable);
        let place = self.layers.get(name).map(|(_, place)| format!(" {place}")).unwrap_or_default();
        let text = self.text(name);
        self.faults.add(format!("--{name} ({variable}) is '{text}'{place}, but must be {wants}"));
    }

    fn parse<T: FromStr>(&mut self, name: &str, wants: &str, fits: impl Fn(&T) -> bool) -> Option<T> {
        let text = self.text(name);
        let value = text.parse().ok().filter(fits);
        if value.is_none() {
            self.fault(name, wants);
        }
        value
    }

    fn count(&mut self, name: &str, least: usize, most: usize) -> usize {
        let wants = format!("a whole number from {least} to {most}");
        self.parse(name, &wants, |n: &usize| (least..=most).contains(n)).unwrap_or(least)
    }

    fn seconds(&mut self, name: &str) -> Duration {
        let wants = "a number of seconds from 0.1 to 86400";
        let value = self.parse(name, wants, |n: &f64| (0.1..=86_400.0).contains(n));
        Duration::from_secs_f64(value.unwrap_or(1.0))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.word(name, &[("true", true), ("false", false), ("1", true), ("0", false)]).unwrap_or(true)
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.text(name);
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(name, &format!("one of {}", known.join(", ")));
        }
        found
    }

    /// A number, or `None` for `auto`.
    fn auto(&mut self, name: &str, most: usize) -> Option<usize> {
        let text = self.text(name);
        if text == "auto" {
            return None;
        }
        let value = text.parse().ok().filter(|n| (1..=most).contains(n));
        if value.is_none() {
            self.fault(name, &format!("'auto' or a whole number from 1 to {most}"));
        }
        value
    }

    fn listener(&mut self, protocol: &str, insecure: bool) -> Listener {
        let on = self.flag(&format!("allow-{protocol}"));
        let address = format!("{protocol}-address");
        let ip = self.ip(&address);
        let port: Option<u16> = self.parse(&format!("{protocol}-port"), "a port from 0 to 65535", |_| true);
        let Some((ip, port)) = ip.zip(port) else { return Listener { address: None } };
        if on && !ip.to_canonical().is_loopback() && !insecure {
            self.faults.add(format!(
                "--{address} is {ip}, which is not loopback: this version has no TLS and no credentials, so anybody who reaches it could use it; put a proxy with both before it, or say --i-know-this-is-insecure"
            ));
        }
        Listener { address: on.then(|| SocketAddr::new(ip, port)) }
    }

    fn ip(&mut self, name: &str) -> Option<IpAddr> {
        // No resolver is asked: what is listened on must not depend on one.
        if self.text(name) == "localhost" {
            return Some(Ipv4Addr::LOCALHOST.into());
        }
        self.parse(name, "an IP address such as 127.0.0.1 or ::1, or localhost", |_| true)
    }

    /// Two listeners that would want one port.
    fn shared_ports(&mut self, listeners: [(&str, Listener); 3]) {
        for (index, (name, one)) in listeners.iter().enumerate() {
            for (other_name, other) in &listeners[..index] {
                let Some((one, other)) = one.address.zip(other.address) else { continue };
                let overlap =
                    one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
                if overlap && one.port() == other.port() && one.port() != 0 {
                    let port = one.port();
                    self.faults.add(format!("--{other_name}-port and --{name}-port are both {port}"));
                }
            }
        }
    }

    fn config(&mut self, wants_repository: bool) -> Config {
        let insecure = self.flag("i-know-this-is-insecure");
        self.repositories(wants_repository);
        let cores = machine::cores();
        let io_threads = self.auto("io-threads", 1024).unwrap_or(cores);
        let http = self.listener("http", insecure);
        let grpc = self.listener("grpc", insecure);
        let metrics = self.listener("metrics", insecure);
        self.shared_ports([("http", http), ("grpc", grpc), ("metrics", metrics)]);
        if http.address.is_none() && grpc.address.is_none() && self.faults.is_empty() {
            self.faults.add("--allow-http and --allow-grpc are both false, so nothing would be served");
        }
        let forms = [("text", LogForm::Text), ("json", LogForm::Json)];
        let access_log = self.word(
            "access-log",
            &[("off", None), ("text", Some(LogForm::Text)), ("json", Some(LogForm::Json))],
        );
        if access_log == Some(None) && self.path("access-log-file").is_some() {
            self.faults.add(
                "--access-log-file has no effect while --access-log is off; write --access-log text or json",
            );
        }
        let dialects = [("triton", Dialect::Triton), ("kserve", Dialect::KServe)];
        let objectives = [("throughput", Objective::Throughput), ("latency", Objective::Latency)];
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Config {
            repositories: if wants_repository { self.layers.repositories.clone() } else { Vec::new() },
            http,
            grpc,
            metrics,
            hosts: self.hosts(),
            insecure,
            dialect: self.word("http-dialect", &dialects).unwrap_or_default(),
            server_name: self.text("server-name").to_owned(),
            io_threads,
            control: self.control(wants_repository),
            uploads: self.flag("allow-model-upload"),
            loaders: self.count("model-load-thread-count", 1, 64),
            model_memory: Some(self.count("model-memory-budget", 0, usize::MAX) as u64).filter(|n| *n > 0),
            cache: self.count("response-cache-size", 0, usize::MAX) as u64,
            graph_memory: self.count("graph-memory", 0, usize::MAX) as u64,
            rate_limit: self.rate_limit(),
            exit_on_error: self.flag("exit-on-error"),
            strict_readiness: self.flag("strict-readiness"),
            defaults: Defaults {
                max_batch_size: small(self.count("default-max-batch-size", 0, 1 << 20)),
                max_queue: self.count("default-max-queue-size", 1, 1 << 20),
                cores: small(io_threads),
                instances: self.auto("instances", 1024).map(small),
                objective: self.word("objective", &objectives).unwrap_or_default(),
                inline_below: Duration::from_micros(self.count("inline-below-us", 0, 1_000_000) as u64),
            },
            search: self.search(),
            limits: self.limits(),
            max_json_depth: self.count("max-json-depth", 1, 100),
            exit_timeout: self.seconds("exit-timeout-secs"),
            shared_memory: self.shared_memory(),
            log_form: self.word("log-format", &forms).unwrap_or(LogForm::Text),
            log_level: self.log_level(),
            access_log: access_log.flatten(),
            access_log_file: self.path("access-log-file"),
            trace: self.trace(),
            warnings: self.layers.warnings.clone(),
            effective: self.effective(io_threads),
        }
    }

    fn hosts(&mut self) -> AllowedHosts {
        match AllowedHosts::parse(self.text("allowed-hosts")) {
            Ok(hosts) => hosts,
            Err(reason) => {
                self.fault(
                    "allowed-hosts",
                    &format!("names such as 'models.example,*.cluster.local': {reason}"),
                );
                AllowedHosts::default()
            }
        }
    }

    fn shared_memory(&mut self) -> Option<Allowed> {
        let text = Some(self.text("allow-shared-memory")).filter(|text| !text.is_empty())?;
        match Allowed::parse(text) {
            Ok(allowed) => Some(allowed),
            Err(reason) => {
                self.fault("allow-shared-memory", &format!("names such as 'input,frames-*': {reason}"));
                None
            }
        }
    }

    fn rate_limit(&mut self) -> Option<Vec<Declared>> {
        let on = self.word("rate-limit", &[("off", false), ("execution_count", true)]).unwrap_or(false);
        let text = self.text("rate-limit-resource");
        if !on && !text.is_empty() {
            self.faults.add("--rate-limit-resource has no effect while --rate-limit is off; write --rate-limit execution_count");
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let all: Option<Vec<Declared>> = parts.map(resource).collect();
        if all.is_none() {
            self.fault("rate-limit-resource", "NAME:COUNT or NAME:COUNT:DEVICE, such as R1:4 or R1:4:0");
        }
        all.filter(|_| on)
    }

    /// When models are loaded. What is written for another mode is a fault: it would have no effect.
    fn control(&mut self, repository: bool) -> ControlMode {
        #[derive(Clone, Copy, PartialEq)]
        enum Mode {
            None,
            Poll,
            Explicit,
        }
        let modes = [("none", Mode::None), ("poll", Mode::Poll), ("explicit", Mode::Explicit)];
        let mode = self.word("model-control-mode", &modes).unwrap_or(Mode::None);
        let every = self.seconds("repository-poll-secs");
        let wanted = self.wanted();
        if mode == Mode::Poll && !repository {
            self.faults.add("--model-control-mode poll is for 'serve': 'up' reads its documents once");
        }
        for (name, needed) in [
            ("load-model", Mode::Explicit),
            ("allow-model-upload", Mode::Explicit),
            ("repository-poll-secs", Mode::Poll),
        ] {
            let default = Setting::named(name).map_or("", |setting| setting.default);
            if mode != needed && self.text(name) != default {
                let word = if needed == Mode::Poll { "poll" } else { "explicit" };
                self.faults.add(format!("--{name} has no effect without --model-control-mode {word}"));
            }
        }
        match mode {
            Mode::None => ControlMode::None,
            Mode::Poll => ControlMode::Poll { every },
            Mode::Explicit => ControlMode::Explicit { wanted },
        }
    }

    fn wanted(&mut self) -> Wanted {
        let text = self.text("load-model");
        if text.trim() == "*" {
            return Wanted::All;
        }
        let mut names = BTreeSet::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match ModelName::parse(name) {
                Ok(name) => drop(names.insert(name)),
                Err(rule) => self.faults.add(format!("--load-model: '{name}' is no model's name: {rule}")),
            }
        }
        Wanted::Named(names)
    }

    /// What is in force, as text.
    fn effective(&self, io_threads: usize) -> Vec<(&'static str, String)> {
        let text = |setting: &Setting| match setting.name {
            "io-threads" => io_threads.to_string(),
            name => self.text(name).to_owned(),
        };
        let all = SETTINGS.iter().map(|setting| (setting.name, text(setting)));
        all.filter(|(_, text)| !text.is_empty()).collect()
    }

    fn repositories(&mut self, wanted: bool) {
        let layers = self.layers;
        match (wanted, layers.repositories.as_slice()) {
            (true, []) if layers.incomplete => (),
            (true, []) => self.faults.add("--model-repository is missing: name a folder of models"),
            (true, folders) => {
                for folder in folders.iter().filter(|folder| !folder.is_dir()) {
                    self.faults.add(format!("--model-repository {} is not a folder", folder.display()));
                }
            }
            (false, []) => (),
            // A variable may stand in a shell for all commands.
            (false, _) if layers.repositories_of_environment => (),
            (false, _) => {
                self.faults.add("--model-repository is for 'serve'; 'up' takes models from its YAML files")
            }
        }
    }

    fn search(&self) -> library::Search {
        machine::search(self.path("onnxruntime-library"))
    }

    fn limits(&mut self) -> Limits {
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Limits {
            max_connections: self.count("max-connections", 1, 1 << 20),
            max_header_bytes: small(self.count("max-header-bytes", 8192, 1 << 20)),
            header_timeout: self.seconds("header-timeout-secs"),
            idle_timeout: self.seconds("idle-timeout-secs"),
            stall_timeout: self.seconds("stall-timeout-secs"),
            max_body_bytes: self.count("http-max-input-size", 1, 1 << 40),
            max_message_bytes: self.count("grpc-max-message-size", 1, (1 << 31) - 1),
            max_buffered_bytes: self.count("max-buffered-bytes", 1 << 20, 1 << 40),
            max_concurrent_streams: small(self.count("grpc-max-concurrent-streams", 1, 100_000)),
            max_pending_resets: self.count("grpc-max-pending-resets", 1, 100_000),
            ..Limits::default()
        }
    }

    /// A bare level is xebec's own: the libraries below have nothing to say that an operator could use.
    fn log_level(&mut self) -> String {
        let text = self.text("log-level");
        if text.parse::<tracing_subscriber::EnvFilter>().is_err() {
            self.fault(
                "log-level",
                "error, warn, info, debug, trace, or filters such as info,xebec_engine=debug",
            );
        }
        match text {
            "info" | "debug" | "trace" => format!("warn,xebec={text}"),
            other => other.to_owned(),
        }
    }
}
