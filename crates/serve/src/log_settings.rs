//! The settings of the log, as both transports read and change them.
//!
//! Triton's `log_file` cannot be set: no caller names a file of the server's machine. Times are always ISO 8601.
//!
//! # Source
//! Triton Inference Server, "Logging Extension".
use crate::Service;
use std::borrow::Cow;
use xebec_core::{InferError, Principal, Verb, log::LogSettings};

/// The only form of times.
pub(crate) const FORMAT: &str = "ISO8601";

/// A value as a caller wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Bool(bool),
    Whole(u64),
    Text(Cow<'a, str>),
    /// Nothing that a setting may be.
    Other,
}

/// Takes one setting in.
fn take(settings: &mut LogSettings, name: &str, said: &Said<'_>) -> Result<(), InferError> {
    let flag = || match said {
        Said::Bool(flag) => Ok(*flag),
        _ => Err(InferError::invalid(format!("log setting '{name}' must be true or false"))),
    };
    match (name, said) {
        ("log_info", _) => settings.info = flag()?,
        ("log_warning", _) => settings.warning = flag()?,
        ("log_error", _) => settings.error = flag()?,
        ("log_verbose_level", Said::Whole(level)) if u32::try_from(*level).is_ok() => {
            settings.verbose_level = u32::try_from(*level).unwrap_or(u32::MAX);
        }
        ("log_verbose_level", _) => {
            return Err(InferError::invalid(format!(
                "log setting '{name}' must be a whole number from 0 on"
            )));
        }
        ("log_format", Said::Text(text)) if text == FORMAT => (),
        ("log_format", _) => {
            return Err(InferError::Unsupported {
                what: format!("log setting '{name}' takes no other value than '{FORMAT}'"),
                hint: Some("--log-format chooses between text and json when the server starts".into()),
            });
        }
        ("log_file", Said::Text(text)) if text.is_empty() => (),
        ("log_file", _) => {
            return Err(InferError::Unsupported {
                what: "log setting 'log_file' cannot be set: the log goes to standard error".into(),
                hint: Some("the operator directs it to a file when the server starts".into()),
            });
        }
        _ => {
            let name: String = name.chars().take(64).collect();
            return Err(InferError::invalid_hint(
                format!("unknown log setting '{name}'"),
                "the settings are log_info, log_warning, log_error, log_verbose_level and log_format",
            ));
        }
    }
    Ok(())
}

impl Service {
    /// The settings in force, with `changes` made if there are any: all of them or, if one is wrong, none.
    ///
    /// # Errors
    /// The caller may not, or a change is not one.
    pub(crate) fn log_settings<'a>(
        &self,
        principal: &Principal,
        changes: impl IntoIterator<Item = (&'a str, Said<'a>)>,
    ) -> Result<LogSettings, InferError> {
        let mut changes = changes.into_iter().peekable();
        let verb = if changes.peek().is_some() { Verb::Admin } else { Verb::ReadServer };
        self.admit(principal, verb, None)?;
        let log = &self.0.log;
        let mut settings = log.settings();
        if verb == Verb::ReadServer {
            return Ok(settings);
        }
        changes.try_for_each(|(name, said)| take(&mut settings, name, &said))?;
        log.apply(settings);
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_core::Code;

    const ALL: LogSettings = LogSettings { error: true, warning: true, info: true, verbose_level: 1 };

    #[test]
    fn what_fits_is_taken() {
        let mut settings = ALL;
        for (name, said) in [
            ("log_info", Said::Bool(false)),
            ("log_warning", Said::Bool(false)),
            ("log_error", Said::Bool(false)),
            ("log_verbose_level", Said::Whole(7)),
            ("log_format", Said::Text("ISO8601".into())),
            ("log_file", Said::Text("".into())),
        ] {
            take(&mut settings, name, &said).unwrap();
        }
        let none = LogSettings { error: false, warning: false, info: false, verbose_level: 7 };
        assert_eq!(settings, none);
    }

    #[test]
    fn what_does_not_fit_is_told_by_name_and_changes_nothing() {
        let text = |text: &'static str| Said::Text(text.into());
        for (name, said, code) in [
            ("log_file", text("/etc/passwd"), Code::Unsupported),
            ("log_file", Said::Bool(true), Code::Unsupported),
            ("log_format", text("default"), Code::Unsupported),
            ("log_info", Said::Whole(1), Code::InvalidArgument),
            ("log_error", text("true"), Code::InvalidArgument),
            ("log_verbose_level", Said::Bool(true), Code::InvalidArgument),
            ("log_verbose_level", Said::Whole(1 << 40), Code::InvalidArgument),
            ("log_verbose_level", Said::Other, Code::InvalidArgument),
            ("log_colour", Said::Bool(true), Code::InvalidArgument),
        ] {
            let mut settings = ALL;
            let error = take(&mut settings, name, &said).unwrap_err();
            assert_eq!((error.code(), settings), (code, ALL), "{name}");
            assert!(error.to_string().contains(name) && !error.to_string().contains("passwd"), "{error}");
        }
    }
}
