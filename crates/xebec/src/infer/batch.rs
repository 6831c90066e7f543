//! Work that takes long: several requests in flight, a bar, and a file that is gone on with after whatever ended it.
//!
//! Not here: what is sent and written (`sheet`, `parquet_file`, `pictures`).
use super::{
    InferArgs,
    flow::{self, Ended},
    out::{How, Out, Piece, resume_command},
};
use crate::cli::{say, show};
use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal as _,
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

/// As shells tell of SIGINT.
const INTERRUPTED: u8 = 130;

/// What all long work has.
pub(super) struct Batch {
    lanes: usize,
    /// Somebody wants to stop.
    pub(super) stop: Arc<AtomicBool>,
    bar: ProgressBar,
    /// What is counted.
    unit: &'static str,
}

/// A piece, and how far in the source it ends.
pub(super) type Step = (Piece, u64);

/// Makes the file of its part, where the two are not the same.
pub(super) type Convert = fn(&Path, &Path) -> anyhow::Result<()>;

impl Batch {
    /// `whole` is the length of the source, in bytes or pieces.
    pub(super) fn new(args: &InferArgs, whole: u64, unit: &'static str) -> anyhow::Result<Self> {
        let stop = crate::interrupt::on_interrupt()?;
        Ok(Self { lanes: args.in_flight, stop, bar: bar(whole), unit })
    }

    /// Does `work` on what `source` yields and adds what `encode` makes of it, until the file is whole.
    ///
    /// # Errors
    /// The first one; what was done before it is kept, and the text says how to go on.
    pub(super) fn run<T: Send, R: Send>(
        &self,
        mut out: Out,
        source: impl Iterator<Item = anyhow::Result<T>>,
        work: impl Fn(T) -> anyhow::Result<R> + Sync,
        mut encode: impl FnMut(R) -> anyhow::Result<Step>,
        convert: Option<Convert>,
    ) -> anyhow::Result<ExitCode> {
        let ended = flow::in_order(self.lanes, &self.stop, source, work, |done| {
            let (piece, position) = encode(done)?;
            out.add(piece)?;
            self.bar.set_position(position);
            self.bar.set_message(format!("{} {}", out.done().items, self.unit));
            Ok(())
        });
        self.bar.finish_and_clear();
        let (file, items, unit) = (out.file().to_owned(), out.done().items, self.unit);
        match ended {
            Ok(Ended::Whole) => {
                let finished = out.finish(convert);
                finished.map_err(|error| anyhow!("{error:#}\n  hint: {}", go_on()))?;
                show(format!("{items} {unit} in {}\n", file.display()).as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
            Ok(Ended::Stopped) => {
                match out.leave() {
                    0 => say(&format!("stopped before any {unit} were done")),
                    items => say(&format!("stopped: {items} {unit} are done; {}", go_on())),
                }
                Ok(ExitCode::from(INTERRUPTED))
            }
            Err(error) => Err(match out.leave() {
                0 => error,
                items => anyhow!("{error:#}\n  hint: {items} {unit} are done and kept; {}", go_on()),
            }),
        }
    }
}

fn go_on() -> String {
    format!("go on with: {}", resume_command(std::env::args()))
}

/// What the flags say of a file that is there.
pub(super) fn how(args: &InferArgs) -> How {
    match (args.overwrite, args.resume) {
        (true, _) => How::Overwrite,
        (false, true) => How::Resume,
        (false, false) => How::New,
    }
}

/// Says that there is nothing to do.
pub(super) fn whole_already(file: &Path) -> anyhow::Result<ExitCode> {
    show(format!("{} is whole already; --overwrite makes it anew\n", file.display()).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn bar(whole: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(whole);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent}% {msg}, {eta} left") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// A running sum over what was read, by which a source is known again (FNV-1a, 64 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Mark {
    pub(super) const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(super) fn text(self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_of_all_that_was_read_and_of_its_order() {
        let mark = |pieces: &[&str]| {
            let mut mark = Mark::new();
            pieces.iter().for_each(|piece| mark.take(piece.as_bytes()));
            mark.text()
        };
        assert_eq!(mark(&["foo", "bar"]), "85944171f73967e8", "the published value for foobar");
        assert_ne!(mark(&["bar", "foo"]), mark(&["foo", "bar"]));
    }
}
