//! The log on standard error.
use crate::config::{Config, LogForm};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts the log. A second start in one process changes nothing.
pub(crate) fn start(config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("warn"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written is lost. Told with eprintln!, as is the default, a closed standard error would be a
    // panic in whatever thread had something to say.
    let builder = builder.log_internal_errors(false);
    let _ = match config.log_form {
        LogForm::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogForm::Json => builder.json().flatten_event(true).try_init(),
    };
}
