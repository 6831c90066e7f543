//! What all parts of the JSON reader share: the depth, the fault that ended it, keys and what is skipped.
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::{cell::RefCell, fmt};
use xebec_core::{Datatype, InferError};

/// How far around a syntax error a word is looked for that explains it, in bytes.
const NEAR_BYTES: usize = 16;

/// One reading of one body.
#[derive(Debug)]
pub(crate) struct Reading {
    /// How deep arrays and objects may be nested.
    pub(crate) depth: usize,
    /// A fault of ours, which serde's errors could carry only as text.
    fault: RefCell<Option<Fault>>,
}

#[derive(Debug)]
enum Fault {
    Told(InferError),
    Number(Misfit),
}

/// A real number that is no element of its tensor. The reader knows only its value: how it was written is looked up
/// in the text.
#[derive(Debug)]
struct Misfit {
    input: String,
    element: usize,
    datatype: Datatype,
}

impl Misfit {
    fn told(&self, literal: &str) -> InferError {
        let Self { input, element, datatype } = self;
        let real = matches!(datatype, Datatype::Fp32 | Datatype::Fp64);
        let whole = literal.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
        let why = if real || whole && !matches!(datatype, Datatype::Bytes | Datatype::Bool) {
            "does not fit"
        } else {
            "is not"
        };
        let literal: String = literal.chars().take(40).collect();
        InferError::invalid(format!("input '{input}' element {element}: {literal} {why} {datatype}"))
    }
}

impl Reading {
    pub(crate) fn new(depth: usize) -> Self {
        Self { depth, fault: RefCell::new(None) }
    }

    /// Ends the reading with a fault of ours.
    pub(crate) fn refuse<E: Error>(&self, fault: InferError) -> E {
        self.fault.replace(Some(Fault::Told(fault)));
        E::custom("refused")
    }

    /// Ends the reading at a real number that is no element of its tensor.
    pub(crate) fn refuse_number<E: Error>(&self, input: &str, element: usize, datatype: Datatype) -> E {
        self.fault.replace(Some(Fault::Number(Misfit { input: input.to_owned(), element, datatype })));
        E::custom("refused")
    }

    pub(crate) fn too_deep<E: Error>(&self) -> E {
        self.refuse(InferError::invalid(format!(
            "the request JSON is nested deeper than {} levels",
            self.depth
        )))
    }

    /// Why the reading ended: the fault of ours, or what is wrong with the text.
    pub(crate) fn explain(&self, error: &serde_json::Error, json: &[u8]) -> InferError {
        match self.fault.take() {
            Some(Fault::Told(fault)) => return fault,
            Some(Fault::Number(misfit)) => return misfit.told(number_before(json, error)),
            None => {}
        }
        let message = format!("failed to parse the request JSON: {error}");
        match hint(json, error, &message) {
            Some(hint) => InferError::invalid_hint(message, hint),
            None => InferError::invalid(message),
        }
    }
}

/// The way out of a syntax error, where there is one.
fn hint(json: &[u8], error: &serde_json::Error, message: &str) -> Option<&'static str> {
    if !error.is_syntax() {
        return None;
    }
    // serde_json has no other way to tell which one it was.
    if message.contains("hex escape") {
        return Some(
            "\\ud800 to \\udfff stand only in pairs; send strings that are not Unicode as binary tensor data",
        );
    }
    if message.contains("unicode code point") {
        return Some("JSON is UTF-8; send strings in another encoding as binary tensor data");
    }
    let not_a_number = near(json, error).is_some_and(|text| has(text, b"NaN") || has(text, b"Inf"));
    not_a_number.then_some("JSON has no NaN and no Infinity: send the tensor as binary data")
}

/// The number that ends where the error is.
fn number_before<'j>(json: &'j [u8], error: &serde_json::Error) -> &'j str {
    let line = error.line().checked_sub(1).and_then(|line| json.split(|byte| *byte == b'\n').nth(line));
    let read = line.and_then(|line| line.get(..error.column().min(line.len()))).unwrap_or_default();
    let of_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let end = read.iter().rposition(of_number).map_or(0, |last| last + 1);
    let start = read[..end].iter().rposition(|byte| !of_number(byte)).map_or(0, |before| before + 1);
    std::str::from_utf8(&read[start..end]).unwrap_or_default()
}

/// The text around the place of an error.
fn near<'j>(json: &'j [u8], error: &serde_json::Error) -> Option<&'j [u8]> {
    let line = json.split(|byte| *byte == b'\n').nth(error.line().checked_sub(1)?)?;
    let start = error.column().saturating_sub(NEAR_BYTES).min(line.len());
    line.get(start..error.column().saturating_add(NEAR_BYTES).min(line.len()))
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// The keys of one object: each known one at most once, for two readers might else read two things.
pub(crate) struct Keys<'r> {
    reading: &'r Reading,
    known: &'static [&'static str],
    seen: u32,
}

impl<'r> Keys<'r> {
    pub(crate) fn new(reading: &'r Reading, known: &'static [&'static str]) -> Self {
        Self { reading, known, seen: 0 }
    }

    /// The next known key; what is not known is skipped.
    pub(crate) fn next<'de, A: MapAccess<'de>>(
        &mut self,
        map: &mut A,
    ) -> Result<Option<&'static str>, A::Error> {
        while let Some(key) = map.next_key_seed(Key(self.known))? {
            let Some((place, name)) = key else {
                // The object itself, and what holds it, are not counted: they are the protocol's own.
                map.next_value_seed(Skip { reading: self.reading, depth: self.reading.depth })?;
                continue;
            };
            if self.seen & (1 << place) != 0 {
                return Err(self
                    .reading
                    .refuse(InferError::invalid(format!("'{name}' stands twice in one object"))));
            }
            self.seen |= 1 << place;
            return Ok(Some(name));
        }
        Ok(None)
    }
}

struct Key(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(usize, &'static str)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(usize, &'static str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().copied().enumerate().find(|(_, known)| *known == key))
    }
}

/// Skips a value, but not one that is nested too deep.
#[derive(Clone, Copy)]
pub(crate) struct Skip<'r> {
    pub(crate) reading: &'r Reading,
    /// Levels that may still open.
    pub(crate) depth: usize,
}

impl Skip<'_> {
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| self.reading.too_deep())?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Skip<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Skip<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while seq.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(below)?;
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}
