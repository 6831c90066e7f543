//! The settings of traces, and changes of them.

/// Which calls are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Whether any is.
    pub on: bool,
    /// One of so many, of those whose caller does not say; at least 1.
    pub rate: u32,
    /// How many more; without a limit if `None`.
    pub count: Option<u64>,
    /// Traces are sent as soon as so many wait; 0 leaves that to time and size.
    pub log_frequency: u32,
}

/// What becomes of one setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// A model's goes back to that of all models, that of all models to what it was at start.
    Clear,
    /// It has this value from now on.
    Set(T),
}

/// What becomes of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceChanges {
    /// Of [`TraceSettings::on`].
    pub on: Change<bool>,
    /// Of [`TraceSettings::rate`].
    pub rate: Change<u32>,
    /// Of [`TraceSettings::count`].
    pub count: Change<Option<u64>>,
    /// Of [`TraceSettings::log_frequency`].
    pub log_frequency: Change<u32>,
}
