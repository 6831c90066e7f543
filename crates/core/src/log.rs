//! Which lines the server's own log has, and the port through which that is changed at run time.
//!
//! Not here: the log itself (`xebec`), how a caller says so (`xebec-serve`). Where a log goes is never the caller's to say.

/// Kinds of lines, each on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Failures of the server.
    pub error: bool,
    /// What an operator should look at.
    pub warning: bool,
    /// What happens.
    pub info: bool,
    /// More: 0 for nothing, 1 for what helps to find a fault, 2 and above for everything.
    pub verbose_level: u32,
}

/// The log, as far as a caller may change it.
pub trait LogControl: Send + Sync {
    /// What is in force.
    fn settings(&self) -> LogSettings;

    /// Puts settings in force.
    fn apply(&self, settings: LogSettings);
}
