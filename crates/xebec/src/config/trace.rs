//! The settings of traces.
use super::{Reader, flags::Setting};
use crate::telemetry::{Endpoint, TraceConfig};

/// Settings that mean nothing without a collector.
const DEPENDENT: [&str; 3] = ["trace-rate", "trace-service-name", "trace-resource"];

impl Reader<'_> {
    /// Where traces go, if they are made.
    pub(super) fn trace(&mut self) -> Option<TraceConfig> {
        let text = self.text("trace-endpoint");
        if text.is_empty() {
            let is_changed =
                |name: &&str| Setting::named(name).is_some_and(|setting| self.text(name) != setting.default);
            for name in DEPENDENT.into_iter().filter(is_changed).collect::<Vec<_>>() {
                self.faults.add(format!(
                    "--{name} has no effect without --trace-endpoint; name a collector with it"
                ));
            }
            return None;
        }
        let endpoint = Endpoint::parse(text).map_err(|wants| self.fault("trace-endpoint", wants)).ok();
        let wants = "a whole number from 1 to 4294967295: one of so many calls is traced";
        let rate = self.parse("trace-rate", wants, |rate: &u32| *rate > 0);
        let service_name = self.text("trace-service-name").to_owned();
        if service_name.is_empty() {
            self.fault("trace-service-name", "a name that is not empty");
        }
        let resource = attributes(self.text("trace-resource"));
        if resource.is_none() {
            self.fault("trace-resource", "KEY=VALUE,KEY=VALUE, with at most 64 of them");
        }
        Some(TraceConfig { endpoint: endpoint?, rate: rate?, service_name, resource: resource? })
    }
}

fn attributes(text: &str) -> Option<Vec<(String, String)>> {
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let key = key.trim();
        (!key.is_empty()).then(|| (key.to_owned(), value.trim().to_owned()))
    };
    pairs.map(pair).collect::<Option<Vec<_>>>().filter(|pairs| pairs.len() <= 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_pairs() {
        let pairs = |all: &[(&str, &str)]| {
            Some(all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(attributes(""), pairs(&[]));
        assert_eq!(attributes("a=b, c = d=e,"), pairs(&[("a", "b"), ("c", "d=e")]));
        assert_eq!(attributes("a=b,c"), None);
        assert_eq!(attributes("=b"), None);
    }
}
