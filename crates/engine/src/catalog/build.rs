//! From the files of a version to a model that serves.
//!
//! Invariant: what serves was made from files that stayed as they were from the first read to the end: a file that is
//! replaced meanwhile is read again.
use super::{
    CatalogError, Core, Settings,
    budget::{Budget, Lease, Neighbours, NoLease},
    entry::{Entry, Loaded, Remembered, State, Wanted},
    reason::Reason,
};
use crate::{
    aside::{aside, patience},
    backend::{Backend, LoadError, Model, Signature, Stream},
    builtin::{self, Builtin},
    cache::{Cache, Cached},
    graph::{
        DEEPEST, Graph, MOST_RUNS, Parts,
        choice::{By, Chance, Choice, Test, Way},
        node::{self, Node, NodeStep},
        plan::{self as graph, Member},
    },
    mapped::Folder,
    onnx,
    repository::{
        Candidate, agents,
        complete::{self, Misfit},
        config::{self, Idle},
        read,
        stamp::Stamp,
        sums::Sums,
    },
    sequence::{Sequenced, plan},
    served::{Guard, Served},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Weak, atomic::AtomicUsize},
    time::Instant,
};
use xebec_core::{
    ModelInfo, Version,
    metrics::ModelMetrics,
    model::TensorInfo,
    model_config::{ModelConfig, model_config::SchedulingChoice},
    port::{Extent, Upstream},
    resource::RouterType,
    step::Recipe,
};

/// How often files are read again that were replaced while they were loaded.
const TRIES: usize = 3;

/// What a session needs beside its weights, in bytes: threads, arenas, the optimised graph. Measured with the MLP of
/// `examples/fraud-detection`, and rounded up.
const SESSION_BYTES: u64 = 512 << 10;

/// What it takes to build a version.
pub(super) struct Builder<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) settings: &'a Settings,
    pub(super) budget: Option<&'a Arc<Budget>>,
    pub(super) cache: Option<&'a Arc<Cache>>,
    pub(super) entry: &'a Arc<Entry>,
    pub(super) wanted: &'a Arc<Wanted>,
    pub(super) around: &'a dyn Neighbours,
    /// Where the members of a graph are; `None` where there are no other models.
    pub(super) core: Option<&'a Core>,
}

/// A version that is loaded without a budget needs nobody's room.
struct Alone;

impl Neighbours for Alone {
    fn beside(&self) -> u64 {
        0
    }
    fn send_siblings(&self) -> bool {
        false
    }
    fn send_other(&self) -> bool {
        false
    }
}

/// Makes one version of a candidate ready. Tools that measure a model without a catalog begin here too.
///
/// # Errors
/// Its files, its configuration or the engine's refusal.
pub fn start(
    backend: &dyn Backend,
    candidate: &Candidate,
    version: Version,
    settings: &Settings,
) -> Result<Arc<Served>, CatalogError> {
    let entry = &Arc::new(Entry::new(candidate.name.clone()));
    let wanted = &Arc::new(Wanted::new(candidate.clone()));
    let builder =
        Builder { backend, settings, budget: None, cache: None, entry, wanted, around: &Alone, core: None };
    builder.build(version)?.served.ok_or_else(|| no_runs().into())
}

fn no_runs() -> Misfit {
    Misfit::new("it is a graph of other models and has no runs of its own; name one of its models".into())
}

/// What an engine has read of a version.
struct Files {
    graph: onnx::Model,
    /// Of the model's file and its external data.
    bytes: u64,
    lease: Option<Arc<Lease>>,
}

/// A model's file with its external data.
struct Parsed {
    graph: onnx::Model,
    external: Stamp,
    /// Of both.
    bytes: u64,
}

/// A version that runs.
struct Started {
    upstream: Arc<dyn Upstream>,
    served: Option<Arc<Served>>,
    sequenced: Option<Arc<Sequenced>>,
    metrics: Arc<ModelMetrics>,
    lease: Option<Arc<Lease>>,
}

