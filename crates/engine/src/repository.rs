//! Where models are: folders in Triton's layout, bare `.onnx` files, and `InferenceService` documents.
//!
//! A scan finds [`Candidate`]s and collects everything that is wrong, so that one bad model neither hides another's
//! fault nor stops another from being served. Invariant: no file of a candidate lies outside its root.
//!
//! Not here: what `config.pbtxt` may say ([`config`]), what the graph adds ([`complete`]), loading (`catalog`).
use crate::{
    builtin,
    formats::{self, Foreign},
    graph::{self, node::Node, plan::Member},
};
use stamp::Stamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::Metadata,
    io,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use xebec_core::{
    ModelName, Version, VersionLabels,
    model_config::{ModelConfig, model_version_policy::PolicyChoice},
    resource::{self, InferenceService},
};

pub(crate) mod agents;
pub mod complete;
pub mod config;
pub(crate) mod labels;
pub(crate) mod nodes;
pub(crate) mod read;
pub(crate) mod stamp;
pub(crate) mod sums;

#[cfg(test)]
mod tests;

/// Most threads of one model's runs.
const MOST_THREADS: u32 = 1024;

/// A model that can be tried to load.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Name.
    pub name: ModelName,
    /// Nothing of the model may lie outside of this folder.
    pub root: PathBuf,
    /// The model's own folder, if it has one: what its configuration names lies below it.
    pub folder: Option<PathBuf>,
    /// The file of each version that the version policy keeps.
    pub versions: BTreeMap<Version, PathBuf>,
    /// What the owner calls some of them.
    pub labels: VersionLabels,
    /// What `config.pbtxt` says.
    pub config: Option<ModelConfig>,
    /// What an `InferenceGraph` says of a node of it.
    pub node: Option<Arc<Node>>,
    /// What its `InferenceService` wants; defaults without one.
    pub batching: resource::Batching,
    /// What its `InferenceService` wants to run on; defaults without one.
    pub resources: resource::Resources,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Models that can be tried.
    pub candidates: Vec<Candidate>,
    /// Models that cannot, by name.
    pub faults: Vec<(ModelName, RepositoryError)>,
}

/// A model cannot even be tried, or a repository cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// A folder or file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /** Which. */
        path: PathBuf,
        /** Why. */
        source: io::Error,
    },
    /// Two models have one name.
    #[error("two models are called '{name}': {} and {}; rename one", first.display(), second.display())]
    NameClash {
        /** The name. */
        name: String,
        /** One. */
        first: PathBuf,
        /** The other. */
        second: PathBuf,
    },
    /// A name that cannot be a model's.
    #[error("'{name}' cannot be a model's name: {source}")]
    Name {
        /** As found. */
        name: String,
        /** The rule. */
        source: xebec_core::name::InvalidName,
    },
    /// A file leads out of the repository.
    #[error("{} leads to {}, outside of {}; copy the file into the repository", path.display(), target.display(), root.display())]
    Escape {
        /** The entry. */
        path: PathBuf,
        /** Where it leads. */
        target: PathBuf,
        /** Which folder it may not leave. */
        root: PathBuf,
    },
    /// A model folder without a version.
    #[error("{} has no version: put the file at {}/1/{file}", folder.display(), folder.display())]
    NoVersion {
        /** The model's folder. */
        folder: PathBuf,
        /** The file's name. */
        file: String,
    },
    /// It is no model at all.
    #[error("{} is neither an .onnx file nor a model folder such as NAME/1/model.onnx", path.display())]
    NoModel {
        /** What was named. */
        path: PathBuf,
    },
    /// A part of a model, or several.
    #[error("{} is {what}; name {}", path.display(), meant.display())]
    Misplaced {
        /** What was named. */
        path: PathBuf,
        /** What it is. */
        what: &'static str,
        /** What to name instead. */
        meant: PathBuf,
    },
    /// A model of another format.
    #[error("{} is {format}, not ONNX; {way_out}", path.display())]
    Foreign {
        /** File or folder. */
        path: PathBuf,
        /** What it is. */
        format: &'static str,
        /** How to convert it. */
        way_out: &'static str,
    },
    /// The version policy names a version that is not there.
    #[error("version_policy asks for version {version}, but {} has only {found}", folder.display())]
    MissingVersion {
        /** Asked for. */
        version: i64,
        /** The model's folder. */
        folder: PathBuf,
        /** Versions that are there. */
        found: String,
    },
    /// `config.pbtxt` is wrong.
    #[error("{}: {message}", path.display())]
    Config {
        /** File. */
        path: PathBuf,
        /** What is wrong, where, and what to do. */
        message: String,
    },
    /// A graph's document says what cannot be.
    #[error("InferenceGraph '{name}': {message}")]
    Graph {
        /** Of the resource. */
        name: String,
        /** What is wrong, where, and what to do. */
        message: String,
    },
    /// A document asks for what a laptop does not have.
    #[error("InferenceService '{name}': {message}")]
    Service {
        /** Of the resource. */
        name: String,
        /** What is wrong and what to do. */
        message: String,
    },
}

