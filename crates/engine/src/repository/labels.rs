//! Labels of versions: parameters `version_label.NAME` of a configuration, each with the number of a version.
//!
//! Invariant: a label that is read points to a version that is served.
//!
//! # Source
//! TensorFlow Serving, "Assigning string labels to model versions"; Triton has none, and carries foreign parameters.
use super::{RepositoryError, config::text::nearest};
use std::{collections::BTreeMap, path::Path};
use xebec_core::{Version, VersionLabel, VersionLabels, model_config::ModelConfig};

/// How the parameter of a label begins.
const PREFIX: &str = "version_label.";

/// A parameter as a label; `None` if it is none.
pub(crate) fn one(key: &str, value: &str) -> Result<Option<(VersionLabel, Version)>, String> {
    let short = |text: &str| text.chars().take(100).collect::<String>();
    let Some(label) = key.strip_prefix(PREFIX) else {
        let head = key.split_once('.').map_or(key, |(head, _)| head);
        return match nearest(head, std::iter::once("version_label")) {
            Some(_) => {
                Err(format!("parameter '{}' is no label of a version; write {PREFIX}NAME", short(key)))
            }
            None => Ok(None),
        };
    };
    let label = VersionLabel::parse(label).map_err(|rule| format!("parameter '{}': {rule}", short(key)))?;
    let version = Version::parse(value).map_err(|_| {
        format!(
            "parameter '{}' is \"{}\"; write the number of a version, as in string_value: \"1\"",
            short(key),
            short(value)
        )
    })?;
    Ok(Some((label, version)))
}

/// Reads the labels of a configuration, or tells everything that is wrong with them.
pub(crate) fn read(config: &ModelConfig) -> Result<VersionLabels, Vec<String>> {
    let (mut labels, mut faults) = (VersionLabels::new(), Vec::new());
    for (key, value) in &config.parameters {
        match one(key, &value.string_value) {
            Ok(label) => labels.extend(label),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(labels) } else { Err(faults) }
}

/// The labels of a model with these versions in its folder, of which its policy keeps some.
pub(super) fn of<T>(
    config: Option<&ModelConfig>,
    there: &[Version],
    kept: &BTreeMap<Version, T>,
    path: &Path,
) -> Result<VersionLabels, RepositoryError> {
    let fault =
        |faults: Vec<String>| RepositoryError::Config { path: path.to_owned(), message: faults.join("; ") };
    let labels = config.map_or_else(|| Ok(VersionLabels::new()), read).map_err(fault)?;
    let dangling = |(label, version): (&VersionLabel, &Version)| {
        if kept.contains_key(version) {
            return None;
        }
        let points = format!("label '{label}' is version {version}");
        Some(if there.contains(version) {
            let wanted = list(labels.values().chain(kept.keys()).filter(|version| there.contains(version)));
            format!(
                "{points}, which the version policy does not serve: it serves {}; write version_policy {{ specific {{ versions: [ {wanted} ] }} }}",
                list(kept.keys())
            )
        } else {
            format!(
                "{points}, which is not there: there are {}; change {PREFIX}{label}, or put the version there first",
                list(there)
            )
        })
    };
    let dangling: Vec<String> = labels.iter().filter_map(dangling).collect();
    if dangling.is_empty() { Ok(labels) } else { Err(fault(dangling)) }
}

/// Versions as people write them, each once.
fn list<'a>(versions: impl IntoIterator<Item = &'a Version>) -> String {
    let versions: std::collections::BTreeSet<_> = versions.into_iter().collect();
    versions.into_iter().map(Version::to_string).collect::<Vec<_>>().join(", ")
}
