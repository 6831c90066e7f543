//! What was written where: the file, the variables and the flags, laid over each other setting by setting.
//!
//! Values stay text here. Each remembers where it came from, so that a fault can name the place to correct.
use super::{
    Faults,
    file::{self, File},
    flags::{CONFIG_VARIABLE, Flags, REPOSITORY_VARIABLE, SETTINGS},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
};

/// What variables begin with that are not settings: those of the Makefile, for what it brings.
const FOREIGN: [&str; 2] = ["XEBEC_ENGINE_CACHE", "XEBEC_PEERS_"];

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As a flag.
    CommandLine,
    /// As a variable.
    Environment,
    /// In the file of settings.
    File {
        /// Which.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("on the command line"),
            Self::Environment => f.write_str("in the environment"),
            Self::File { path, line } => write!(f, "in {} line {line}", path.display()),
        }
    }
}

/// All layers in one.
#[derive(Debug, Default)]
pub(super) struct Layers {
    values: HashMap<&'static str, (String, Place)>,
    /// Folders of models, of the highest layer that names any.
    pub(super) repositories: Vec<PathBuf>,
    /// Whether those folders come from a variable, which may be meant for another command.
    pub(super) repositories_of_environment: bool,
    /// The file of settings could not be read: what is missing may stand there.
    pub(super) incomplete: bool,
    /// What is odd, but no fault.
    pub(super) warnings: Vec<String>,
}

impl Layers {
    /// Reads the file and lays variables and flags over it. `environment` has the variables with our prefix.
    pub(super) fn gather(flags: &Flags, environment: &BTreeMap<String, String>, faults: &mut Faults) -> Self {
        let mut layers = Self::default();
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let named = flags.config.clone().or_else(|| variable(CONFIG_VARIABLE).map(PathBuf::from));
        if let Some(path) = named {
            match file::read(&path, faults) {
                Some(file) => layers.file(file, &path),
                None => layers.incomplete = true,
            }
        }
        for setting in SETTINGS {
            if let Some(value) = variable(setting.variable) {
                layers.values.insert(setting.name, (value.clone(), Place::Environment));
            }
        }
        if let Some(folder) = variable(REPOSITORY_VARIABLE) {
            layers.repositories = vec![folder.into()];
            layers.repositories_of_environment = true;
        }
        for (name, text) in flags.written() {
            layers.values.insert(name, (text, Place::CommandLine));
        }
        if !flags.model_repository.is_empty() {
            layers.repositories.clone_from(&flags.model_repository);
            layers.repositories_of_environment = false;
        }
        layers.warnings = environment.keys().filter(|name| !known(name)).map(|name| unknown(name)).collect();
        layers
    }

    fn file(&mut self, file: File, path: &std::path::Path) {
        self.repositories = file.repositories;
        for (name, text, line) in file.values {
            self.values.insert(name, (text, Place::File { path: path.to_owned(), line }));
        }
    }

    /// What was written for a setting, and where.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &Place)> {
        self.values.get(name).map(|(text, place)| (text.as_str(), place))
    }
}

fn known(variable: &str) -> bool {
    [CONFIG_VARIABLE, REPOSITORY_VARIABLE].contains(&variable)
        || FOREIGN.iter().any(|beginning| variable.starts_with(beginning))
        || SETTINGS.iter().any(|setting| setting.variable == variable)
}

fn unknown(variable: &str) -> String {
    format!("the variable {variable} has no effect: no setting has this name")
}