/// Finds the models of several repositories.
///
/// # Errors
/// A repository itself cannot be read.
pub fn scan(repositories: &[PathBuf]) -> Result<Scan, RepositoryError> {
    let mut scan = Scan::default();
    let mut places: BTreeMap<ModelName, PathBuf> = BTreeMap::new();
    for repository in repositories {
        let root = canonical(repository)?;
        for entry in entries(&root)? {
            let Some((name, outcome)) = recognise(&root, &entry, None) else { continue };
            if let Some(first) = places.insert(name.clone(), entry.clone()) {
                scan.candidates.retain(|candidate| candidate.name != name);
                let fault = RepositoryError::NameClash { name: name.to_string(), first, second: entry };
                scan.faults.push((name, fault));
                continue;
            }
            match outcome {
                Ok(candidate) => scan.candidates.push(candidate),
                Err(fault) => scan.faults.push((name, fault)),
            }
        }
    }
    Ok(scan)
}

/// The model that is an `.onnx` file or a folder in Triton's layout.
///
/// # Errors
/// It is neither, or it cannot be tried.
pub fn open(path: &Path) -> Result<Candidate, RepositoryError> {
    let path = canonical(path)?;
    let misplaced = |what, meant| Err(RepositoryError::Misplaced { path: path.clone(), what, meant });
    if let Some(folder) = model_of(&path) {
        return misplaced("a part of a model", folder.to_owned());
    }
    if let Some(model) = first_model(&path) {
        return misplaced("a folder of models", model);
    }
    let root = path.parent().unwrap_or(&path);
    recognise(root, &path, None).ok_or_else(|| RepositoryError::NoModel { path: path.clone() })?.1
}

fn is_version(path: &Path) -> bool {
    path.is_dir()
        && path.file_name().and_then(|name| name.to_str()).is_some_and(|name| Version::parse(name).is_ok())
}

fn has_version(folder: &Path) -> bool {
    entries(folder).is_ok_and(|entries| entries.iter().any(|entry| is_version(entry)))
}

/// The folder of the model whose version or configuration this is.
pub(crate) fn model_of(path: &Path) -> Option<&Path> {
    let is_config = path.is_file() && path.ends_with("config.pbtxt");
    // A version has files; a folder with versions is a model, whatever it is called.
    let is_part = is_version(path)
        && !has_version(path)
        && entries(path).is_ok_and(|entries| entries.iter().any(|entry| entry.ends_with("model.onnx")));
    if is_config || is_part { path.parent() } else { None }
}

/// One of the models of a folder that is none itself.
fn first_model(path: &Path) -> Option<PathBuf> {
    if !path.is_dir() || path.join("config.pbtxt").exists() || has_version(path) {
        return None;
    }
    let is_bare = |entry: &PathBuf| {
        entry.extension().is_some_and(|kind| kind == "onnx") && !entry.ends_with("model.onnx")
    };
    entries(path).ok()?.into_iter().find(|entry| has_version(entry) || is_bare(entry))
}

