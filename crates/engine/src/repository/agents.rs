//! `model_repository_agents`: of Triton's agents the one that compares files with their checksums, built in.
//!
//! The owner writes `MD5:PATH` and the sum of the file; PATH lies below the model's folder. MD5 is what Triton's agent knows. It
//! tells a damaged file, not a forged one: for that a sum in the repository would not do either. Not here: `SHA256SUMS`
//! ([`sums`](super::sums)).
//!
//! # Source
//! Triton Inference Server, "Repository Agent" and its checksum agent.
use super::{
    complete::{Misfit, place_of_file},
    read,
};
use md5::{Digest as _, Md5};
use std::{fmt::Write as _, io::Read as _, path::Path};
use xebec_core::model_config::ModelConfig;

/// The agent that is there.
const CHECKSUM: &str = "checksum";
/// How its parameters begin.
const MD5: &str = "MD5:";

/// What is wrong with the agents that a configuration names, without a look at any file.
pub(crate) fn faults(config: &ModelConfig) -> Vec<String> {
    let mut faults = Vec::new();
    for agent in config.model_repository_agents.iter().flat_map(|agents| &agents.agents) {
        if agent.name != CHECKSUM {
            faults.push(format!(
                "model_repository_agents.agents.name \"{}\" is not honoured by this version: an agent is a library that a repository must not bring in, and only checksum is built in; prepare the files before, and leave it out",
                agent.name
            ));
            continue;
        }
        for (key, sum) in &agent.parameters {
            if !key.starts_with(MD5) {
                faults.push(format!(
                    "model_repository_agents: checksum has no parameter '{key}'; write MD5:PATH, with a path below the model's folder such as MD5:1/model.onnx"
                ));
            } else if sum.len() != 32 || !sum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                faults.push(format!(
                    "model_repository_agents: '{key}' is \"{sum}\", but a sum is 32 hexadecimal digits, as md5sum writes it"
                ));
            }
        }
    }
    faults
}

/// The parameters of the checksums: what a file is called there, its path below the model's folder, and its sum.
fn sums(config: &ModelConfig) -> impl Iterator<Item = (&str, &str, &str)> {
    let agents = config.model_repository_agents.iter().flat_map(|agents| &agents.agents);
    let parameters = agents.flat_map(|agent| &agent.parameters);
    parameters.filter_map(|(key, sum)| Some((key.as_str(), key.strip_prefix(MD5)?, sum.as_str())))
}

/// Every file that is compared.
pub(super) fn files(config: &ModelConfig) -> impl Iterator<Item = &str> {
    sums(config).map(|(_, name, _)| name)
}

/// Compares every file that the agents name with its sum.
///
/// # Errors
/// The first that is another, or cannot be read.
pub(crate) fn check(folder: Option<&Path>, config: &ModelConfig) -> Result<(), Misfit> {
    for (key, name, wanted) in sums(config) {
        let found = sum(folder, key, name)?;
        if !wanted.eq_ignore_ascii_case(&found) {
            return Err(Misfit::new(format!(
                "{name} has MD5 {found}, but model_repository_agents of config.pbtxt says {wanted}: copy the file again, or correct the sum"
            )));
        }
    }
    Ok(())
}

fn sum(folder: Option<&Path>, key: &str, name: &str) -> Result<String, Misfit> {
    let path = place_of_file(folder, &format!("model_repository_agents, {key}:"), name)?;
    let unreadable = |error| Misfit::new(format!("model_repository_agents: {name} cannot be read ({error})"));
    let mut file = read::open(&path).map_err(unreadable)?;
    let mut hash = Md5::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut chunk).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        hash.update(chunk.get(..read).unwrap_or_default());
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing into a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::config::parse;

    /// Of `abc`.
    const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";

    fn agent(name: &str, key: &str, sum: &str) -> Result<ModelConfig, String> {
        parse(&format!(
            "model_repository_agents {{ agents [ {{ name: \"{name}\" parameters {{ key: \"{key}\" value: \"{sum}\" }} }} ] }}"
        ))
    }

    #[test]
    fn a_file_with_another_sum_than_its_agent_says_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1")).unwrap();
        std::fs::write(folder.path().join("1/model.onnx"), "abc").unwrap();
        std::fs::write(outside.path().join("secret"), "abc").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("link")).unwrap();
        let said = |key: &str, sum: &str| {
            let checked = check(Some(folder.path()), &agent("checksum", key, sum).unwrap());
            checked.map_err(|misfit| misfit.to_string())
        };
        assert_eq!(said("MD5:1/model.onnx", ABC), Ok(()));
        assert_eq!(said("MD5:1/model.onnx", &ABC.to_uppercase()), Ok(()));
        let other = said("MD5:1/model.onnx", &"0".repeat(32)).unwrap_err();
        assert!(other.contains("1/model.onnx has MD5 9001") && other.contains("says 0000"), "{other}");
        for (key, says) in [
            ("MD5:2/model.onnx", "cannot be read"),
            ("MD5:../secret", "without '..'"),
            ("MD5:/etc/hostname", "without '..'"),
            ("MD5:", "write a path below"),
            ("MD5:link", "a link out of the model's folder"),
            ("MD5:1", "not a regular file"),
        ] {
            let said = said(key, ABC).unwrap_err();
            assert!(said.contains(says), "{key}: {said}");
        }
        assert!(check(None, &agent("checksum", "MD5:model.onnx", ABC).unwrap()).is_err());
    }

    #[test]
    fn an_agent_that_is_not_built_in_and_a_sum_that_is_none_are_refused_by_name() {
        for (name, key, sum, says) in [
            ("decrypt", "KEY", "x", "\"decrypt\" is not honoured"),
            ("", "KEY", "x", "only checksum is built in"),
            ("checksum", "SHA1:1/model.onnx", ABC, "no parameter 'SHA1:1/model.onnx'"),
            ("checksum", "MD5:1/model.onnx", "abc", "32 hexadecimal digits"),
            ("checksum", "MD5:1/model.onnx", &"g".repeat(32), "32 hexadecimal digits"),
        ] {
            let said = agent(name, key, sum).unwrap_err();
            assert!(said.contains(says), "{name} {key}: {said}");
        }
    }
}
