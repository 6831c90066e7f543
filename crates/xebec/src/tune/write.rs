//! Where a chosen arrangement is written: the folder's `config.pbtxt`, or a document for `xebec up` beside a bare file.
//!
//! Invariant: a file is replaced whole or not at all, and what was there before stays beside it.
use super::{
    pbtxt,
    space::{Arrangement, Class},
};
use crate::replaced::replace;
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
            let text = read(&file)?;
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
            Place::Folder(file, before) => {
                ensure!(
                    read(file)? == *before,
                    "{} was changed while the search went on and is left as it is: paste the lines, or tune again",
                    file.display()
                );
                let changed = match before {
                    Some(text) => pbtxt::changed(text, self.arrangement),
                    None => Some(self.pbtxt.clone()),
                };
                let Some(changed) = changed else {
                    bail!("{} has a form that is not changed safely: paste the lines", file.display());
                };
                let kept = replace(file, &changed);
                let kept = kept.with_context(|| format!("cannot write {}", file.display()))?;
                let kept = kept.map(|kept| format!("; as it was: {}", kept.display())).unwrap_or_default();
                Ok(format!("written: {}{kept}", file.display()))
            }
        }
    }
}

/// The text of a file, if it is there.
fn read(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model's folder with a configuration, and what writes another arrangement into it.
    fn house(text: &str) -> (tempfile::TempDir, PathBuf, Config) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.pbtxt");
        fs::write(&file, text).unwrap();
        let place = Place::Folder(file.clone(), read(&file).unwrap());
        let target = Target { name: "m".into(), uri: "m.onnx".into(), place };
        let arrangement = Arrangement { class: Class::Inline, batch: 16, delay_us: 0 };
        let config = target.config(arrangement).unwrap();
        (folder, file, config)
    }

    #[test]
    fn a_second_search_loses_no_configuration() {
        let (folder, file, config) = house("max_batch_size: 1\n");
        fs::write(file.with_extension("pbtxt.bak"), "# from before\n").unwrap();
        let said = config.write().unwrap();
        assert!(said.ends_with("config.pbtxt.bak.1"), "{said}");
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(text("config.pbtxt.bak"), "# from before\n");
        assert_eq!(text("config.pbtxt.bak.1"), "max_batch_size: 1\n");
        assert!(text("config.pbtxt").contains("max_batch_size: 16"));
    }

    #[test]
    fn a_file_that_was_changed_while_the_search_went_on_is_left_alone() {
        let (_folder, file, config) = house("max_batch_size: 1\n");
        fs::write(&file, "max_batch_size: 2 # mine\n").unwrap();
        let error = config.write().unwrap_err().to_string();
        assert!(error.contains("was changed while the search went on"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "max_batch_size: 2 # mine\n");
    }
}
