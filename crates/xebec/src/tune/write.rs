//! Where a chosen arrangement is written: the folder's `config.pbtxt`, or a document for `xebec up` beside a bare file.
//!
//! Invariant: a file is replaced whole or not at all, and what was there before stays beside it.
use super::{
    pbtxt,
    space::{Arrangement, Class},
};
use anyhow::{Context as _, bail, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};
use xebec_core::resource::API_VERSION;
use xebec_engine::repository::Candidate;

/// What a model is written to.
#[derive(Clone, Debug)]
pub(super) struct Target {
    name: String,
    /// The model's file, as a document beside it names it.
    uri: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// The file, and its text if it is there.
    Folder(PathBuf, Option<String>),
    /// A document that must not be there yet.
    Bare(PathBuf),
}

/// A chosen arrangement in both forms.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Lines for `config.pbtxt`.
    pub(super) pbtxt: String,
    /// A document for `xebec up`.
    pub(super) yaml: String,
    arrangement: Arrangement,
    place: Place,
}

impl Target {
    pub(super) fn of(model: &Path, candidate: &Candidate) -> anyhow::Result<Self> {
        let name = candidate.name.to_string();
        if model.is_dir() {
            let file = model.join("config.pbtxt");
            let text = match fs::read_to_string(&file) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
            };
            let path = candidate.versions.values().next_back().context("the model has no version")?;
            return Ok(Self { name, uri: path.display().to_string(), place: Place::Folder(file, text) });
        }
        let uri = model.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { name, uri, place: Place::Bare(model.with_extension("yaml")) })
    }

    /// Whether it can be written, asked before minutes are spent.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        match &self.place {
            Place::Bare(file) => ensure!(
                !file.exists(),
                "--write: {} is there already and is not overwritten; leave --write out and paste the fields",
                file.display()
            ),
            Place::Folder(file, Some(text)) => {
                let probe = Arrangement { class: Class::Inline, batch: 1, delay_us: 0 };
                ensure!(
                    pbtxt::changed(text, probe).is_some(),
                    "--write: {} has a form that is not changed safely; leave --write out and paste the lines",
                    file.display()
                );
            }
            Place::Folder(_, None) => (),
        }
        Ok(())
    }

    /// An arrangement in both forms.
    pub(super) fn config(&self, arrangement: Arrangement) -> anyhow::Result<Config> {
        let (pbtxt, yaml) = (pbtxt::lines(arrangement), self.yaml(arrangement)?);
        Ok(Config { pbtxt, yaml, arrangement, place: self.place.clone() })
    }

    fn yaml(&self, arrangement: Arrangement) -> anyhow::Result<String> {
        let Arrangement { class, batch, delay_us } = arrangement;
        // A text of JSON is one of YAML.
        let (name, uri) = (serde_json::to_string(&self.name)?, serde_json::to_string(&self.uri)?);
        let mut text = format!(
            "apiVersion: {API_VERSION}\nkind: InferenceService\nmetadata:\n  name: {name}\nspec:\n  model:\n    uri: {uri}\n"
        );
        if batch > 0 {
            text.push_str(&format!(
                "  batching:\n    maxBatchSize: {batch}\n    maxDelayMicroseconds: {delay_us}\n"
            ));
        }
        match class {
            Class::Inline => text.push_str("  # no resources.instances: the model is tiny and runs inline\n"),
            Class::Queued { instances, threads } => {
                text.push_str(&format!("  resources:\n    instances: {instances}\n    threads: {threads}\n"));
            }
        }
        Ok(text)
    }
}

impl Config {
    /// Writes it, and says where.
    ///
    /// # Errors
    /// The file cannot be written, or has a form that is not changed safely.
    pub(super) fn write(&self) -> anyhow::Result<String> {
        match &self.place {
            Place::Bare(file) => {
                let mut new = fs::OpenOptions::new();
                let named = || format!("cannot write {}", file.display());
                let mut out = new.write(true).create_new(true).open(file).with_context(named)?;
                std::io::Write::write_all(&mut out, self.yaml.as_bytes()).with_context(named)?;
                Ok(format!("written: {}", file.display()))
            }
            Place::Folder(file, None) => {
                replace(file, &self.pbtxt)?;
                Ok(format!("written: {}", file.display()))
            }
            Place::Folder(file, Some(text)) => {
                let Some(changed) = pbtxt::changed(text, self.arrangement) else {
                    bail!("{} has a form that is not changed safely: paste the lines", file.display());
                };
                let backup = file.with_extension("pbtxt.bak");
                replace(&backup, text)?;
                replace(file, &changed)?;
                Ok(format!("written: {}; as it was: {}", file.display(), backup.display()))
            }
        }
    }
}

/// Writes a file under another name and moves it into place.
fn replace(file: &Path, text: &str) -> anyhow::Result<()> {
    let new = file.with_extension("tuned");
    let named = || format!("cannot write {}", file.display());
    fs::write(&new, text).with_context(named)?;
    fs::rename(&new, file).with_context(named)
}
