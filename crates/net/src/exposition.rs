//! The metrics page: families of [`xebec_core::metrics::names`] as Prometheus text, version 0.0.4.
//!
//! A page is written family by family; a family without samples is left out, as Triton does. Not here: who may read
//! the page (its listener), what is counted (everybody).
//!
//! # Source
//! Prometheus, "Exposition formats", text-based format.
use std::fmt::{Display, Write as _};
use xebec_core::metrics::{
    BUCKETS_MICROSECONDS, Histogram,
    names::{Family, Kind},
};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page being written.
#[derive(Debug, Default)]
pub struct Page(String);

/// Samples of one family being written.
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut String,
    family: &'a Family,
    begun: bool,
}

impl Page {
    /// Begins a family.
    pub fn family<'a>(&'a mut self, family: &'a Family) -> Samples<'a> {
        Samples { page: &mut self.0, family, begun: false }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// Adds a sample; `labels` are the values of the family's labels, in its order.
    pub fn add(&mut self, labels: &[&str], value: impl Display) {
        self.tagged(labels, [], value);
    }

    /// Adds a sample with labels of its own behind the family's, named `_` and their key.
    pub fn tagged<'t>(
        &mut self,
        labels: &[&str],
        tags: impl IntoIterator<Item = (&'t String, &'t String)>,
        value: impl Display,
    ) {
        self.head();
        let tags: String =
            tags.into_iter().map(|(key, text)| format!(",_{key}=\"{}\"", escape(text))).collect();
        self.line("", labels, None, &tags, &value);
    }

    /// Adds a histogram: cumulative buckets in seconds, sum and count.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        self.head();
        let counts = histogram.counts();
        let mut total = 0;
        for (count, bound) in counts.iter().zip(BUCKETS_MICROSECONDS) {
            total += count;
            self.line("_bucket", labels, Some(&seconds(bound)), "", &total);
        }
        total += counts.last().copied().unwrap_or(0);
        self.line("_bucket", labels, Some("+Inf"), "", &total);
        self.line("_sum", labels, None, "", &histogram.sum_seconds());
        self.line("_count", labels, None, "", &total);
    }

    fn head(&mut self) {
        if !self.begun {
            self.begun = true;
            let kind = match self.family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing into a String has no error to give.
            let _ = writeln!(self.page, "# HELP {} {}", self.family.name, self.family.help);
            let _ = writeln!(self.page, "# TYPE {} {kind}", self.family.name);
        }
    }

    /// `tags` are labels as they are written, each behind a comma; only a family with labels has them.
    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, tags: &str, value: &dyn Display) {
        let named = self.family.labels.iter().copied().zip(labels.iter().copied());
        let all = named.chain(bound.map(|bound| ("le", bound)));
        let _ = write!(self.page, "{}{suffix}", self.family.name);
        let mut separator = '{';
        for (name, text) in all {
            let _ = write!(self.page, "{separator}{name}=\"{}\"", escape(text));
            separator = ',';
        }
        let (tags, close) = if separator == ',' { (tags, "}") } else { ("", "") };
        let _ = writeln!(self.page, "{tags}{close} {value}");
    }
}

fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use xebec_core::metrics::names;

    #[test]
    fn a_family_without_samples_is_left_out_and_labels_are_escaped() {
        let mut page = Page::default();
        page.family(&names::REQUEST_SUCCESS);
        page.family(&names::PENDING).add(&["a\"b", "1"], 3);
        let tags = std::collections::BTreeMap::from([("team".to_owned(), "a\"b".to_owned())]);
        page.family(&names::EXEC_COUNT).tagged(&["m", "1"], &tags, 4);
        page.family(&names::CPU_UTILIZATION).add(&[], 0.5);
        assert_eq!(
            page.finish(),
            "# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.\n\
             # TYPE nv_inference_pending_request_count gauge\n\
             nv_inference_pending_request_count{model=\"a\\\"b\",version=\"1\"} 3\n\
             # HELP nv_inference_exec_count Number of model executions performed (does not include cached requests)\n\
             # TYPE nv_inference_exec_count counter\n\
             nv_inference_exec_count{model=\"m\",version=\"1\",_team=\"a\\\"b\"} 4\n\
             # HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]\n\
             # TYPE nv_cpu_utilization gauge\n\
             nv_cpu_utilization 0.5\n"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_everything() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_micros(7));
        histogram.observe(Duration::from_secs(100));
        let mut page = Page::default();
        page.family(&names::TOTAL_SECONDS).histogram(&["t", "m", "1"], &histogram);
        let text = page.finish();
        for line in [
            "le=\"0.000005\"} 0\n",
            "le=\"0.00001\"} 1\n",
            "le=\"60\"} 1\n",
            "le=\"+Inf\"} 2\n",
            "_count{tenant=\"t\",model=\"m\",version=\"1\"} 2\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
