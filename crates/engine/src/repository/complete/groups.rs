//! Instance groups: how many runs side by side, and on what.
use super::Misfit;
use crate::limiter::{Limit, Scope};
use xebec_core::model_config::{ModelConfig, ModelInstanceGroup, model_instance_group::Kind};

/// What a model runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The GPU of this number.
    Gpu(i32),
}

/// All groups of a model together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) device: Device,
    /// Runs side by side; `None` if no group says so.
    pub(super) instances: Option<u32>,
    /// What a run takes, for the instances of each group; nothing if no group says so.
    pub(super) limits: Vec<(u32, Option<Limit>)>,
}

/// Most instances of a model: each is a thread, and some are a session.
const MOST_INSTANCES: u64 = 1024;

/// How many run side by side in all groups; `None` if no group says so.
pub(crate) fn instances(config: &ModelConfig) -> Result<Option<u32>, Misfit> {
    let running = || config.instance_group.iter().filter(|group| !group.passive);
    if running().next().is_none() && !config.instance_group.is_empty() {
        return Err(Misfit(
            "instance_group: every group is passive, so nothing would run; write passive: false in one"
                .into(),
        ));
    }
    let all: u64 = running().map(|group| u64::from(count(group))).sum();
    if all > MOST_INSTANCES {
        return Err(Misfit(format!(
            "instance_group: {all} instances in all; write {MOST_INSTANCES} at most"
        )));
    }
    Ok(u32::try_from(all).ok().filter(|all| *all > 0))
}

fn count(group: &ModelInstanceGroup) -> u32 {
    u32::try_from(group.count).unwrap_or(1).max(1)
}

/// Reads `instance_group`.
pub(super) fn groups(config: &ModelConfig) -> Result<Groups, Misfit> {
    let mut all = Groups { instances: instances(config)?, ..Groups::default() };
    for (index, group) in config.instance_group.iter().enumerate() {
        let device = device(group)?;
        if index > 0 && device != all.device {
            return Err(Misfit(
                "instance_group: the groups name different devices, and a model runs on one; write two models, one for each".into(),
            ));
        }
        all.device = device;
        host_policy(group, device)?;
        if !group.passive {
            all.limits.push((count(group), limit(group, device)?));
        }
    }
    if all.limits.iter().all(|(_, limit)| limit.is_none()) {
        all.limits.clear();
    }
    Ok(all)
}

/// What a run of an instance takes; `None` if that is nothing.
fn limit(group: &ModelInstanceGroup, device: Device) -> Result<Option<Limit>, Misfit> {
    let Some(given) = &group.rate_limiter else { return Ok(None) };
    let mut limit = Limit { needs: Vec::new(), priority: given.priority.max(1) };
    for resource in &given.resources {
        let scope = match device {
            _ if resource.global => Scope::Global,
            Device::Cpu => Scope::Device(0),
            Device::Gpu(number) => Scope::Device(number),
        };
        let name = resource.name.as_str();
        if name.is_empty() || name.contains([':', ',']) || name.contains(char::is_whitespace) {
            return Err(Misfit(format!(
                "instance_group.rate_limiter: '{name}' cannot be the name of a resource; write one without ':', ',' and blanks"
            )));
        }
        if limit.needs.iter().any(|((known, _), _)| **known == *name) {
            return Err(Misfit(format!(
                "instance_group.rate_limiter names the resource '{name}' twice; write it once, with the count of both"
            )));
        }
        limit.needs.push(((name.into(), scope), resource.count));
    }
    Ok(Some(limit).filter(|limit| !limit.needs.is_empty()))
}

fn device(group: &ModelInstanceGroup) -> Result<Device, Misfit> {
    let on_gpu = group.kind == Kind::Gpu as i32;
    match group.gpus.as_slice() {
        [] if on_gpu => Ok(Device::Gpu(0)),
        [] => Ok(Device::Cpu),
        [number] if on_gpu && *number >= 0 => Ok(Device::Gpu(*number)),
        [_] if on_gpu => Err(Misfit("instance_group.gpus: a GPU's number is 0 or more".into())),
        // As in Triton: a group that names GPUs is meant for them.
        [number] if group.kind == Kind::Auto as i32 && *number >= 0 => Ok(Device::Gpu(*number)),
        _ if !on_gpu => {
            Err(Misfit("instance_group.gpus: write kind: KIND_GPU with it, or leave it out".into()))
        }
        several => Err(Misfit(format!(
            "instance_group.gpus names {} GPUs, and a model runs on one; write two models, one for each",
            several.len()
        ))),
    }
}

