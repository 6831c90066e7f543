//! The settings of traces, as both transports read and change them: of all models, or of one.
//!
//! Triton's `trace_file` cannot be set: no caller names a file of the server's machine, and traces go where the operator
//! said. Tensors never go into a trace.
//!
//! # Source
//! Triton Inference Server, "Trace Extension".
use crate::{Service, call::model_name};
use std::{borrow::Cow, str::FromStr};
use xebec_core::{
    InferError, ModelName, Principal, Verb,
    trace::{Change, TraceChanges, TraceSettings},
};

/// The only mode: traces are OpenTelemetry's.
const MODE: &str = "opentelemetry";

/// Values as a caller wrote them; none clear the setting.
pub(crate) type Said<'a> = Vec<Cow<'a, str>>;

/// The settings in force, each with its values.
pub(crate) type Told = [(&'static str, Vec<String>); 6];

fn unsupported(what: String, hint: &str) -> InferError {
    InferError::Unsupported { what, hint: Some(hint.to_owned()) }
}

/// A number, or the wish to clear it.
fn number<T>(name: &str, said: &[Cow<'_, str>], least: i64) -> Result<Change<T>, InferError>
where
    T: FromStr + PartialOrd + TryFrom<i64>,
{
    let wrong =
        || InferError::invalid(format!("trace setting '{name}' must be a whole number from {least} on"));
    match said {
        [] => Ok(Change::Clear),
        [text] => {
            let fits = |number: &T| T::try_from(least).is_ok_and(|least| *number >= least);
            text.parse().ok().filter(fits).map(Change::Set).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

fn level(said: &[Cow<'_, str>]) -> Result<Change<bool>, InferError> {
    let mut on = true;
    for word in said {
        match word.as_ref() {
            "OFF" => on = false,
            "TIMESTAMPS" => (),
            "TENSORS" => {
                return Err(unsupported(
                    "trace setting 'trace_level' does not take TENSORS: tensors never leave the server in a trace".into(),
                    "TIMESTAMPS traces the phases of a call",
                ));
            }
            _ => return Err(InferError::invalid("trace setting 'trace_level' must be OFF or TIMESTAMPS")),
        }
    }
    Ok(if said.is_empty() { Change::Clear } else { Change::Set(on) })
}

/// Takes one setting in.
fn take(changes: &mut TraceChanges, name: &str, said: &[Cow<'_, str>]) -> Result<(), InferError> {
    match name {
        "trace_level" => changes.on = level(said)?,
        "trace_rate" => changes.rate = number(name, said, 1)?,
        "trace_count" => {
            changes.count = match number::<i64>(name, said, -1)? {
                Change::Set(number) => Change::Set(u64::try_from(number).ok()),
                Change::Clear => Change::Clear,
                Change::Keep => Change::Keep,
            };
        }
        "log_frequency" => changes.log_frequency = number(name, said, 0)?,
        "trace_mode" if said.iter().all(|mode| mode == MODE) => (),
        "trace_mode" => {
            let what = format!("trace setting 'trace_mode' takes no other value than '{MODE}'");
            return Err(unsupported(what, "traces are sent to the collector that the operator named"));
        }
        "trace_file" if said.iter().all(|file| file.is_empty()) => (),
        "trace_file" => {
            let what = "trace setting 'trace_file' cannot be set: traces are not written to files".to_owned();
            return Err(unsupported(what, "the operator names a collector with --trace-endpoint"));
        }
        _ => {
            let name: String = name.chars().take(64).collect();
            return Err(InferError::invalid_hint(
                format!("unknown trace setting '{name}'"),
                "the settings are trace_level, trace_rate, trace_count, log_frequency and trace_mode",
            ));
        }
    }
    Ok(())
}

fn told(settings: TraceSettings) -> Told {
    let TraceSettings { on, rate, count, log_frequency } = settings;
    let one = |text: String| vec![text];
    [
        ("trace_file", one(String::new())),
        ("trace_level", one(if on { "TIMESTAMPS" } else { "OFF" }.into())),
        ("trace_rate", one(rate.to_string())),
        ("trace_count", one(count.map_or_else(|| "-1".to_owned(), |count| count.to_string()))),
        ("log_frequency", one(log_frequency.to_string())),
        ("trace_mode", one(MODE.into())),
    ]
}

impl Service {
    /// The settings in force of a model, or of all if it is empty, with `changes` made if there are any: all of them or,
    /// if one is wrong, none.
    ///
    /// # Errors
    /// The caller may not, the model is unknown, a change is not one, or nothing is traced here.
    pub(crate) fn trace_settings<'a>(
        &self,
        principal: &Principal,
        model: &str,
        changes: impl IntoIterator<Item = (&'a str, Said<'a>)>,
    ) -> Result<Told, InferError> {
        let mut said = changes.into_iter().peekable();
        let verb = if said.peek().is_some() { Verb::Admin } else { Verb::ReadServer };
        let model = self.traced_model(principal, verb, model)?;
        let Some(tracer) = &self.0.tracer else {
            if verb == Verb::ReadServer {
                return Ok(told(TraceSettings { on: false, rate: 1000, count: None, log_frequency: 0 }));
            }
            return Err(unsupported(
                "trace settings cannot be changed: this server sends no traces".into(),
                "the operator names a collector with --trace-endpoint",
            ));
        };
        let mut changes = TraceChanges::default();
        said.try_for_each(|(name, said)| take(&mut changes, name, &said))?;
        let settings = if verb == Verb::Admin {
            tracer.apply(model.as_ref(), changes).map_err(InferError::invalid)?
        } else {
            tracer.settings(model.as_ref())
        };
        Ok(told(settings))
    }

    /// Admits to the settings of a model that there is, whether it is in memory or not.
    pub(crate) fn traced_model(
        &self,
        principal: &Principal,
        verb: Verb,
        model: &str,
    ) -> Result<Option<ModelName>, InferError> {
        let name = if model.is_empty() { None } else { Some(model_name(model)?) };
        self.admit(principal, verb, name.as_ref())?;
        match &name {
            Some(wanted) if !self.0.router.models().iter().any(|row| row.name == *wanted) => {
                Err(InferError::UnknownModel { model: wanted.to_string() })
            }
            _ => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_core::Code;

    fn taken(name: &str, said: &[&'static str]) -> Result<TraceChanges, InferError> {
        let mut changes = TraceChanges::default();
        let said: Said<'_> = said.iter().map(|text| Cow::Borrowed(*text)).collect();
        take(&mut changes, name, &said).map(|()| changes)
    }

    #[test]
    fn what_fits_is_taken_and_nothing_clears() {
        let keep = TraceChanges::default();
        for (name, said, want) in [
            ("trace_level", &["TIMESTAMPS"][..], TraceChanges { on: Change::Set(true), ..keep }),
            ("trace_level", &["OFF"], TraceChanges { on: Change::Set(false), ..keep }),
            ("trace_level", &[], TraceChanges { on: Change::Clear, ..keep }),
            ("trace_rate", &["1"], TraceChanges { rate: Change::Set(1), ..keep }),
            ("trace_rate", &[], TraceChanges { rate: Change::Clear, ..keep }),
            ("trace_count", &["-1"], TraceChanges { count: Change::Set(None), ..keep }),
            ("trace_count", &["0"], TraceChanges { count: Change::Set(Some(0)), ..keep }),
            ("trace_count", &[], TraceChanges { count: Change::Clear, ..keep }),
            ("log_frequency", &["50"], TraceChanges { log_frequency: Change::Set(50), ..keep }),
            ("trace_mode", &["opentelemetry"], keep),
            ("trace_file", &[], keep),
        ] {
            assert_eq!(taken(name, said), Ok(want), "{name} {said:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_by_name() {
        for (name, said, code) in [
            ("trace_level", &["TENSORS"][..], Code::Unsupported),
            ("trace_level", &["TIMESTAMPS", "TENSORS"], Code::Unsupported),
            ("trace_level", &["MAX"], Code::InvalidArgument),
            ("trace_file", &["/etc/passwd"], Code::Unsupported),
            ("trace_mode", &["triton"], Code::Unsupported),
            ("trace_rate", &["0"], Code::InvalidArgument),
            ("trace_rate", &["-1"], Code::InvalidArgument),
            ("trace_rate", &["5", "6"], Code::InvalidArgument),
            ("trace_rate", &["99999999999"], Code::InvalidArgument),
            ("trace_count", &["-2"], Code::InvalidArgument),
            ("trace_count", &["many"], Code::InvalidArgument),
            ("log_frequency", &["1.5"], Code::InvalidArgument),
            ("trace_colour", &["red"], Code::InvalidArgument),
        ] {
            let error = taken(name, said).unwrap_err();
            assert_eq!(error.code(), code, "{name} {said:?}");
            assert!(error.to_string().contains(name) && !error.to_string().contains("passwd"), "{error}");
        }
    }
}
