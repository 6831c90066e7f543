//! Lines that a thread of its own writes: whoever has something to say never waits for a disk, a pipe or a terminal.
//!
//! What waits is bounded in bytes. A line that does not fit is lost and counted, and the log tells of it in its place.
//!
//! Not here: what the lines say (`access_log`, `logging`).
use crate::config::LogForm;
use serde_json::json;
use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use xebec_core::metrics::Counter;

/// Bytes of lines that may wait to be written.
const WAITING_BYTES: usize = 8 << 20;

/// How long the last lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines on their way to their writer. A write to it is one line or more, taken as a whole or lost as a whole.
#[derive(Debug)]
pub(crate) struct Lines {
    name: &'static str,
    form: LogForm,
    waiting: Mutex<Waiting>,
    /// Told when the first line comes, and when there is none left.
    moved: Condvar,
    /// Lines that nobody will read.
    pub(crate) lost: Counter,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Lost behind those that wait.
    dropped: u64,
    /// The thread has lines that it took and has not written yet.
    writing: bool,
}

impl Lines {
    /// Starts the thread that writes to `out`.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(crate) fn start(
        name: &'static str,
        form: LogForm,
        out: impl Write + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (waiting, moved, lost) = (Mutex::default(), Condvar::new(), Counter::default());
        let lines = Arc::new(Self { name, form, waiting, moved, lost });
        let written = Arc::clone(&lines);
        // It lives as long as the process: there is something to say until the last moment.
        std::thread::Builder::new().name(name.into()).spawn(move || written.write(out))?;
        Ok(lines)
    }

    /// Takes a line, with its end, or loses it.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.text.len() + line.len() > WAITING_BYTES {
            waiting.dropped += 1;
            self.lost.add(1);
            return;
        }
        let first = waiting.text.is_empty();
        waiting.text.extend_from_slice(line);
        drop(waiting);
        if first {
            self.moved.notify_all();
        }
    }

    /// Waits until every line is written; a writer that is stuck is left behind.
    pub(crate) fn finish(&self) {
        let open = |waiting: &mut Waiting| waiting.writing || !waiting.text.is_empty();
        // Either way nothing is said: standard error may be what is stuck.
        let _ = self.moved.wait_timeout_while(self.lock(), LAST_LINES, open);
    }

    fn write(&self, mut out: impl Write) {
        let (mut text, mut failing) = (Vec::new(), false);
        loop {
            text = self.next(text);
            let written = out.write_all(&text).and_then(|()| out.flush());
            if let Err(error) = &written {
                self.lost.add(text.iter().filter(|byte| **byte == b'\n').count() as u64);
                // Told once, and not for every line.
                if !failing {
                    tracing::warn!(%error, "{} cannot be written", self.name);
                }
            }
            failing = written.is_err();
        }
    }

    /// Gives back what was written and takes all that waits, as soon as something does.
    fn next(&self, mut text: Vec<u8>) -> Vec<u8> {
        text.clear();
        let mut waiting = self.lock();
        waiting.writing = false;
        if waiting.text.is_empty() {
            self.moved.notify_all();
        }
        let none = |waiting: &mut Waiting| waiting.text.is_empty();
        let mut waiting = self.moved.wait_while(waiting, none).unwrap_or_else(PoisonError::into_inner);
        waiting.writing = true;
        mem::swap(&mut waiting.text, &mut text);
        let dropped = mem::take(&mut waiting.dropped);
        drop(waiting);
        if dropped > 0 {
            text.extend_from_slice(loss(self.form, dropped).as_bytes());
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Tells of lines that were lost, in the log's own form.
fn loss(form: LogForm, dropped: u64) -> String {
    match form {
        LogForm::Text => format!("# {dropped} lines were dropped because the writer was too slow\n"),
        LogForm::Json => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = json!({
                "time": now.as_secs_f64(),
                "dropped_lines": dropped,
                "error": "lines were dropped because the writer was too slow",
            });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// Takes a text only when the test asks for it.
    struct Slow(SyncSender<String>);

    impl Write for Slow {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.send(String::from_utf8_lossy(text).into_owned()).map_err(io::Error::other)?;
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn slow(form: LogForm) -> (Arc<Lines>, Receiver<String>) {
        let (to, from) = sync_channel(0);
        (Lines::start("log", form, Slow(to)).unwrap(), from)
    }

    #[test]
    fn a_writer_that_stands_still_holds_up_nobody_and_what_is_lost_is_told_in_its_place() {
        for form in [LogForm::Text, LogForm::Json] {
            let (lines, from) = slow(form);
            let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
            // Nobody reads: the thread has no more than one batch, and none is larger than what may wait.
            let pushed = 3 * WAITING_BYTES / 1024;
            (0..pushed).for_each(|_| lines.push(&line));
            let lost = lines.lost.get();
            assert!(lost >= (pushed - 2 * WAITING_BYTES / 1024) as u64, "{lost}");
            let (mut read, mut told) = (0, 0);
            while read + told < pushed as u64 {
                let text = from.recv().unwrap();
                let (whole, others): (Vec<&str>, Vec<&str>) =
                    text.lines().partition(|line| line.starts_with('x'));
                read += whole.len() as u64;
                for line in others {
                    told += match form {
                        LogForm::Text => line.split(' ').nth(1).unwrap().parse::<u64>().unwrap(),
                        LogForm::Json => {
                            serde_json::from_str::<serde_json::Value>(line).unwrap()["dropped_lines"]
                                .as_u64()
                                .unwrap()
                        }
                    };
                }
            }
            assert_eq!((read + told, told), (pushed as u64, lost));
        }
    }

    #[test]
    fn the_end_waits_for_the_last_line_and_not_for_a_writer_that_is_stuck() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let lines = Lines::start("log", LogForm::Text, std::fs::File::create(&path).unwrap()).unwrap();
        (0..10_000).for_each(|_| lines.push(b"line\n"));
        lines.finish();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 10_000);

        let (lines, _from) = slow(LogForm::Text);
        lines.push(b"line\n");
        lines.finish();
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_as_lost() {
        let (lines, from) = slow(LogForm::Text);
        drop(from);
        lines.push(b"one\ntwo\n");
        lines.push(b"three\n");
        lines.finish();
        assert_eq!(lines.lost.get(), 3);
    }
}
