//! The log on standard error, and which lines it has: by filters from the start, by kinds once a caller has said so.
use crate::config::{Config, LogForm};
use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{Level, Metadata, field::display, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry,
    filter::filter_fn,
    fmt::{self, MakeWriter},
    layer::{Filter, SubscriberExt as _},
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};
use xebec_core::log::{LogControl, LogSettings};

type Lines = Box<dyn Filter<Registry> + Send + Sync>;

/// The running log.
pub(crate) struct Log {
    lines: Handle<Lines, Registry>,
    settings: Mutex<LogSettings>,
}

/// Starts the log. A second start in one process changes nothing.
pub(crate) fn start<W>(config: &Config, out: W) -> Arc<Log>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("warn"));
    let (lines, log) = filtered(filter);
    let out = fmt::layer().with_writer(out);
    // A line that cannot be written is lost. Told with eprintln!, as is the default, a closed standard error would be a
    // panic in whatever thread had something to say.
    let out = out.log_internal_errors(false);
    let _ = match config.log_form {
        LogForm::Text => {
            let out = out.with_ansi(std::io::stderr().is_terminal()).with_filter(lines);
            tracing_subscriber::registry().with(out).try_init()
        }
        LogForm::Json => {
            let out = out.json().flatten_event(true).with_filter(lines);
            tracing_subscriber::registry().with(out).try_init()
        }
    };
    Arc::new(log)
}

/// Has panics told as lines of the log. The hook of the standard library writes to standard error itself, and so waits for
/// whoever reads it, on the thread of all the others' requests.
pub(crate) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| display(backtrace));
        tracing::error!(thread, backtrace, "{panic}");
    }));
}

/// The filter of the lines, and what changes it.
fn filtered(filter: EnvFilter) -> (reload::Layer<Lines, Registry>, Log) {
    let settings = Mutex::new(settings_of(filter.max_level_hint()));
    let (layer, lines) = reload::Layer::new(Box::new(filter) as Lines);
    (layer, Log { lines, settings })
}

/// The kinds of lines that a level of filters lets through.
fn settings_of(most: Option<LevelFilter>) -> LogSettings {
    let most = most.unwrap_or(LevelFilter::TRACE);
    LogSettings {
        error: most >= LevelFilter::ERROR,
        warning: most >= LevelFilter::WARN,
        info: most >= LevelFilter::INFO,
        verbose_level: u32::from(most >= LevelFilter::DEBUG) + u32::from(most >= LevelFilter::TRACE),
    }
}

/// Whether a line is of a kind that is wanted. Below a warning, only xebec's own: the libraries below have nothing to say
/// that an operator could use.
fn wanted(settings: LogSettings, line: &Metadata<'_>) -> bool {
    let own = line.target().starts_with("xebec");
    match *line.level() {
        Level::ERROR => settings.error,
        Level::WARN => settings.warning,
        Level::INFO => settings.info && own,
        Level::DEBUG => settings.verbose_level >= 1 && own,
        Level::TRACE => settings.verbose_level >= 2 && own,
    }
}

/// The least level at which anything is wanted: what is below it costs nothing.
fn most(settings: LogSettings) -> LevelFilter {
    let levels = [
        (settings.verbose_level >= 2, LevelFilter::TRACE),
        (settings.verbose_level >= 1, LevelFilter::DEBUG),
        (settings.info, LevelFilter::INFO),
        (settings.warning, LevelFilter::WARN),
        (settings.error, LevelFilter::ERROR),
    ];
    levels.iter().find(|(on, _)| *on).map_or(LevelFilter::OFF, |(_, level)| *level)
}

impl LogControl for Log {
    fn settings(&self) -> LogSettings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, settings: LogSettings) {
        let mut known = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *known = settings;
        let lines = filter_fn(move |line| wanted(settings, line)).with_max_level_hint(most(settings));
        // It fails only where no log was started.
        let _ = self.lines.reload(Box::new(lines) as Lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_at_the_start_is_told_as_kinds() {
        let of = |text: &str| settings_of(EnvFilter::new(text).max_level_hint());
        let kinds = |error, warning, info, verbose_level| LogSettings { error, warning, info, verbose_level };
        assert_eq!(of("off"), kinds(false, false, false, 0));
        assert_eq!(of("error"), kinds(true, false, false, 0));
        assert_eq!(of("warn,xebec=info"), kinds(true, true, true, 0));
        assert_eq!(of("warn,xebec=trace"), kinds(true, true, true, 2));
    }

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_a_kind_come_and_go_while_the_log_runs() {
        let kept = Kept::default();
        let (lines, log) = filtered(EnvFilter::new("warn"));
        let writer = kept.clone();
        let out = fmt::layer().with_writer(move || writer.clone()).with_filter(lines);
        let said = || {
            tracing::error!("an error");
            tracing::warn!("a warning");
            tracing::info!("an event");
            tracing::debug!("a detail");
            tracing::trace!("a trace");
            tracing::debug!(target: "h2", "a library's detail");
            let text = String::from_utf8(std::mem::take(&mut *kept.0.lock().unwrap())).unwrap();
            let has = |words: &str| text.contains(words);
            ["an error", "a warning", "an event", "a detail", "a trace", "a library's"].map(has)
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(out), || {
            assert_eq!(said(), [true, true, false, false, false, false]);
            log.apply(LogSettings { error: true, warning: false, info: true, verbose_level: 1 });
            assert_eq!(said(), [true, false, true, true, false, false]);
            log.apply(LogSettings { error: false, warning: false, info: false, verbose_level: 2 });
            assert_eq!(said(), [false, false, false, true, true, false]);
            log.apply(LogSettings { error: false, warning: false, info: false, verbose_level: 0 });
            assert_eq!(said(), [false; 6]);
        });
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let kept = Kept::default();
        let writer = kept.clone();
        let out = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let before = std::panic::take_hook();
        tell_of_panics();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(out), || {
            std::panic::catch_unwind(|| panic!("of the test")).unwrap_err();
        });
        std::panic::set_hook(before);
        let text = String::from_utf8(std::mem::take(&mut *kept.0.lock().unwrap())).unwrap();
        for part in ["ERROR", "logging.rs:", "of the test", "a_panic_is_a_line_of_the_log"] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn nothing_that_is_wanted_is_below_the_least_level() {
        for bits in 0..32u32 {
            let on = |bit: u32| bits >> bit & 1 == 1;
            let settings =
                LogSettings { error: on(0), warning: on(1), info: on(2), verbose_level: bits >> 3 };
            let levels = [
                (settings.error, LevelFilter::ERROR),
                (settings.warning, LevelFilter::WARN),
                (settings.info, LevelFilter::INFO),
                (settings.verbose_level >= 1, LevelFilter::DEBUG),
                (settings.verbose_level >= 2, LevelFilter::TRACE),
            ];
            assert!(levels.iter().all(|(on, level)| !on || *level <= most(settings)), "{settings:?}");
        }
    }
}