/// The same for a folder, with another configuration in the place of its own.
///
/// # Errors
/// It cannot be tried.
pub fn open_with(path: &Path, config: &ModelConfig) -> Result<Candidate, RepositoryError> {
    let path = canonical(path)?;
    let root = path.parent().unwrap_or(&path).to_owned();
    let text = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = ModelName::parse(&text).map_err(|source| RepositoryError::Name { name: text, source })?;
    folder(&root, &path, name, Some(config))
}

/// Looks for one model in several repositories.
///
/// # Errors
/// A repository cannot be read, or the model there cannot be tried.
pub fn find(repositories: &[PathBuf], name: &ModelName) -> Result<Option<Candidate>, RepositoryError> {
    find_with(repositories, name, None)
}

/// As [`find`], with a configuration in place of the folder's.
///
/// # Errors
/// As of [`find`].
pub fn find_with(
    repositories: &[PathBuf],
    name: &ModelName,
    config: Option<&ModelConfig>,
) -> Result<Option<Candidate>, RepositoryError> {
    let mut found: Option<(PathBuf, Candidate)> = None;
    for repository in repositories {
        let root = canonical(repository)?;
        let bare = root.join(format!("{name}.onnx"));
        for entry in [root.join(name.as_str()), bare] {
            // A folder that is called as a bare file is, is a model of another name.
            let Some((called, outcome)) = recognise(&root, &entry, config).filter(|_| entry.exists()) else {
                continue;
            };
            if called != *name {
                continue;
            }
            if let Some((first, _)) = found {
                return Err(RepositoryError::NameClash { name: name.to_string(), first, second: entry });
            }
            found = Some((entry, outcome?));
        }
    }
    Ok(found.map(|(_, candidate)| candidate))
}

type Found = (ModelName, Result<Candidate, RepositoryError>);

/// The name that an entry of a repository gives its model, and whether it is a bare file; `None` if it is nothing of
/// ours.
fn name_of(entry: &Path) -> Option<(&OsStr, bool)> {
    let whole = entry.file_name()?;
    if whole.as_encoded_bytes().starts_with(b".") {
        return None;
    }
    let bare = entry.extension().is_some_and(|extension| extension == "onnx") && entry.is_file();
    let stem = if bare { entry.file_stem()? } else { whole };
    if !bare && !entry.is_dir() {
        if let Some(Foreign { format, way_out }) = formats::of_path(entry) {
            if is_news(entry) {
                tracing::warn!(path = %entry.display(), format, way_out, "a model of another format is not served");
            }
            return None;
        }
        tracing::debug!(path = %entry.display(), "neither a model folder nor an .onnx file");
        return None;
    }
    Some((stem, bare))
}

/// The name under which an entry is listed whose own cannot be a model's.
fn listed_as(text: &str) -> Option<ModelName> {
    // Of four bytes each at most, they are within what a name may have.
    const MOST_LETTERS: usize = 63;
    let shown = |letter: char| {
        if letter == '\\' || letter.is_control() { char::REPLACEMENT_CHARACTER } else { letter }
    };
    ModelName::parse(&text.chars().map(shown).take(MOST_LETTERS).collect::<String>()).ok()
}

/// What an entry of a repository is; `None` if it is nothing of ours.
fn recognise(root: &Path, entry: &Path, config: Option<&ModelConfig>) -> Option<Found> {
    let (text, bare) = name_of(entry)?;
    // What is not UTF-8 is no name, though it can be shown.
    let name = match ModelName::parse(text.to_str().unwrap_or_default()) {
        Ok(name) => name,
        Err(source) => {
            let name = text.to_string_lossy().replace(char::is_control, "\u{fffd}");
            return Some((listed_as(&name)?, Err(RepositoryError::Name { name, source })));
        }
    };
    let outcome = if bare {
        bare_file(root, entry, name.clone(), config)
    } else {
        folder(root, entry, name.clone(), config)
    };
    Some((name, outcome))
}

/// Whether an entry was not told of before: a repository is scanned again and again.
fn is_news(entry: &Path) -> bool {
    const MOST: usize = 1000;
    static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.len() < MOST && told.insert(entry.to_owned())
}

