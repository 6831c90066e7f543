//! What is wrong or doubtful about a model or a repository, all of it, and a `config.pbtxt` that would be right.
//!
//! Invariant: a configuration that is proposed was parsed and planned against the graph, and is served as it is.
//!
//! Not here: printing and writing (the binary), the rules themselves (`repository`, `onnx`, `backend`).
use crate::{
    backend::Backend,
    catalog::{self, Catalog, Settings, Source},
    formats,
    onnx::{self, Batchability},
    repository::{
        self, Candidate, agents,
        complete::{self, Defaults},
        config,
    },
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};
use xebec_core::{ModelName, Version, model_config::ModelConfig};

mod proposal;
mod text;

#[cfg(test)]
mod tests;

/// How grave something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gravity {
    /// Worth knowing.
    Note,
    /// It serves, but perhaps not as meant.
    Doubt,
    /// It is not served.
    Fault,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How grave.
    pub gravity: Gravity,
    /// Which file or folder.
    pub path: PathBuf,
    /// Line and column, from 1, where there is one.
    pub place: Option<(usize, usize)>,
    /// What, and what to do.
    pub message: String,
}

/// What was found about one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Name, or what stands in its place.
    pub model: String,
    /// The versions that would be served, with their labels.
    pub versions: Vec<(Version, Vec<String>)>,
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Where its configuration is or would be, and what should stand there; `None` if it is right or nothing can be said.
    pub proposal: Option<(PathBuf, String)>,
}

impl Diagnosis {
    /// Whether something has to be done.
    #[must_use]
    pub fn is_faulty(&self) -> bool {
        self.findings.iter().any(|finding| finding.gravity == Gravity::Fault)
    }

