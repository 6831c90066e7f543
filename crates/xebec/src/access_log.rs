//! The access log: a line per call, written by a thread of its own ([`Lines`]).
//!
//! Never in a line: inputs, outputs, or an unbounded text of a caller.
use crate::{config::LogForm, lines::Lines};
use serde_json::json;
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use xebec_core::{Principal, trace::SpanContext};
use xebec_serve::{AccessEntry, AccessLog};

/// Formats lines and hands them to the writer.
pub(crate) struct Calls {
    form: LogForm,
    to: Arc<Lines>,
}

impl Calls {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn start(form: LogForm, file: Option<&Path>) -> io::Result<(Self, Arc<Lines>)> {
        let out: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stderr()),
        };
        let to = Lines::start("access log", form, out)?;
        Ok((Self { form, to: Arc::clone(&to) }, to))
    }
}

impl AccessLog for Calls {
    fn record(&self, entry: &AccessEntry<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = match self.form {
            LogForm::Text => text(entry, now),
            LogForm::Json => structured(entry, now),
        };
        self.to.push(line.as_bytes());
    }
}

fn peer(principal: &Principal) -> String {
    match principal {
        Principal::Anonymous { peer } => peer.to_string(),
    }
}

fn structured(entry: &AccessEntry<'_>, now: Duration) -> String {
    let mut line = json!({
        "time": now.as_secs_f64(),
        "protocol": entry.protocol.as_str(),
        "verb": entry.verb,
        "model": entry.model,
        "version": entry.version,
        "tenant": entry.tenant,
        "status": entry.status,
        "request_id": entry.request_id,
        "trace_id": entry.span.map(|span| span.trace.to_string()),
        "span_id": entry.span.map(|span| span.span.to_string()),
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
        "duration_us": u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX),
        "peer": peer(entry.principal),
        "error": entry.error,
    })
    .to_string();
    line.push('\n');
    line
}

fn text(entry: &AccessEntry<'_>, now: Duration) -> String {
    // A caller's text is quoted as Rust quotes it, so that no name can forge a line.
    let mut line = format!(
        "{:.6} {} {} {} {:?} v{} {} {:?} in={} out={} us={}",
        now.as_secs_f64(),
        peer(entry.principal),
        entry.protocol.as_str(),
        entry.verb,
        entry.model,
        entry.version,
        entry.status,
        entry.request_id,
        entry.bytes_in,
        entry.bytes_out,
        entry.duration.as_micros(),
    );
    if let Some(SpanContext { trace, span }) = entry.span {
        let _ = write!(line, " trace_id={trace} span_id={span}");
    }
    if let Some(error) = entry.error {
        let _ = write!(line, " error={error:?}");
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_serve::Protocol;

    const CALLER: Principal = Principal::Anonymous {
        peer: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7),
    };

    fn entry() -> AccessEntry<'static> {
        AccessEntry {
            protocol: Protocol::Http,
            verb: "infer",
            model: "a\nb",
            version: 1,
            tenant: "default",
            status: 200,
            request_id: "x\" 200",
            span: None,
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(5),
            principal: &CALLER,
            error: None,
        }
    }

    #[test]
    fn a_callers_text_cannot_forge_a_line() {
        let entry = entry();
        for line in [text(&entry, Duration::ZERO), structured(&entry, Duration::ZERO)] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
        }
        assert!(text(&entry, Duration::ZERO).contains(r#""a\nb" v1 200 "x\" 200" in=1 out=2 us=5"#));
    }

    #[test]
    fn every_line_of_the_json_form_is_an_object() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let (calls, lines) = Calls::start(LogForm::Json, Some(&file)).unwrap();
        calls.record(&entry());
        calls.record(&entry());
        lines.finish();
        let text = std::fs::read_to_string(&file).unwrap();
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((objects.len(), &objects[1]["status"]), (2, &json!(200)));
    }
}
