//! From a configuration to how requests wait and are put together.
use super::{Defaults, Misfit, says_shapes};
use crate::{
    repository::Candidate,
    served::{Batching, Priorities, QueuePolicy},
};
use std::time::Duration;
use xebec_core::model_config::{
    ModelConfig, ModelDynamicBatching, ModelQueuePolicy, model_config::SchedulingChoice,
    model_queue_policy::TimeoutAction,
};

/// Most levels of priority: each costs a queue's bookkeeping.
const MOST_LEVELS: u64 = 1000;

fn dynamic(config: Option<&ModelConfig>) -> Option<&ModelDynamicBatching> {
    match config?.scheduling_choice.as_ref()? {
        SchedulingChoice::DynamicBatching(batching) => Some(batching),
        _ => None,
    }
}

/// Reads `dynamic_batching`, over what a document wants and the server's defaults.
pub(super) fn batching(
    candidate: &Candidate,
    max_batch_size: u32,
    defaults: &Defaults,
) -> Result<Batching, Misfit> {
    let said = dynamic(candidate.config.as_ref());
    let wishes = &candidate.batching;
    let preferred = said.map(|said| said.preferred_batch_size.as_slice()).unwrap_or_default();
    let delay = said.map_or(wishes.max_delay_microseconds, |said| said.max_queue_delay_microseconds);
    let silent = candidate.config.as_ref().is_some_and(says_shapes) && said.is_none();
    let default = said.and_then(|said| said.default_queue_policy.as_ref());
    Ok(Batching {
        max_rows: max_batch_size.max(1),
        preferred: preferred.iter().filter_map(|size| u32::try_from(*size).ok()).collect(),
        max_delay: Duration::from_micros(delay),
        queue: policy(default, candidate, defaults),
        priorities: match said {
            Some(said) => priorities(said, candidate, defaults)?,
            None => None,
        },
        preserve_ordering: said.is_some_and(|said| said.preserve_ordering),
        mixes: match () {
            () if max_batch_size == 0 => Err("the model has no batch axis".into()),
            () if silent => Err("config.pbtxt has no dynamic_batching".into()),
            () => Ok(()),
        },
    })
}

/// A policy as written, or as a document and the server's defaults have it.
fn policy(said: Option<&ModelQueuePolicy>, candidate: &Candidate, defaults: &Defaults) -> QueuePolicy {
    let wishes = &candidate.batching;
    let timeout = said.map(|said| said.default_timeout_microseconds).or(wishes.timeout_microseconds);
    let queue = said.map(|said| said.max_queue_size).filter(|size| *size > 0).or(wishes.max_queue_size);
    QueuePolicy {
        max_queue: queue.map_or(defaults.max_queue, |size| size as usize),
        timeout: timeout.filter(|micros| *micros > 0).map(Duration::from_micros),
        // Who writes no policy has none against it; who writes one gets Triton's default.
        timeout_override: said.is_none_or(|said| said.allow_timeout_override),
        waits_on: said.is_some_and(|said| said.timeout_action == TimeoutAction::Delay as i32),
    }
}

fn priorities(
    said: &ModelDynamicBatching,
    candidate: &Candidate,
    defaults: &Defaults,
) -> Result<Option<Priorities>, Misfit> {
    let (levels, default) = (said.priority_levels, said.default_priority_level);
    if levels == 0 {
        let stray = default > 0 || !said.priority_queue_policy.is_empty();
        let fault = || {
            Misfit("dynamic_batching has a default_priority_level or priority_queue_policy but no levels; write priority_levels".into())
        };
        return if stray { Err(fault()) } else { Ok(None) };
    }
    if levels > MOST_LEVELS {
        return Err(Misfit(format!("priority_levels is {levels}; write {MOST_LEVELS} at most")));
    }
    if default == 0 || default > levels {
        return Err(Misfit(format!(
            "default_priority_level is {default}; write a level from 1 to priority_levels ({levels})"
        )));
    }
    if let Some(level) = said.priority_queue_policy.keys().find(|level| !(1..=levels).contains(*level)) {
        return Err(Misfit(format!(
            "priority_queue_policy has level {level}; levels go from 1 to priority_levels ({levels})"
        )));
    }
    let of_level = |level| said.priority_queue_policy.get(&level).or(said.default_queue_policy.as_ref());
    let levels = (1..=levels).map(|level| policy(of_level(level), candidate, defaults)).collect();
    Ok(Some(Priorities { levels, default: usize::try_from(default).unwrap_or(1) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::complete::tests::{DEFAULTS, candidate};

    fn read(text: &str) -> Result<Batching, String> {
        let text = format!("max_batch_size: 8 dynamic_batching {{ {text} }}");
        batching(&candidate(&text), 8, &DEFAULTS).map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn levels_have_the_policy_of_their_own_or_the_default_one() {
        let batching = read(
            "priority_levels: 3 default_priority_level: 2 preserve_ordering: true preferred_batch_size: [ 4, 2 ]
             default_queue_policy { max_queue_size: 5 default_timeout_microseconds: 7 timeout_action: DELAY }
             priority_queue_policy { key: 1 value { max_queue_size: 6 allow_timeout_override: true } }",
        );
        let batching = batching.unwrap();
        let Priorities { levels, default } = batching.priorities.unwrap();
        let sizes: Vec<usize> = levels.iter().map(|level| level.max_queue).collect();
        assert_eq!((sizes, default), (vec![6, 5, 5], 2));
        assert_eq!((levels[0].timeout, levels[1].timeout), (None, Some(Duration::from_micros(7))));
        assert_eq!((levels[0].waits_on, levels[1].waits_on), (false, true));
        assert_eq!((levels[0].timeout_override, levels[1].timeout_override), (true, false));
        assert_eq!(
            (batching.preserve_ordering, batching.preferred, batching.max_rows),
            (true, vec![4, 2], 8)
        );
    }

    #[test]
    fn levels_that_make_no_sense_are_refused() {
        for (text, says) in [
            ("priority_levels: 2", "default_priority_level is 0"),
            ("priority_levels: 2 default_priority_level: 3", "default_priority_level is 3"),
            ("default_priority_level: 1", "no levels"),
            ("priority_queue_policy { key: 1 value { } }", "no levels"),
            (
                "priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: 2 value { } }",
                "has level 2",
            ),
            ("priority_levels: 1001 default_priority_level: 1", "1000 at most"),
        ] {
            assert!(read(text).unwrap_err().contains(says), "{text}");
        }
    }
}
