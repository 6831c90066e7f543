//! Request parameters, with the meaning that both transports give them.
//!
//! What the protocol reserves is honoured or refused by name; a caller's own parameters mean nothing here.
use crate::memory::Slice;
use std::{borrow::Cow, time::Duration};
use xebec_core::{CorrelationId, InferError, SequenceMark};

/// Most inputs, and most requested outputs, of one request: more than any model has, and few enough that a request of
/// nothing but empty ones costs little.
pub(crate) const MOST_TENSORS: usize = 4096;

/// Most parameters of one object of them.
pub(crate) const MOST_PARAMETERS: usize = 256;

/// Most extents of a shape.
pub(crate) const MOST_AXES: usize = 256;

/// Most classes of an output: what is sorted and written as text is bounded by it.
const MOST_CLASSES: usize = 4096;
const CLASSES: &str = "a number of classes, at most 4096";

/// A day.
const MOST_AGE_MS: i64 = 86_400_000;

const PRIORITY: &str = "a whole number: 1 for the most urgent, 0 for the model's default";

/// Longest id of a sequence, as in Triton.
const MOST_ID_BYTES: usize = 128;

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Whole(i64),
    /// A real number, or nothing that a parameter of the protocol may be.
    Real,
    Text(Cow<'a, str>),
}

pub(crate) fn too_many(what: &str) -> InferError {
    InferError::invalid(format!("request has more than {MOST_TENSORS} {what}"))
}

/// Parameters of a whole request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RequestParameters {
    /// How long it may wait.
    pub(crate) timeout: Option<Duration>,
    /// How old it may be when its turn comes, in a stream.
    pub(crate) max_age: Option<Duration>,
    /// How urgent it is; 0 leaves that to the model.
    pub(crate) priority: u64,
    /// Whether outputs are binary unless they say otherwise.
    pub(crate) binary_output: bool,
    /// Whether the last answer to a message of a stream is to say that it is.
    pub(crate) final_response: bool,
    sequence_id: Option<CorrelationId>,
    sequence_start: bool,
    sequence_end: bool,
}

/// Parameters of one input or requested output.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TensorParameters {
    /// Bytes of the input after the JSON.
    pub(crate) binary_size: Option<usize>,
    /// Whether this output is binary.
    pub(crate) binary: Option<bool>,
    /// As how many classes this output is wanted; 0 means as it is.
    pub(crate) classes: usize,
    region: Option<String>,
    region_size: Option<u64>,
    region_offset: Option<u64>,
}

fn unsupported(what: impl Into<String>, hint: &str) -> InferError {
    InferError::Unsupported { what: what.into(), hint: Some(hint.to_owned()) }
}

fn bytes(name: &str, value: &Value<'_>) -> Result<u64, InferError> {
    match value {
        Value::Whole(bytes) => u64::try_from(*bytes).map_err(|_| wrong(name, "a number of bytes")),
        _ => Err(wrong(name, "a number of bytes")),
    }
}

fn wrong(name: &str, wants: &str) -> InferError {
    InferError::invalid(format!("parameter '{name}' must be {wants}"))
}

impl RequestParameters {
    /// Refuses what has a meaning in a stream alone.
    pub(crate) fn check_alone(&self) -> Result<(), InferError> {
        if self.max_age.is_none() {
            return Ok(());
        }
        Err(unsupported(
            "parameter 'max_age_ms' is for messages of a stream (ModelStreamInfer)",
            "write timeout, in microseconds",
        ))
    }

    /// The request's place in a sequence, if it is of one.
    pub(crate) fn sequence(&self) -> Option<SequenceMark> {
        let id = self.sequence_id.clone()?;
        Some(SequenceMark { id, start: self.sequence_start, end: self.sequence_end })
    }

    /// Takes one parameter in.
    pub(crate) fn take(&mut self, name: &str, value: &Value<'_>) -> Result<(), InferError> {
        match (name, value) {
            ("binary_data_output", Value::Bool(binary)) => self.binary_output = *binary,
            ("binary_data_output", _) => return Err(wrong(name, "true or false")),
            ("timeout", Value::Whole(microseconds)) => {
                let microseconds =
                    u64::try_from(*microseconds).map_err(|_| wrong(name, "a number of microseconds"))?;
                self.timeout = (microseconds > 0).then(|| Duration::from_micros(microseconds));
            }
            ("triton_enable_empty_final_response", Value::Bool(wanted)) => self.final_response = *wanted,
            ("triton_enable_empty_final_response", _) => return Err(wrong(name, "true or false")),
            ("timeout", _) => return Err(wrong(name, "a number of microseconds")),
            ("max_age_ms", Value::Whole(milliseconds)) if (1..=MOST_AGE_MS).contains(milliseconds) => {
                self.max_age = Some(Duration::from_millis(milliseconds.unsigned_abs()));
            }
            ("max_age_ms", _) => return Err(wrong(name, "a number of milliseconds, from 1 to 86400000")),
            ("priority", Value::Whole(level)) => {
                self.priority = u64::try_from(*level).map_err(|_| wrong(name, PRIORITY))?;
            }
            ("priority", _) => return Err(wrong(name, PRIORITY)),
            ("headers", _) => {
                return Err(unsupported(
                    "parameter 'headers' is not offered by this version",
                    "leave it out: no header of a request reaches a model",
                ));
            }
            ("sequence_id", Value::Whole(id)) => {
                // Ids of 64 bits that are above the signed ones come as negative numbers.
                let id = id.cast_unsigned();
                self.sequence_id = (id > 0).then_some(CorrelationId::Number(id));
            }
            ("sequence_id", Value::Text(id)) if id.len() > MOST_ID_BYTES => {
                return Err(wrong(name, "a number or a text of at most 128 bytes"));
            }
            ("sequence_id", Value::Text(id)) => {
                self.sequence_id = (!id.is_empty()).then(|| CorrelationId::Text(id.as_ref().into()));
            }
            ("sequence_id", _) => return Err(wrong(name, "a number or a text of at most 128 bytes")),
            ("sequence_start", Value::Bool(start)) => self.sequence_start = *start,
            ("sequence_end", Value::Bool(end)) => self.sequence_end = *end,
            ("sequence_start" | "sequence_end", _) => return Err(wrong(name, "true or false")),
            _ if name.starts_with("triton_") => {
                return Err(InferError::invalid_hint(
                    format!("parameter keys starting with 'triton_' are reserved for Triton usage: '{name}'"),
                    "give it another name",
                ));
            }
            _ => (),
        }
        Ok(())
    }
}