    fn say(&mut self, gravity: Gravity, path: &Path, message: impl Into<String>) {
        let finding = Finding { gravity, path: path.to_owned(), place: None, message: message.into() };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

/// Looks at a model file, a model folder, or every model of a repository. `seen` is told of each that is done. Without an
/// engine models are not loaded.
///
/// # Errors
/// The path cannot be read.
pub fn examine(
    path: &Path,
    backend: Option<&Arc<dyn Backend>>,
    settings: &Settings,
    seen: &dyn Fn(&str),
) -> std::io::Result<Vec<Diagnosis>> {
    let path = path.canonicalize()?;
    // Of a part of a model the whole is looked at.
    let path = repository::model_of(&path).map_or(path.clone(), Path::to_owned);
    let mut all = Vec::new();
    let entries = if is_repository(&path) { children(&path)? } else { vec![path] };
    for entry in entries {
        let hidden = entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let foreign = formats::of_path(&entry);
        let is_model =
            entry.is_dir() || foreign.is_some() || entry.extension().is_some_and(|kind| kind == "onnx");
        if !hidden && is_model {
            let diagnosis = model(&entry, backend, settings);
            seen(&diagnosis.model);
            all.push(diagnosis);
        }
    }
    Ok(all)
}

/// A folder of models rather than a model's folder.
fn is_repository(path: &Path) -> bool {
    if !path.is_dir() || path.join("config.pbtxt").exists() || formats::of_path(path).is_some() {
        return false;
    }
    let entries = children(path).unwrap_or_default();
    let name =
        |entry: &Path| entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_version =
        |entry: &PathBuf| entry.is_dir() && name(entry).bytes().all(|byte| byte.is_ascii_digit());
    let is_model = |entry: &PathBuf| {
        let folder = entry.is_dir() && !is_version(entry);
        folder || entry.extension().is_some_and(|kind| kind == "onnx")
    };
    // A lone model.onnx is a model's file that misses its version's folder.
    let lone = |entry: &PathBuf| name(entry) == "model.onnx";
    !entries.iter().any(is_version) && entries.iter().any(|entry| is_model(entry) && !lone(entry))
}

fn children(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut all: Vec<PathBuf> =
        std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    all.sort();
    Ok(all)
}

fn model(path: &Path, backend: Option<&Arc<dyn Backend>>, settings: &Settings) -> Diagnosis {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    let name = name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut diagnosis = Diagnosis { model: name.clone(), ..Diagnosis::default() };
    if let Some(foreign) = formats::of_path(path) {
        diagnosis.say(
            Gravity::Fault,
            path,
            format!("it is {}, not ONNX; {}", foreign.format, foreign.way_out),
        );
        return diagnosis;
    }
    if let Err(error) = ModelName::parse(&name) {
        diagnosis.say(Gravity::Fault, path, format!("'{name}' cannot be a model's name: {error}"));
        return diagnosis;
    }
    let file = path.join("config.pbtxt");
    let read = if path.is_dir() && file.exists() {
        text::read(&file, &name, &mut diagnosis)
    } else {
        Read::default()
    };
    let has_files = read.config.as_ref().is_none_or(|config| !repository::is_bare(config));
    if has_files {
        folders(path, &mut diagnosis);
    }
    let candidate = match candidate(path, &read) {
        Ok(candidate) => candidate,
        Err(error) => {
            match error {
                repository::RepositoryError::Config { path, message } => {
                    diagnosis.say(Gravity::Fault, &path, message);
                }
                repository::RepositoryError::Foreign { path, format, way_out } => {
                    // What was doubtful about its parts is explained by what the whole is.
                    diagnosis.findings.retain(|finding| !finding.path.starts_with(&path));
                    diagnosis.say(Gravity::Fault, &path, format!("it is {format}, not ONNX; {way_out}"));
                }
                error => diagnosis.say(Gravity::Fault, path, error.to_string()),
            }
            return diagnosis;
        }
    };
    diagnosis.versions = versions(&candidate);
    if !has_files {
        if !diagnosis.is_faulty() {
            among_others(path, &file, backend, settings, &mut diagnosis);
        }
        return diagnosis;
    }
    let mut graphs = BTreeMap::new();
    for (version, file) in &candidate.versions {
        if let Some(graph) = graph(file, &mut diagnosis) {
            graphs.insert(*version, graph);
        }
    }
    compare(&candidate, &graphs, &mut diagnosis);
    for (version, graph) in &graphs {
        fit(&candidate, *version, graph, &settings.defaults, &mut diagnosis);
    }
    if let Some(config) = &read.config {
        if let Err(misfit) = agents::check(Some(path), config) {
            diagnosis.say(Gravity::Fault, &file, misfit.to_string());
        }
        for idle in config::idle(config, settings.limiter.is_some()) {
            diagnosis.say(Gravity::Note, &file, format!("{} has no effect: {}", idle.path, idle.why));
        }
    }
    if let Some(graph) = graphs.values().next_back() {
        let written = read.config.is_some() || read.is_broken;
        if written && (diagnosis.is_faulty() || read.is_changed) {
            let proposed = proposal::propose(&candidate, &read, graph, &settings.defaults);
            diagnosis.proposal = proposed.map(|text| (file, text));
        }
    }
    if let (Some(backend), false) = (backend, diagnosis.is_faulty()) {
        load(&**backend, &candidate, settings, &mut diagnosis);
    }
    diagnosis
}

/// Loads a graph or a built-in step as a server would, with the models beside it.
fn among_others(
    path: &Path,
    config: &Path,
    backend: Option<&Arc<dyn Backend>>,
    settings: &Settings,
    diagnosis: &mut Diagnosis,
) {
    let Some(backend) = backend else {
        let message = "without an engine its models are not loaded, and it was not compared with them";
        return diagnosis.say(Gravity::Note, config, message);
    };
    let source = Source::Repositories(vec![path.parent().unwrap_or(path).to_owned()]);
    let settings = Settings { memory: None, ..settings.clone() };
    let loaded = source.scan().map_err(|error| chain(&error)).and_then(|scan| {
        let catalog =
            Catalog::new(Arc::clone(backend), source, settings).map_err(|error| error.to_string())?;
        let failures = catalog.load(scan, &|name| name.as_str() == diagnosis.model, &|_| ());
        let own = failures.into_iter().find(|failure| failure.model.as_str() == diagnosis.model);
        own.map_or(Ok(()), |failure| Err(failure.reason))
    });
    if let Err(reason) = loaded {
        diagnosis.say(Gravity::Fault, config, reason);
    }
}

/// A configuration as far as it could be read.
#[derive(Debug, Default)]
struct Read {
    /// Without what is not honoured.
    config: Option<ModelConfig>,
    /// Whether something was left out or put right.
    is_changed: bool,
    /// Whether it could not be read at all.
    is_broken: bool,
}

fn candidate(path: &Path, read: &Read) -> Result<Candidate, repository::RepositoryError> {
    if read.config.is_none() && !read.is_broken {
        return repository::open(path);
    }
    repository::open_with(path, &read.config.clone().unwrap_or_default())
}

fn versions(candidate: &Candidate) -> Vec<(Version, Vec<String>)> {
    let labels_of = |version: &Version| {
        let labels = candidate.labels.iter().filter(|(_, named)| *named == version);
        labels.map(|(label, _)| label.to_string()).collect()
    };
    candidate.versions.keys().map(|version| (*version, labels_of(version))).collect()
}

/// Version folders that are not what they seem.
fn folders(path: &Path, diagnosis: &mut Diagnosis) {
    for entry in children(path).unwrap_or_default() {
        let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !entry.is_dir() || name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        if Version::parse(&name).is_err() {
            let message =
                "it is passed over: a version is a number above 0 without a leading zero; rename it";
            diagnosis.say(Gravity::Doubt, &entry, message);
            continue;
        }
        let files = children(&entry).unwrap_or_default();
        if files.is_empty() {
            let message = "the version's folder is empty: put model.onnx into it, or remove it";
            diagnosis.say(Gravity::Doubt, &entry, message);
        } else if let Some((file, foreign)) = formats::in_folder(&entry) {
            diagnosis.say(
                Gravity::Doubt,
                &file,
                format!("it is {}, not ONNX; {}", foreign.format, foreign.way_out),
            );
        }
    }
}

fn graph(file: &Path, diagnosis: &mut Diagnosis) -> Option<onnx::Model> {
    let bytes = match repository::read::whole(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            diagnosis.say(Gravity::Fault, file, format!("it cannot be read: {error}"));
            return None;
        }
    };
    match onnx::Model::parse(bytes.into()) {
        Ok(graph) => {
            let folder = file.parent().unwrap_or(Path::new("."));
            if let Err(error) = graph.check_external(folder) {
                diagnosis.say(Gravity::Fault, file, error.to_string());
            }
            Some(graph)
        }
        Err(error) => {
            diagnosis.say(Gravity::Fault, file, error.to_string());
            None
        }
    }
}

/// Versions that callers cannot use alike.
fn compare(candidate: &Candidate, graphs: &BTreeMap<Version, onnx::Model>, diagnosis: &mut Diagnosis) {
    let Some((newest, graph)) = graphs.iter().next_back() else { return };
    for (version, other) in graphs {
        let same = other.inputs() == graph.inputs() && other.outputs() == graph.outputs();
        if let (false, Some(file)) = (same, candidate.versions.get(version)) {
            let message = format!(
                "version {version} has other inputs or outputs than version {newest}: a caller that names no version meets both over time; give the model another name"
            );
            diagnosis.say(Gravity::Doubt, file, message);
        }
    }
}

fn fit(
    candidate: &Candidate,
    version: Version,
    graph: &onnx::Model,
    defaults: &Defaults,
    diagnosis: &mut Diagnosis,
) {
    let file = candidate.versions.get(&version).map(PathBuf::as_path).unwrap_or(Path::new(""));
    let plan = match complete::plan(candidate, version, graph, defaults) {
        Ok(plan) => plan,
        Err(misfit) => return diagnosis.say(Gravity::Fault, file, misfit.to_string()),
    };
    let batch = plan.info.max_batch_size;
    match graph.batchability() {
        Batchability::No { .. } if batch > 0 && plan.batching.mixes.is_err() => {
            for reason in graph.stops() {
                diagnosis.say(Gravity::Doubt, file, format!("every request runs alone, because {reason}"));
            }
        }
        Batchability::Yes if batch == 0 && candidate.config.is_some() => {
            let message = "the graph keeps rows apart, but max_batch_size is 0: requests never share a run; write max_batch_size: 64 and leave the batch axis out of dims";
            diagnosis.say(Gravity::Note, file, message);
        }
        Batchability::Yes if batch > 0 && plan.batching.mixes.is_err() => {
            let message = "the graph keeps rows apart, but there is no dynamic_batching: every request runs alone; write dynamic_batching { }";
            diagnosis.say(Gravity::Doubt, file, message);
        }
        _ => (),
    }
}

/// Starts every version as a server would, and stops it.
fn load(backend: &dyn Backend, candidate: &Candidate, settings: &Settings, diagnosis: &mut Diagnosis) {
    for (version, file) in &candidate.versions {
        match catalog::start(backend, candidate, *version, settings) {
            Err(error) => diagnosis.say(Gravity::Fault, file, chain(&error)),
            Ok(served) => {
                let expected = complete_mixes(candidate, *version, settings);
                if let (Err(reason), Some(Ok(()))) = (&served.batching().mixes, expected) {
                    diagnosis.say(Gravity::Doubt, file, format!("every request runs alone: {reason}"));
                }
            }
        }
    }
}

/// What the plan said of sharing runs, before any trial.
fn complete_mixes(
    candidate: &Candidate,
    version: Version,
    settings: &Settings,
) -> Option<Result<(), String>> {
    let bytes = repository::read::whole(candidate.versions.get(&version)?).ok()?;
    let graph = onnx::Model::parse(bytes.into()).ok()?;
    complete::plan(candidate, version, &graph, &settings.defaults).ok().map(|plan| plan.batching.mixes)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The whole text of a configuration, as people write it.
#[must_use]
pub fn pretty(config: &ModelConfig) -> Option<String> {
    proposal::print(config, &config::schema().ok()?)
}
