//! The identities of traces and spans, and how they are written.
//!
//! # Source
//! W3C, "Trace Context", sections 3.2 (traceparent) and 3.3 (tracestate).
use std::{
    fmt,
    num::{NonZeroU64, NonZeroU128},
};

/// Longest state that is carried on; the recommendation asks for at least this much.
const STATE_BYTES: usize = 512;

/// Identity of a trace; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(NonZeroU128);

/// Identity of a span; never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

impl TraceId {
    /// Of a number other than zero.
    pub fn new(number: u128) -> Option<Self> {
        NonZeroU128::new(number).map(Self)
    }

    /// As it stands on the wire.
    pub fn bytes(self) -> [u8; 16] {
        self.0.get().to_be_bytes()
    }
}

impl SpanId {
    /// Of a number other than zero.
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// As it stands on the wire.
    pub fn bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span, and the trace that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

/// What a caller said of the trace that its call belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The span that the call is made from.
    pub span: SpanContext,
    /// Whether the caller records that trace.
    pub sampled: bool,
    /// Its `tracestate`, carried on as it is.
    pub state: Option<Box<str>>,
}

impl Parent {
    /// Reads `traceparent`. What is not one counts as none, as the recommendation has it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (version, trace, span, flags) =
            (text.get(..2)?, text.get(3..35)?, text.get(36..52)?, text.get(53..55)?);
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        let version = hex(version).and_then(|version| u8::try_from(version).ok())?;
        // A later version may have more behind another dash; version 0 has not.
        let end = match (version, text.get(55)) {
            (0xff, _) => false,
            (_, None) => true,
            (0, Some(_)) => false,
            (_, Some(next)) => *next == b'-',
        };
        if !dashes || !end {
            return None;
        }
        let trace = TraceId::new(hex(trace)?)?;
        let span = SpanId::new(u64::try_from(hex(span)?).ok()?)?;
        Some(Self { span: SpanContext { trace, span }, sampled: hex(flags)? & 1 == 1, state: None })
    }

    /// Takes `tracestate`, in the one or several pieces that it came in; one that is too long is dropped whole.
    #[must_use]
    pub fn with_state<'a>(mut self, pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut state = String::new();
        for piece in pieces {
            let printed = piece.iter().all(|byte| matches!(byte, 0x20..=0x7e));
            let (true, Ok(piece)) = (printed, std::str::from_utf8(piece.trim_ascii())) else { return self };
            let comma = if state.is_empty() || piece.is_empty() { "" } else { "," };
            if state.len() + comma.len() + piece.len() > STATE_BYTES {
                return self;
            }
            state.push_str(comma);
            state.push_str(piece);
        }
        self.state = (!state.is_empty()).then(|| state.into());
        self
    }
}

/// Digits of hexadecimal numbers, in lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_its_ids_are_written_as_they_came() {
        let parent = Parent::parse(VALID.as_bytes()).unwrap();
        assert_eq!(parent.span.trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(parent.span.span.to_string(), "b7ad6b7169203331");
        assert!(parent.sampled);
        assert_eq!(parent.span.trace.bytes()[..2], [0x0a, 0xf7]);
        assert!(!Parent::parse(VALID.replace("-01", "-fe").as_bytes()).unwrap().sampled);
        let later = format!("cc{}-what-comes", &VALID[2..]);
        assert!(Parent::parse(later.as_bytes()).is_some(), "a later version");
    }

    #[test]
    fn what_is_no_traceparent_counts_as_none() {
        let zero_trace = VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32));
        let zero_span = VALID.replace("b7ad6b7169203331", &"0".repeat(16));
        for text in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID} "),
            &VALID.to_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &VALID.replacen("00", "0g", 1),
            &VALID.replace('-', "_"),
            &format!("cc{}x", &VALID[2..]),
            &zero_trace,
            &zero_span,
        ] {
            assert_eq!(Parent::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_state_is_carried_on_and_one_that_is_too_long_or_broken_is_dropped() {
        let parent = Parent::parse(VALID.as_bytes()).unwrap();
        let with = |pieces: &[&[u8]]| parent.clone().with_state(pieces.iter().copied()).state;
        assert_eq!(with(&[b"a=1", b" b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[&[b'x'; 513]]), None);
        assert_eq!(with(&[&[b'x'; 512]]).map(|state| state.len()), Some(512));
        // The comma between two pieces is part of it.
        assert_eq!(with(&[&[b'x'; 255], &[b'y'; 256]]).map(|state| state.len()), Some(512));
        assert_eq!(with(&[&[b'x'; 256], &[b'y'; 256]]), None);
        assert_eq!(with(&[b"a=1\n"]), None);
    }
}
