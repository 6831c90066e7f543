//! Files beside a model that its configuration names: labels of classes, data for a warm-up.
//!
//! Invariant: nothing is read from outside of the model's folder, and nothing larger than what is asked for.
use super::Misfit;
use crate::repository::{self, agents};
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};
use xebec_core::model_config::{
    ModelConfig, model_config::SchedulingChoice, model_sequence_batching::initial_state::StateData,
    model_warmup::input::InputDataType,
};

/// A file of labels larger than this is refused.
const MOST_LABEL_BYTES: u64 = 16 << 20;

/// What a label adds to an answer is bounded.
const MOST_BYTES_OF_A_LABEL: usize = 1000;

/// Labels of classes, by output and index.
pub type Labels = BTreeMap<String, Arc<[Box<str>]>>;

/// Reads a file below `folder`, of `most` bytes at most. `field` is how the configuration names it.
pub(crate) fn read(folder: Option<&Path>, field: &str, name: &str, most: u64) -> Result<Vec<u8>, Misfit> {
    let fault = |problem: String| Misfit(format!("{field} \"{name}\": {problem}"));
    let path = place(folder, field, name)?;
    let bytes = repository::read::at_most(&path, most);
    let bytes = bytes.map_err(|error| fault(format!("it cannot be read ({error})")))?;
    bytes.ok_or_else(|| fault(format!("it has more than the {most} bytes that it may have")))
}

/// Where a file below `folder` lies, links followed.
pub(crate) fn place(folder: Option<&Path>, field: &str, name: &str) -> Result<PathBuf, Misfit> {
    let fault = |problem: String| Misfit(format!("{field} \"{name}\": {problem}"));
    let folder = folder.ok_or_else(|| fault("a model without a folder has no files beside it".into()))?;
    let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || name.is_empty() {
        return Err(fault("write a path below the model's folder, without '..'".into()));
    }
    let unreadable = |error: std::io::Error| fault(format!("it cannot be read ({error})"));
    let root = folder.canonicalize().map_err(unreadable)?;
    let path = root.join(name).canonicalize().map_err(unreadable)?;
    if !path.starts_with(&root) {
        return Err(fault("it is a link out of the model's folder; copy the file into the folder".into()));
    }
    Ok(path)
}

/// Every file that a configuration names, below the model's folder: all that [`place`] is asked for.
pub(crate) fn named(config: &ModelConfig) -> impl Iterator<Item = PathBuf> {
    let labels = config.output.iter().map(|output| PathBuf::from(&output.label_filename));
    let inputs = config.model_warmup.iter().flat_map(|warmup| warmup.inputs.values());
    let warmups = inputs.filter_map(|input| match &input.input_data_type {
        Some(InputDataType::InputDataFile(name)) => Some(Path::new("warmup").join(name)),
        _ => None,
    });
    let states = match &config.scheduling_choice {
        Some(SchedulingChoice::SequenceBatching(said)) => said.state.as_slice(),
        _ => &[],
    };
    let states = states.iter().flat_map(|state| &state.initial_state);
    let states = states.filter_map(|state| match &state.state_data {
        Some(StateData::DataFile(name)) => Some(Path::new("initial_state").join(name)),
        _ => None,
    });
    let sums = agents::files(config).map(PathBuf::from);
    labels.filter(|name| !name.as_os_str().is_empty()).chain(warmups).chain(states).chain(sums)
}

/// Reads every `label_filename`: a label a line, by index.
pub(crate) fn labels(folder: Option<&Path>, config: &ModelConfig) -> Result<Labels, Misfit> {
    let mut labels = Labels::new();
    for output in config.output.iter().filter(|output| !output.label_filename.is_empty()) {
        let name = &output.label_filename;
        let bytes = read(folder, "label_filename", name, MOST_LABEL_BYTES)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| Misfit(format!("label_filename \"{name}\": it is not UTF-8 text")))?;
        if let Some(line) = text.lines().position(|line| line.len() > MOST_BYTES_OF_A_LABEL) {
            return Err(Misfit(format!(
                "label_filename \"{name}\": line {} is longer than {MOST_BYTES_OF_A_LABEL} bytes; write a label a line",
                line + 1
            )));
        }
        let lines = text.lines().map(|line| line.trim_end().into()).collect();
        labels.insert(output.name.clone(), lines);
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::config::parse;

    #[test]
    fn labels_are_read_from_below_the_models_folder_and_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        std::fs::write(outside.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
        write("labels.txt", b"cat \ndog\n");
        write("binary", &[0xff]);
        write("long", &[b'a'; 1001]);
        let read = |name: &str| {
            let config = parse(&format!("output {{ name: \"y\" label_filename: \"{name}\" }}")).unwrap();
            labels(Some(folder.path()), &config).map_err(|misfit| misfit.to_string())
        };
        assert_eq!(*read("labels.txt").unwrap()["y"], ["cat", "dog"].map(Box::from));
        for (name, says) in [
            ("../labels.txt", "without '..'"),
            ("/etc/hostname", "without '..'"),
            ("link", "a link out of the model's folder"),
            ("none", "cannot be read"),
            (".", "without '..'"),
            ("binary", "not UTF-8"),
            ("long", "line 1 is longer"),
        ] {
            let said = read(name).unwrap_err();
            assert!(said.contains(says), "{name}: {said}");
        }
        let config = parse("output { name: \"y\" label_filename: \"l\" }").unwrap();
        assert!(labels(None, &config).is_err());
    }
}