impl TensorParameters {
    /// Takes one parameter in.
    pub(crate) fn take(&mut self, name: &str, value: &Value<'_>) -> Result<(), InferError> {
        match (name, value) {
            ("binary_data_size", Value::Whole(size)) => {
                self.binary_size =
                    Some(usize::try_from(*size).map_err(|_| wrong(name, "a number of bytes"))?);
            }
            ("binary_data_size", _) => return Err(wrong(name, "a number of bytes")),
            ("binary_data", Value::Bool(binary)) => self.binary = Some(*binary),
            ("binary_data", _) => return Err(wrong(name, "true or false")),
            ("classification", Value::Whole(classes)) => {
                let classes = usize::try_from(*classes).ok().filter(|classes| *classes <= MOST_CLASSES);
                self.classes = classes.ok_or_else(|| wrong(name, CLASSES))?;
            }
            ("classification", _) => return Err(wrong(name, CLASSES)),
            ("shared_memory_region", Value::Text(region)) => self.region = Some(region.clone().into_owned()),
            ("shared_memory_region", _) => return Err(wrong(name, "the name of a region")),
            ("shared_memory_byte_size", value) => self.region_size = Some(bytes(name, value)?),
            ("shared_memory_offset", value) => self.region_offset = Some(bytes(name, value)?),
            _ => (),
        }
        Ok(())
    }

    /// Where in shared memory the tensor `tensor` is, if it is there.
    pub(crate) fn slice(&mut self, tensor: &str) -> Result<Option<Slice>, InferError> {
        let lacks = |what: &str| InferError::invalid(format!("'{tensor}' has no parameter '{what}'"));
        let (size, offset) = (self.region_size, self.region_offset);
        match (self.region.take(), size) {
            (None, None) if offset.is_none() => Ok(None),
            (None, _) => Err(lacks("shared_memory_region")),
            (Some(_), None) => Err(lacks("shared_memory_byte_size")),
            (Some(region), Some(byte_size)) => {
                Ok(Some(Slice { region, offset: offset.unwrap_or(0), byte_size }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xebec_core::Code;

    #[test]
    fn what_is_not_offered_is_refused_by_name_and_what_means_nothing_is_not() {
        let mut parameters = RequestParameters::default();
        for (name, value) in [("headers", Value::Text("x".into())), ("headers", Value::Real)] {
            let error = parameters.take(name, &value).unwrap_err();
            assert_eq!(error.code(), Code::Unsupported, "{name}");
            assert!(error.to_string().contains(name));
        }
        assert_eq!(parameters.take("triton_x", &Value::Whole(1)).unwrap_err().code(), Code::InvalidArgument);
        for (name, value) in
            [("sequence_id", Value::Whole(0)), ("priority", Value::Whole(0)), ("my_own", Value::Real)]
        {
            parameters.take(name, &value).unwrap();
        }
        assert_eq!(parameters, RequestParameters::default());
    }

    #[test]
    fn a_priority_is_a_whole_number() {
        let mut parameters = RequestParameters::default();
        parameters.take("priority", &Value::Whole(2)).unwrap();
        assert_eq!(parameters.priority, 2);
        for value in [Value::Whole(-1), Value::Real, Value::Text("9".into()), Value::Bool(true)] {
            assert_eq!(parameters.take("priority", &value).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn a_timeout_is_in_microseconds_and_zero_means_none() {
        let mut parameters = RequestParameters::default();
        parameters.take("timeout", &Value::Whole(1500)).unwrap();
        assert_eq!(parameters.timeout, Some(Duration::from_micros(1500)));
        parameters.take("timeout", &Value::Whole(0)).unwrap();
        assert_eq!(parameters.timeout, None);
        assert!(parameters.take("timeout", &Value::Whole(-1)).is_err());
    }
}