fn bare_file(
    root: &Path,
    file: &Path,
    name: ModelName,
    config: Option<&ModelConfig>,
) -> Result<Candidate, RepositoryError> {
    let versions = BTreeMap::from([(Version::FIRST, inside(root, file)?)]);
    let candidate = Candidate::new(root, name, versions);
    match config {
        Some(config) => candidate.configured(config.clone()),
        None => Ok(candidate),
    }
}

/// The model of a folder; `given` takes the place of its `config.pbtxt`.
pub(crate) fn folder(
    root: &Path,
    folder: &Path,
    name: ModelName,
    given: Option<&ModelConfig>,
) -> Result<Candidate, RepositoryError> {
    let path = folder.join("config.pbtxt");
    let config = match given {
        Some(config) => Some(config.clone()),
        None if there(&path)?.is_some() => Some(config::read(&inside(root, &path)?, &name)?),
        None => None,
    };
    let file = model_file(config.as_ref(), &path)?;
    let is_bare = config.as_ref().is_some_and(is_bare);
    let mut versions = BTreeMap::new();
    for entry in entries(folder)? {
        let version =
            entry.file_name().and_then(|name| name.to_str()).and_then(|name| Version::parse(name).ok());
        let (Some(version), true) = (version, entry.is_dir()) else { continue };
        if is_bare {
            versions.insert(version, inside(root, &entry)?);
            continue;
        }
        let mut model = entry.join(&file);
        // A directory of that name holds the file and its external data.
        if there(&model)?.is_some_and(|it| it.is_dir()) {
            model.push("model.onnx");
        }
        if there(&model)?.is_some() {
            versions.insert(version, inside(root, &model)?);
        }
    }
    if versions.is_empty() && is_bare {
        // There is nothing to put into a version's folder, and git keeps none that is empty.
        versions.insert(Version::FIRST, inside(root, folder)?);
    }
    if versions.is_empty() {
        foreign(folder)?;
        return Err(RepositoryError::NoVersion { folder: folder.to_owned(), file });
    }
    let there: Vec<Version> = versions.keys().copied().collect();
    let versions = keep(versions, config.as_ref(), folder)?;
    let labels = labels::of(config.as_ref(), &there, &versions, &path)?;
    let folder = Some(folder.to_owned());
    Ok(Candidate { folder, labels, config, ..Candidate::new(root, name, versions) })
}

/// Refuses a folder whose model is of another format: it lies there itself, in a version's folder, or in the folder of
/// the file's name.
fn foreign(folder: &Path) -> Result<(), RepositoryError> {
    let mut folders = vec![folder.to_owned()];
    folders.extend(entries(folder)?.into_iter().filter(|path| path.is_dir()));
    let whole = formats::of_path(folder).map(|foreign| (folder.to_owned(), foreign));
    match whole.or_else(|| folders.iter().find_map(|folder| formats::in_folder(folder))) {
        Some((path, Foreign { format, way_out })) => Err(RepositoryError::Foreign { path, format, way_out }),
        None => Ok(()),
    }
}

fn model_file(config: Option<&ModelConfig>, path: &Path) -> Result<String, RepositoryError> {
    let named = config.map(|config| config.default_model_filename.as_str()).filter(|name| !name.is_empty());
    let name = named.unwrap_or("model.onnx");
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if plain && Path::new(name).components().count() == 1 {
        return Ok(name.to_owned());
    }
    let message =
        format!("default_model_filename: '{name}' is not the name of a file in the version's folder");
    Err(RepositoryError::Config { path: path.to_owned(), message })
}