impl Builder<'_> {
    /// Loads a version, warms it up and measures it.
    pub(super) fn build(&self, version: Version) -> Result<Loaded, CatalogError> {
        // A panic of an engine over one file must not take the other models down.
        let outcome = catch_unwind(AssertUnwindSafe(|| self.try_build(version)));
        outcome.unwrap_or(Err(CatalogError::Panic))
    }

    fn try_build(&self, version: Version) -> Result<Loaded, CatalogError> {
        let started = Instant::now();
        let path = self.wanted.candidate.versions.get(&version).map_or(Path::new(""), PathBuf::as_path);
        for _ in 0..TRIES {
            let mut stamp = self.wanted.candidate.stamp(version);
            let outcome = self.start(version, path, &mut stamp);
            if !stamp.is_current() {
                tracing::info!(path = %path.display(), "replaced while it was loaded");
                continue;
            }
            let Started { upstream, served, sequenced, metrics, lease } = outcome?;
            let load_us = i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX);
            metrics.load_us.set(load_us);
            let upstream = self.kept(upstream);
            let wanted = Arc::clone(self.wanted);
            let remembered = Remembered::of(&*upstream, metrics).into();
            return Ok(Loaded { upstream, served, sequenced, remembered, wanted, stamp, lease });
        }
        Err(CatalogError::Replaced { path: path.to_owned() })
    }

    /// Reads a version's files when there is room for them.
    fn read(&self, path: &Path, stamp: &mut Stamp) -> Result<Files, CatalogError> {
        let unreadable = |source| CatalogError::Read { path: path.to_owned(), source };
        let folder = path.parent().unwrap_or(&self.wanted.candidate.root);
        let own = read::open(path).and_then(|file| file.metadata()).map_err(unreadable)?.len();
        let lease = self.budget.map(|budget| Arc::new(budget.lease()));
        self.make_room(lease.as_deref(), own, 1)?;
        let Candidate { folder: home, config, .. } = &self.wanted.candidate;
        let (path, folder) = (path.to_owned(), folder.to_owned());
        let (home, config) = (home.clone(), config.clone());
        let parse = move || parse(&path, &folder, home.as_deref(), config.as_ref());
        let Parsed { graph, external, bytes } = aside(patience(own), parse)?;
        stamp.extend(external);
        self.make_room(lease.as_deref(), bytes, 1)?;
        Ok(Files { graph, bytes, lease })
    }

    fn start(&self, version: Version, path: &Path, stamp: &mut Stamp) -> Result<Started, CatalogError> {
        if let Some(node) = &self.wanted.candidate.node {
            return self.start_node(version, node);
        }
        if let Some(config) = self.wanted.candidate.graph() {
            return self.start_graph(version, config);
        }
        if let Some(config) = self.wanted.candidate.step() {
            return self.start_step(version, config, path, stamp);
        }
        let Files { graph, bytes, lease } = self.read(path, stamp)?;
        let candidate = &self.wanted.candidate;
        let defaults = &self.settings.defaults;
        let objective = candidate.resources.objective.unwrap_or(defaults.objective);
        let own = objective.instances(defaults.cores);
        let stateful = plan::read(candidate, defaults.instances.unwrap_or(own))?;
        let candidate = stateful.as_ref().map_or(candidate, |(_, inner)| inner);
        let mut plan = complete::plan(candidate, version, &graph, defaults)?;
        if stateful.is_some() {
            // An answer lets the next request of its sequence run: not in the middle of a run on an I/O core.
            plan.instances.get_or_insert(own);
        }
        for Idle { path, why } in self.entry.news(self.idle()) {
            tracing::warn!(model = %self.entry.name, field = %path, %why, "a field of its configuration has no effect");
        }
        plan.limiter.clone_from(&self.settings.limiter);
        plan.observer.clone_from(&self.settings.observer);
        plan.metrics = self.entry.metrics(version, plan.metrics.bounds());
        let metrics = Arc::clone(&plan.metrics);
        plan.guard = Some(self.guard(version, lease.clone()));
        let model = self.backend.load(path, &graph, plan.load.clone())?;
        let model = Arc::new(Pinned { model, path: path.to_owned(), stamp: stamp.clone() });
        // The parsed file is as large as the model: it goes before warm-up makes its own memory.
        drop(graph);
        let room = |sessions| self.make_room(lease.as_deref(), bytes, sessions);
        let served = Arc::new(Served::start_within(model, plan, room)?);
        let layer = |(plan, _)| Sequenced::start(Arc::clone(&served), plan);
        let threads = |error: std::io::Error| LoadError::Threads { message: error.to_string() };
        let sequenced = stateful.map(layer).transpose().map_err(threads)?;
        let upstream: Arc<dyn Upstream> = match &sequenced {
            Some(sequenced) => Arc::<Sequenced>::clone(sequenced),
            None => Arc::<Served>::clone(&served),
        };
        Ok(Started { upstream, served: Some(served), sequenced, metrics, lease })
    }

    /// A graph is of models that are served already.
    fn start_graph(&self, version: Version, config: &ModelConfig) -> Result<Started, CatalogError> {
        let core = self.members()?;
        let find = |member: &Member| core.member(member);
        let planned = graph::plan(&self.entry.name, version, config, &find)?;
        let metrics = self.entry.metrics(version, &complete::bounds(config)?);
        let graph = self.graph(core, planned, config, &metrics)?;
        Ok(self.started(graph, metrics))
    }

    /// A node of an `InferenceGraph` is a graph, or several of one step of which a request takes one.
    fn start_node(&self, version: Version, node: &Node) -> Result<Started, CatalogError> {
        let core = self.members()?;
        let find = |member: &Member| core.member(member);
        let config = ModelConfig::default();
        let metrics = self.entry.metrics(version, &complete::bounds(&config)?);
        let graph = |steps: &[&NodeStep]| -> Result<Graph, CatalogError> {
            let (drawn, outputs) = node::drawn(steps, node.router, &node.outputs, &find)?;
            let planned = graph::plan_node(&self.entry.name, version, &drawn.step, &outputs, &find)?;
            let scheduling = SchedulingChoice::EnsembleScheduling(drawn);
            let config = ModelConfig { scheduling_choice: Some(scheduling), ..config.clone() };
            self.graph(core, planned, &config, &metrics)
        };
        let by = match node.router {
            RouterType::Sequence | RouterType::Ensemble => {
                let steps: Vec<&NodeStep> = node.steps.iter().collect();
                return Ok(self.started(graph(&steps)?, metrics));
            }
            RouterType::Switch => By::Condition,
            RouterType::Splitter => By::Chance(Chance::new()),
        };
        let graphs =
            node.steps.iter().map(|step| graph(&[step])).collect::<Result<Vec<Graph>, CatalogError>>()?;
        let inputs: Vec<TensorInfo> = graphs.iter().flat_map(|graph| graph.info().inputs.clone()).collect();
        let way = |(step, graph): (&NodeStep, Graph)| -> Result<Way, CatalogError> {
            let test = step.when.as_ref().map(|when| Test::read(when, &inputs));
            let when = test.transpose().map_err(|error| error.within(&step.label))?;
            Ok(Way { label: step.label.clone(), graph, when, weight: step.weight })
        };
        let ways = node.steps.iter().zip(graphs).map(way).collect::<Result<Vec<Way>, CatalogError>>()?;
        let choice =
            Choice::new(ways, by, Arc::clone(&metrics), |info| complete::graph_config(info, &config))?;
        Ok(self.started(choice, metrics))
    }

    /// Where the members of a graph are.
    fn members(&self) -> Result<&Core, CatalogError> {
        let core = self.core.ok_or_else(no_runs)?;
        core.check_cycle(&self.wanted.candidate)?;
        if core.lacks_room_for(&self.wanted.candidate) {
            return Err(CatalogError::NoMemory);
        }
        Ok(core)
    }

    fn graph(
        &self,
        core: &Core,
        (plan, info): (graph::Plan, ModelInfo),
        config: &ModelConfig,
        metrics: &Arc<ModelMetrics>,
    ) -> Result<Graph, CatalogError> {
        let find = |member: &Member| core.member(member);
        let labels = complete::graph_labels(&self.wanted.candidate, config, &plan, &info, &find)?;
        let mut headers: Vec<Box<str>> = Vec::new();
        for step in &plan.steps {
            headers.extend(find(&step.member)?.headers().iter().cloned());
        }
        headers.sort();
        headers.dedup();
        let mut extent = Extent { depth: 1, runs: 0 };
        for step in &plan.steps {
            let Extent { depth, runs } = find(&step.member)?.extent();
            extent.depth = extent.depth.max(depth.saturating_add(1));
            extent.runs = extent.runs.saturating_add(runs);
        }
        if extent.depth > DEEPEST || extent.runs > MOST_RUNS {
            return Err(Misfit::new(format!(
                "graphs are {} deep within each other with {} runs of models for a request; at most {DEEPEST} and {MOST_RUNS} may be",
                extent.depth, extent.runs
            ))
            .into());
        }
        Ok(Graph::new(Parts {
            config: complete::graph_config(&info, config),
            members: Weak::<Core>::clone(&core.itself),
            memory: Arc::clone(&core.graphs),
            metrics: Arc::clone(metrics),
            info,
            plan,
            labels,
            headers,
            extent,
        }))
    }

    fn started(&self, graph: impl Upstream + 'static, metrics: Arc<ModelMetrics>) -> Started {
        let version = graph.info().version.get();
        tracing::info!(model = %self.entry.name, version, "graph is ready");
        Started { upstream: Arc::new(graph), served: None, sequenced: None, metrics, lease: None }
    }

    /// A built-in step, with the files of its version if it has any.
    fn start_step(
        &self,
        version: Version,
        config: &ModelConfig,
        path: &Path,
        stamp: &mut Stamp,
    ) -> Result<Started, CatalogError> {
        let candidate = &self.wanted.candidate;
        let (kind, settings) = complete::step_settings(config)?;
        let none = || Misfit::new("this server has no built-in steps".into());
        let steps = self.settings.steps.as_ref().ok_or_else(none)?;
        let files = Folder::new(&candidate.root, path);
        let step = steps.open(Recipe { kind: &kind, settings: &settings, files: &files });
        stamp.extend(files.opened());
        let step = step.map_err(Misfit::new)?;
        let info = complete::step_info(candidate, version, config, &*step)?;
        let metrics = self.entry.metrics(version, &complete::bounds(config)?);
        let upstream = Arc::new(Builtin::new(builtin::Parts {
            config: complete::graph_config(&info, config),
            labels: complete::labels(candidate.folder.as_deref(), config)?,
            metrics: Arc::clone(&metrics),
            step,
            max_queue: self.settings.defaults.max_queue,
            waiting: AtomicUsize::new(0),
            info,
        }));
        tracing::info!(model = %candidate.name, version = version.get(), step = kind, "step is ready");
        Ok(Started { upstream, served: None, sequenced: None, metrics, lease: None })
    }

    fn idle(&self) -> Vec<Idle> {
        let config = self.wanted.candidate.config.as_ref();
        config.map(|config| config::idle(config, self.settings.limiter.is_some())).unwrap_or_default()
    }

    /// With its answers kept, if its configuration asks for that.
    fn kept(&self, upstream: Arc<dyn Upstream>) -> Arc<dyn Upstream> {
        let asked = upstream.config().response_cache.as_ref().is_some_and(|cache| cache.enable);
        match self.cache.filter(|_| asked) {
            Some(cache) => Arc::new(Cached::new(upstream, Arc::clone(cache))),
            None if asked => {
                tracing::warn!(model = %self.entry.name, "no answers are kept: --response-cache-size is 0");
                upstream
            }
            None => upstream,
        }
    }

    /// Room for so many sessions over files of so many bytes, where there is a limit.
    fn make_room(&self, lease: Option<&Lease>, bytes: u64, sessions: usize) -> Result<(), CatalogError> {
        let bytes = (bytes + SESSION_BYTES) * sessions as u64;
        let raised = lease.map_or(Ok(()), |lease| lease.raise(bytes, self.around));
        raised.map_err(|why| match why {
            NoLease::TooLarge { beside, limit } => CatalogError::TooLarge { bytes, beside, limit },
            NoLease::Busy => CatalogError::NoMemory,
        })
    }

    /// What is to happen when the last of the version's memory has gone.
    fn guard(&self, version: Version, lease: Option<Arc<Lease>>) -> Guard {
        Arc::new(Gone { entry: Arc::downgrade(self.entry), version, _lease: lease })
    }
}