fn host_policy(group: &ModelInstanceGroup, device: Device) -> Result<(), Misfit> {
    let own = match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Gpu(number) => format!("gpu_{number}"),
    };
    if group.host_policy.is_empty() || group.host_policy == own {
        return Ok(());
    }
    Err(Misfit(format!(
        "instance_group.host_policy '{}' is not defined; write {own}, or start xebec under numactl or taskset",
        group.host_policy
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::config::parse;

    fn read(text: &str) -> Result<Groups, String> {
        groups(&parse(text).unwrap()).map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn counts_of_groups_add_up_and_passive_ones_run_nothing() {
        let group = |text| read(text).unwrap().instances;
        assert_eq!(group(""), None);
        assert_eq!(group("instance_group [ { count: 2 }, { kind: KIND_CPU } ]"), Some(3));
        assert_eq!(group("instance_group [ { count: 2 passive: true }, { count: 1 } ]"), Some(1));
        assert!(read("instance_group [ { passive: true } ]").unwrap_err().contains("every group is passive"));
    }

    #[test]
    fn more_instances_than_a_machine_has_threads_for_are_refused() {
        assert_eq!(read("instance_group [ { count: 1000 }, { count: 24 } ]").unwrap().instances, Some(1024));
        for (text, says) in [
            ("{ count: 2000000000 }", "2000000000 instances in all"),
            (
                "{ count: 2147483647 }, { count: 2147483647 }",
                "4294967294 instances in all; write 1024 at most",
            ),
        ] {
            let said = read(&format!("instance_group [ {text} ]")).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn a_group_names_one_device_and_a_model_has_one() {
        let device = |text| read(text).map(|groups| groups.device);
        assert_eq!(device("instance_group { kind: KIND_GPU }"), Ok(Device::Gpu(0)));
        assert_eq!(device("instance_group { kind: KIND_GPU gpus: [ 3 ] }"), Ok(Device::Gpu(3)));
        assert_eq!(device("instance_group { gpus: [ 1 ] }"), Ok(Device::Gpu(1)));
        for (text, says) in [
            ("instance_group { kind: KIND_CPU gpus: [ 0 ] }", "write kind: KIND_GPU"),
            ("instance_group { kind: KIND_GPU gpus: [ 0, 1 ] }", "names 2 GPUs"),
            ("instance_group { kind: KIND_GPU gpus: [ -1 ] }", "0 or more"),
            ("instance_group [ { kind: KIND_GPU }, { kind: KIND_CPU } ]", "different devices"),
        ] {
            assert!(device(text).unwrap_err().contains(says), "{text}");
        }
    }

    #[test]
    fn a_run_takes_the_resources_of_its_group() {
        let limits = |text| read(text).unwrap().limits;
        assert_eq!(limits("instance_group { count: 3 }"), []);
        assert_eq!(limits("instance_group { rate_limiter { priority: 2 } }"), [], "it takes nothing");
        let text = "instance_group [ { count: 2 rate_limiter { priority: 3 resources [ { name: \"R\" count: 4 }, { name: \"G\" global: true count: 1 } ] } }, { count: 1 } ]";
        let needs = vec![(("R".into(), Scope::Device(0)), 4), (("G".into(), Scope::Global), 1)];
        assert_eq!(limits(text), [(2, Some(Limit { needs, priority: 3 })), (1, None)]);
        let gpu = limits(
            "instance_group { kind: KIND_GPU gpus: [ 2 ] rate_limiter { resources { name: \"R\" count: 1 } } }",
        );
        assert_eq!(gpu[0].1.as_ref().unwrap().needs[0].0.1, Scope::Device(2));
        for (resources, says) in [
            ("{ name: \"R\" }, { name: \"R\" global: true }", "twice"),
            ("{ count: 1 }", "cannot be the name"),
            ("{ name: \"a:b\" }", "cannot be the name"),
        ] {
            let text = format!("instance_group {{ rate_limiter {{ resources [ {resources} ] }} }}");
            assert!(read(&text).unwrap_err().contains(says), "{resources}");
        }
    }

    #[test]
    fn a_host_policy_is_that_of_the_device() {
        assert!(read("instance_group { host_policy: \"cpu\" }").is_ok());
        assert!(read("instance_group { kind: KIND_GPU gpus: [ 1 ] host_policy: \"gpu_1\" }").is_ok());
        assert!(read("instance_group { host_policy: \"fast\" }").unwrap_err().contains("write cpu"));
    }
}
