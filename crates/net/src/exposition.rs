//! The metrics page: families of [`xebec_core::metrics::names`] as Prometheus text, version 0.0.4, or as OpenMetrics.
//!
//! A page is written family by family; a family without samples is left out, as Triton does. Names are the same in both
//! forms: OpenMetrics wants `_total` behind a counter's name, so counters without it, which are Triton's, are of unknown
//! kind there. Only OpenMetrics has examples of traced requests. Not here: who may read the page (its listener), what is
//! counted (everybody).
//!
//! # Source
//! Prometheus, "Exposition formats", text-based format; OpenMetrics 1.0, "Text format" and "Exemplars".
use http::HeaderValue;
use std::{
    fmt::{Display, Write as _},
    time::UNIX_EPOCH,
};
use xebec_core::metrics::{
    Exemplar, Histogram,
    names::{Family, Kind},
};

/// How a page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Prometheus text, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Form {
    /// OpenMetrics for who takes it, whatever else is taken; text for all others.
    pub fn accepted(accept: Option<&HeaderValue>) -> Self {
        let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let takes = |offer: &str| {
            let (kind, parameters) = offer.split_once(';').unwrap_or((offer, ""));
            let refused = parameters.split(';').any(|parameter| matches!(parameter.trim(), "q=0" | "q=0.0"));
            kind.trim().eq_ignore_ascii_case("application/openmetrics-text") && !refused
        };
        if accept.split(',').any(takes) { Self::OpenMetrics } else { Self::Text }
    }

    /// The content type of the page.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    form: Form,
}

/// Samples of one family being written.
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut String,
    form: Form,
    family: &'a Family,
    begun: bool,
}

impl Page {
    /// An empty page.
    pub fn new(form: Form) -> Self {
        Self { text: String::new(), form }
    }

    /// Begins a family.
    pub fn family<'a>(&'a mut self, family: &'a Family) -> Samples<'a> {
        Samples { page: &mut self.text, form: self.form, family, begun: false }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
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
        for (at, count) in counts.iter().enumerate() {
            total += count;
            let bound = histogram.bounds().get(at).map(|bound| self.seconds(*bound));
            let bucket =
                WithExample(total, histogram.exemplar(at).filter(|_| self.form == Form::OpenMetrics));
            self.line("_bucket", labels, Some(bound.as_deref().unwrap_or("+Inf")), "", &bucket);
        }
        self.line("_sum", labels, None, "", &histogram.sum_seconds());
        self.line("_count", labels, None, "", &total);
    }

    fn head(&mut self) {
        if !self.begun {
            self.begun = true;
            let Family { name, help, kind, .. } = self.family;
            let (name, kind) = match (kind, self.form, name.strip_suffix("_total")) {
                (Kind::Counter, Form::OpenMetrics, Some(name)) => (name, "counter"),
                (Kind::Counter, Form::OpenMetrics, None) => (*name, "unknown"),
                (Kind::Counter, Form::Text, _) => (*name, "counter"),
                (Kind::Gauge, ..) => (*name, "gauge"),
                (Kind::Histogram, ..) => (*name, "histogram"),
            };
            // Writing into a String has no error to give.
            let _ = writeln!(self.page, "# HELP {name} {help}");
            let _ = writeln!(self.page, "# TYPE {name} {kind}");
        }
    }

    /// A bound; OpenMetrics writes its numbers as Go does.
    fn seconds(&self, microseconds: u64) -> String {
        let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
        let short = text.trim_end_matches('0');
        match self.form {
            Form::Text => short.trim_end_matches('.').to_owned(),
            Form::OpenMetrics if microseconds < 100 => match (microseconds / 10, microseconds % 10) {
                (0, ones) => format!("{ones}e-06"),
                (tens, 0) => format!("{tens}e-05"),
                (tens, ones) => format!("{tens}.{ones}e-05"),
            },
            Form::OpenMetrics if short.ends_with('.') => format!("{short}0"),
            Form::OpenMetrics => short.to_owned(),
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

/// A count, and an example behind it.
struct WithExample(u64, Option<Exemplar>);

impl Display for WithExample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(count, example) = self;
        count.fmt(f)?;
        let Some(Exemplar { span, duration, at }) = example else { return Ok(()) };
        let (trace, span, took) = (span.trace, span.span, duration.as_secs_f64());
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        write!(f, " # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {took} {at:.3}")
    }
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
    fn openmetrics_has_the_same_names_and_examples_of_traced_requests() {
        let (histogram, duration) = (Histogram::default(), Duration::from_micros(7));
        histogram.observe(duration);
        let (trace, span) = (xebec_core::trace::TraceId::new(1), xebec_core::trace::SpanId::new(2));
        let span = xebec_core::trace::SpanContext { trace: trace.unwrap(), span: span.unwrap() };
        histogram.exemplify(Exemplar { span, duration, at: UNIX_EPOCH + Duration::from_millis(1500) });
        let mut page = Page::new(Form::OpenMetrics);
        page.family(&names::REQUEST_SUCCESS).add(&["m", "1"], 3);
        page.family(&names::PANICS).add(&[], 0);
        page.family(&names::TOTAL_SECONDS).histogram(&["t", "m", "1"], &histogram);
        let text = page.finish();
        for line in [
            "# TYPE nv_inference_request_success unknown\nnv_inference_request_success{model=\"m\",version=\"1\"} 3\n",
            "# TYPE xebec_serve_panics counter\nxebec_serve_panics_total 0\n",
            "le=\"5e-06\"} 0\n",
            "le=\"1e-05\"} 1 # {trace_id=\"00000000000000000000000000000001\",span_id=\"0000000000000002\"} 0.000007 1.500\n",
            "le=\"6e-05\"} 1\n",
            "le=\"0.0001\"} 1\n",
            "le=\"1.0\"} 1\n",
            "le=\"2.5\"} 1\n",
            "le=\"60.0\"} 1\n",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && !text.contains("# EOF\n#"));
    }

    #[test]
    fn a_histogram_is_written_with_its_own_bounds() {
        let histogram = Histogram::new(Some([3, 15, 2_000_000].into()));
        let page = |form| {
            let mut page = Page::new(form);
            page.family(&names::TOTAL_SECONDS).histogram(&["t", "m", "1"], &histogram);
            let text = page.finish();
            let bounds = text.split("le=\"").skip(1).filter_map(|rest| rest.split('"').next());
            bounds.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(page(Form::Text), ["0.000003", "0.000015", "2", "+Inf"]);
        assert_eq!(page(Form::OpenMetrics), ["3e-06", "1.5e-05", "2.0", "+Inf"]);
    }

    #[test]
    fn openmetrics_is_for_who_takes_it() {
        for (accept, form) in [
            (None, Form::Text),
            (Some("*/*"), Form::Text),
            (Some("text/plain;version=0.0.4"), Form::Text),
            (Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2"), Form::OpenMetrics),
            (Some("text/html, Application/OpenMetrics-Text"), Form::OpenMetrics),
            (Some("application/openmetrics-text;q=0"), Form::Text),
        ] {
            assert_eq!(Form::accepted(accept.map(HeaderValue::from_static).as_ref()), form, "{accept:?}");
        }
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
