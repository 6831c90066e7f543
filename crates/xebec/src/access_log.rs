//! The access log: a line per call, written by a thread of its own.
//!
//! The I/O cores never wait for a disk: lines go through a bounded channel, and what does not fit is counted and told
//! when there is room again. Never in a line: inputs, outputs, or an unbounded text of a caller.
use crate::config::LogForm;
use serde_json::json;
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use xebec_core::{Principal, trace::SpanContext};
use xebec_serve::{AccessEntry, AccessLog};

/// Lines that may wait to be written.
const WAITING_LINES: usize = 65_536;

/// How long the last lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Formats lines and hands them to the writer.
pub(crate) struct Lines {
    form: LogForm,
    to: SyncSender<String>,
    dropped: AtomicU64,
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    /// Nothing is ever sent: its end is the thread's.
    done: Receiver<()>,
}

impl Lines {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn start(form: LogForm, file: Option<&Path>) -> io::Result<(Self, Writer)> {
        let out: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stderr()),
        };
        let (to, from) = sync_channel(WAITING_LINES);
        let (alive, done) = sync_channel(0);
        let write = move || {
            write(out, &from);
            drop(alive);
        };
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok((Self { form, to, dropped: AtomicU64::new(0) }, Writer { done }))
    }
}

impl Writer {
    /// Waits until every line is written, once nobody is left who makes lines; a writer that is stuck is left behind.
    pub(crate) fn finish(self) {
        // Either way nothing is said: standard error may be what is stuck.
        let _ = self.done.recv_timeout(LAST_LINES);
    }
}

fn write(mut out: Box<dyn Write + Send>, from: &Receiver<String>) {
    let mut failing = false;
    // All that waits is one write; then the thread sleeps until the next line.
    while let Ok(mut text) = from.recv() {
        while text.len() < 1 << 20
            && let Ok(line) = from.try_recv()
        {
            text.push_str(&line);
        }
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // Told once, and not for every line.
        if let (Err(error), false) = (&written, failing) {
            tracing::warn!(%error, "access log cannot be written");
        }
        failing = written.is_err();
    }
}

impl AccessLog for Lines {
    fn record(&self, entry: &AccessEntry<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = match self.form {
            LogForm::Text => text(entry, now),
            LogForm::Json => structured(entry, now),
        };
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            line.push_str(&loss(self.form, dropped, now));
        }
        match self.to.try_send(line) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(dropped + 1, Relaxed);
            }
        }
    }
}

/// Tells of lines that were lost, in the log's own form.
fn loss(form: LogForm, dropped: u64, now: Duration) -> String {
    match form {
        LogForm::Text => format!("# {dropped} lines were dropped because the writer was too slow\n"),
        LogForm::Json => {
            let line = json!({
                "time": now.as_secs_f64(),
                "dropped_lines": dropped,
                "error": "lines were dropped because the writer was too slow",
            });
            format!("{line}\n")
        }
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
    fn every_line_of_the_json_form_is_an_object_also_the_one_that_tells_of_lost_lines() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let (lines, writer) = Lines::start(LogForm::Json, Some(&file)).unwrap();
        lines.dropped.store(3, Relaxed);
        lines.record(&entry());
        drop(lines);
        writer.finish();
        let text = std::fs::read_to_string(&file).unwrap();
        let objects: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((objects.len(), &objects[1]["dropped_lines"]), (2, &json!(3)));
    }

    #[test]
    fn the_end_waits_for_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.log");
        let (lines, writer) = Lines::start(LogForm::Text, Some(&file)).unwrap();
        (0..10_000).for_each(|_| lines.record(&entry()));
        drop(lines);
        writer.finish();
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 10_000);
    }
}