/// Applies the version policy: the latest one unless it says otherwise.
fn keep(
    mut versions: BTreeMap<Version, PathBuf>,
    config: Option<&ModelConfig>,
    folder: &Path,
) -> Result<BTreeMap<Version, PathBuf>, RepositoryError> {
    let policy = config
        .and_then(|config| config.version_policy.as_ref())
        .and_then(|policy| policy.policy_choice.as_ref());
    let latest = match policy {
        Some(PolicyChoice::All(_)) => return Ok(versions),
        Some(PolicyChoice::Specific(specific)) if specific.versions.is_empty() => {
            return Err(RepositoryError::Config {
                path: folder.join("config.pbtxt"),
                message: "version_policy.specific names no version, so nothing would be served; write versions: [1]".into(),
            });
        }
        Some(PolicyChoice::Specific(specific)) => return pick(versions, &specific.versions, folder),
        Some(PolicyChoice::Latest(latest)) => latest.num_versions.max(1) as usize,
        None => 1,
    };
    while versions.len() > latest {
        versions.pop_first();
    }
    Ok(versions)
}

fn pick(
    versions: BTreeMap<Version, PathBuf>,
    wanted: &[i64],
    folder: &Path,
) -> Result<BTreeMap<Version, PathBuf>, RepositoryError> {
    let find = |wanted: &i64| {
        let found = versions.iter().find(|(version, _)| i64::try_from(version.get()) == Ok(*wanted));
        found.map(|(version, path)| (*version, path.clone())).ok_or_else(|| RepositoryError::MissingVersion {
            version: *wanted,
            folder: folder.to_owned(),
            found: versions.keys().map(Version::to_string).collect::<Vec<_>>().join(", "),
        })
    };
    wanted.iter().map(find).collect()
}

impl Candidate {
    /// The state of all files that a load of a version begins with. Taken before the first is read, it tells whether one
    /// has changed since.
    pub(crate) fn stamp(&self, version: Version) -> Stamp {
        let mut stamp = Stamp::default();
        // What a document says is not read again, and the files that a step has opened are known when it has.
        let is_said = self.folder.is_none() && (self.node.is_some() || self.step().is_some());
        if let Some(file) = self.versions.get(&version).filter(|_| !is_said) {
            stamp.add(file);
            // A step may have files of its own.
            if self.step().is_some() {
                entries(file).unwrap_or_default().iter().for_each(|entry| stamp.add(entry));
            }
            stamp.add(&file.with_file_name(sums::FILE));
        }
        if let (Some(folder), Some(config)) = (&self.folder, &self.config) {
            complete::named_files(config).for_each(|name| stamp.add(&folder.join(name)));
        }
        stamp
    }

