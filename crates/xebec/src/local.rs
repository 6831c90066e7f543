//! A model in this process, without a server: for the subcommands that measure models.
//!
//! Settings come from the variables that a server would read, so that what is measured is what a server would run.
//!
//! Not here: requests to run ([`data`]), what is done with the answers (`tune`, `quantize`).
use crate::{
    admission::Laptop,
    config::{self, Config, Faults, flags::Flags, machine},
    inputs::Slot,
    logging,
};
use anyhow::{Context as _, bail};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use xebec_core::{Gate, ModelInfo, ModelName, Permit, Principal, Verb, Version};
use xebec_engine::{
    backend::{self, Backend, LoadOptions, Model},
    catalog::{self, Settings},
    onnx::{self, Batchability},
    repository::{self, Candidate, complete},
    served::Served,
};

pub(crate) mod data;
mod npz;

/// An engine, and how models are started on it.
pub(crate) struct Local {
    backend: Arc<dyn Backend>,
    pub(crate) settings: Settings,
}

impl Local {
    /// Chooses the engine as a server would.
    ///
    /// # Errors
    /// A variable is wrong, or the engine is not to be had.
    pub(crate) fn start(library: Option<&Path>) -> anyhow::Result<Self> {
        let config = settings(library)?;
        logging::start(&config, std::io::stderr);
        let backend = backend::choose(&config.search)?;
        let settings = with_steps(Settings::new(config.defaults));
        Ok(Self { backend, settings })
    }

    /// How models would be started, for who starts none.
    ///
    /// # Errors
    /// A variable is wrong.
    pub(crate) fn settings() -> anyhow::Result<Settings> {
        let config = settings(None)?;
        logging::start(&config, std::io::stderr);
        Ok(with_steps(Settings::new(config.defaults)))
    }

    /// The engine, for people.
    pub(crate) fn engine(&self) -> String {
        let report = self.backend.report();
        format!("{} {} ({})", report.name, report.version, report.reason)
    }

    /// The engine itself.
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// The same engine behind another backend.
    pub(crate) fn behind(self, wrap: impl FnOnce(Arc<dyn Backend>) -> Arc<dyn Backend>) -> Self {
        Self { backend: wrap(self.backend), settings: self.settings }
    }

    /// Loads the newest version of a candidate without anything around it.
    ///
    /// # Errors
    /// The file is no model, or the engine refuses it.
    pub(crate) fn graph(&self, candidate: &Candidate) -> anyhow::Result<Graph> {
        if let Some(what) = candidate.is_of_no_file() {
            bail!("'{}' is {what}: it has no file of its own; name one of its models", candidate.name);
        }
        let version = newest(candidate)?;
        let path = candidate.versions.get(&version).context("the model has no version")?;
        let named = || path.display().to_string();
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut bytes = text.len() as u64;
        let graph = onnx::Model::parse(text.into()).with_context(named)?;
        let external = graph.check_external(path.parent().unwrap_or(&candidate.root)).with_context(named)?;
        for file in &external {
            bytes += file.metadata().with_context(|| format!("cannot read {}", file.display()))?.len();
        }
        let info = complete::plan(candidate, version, &graph, &self.settings.defaults)?.info;
        let model = self.backend.load(path, &graph, LoadOptions::default())?;
        Ok(Graph { info, model, shares: graph.batchability(), external, bytes })
    }

    /// Starts the newest version of a candidate.
    ///
    /// # Errors
    /// It cannot be served.
    pub(crate) fn serve(&self, candidate: &Candidate) -> anyhow::Result<Arc<Served>> {
        let version = newest(candidate)?;
        catalog::start(&*self.backend, candidate, version, &self.settings)
            .with_context(|| format!("'{}' cannot be served", candidate.name))
    }
}

/// A loaded graph with what its file says.
pub(crate) struct Graph {
    pub(crate) info: ModelInfo,
    pub(crate) model: Arc<dyn Model>,
    /// Whether requests of different callers may share a run.
    pub(crate) shares: Batchability,
    /// Files of external data.
    pub(crate) external: Vec<PathBuf>,
    /// Size, with external data.
    pub(crate) bytes: u64,
}

fn with_steps(settings: Settings) -> Settings {
    Settings { steps: Some(Arc::new(xebec_steps::Library)), ..settings }
}

fn settings(library: Option<&Path>) -> anyhow::Result<Config> {
    let flags = Flags {
        onnxruntime_library: library.map(|path| path.to_string_lossy().into_owned()),
        ..Flags::default()
    };
    let mut faults = Faults::default();
    let config = config::load(&flags, &machine::environment(), false, &mut faults);
    let Some(config) = config.filter(|_| faults.is_empty()) else { bail!(faults.as_slice().join("; ")) };
    if let Some(path) = library.filter(|path| !path.is_file()) {
        bail!("--onnxruntime-library: there is no file {}", path.display());
    }
    Ok(config)
}

/// The version that is measured.
pub(crate) fn newest(candidate: &Candidate) -> anyhow::Result<Version> {
    candidate.versions.keys().next_back().copied().context("the model has no version")
}

/// Opens an `.onnx` file or a model folder.
///
/// # Errors
/// It is neither, or its configuration is wrong.
pub(crate) fn open(path: &Path) -> anyhow::Result<Candidate> {
    Ok(repository::open(path)?)
}

/// What a model takes.
pub(crate) fn slots(info: &ModelInfo) -> Vec<Slot> {
    let slot = |input: &xebec_core::model::TensorInfo| Slot {
        name: input.name.to_string(),
        datatype: input.datatype,
        shape: input.shape.clone(),
    };
    info.inputs.iter().map(slot).collect()
}

/// Leave to run a model that this process itself has loaded.
pub(crate) fn permit(model: &ModelName) -> anyhow::Result<Permit> {
    let gate = Gate::new(Arc::new(Laptop::new(false, false, false)));
    let who = Principal::Anonymous { peer: ([127, 0, 0, 1], 0).into() };
    Ok(gate.admit(&who, Verb::Infer, Some(model))?)
}