/// Reads a version's file of a model whose own folder is `home`, if it has one.
fn parse(
    path: &Path,
    folder: &Path,
    home: Option<&Path>,
    config: Option<&ModelConfig>,
) -> Result<Parsed, CatalogError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| CatalogError::Read { path, source }
    };
    let content = read::whole(path).map_err(unreadable(path))?;
    let mut bytes = content.len() as u64;
    let sums = Sums::of(folder)?;
    sums.as_ref().map_or(Ok(()), |sums| sums.check(path, &content))?;
    config.map_or(Ok(()), |config| agents::check(home, config))?;
    let onnx = |source| CatalogError::Onnx { path: path.to_owned(), source };
    let graph = onnx::Model::parse(content.into()).map_err(onnx)?;
    let mut external = Stamp::default();
    for file in graph.check_external(folder).map_err(onnx)? {
        external.add(&file);
        sums.as_ref().map_or(Ok(()), |sums| sums.check_file(&file))?;
        bytes += file.metadata().map_err(unreadable(&file))?.len();
    }
    Ok(Parsed { graph, external, bytes })
}

/// A model of which no session is made of other files than the first: an engine reads them again for each.
struct Pinned {
    model: Arc<dyn Model>,
    path: PathBuf,
    stamp: Stamp,
}

impl Model for Pinned {
    fn signature(&self) -> &Signature {
        self.model.signature()
    }

    fn shared_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        self.model.shared_stream()
    }

    fn own_stream(&self) -> Result<Box<dyn Stream>, LoadError> {
        let stream = self.model.own_stream()?;
        if self.stamp.is_current() {
            return Ok(stream);
        }
        Err(LoadError::Replaced { path: self.path.clone() })
    }
}

/// Lives as long as the memory of a version.
struct Gone {
    entry: Weak<Entry>,
    version: Version,
    _lease: Option<Arc<Lease>>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        let Some(entry) = self.entry.upgrade() else { return };
        entry.update(|face| {
            if let Some(state @ State::Unloading) = face.versions.get_mut(&self.version) {
                *state = State::Unavailable(Reason::plain("it was unloaded"));
            }
        });
    }
}