    /// What it is, if it is not made of a file.
    #[must_use]
    pub fn is_of_no_file(&self) -> Option<&'static str> {
        let is_graph = self.graph().is_some() || self.node.is_some();
        let graph = is_graph.then_some("a graph of other models");
        graph.or_else(|| self.step().map(|_| "a built-in step"))
    }

    /// Its configuration, if that makes it a built-in step.
    pub(crate) fn step(&self) -> Option<&ModelConfig> {
        self.config.as_ref().filter(|config| is_step(config))
    }

    /// Its configuration, if that makes it a graph of other models.
    pub(crate) fn graph(&self) -> Option<&ModelConfig> {
        self.config.as_ref().filter(|config| graph::scheduling(config).is_some())
    }

    /// The models that it is of, if it is a graph.
    pub(crate) fn members(&self) -> BTreeSet<ModelName> {
        self.parts().into_iter().map(|member| member.name).collect()
    }

    /// The same, with the versions that it wants of them.
    pub(crate) fn parts(&self) -> BTreeSet<Member> {
        if let Some(node) = &self.node {
            return node.members().into_iter().map(|name| Member { name, version: None }).collect();
        }
        // A name that is none is told when it is loaded.
        let members = self.config.as_ref().and_then(|config| graph::plan::members(config).ok());
        members.unwrap_or_default()
    }

    /// A model of these files without anything said about it.
    fn new(root: &Path, name: ModelName, versions: BTreeMap<Version, PathBuf>) -> Self {
        Self {
            name,
            root: root.to_owned(),
            folder: None,
            versions,
            labels: VersionLabels::new(),
            config: None,
            node: None,
            batching: resource::Batching::default(),
            resources: resource::Resources::default(),
        }
    }

    /// With another configuration, of the same files.
    ///
    /// # Errors
    /// A label in it points to a version that is not among them.
    pub(crate) fn configured(self, config: ModelConfig) -> Result<Self, RepositoryError> {
        let there: Vec<Version> = self.versions.keys().copied().collect();
        let labels = labels::of(Some(&config), &there, &self.versions, &self.root)?;
        Ok(Self { labels, config: Some(config), ..self })
    }

    /// The model of an `InferenceService` whose document lies in `base`.
    ///
    /// # Errors
    /// The document asks for what a laptop does not have, or its file is not there.
    pub fn from_service(service: &InferenceService, base: &Path) -> Result<Self, RepositoryError> {
        let named = &service.metadata.name;
        let fault = |message: String| RepositoryError::Service { name: named.clone(), message };
        let name = ModelName::parse(named)
            .map_err(|source| RepositoryError::Name { name: named.clone(), source })?;
        if let Some(namespace) =
            service.metadata.namespace.as_deref().filter(|namespace| *namespace != "default")
        {
            return Err(fault(format!(
                "namespace '{namespace}' is for a cluster; a laptop has only 'default'"
            )));
        }
        if service.spec.replicas == 0 {
            return Err(fault("replicas is 0, so nothing would serve; write 1 or leave it out".into()));
        }
        if let Some(threads) =
            service.spec.resources.threads.filter(|threads| !(1..=MOST_THREADS).contains(threads))
        {
            return Err(fault(format!(
                "resources.threads is {threads}; write a number from 1 to {MOST_THREADS}"
            )));
        }
        if service.spec.replicas > 1 {
            tracing::info!(model = %name, replicas = service.spec.replicas, "one process serves all replicas here");
        }
        let path = local_path(&service.spec.model.uri, base).map_err(fault)?;
        let path = canonical(&path)?;
        let root = path.parent().unwrap_or(&path).to_owned();
        let versions = BTreeMap::from([(Version::FIRST, path)]);
        let (batching, resources) = (service.spec.batching.clone(), service.spec.resources.clone());
        Ok(Self { batching, resources, ..Self::new(&root, name, versions) })
    }
}

/// The file that a model URI means.
fn local_path(uri: &str, base: &Path) -> Result<PathBuf, String> {
    match uri.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("file", _)) => Err(format!("model.uri '{uri}' names a host; write file:///absolute/path")),
        Some((scheme, _)) => Err(format!(
            "model.uri '{uri}': '{scheme}' is not a scheme of this version; use file:///... or a relative path"
        )),
        None if uri.is_empty() => Err("model.uri is empty; write the path of an .onnx file".into()),
        None => Ok(base.join(uri)),
    }
}

/// Whether a configuration makes a model of something else than a file: a graph, or a built-in step.
pub(crate) fn is_bare(config: &ModelConfig) -> bool {
    graph::scheduling(config).is_some() || is_step(config)
}

/// Whether a configuration makes a model a built-in step.
pub(crate) fn is_step(config: &ModelConfig) -> bool {
    config.backend == builtin::BACKEND
}

/// Follows links, and refuses to leave `root`.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, RepositoryError> {
    let target = canonical(path)?;
    if target.starts_with(root) {
        return Ok(target);
    }
    Err(RepositoryError::Escape { path: path.to_owned(), target, root: root.to_owned() })
}

fn canonical(path: &Path) -> Result<PathBuf, RepositoryError> {
    path.canonicalize().map_err(|source| RepositoryError::Read { path: path.to_owned(), source })
}

/// What a path leads to, if it leads anywhere; what may not be looked at is no more missing than it is there.
fn there(path: &Path) -> Result<Option<Metadata>, RepositoryError> {
    match path.metadata() {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(RepositoryError::Read { path: path.to_owned(), source }),
    }
}

/// Entries of a folder, by name, so that every scan finds the same order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, RepositoryError> {
    let fault = |source| RepositoryError::Read { path: folder.to_owned(), source };
    let read = std::fs::read_dir(folder).map_err(fault)?;
    let mut paths: Vec<PathBuf> =
        read.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(fault)?;
    paths.sort();
    Ok(paths)
}
