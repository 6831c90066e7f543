//! `model_metrics`: the buckets of a model's histograms.
use super::Misfit;
use std::{collections::BTreeSet, sync::Arc};
use xebec_core::{
    metrics::{Bounds, Phase},
    model_config::{
        ModelConfig,
        model_metrics::{MetricControl, metric_control::MetricOptions},
    },
};

/// Most buckets of a histogram: each is a line of the metrics page for every tenant.
const MOST_BUCKETS: usize = 64;
/// Largest bound, in seconds: a day.
const LARGEST_SECONDS: f64 = 86_400.0;

/// Reads `model_metrics`.
pub(crate) fn bounds(config: &ModelConfig) -> Result<Bounds, Misfit> {
    let mut bounds = Bounds::default();
    let mut seen = BTreeSet::new();
    for control in config.model_metrics.iter().flat_map(|metrics| &metrics.metric_control) {
        let family = control.metric_identifier.as_ref().map_or("", |identifier| identifier.family.as_str());
        let Some(at) = Phase::ALL.iter().position(|phase| phase.family().name == family) else {
            let known: Vec<&str> = Phase::ALL.iter().map(|phase| phase.family().name).collect();
            return Err(Misfit(format!(
                "model_metrics: '{family}' is no histogram of a model here; write one of {}, with buckets in seconds, or leave it out",
                known.join(", ")
            )));
        };
        if !seen.insert(family) {
            return Err(Misfit(format!(
                "model_metrics names '{family}' twice; write one metric_control for it"
            )));
        }
        if let Some(slot) = bounds.get_mut(at) {
            *slot = buckets(family, control)?;
        }
    }
    Ok(bounds)
}

fn buckets(family: &str, control: &MetricControl) -> Result<Option<Arc<[u64]>>, Misfit> {
    let Some(MetricOptions::HistogramOptions(options)) = &control.metric_options else { return Ok(None) };
    let wrong = |what: String| {
        Misfit(format!(
            "model_metrics: the buckets of '{family}' {what}; write 1 to {MOST_BUCKETS} numbers of seconds that rise, from 0.000001 to {LARGEST_SECONDS}"
        ))
    };
    if options.buckets.is_empty() || options.buckets.len() > MOST_BUCKETS {
        return Err(wrong(format!("are {}", options.buckets.len())));
    }
    let mut all: Vec<u64> = Vec::with_capacity(options.buckets.len());
    for seconds in &options.buckets {
        if !(0.000_001..=LARGEST_SECONDS).contains(seconds) {
            return Err(wrong(format!("have {seconds}")));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 86400 million")]
        let microseconds = (seconds * 1e6).round() as u64;
        if all.last().is_some_and(|last| *last >= microseconds) {
            return Err(wrong(format!("do not rise by a microsecond at {seconds}")));
        }
        all.push(microseconds);
    }
    Ok(Some(all.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::config::parse;

    fn read(family: &str, buckets: &str) -> Result<Bounds, String> {
        let one = format!(
            "metric_control {{ metric_identifier {{ family: \"{family}\" }} histogram_options {{ buckets: [ {buckets} ] }} }}"
        );
        bounds(&parse(&format!("model_metrics {{ {one} }}")).unwrap()).map_err(|misfit| misfit.to_string())
    }

    #[test]
    fn a_model_says_the_buckets_of_its_histograms() {
        let own = read("xebec_serve_request_duration_seconds", "0.001, 0.0025, 60").unwrap();
        assert_eq!(own[4].as_deref(), Some(&[1000, 2500, 60_000_000][..]));
        assert!(own[..4].iter().all(Option::is_none), "the others are as they were");
        let silent = "model_metrics { metric_control { metric_identifier { family: \"xebec_serve_queue_duration_seconds\" } } }";
        assert_eq!(bounds(&parse(silent).unwrap()).unwrap(), Bounds::default());
    }

    #[test]
    fn buckets_rise_and_are_few_and_a_family_is_one_of_ours() {
        let family = "xebec_serve_queue_duration_seconds";
        let many = (1..=65).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        for (buckets, says) in [
            ("1, 1", "do not rise"),
            ("2, 1", "do not rise"),
            ("0.0000011, 0.0000012", "do not rise by a microsecond"),
            ("0", "have 0"),
            ("-1", "have -1"),
            ("nan", "have NaN"),
            ("86401", "have 86401"),
            ("", "are 0"),
            (&many, "are 65"),
        ] {
            let said = read(family, buckets).unwrap_err();
            assert!(said.contains(says) && said.contains(family), "{buckets}: {said}");
        }
        let said = read("nv_inference_first_response_histogram_ms", "100").unwrap_err();
        assert!(
            said.contains("'nv_inference_first_response_histogram_ms'") && said.contains(family),
            "{said}"
        );
        let control = format!("metric_control {{ metric_identifier {{ family: \"{family}\" }} }}");
        let twice = parse(&format!("model_metrics {{ {control} {control} }}")).unwrap();
        assert!(bounds(&twice).unwrap_err().to_string().contains("twice"));
    }
}
