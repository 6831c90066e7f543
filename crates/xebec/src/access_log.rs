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
use xebec_core::Principal;
use xebec_serve::{AccessEntry, AccessLog};

/// Lines that may wait to be written.
const WAITING_LINES: usize = 65_536;

/// Formats lines and hands them to the writer.
pub(crate) struct Lines {
    form: LogForm,
    to: SyncSender<String>,
    dropped: AtomicU64,
}

impl Lines {
    /// Starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(crate) fn start(form: LogForm, file: Option<&Path>) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
            None => Box::new(io::stderr()),
        };
        let (to, from) = sync_channel(WAITING_LINES);
        std::thread::Builder::new().name("access-log".into()).spawn(move || write(out, &from))?;
        Ok(Self { form, to, dropped: AtomicU64::new(0) })
    }
}

fn write(mut out: Box<dyn Write + Send>, from: &Receiver<String>) {
    // All that waits is one write; then the thread sleeps until the next line.
    while let Ok(mut text) = from.recv() {
        while text.len() < 1 << 20
            && let Ok(line) = from.try_recv()
        {
            text.push_str(&line);
        }
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            tracing::warn!(%error, "access log cannot be written");
        }
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
            let _ = writeln!(line, "# {dropped} lines were dropped because the writer was too slow");
        }
        match self.to.try_send(line) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(dropped + 1, Relaxed);
            }
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

    #[test]
    fn a_callers_text_cannot_forge_a_line() {
        let principal = Principal::Anonymous { peer: ([127, 0, 0, 1], 7).into() };
        let entry = AccessEntry {
            protocol: Protocol::Http,
            verb: "infer",
            model: "a\nb",
            version: 1,
            tenant: "default",
            status: 200,
            request_id: "x\" 200",
            bytes_in: 1,
            bytes_out: 2,
            duration: Duration::from_micros(5),
            principal: &principal,
            error: None,
        };
        for line in [text(&entry, Duration::ZERO), structured(&entry, Duration::ZERO)] {
            assert_eq!(line.matches('\n').count(), 1, "{line}");
        }
        assert!(text(&entry, Duration::ZERO).contains(r#""a\nb" v1 200 "x\" 200" in=1 out=2 us=5"#));
    }
}
