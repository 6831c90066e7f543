//! An object of parameters in JSON.
use super::reading::{Reading, Skip};
use crate::parameters::{MOST_PARAMETERS, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::{borrow::Cow, fmt};
use xebec_core::InferError;

/// Reads an object of parameters and gives each to a function that may refuse it.
pub(super) struct Parameters<'r, F> {
    pub(super) reading: &'r Reading,
    pub(super) take: F,
}

impl<'de, F: FnMut(&str, &Value<'_>) -> Result<(), InferError>> DeserializeSeed<'de> for Parameters<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(&str, &Value<'_>) -> Result<(), InferError>> Visitor<'de> for Parameters<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of parameters")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value_seed(ValueSeed(self.reading))?;
            once(&seen, &name)
                .and_then(|()| (self.take)(&name, &value))
                .map_err(|fault| self.reading.refuse::<A::Error>(fault))?;
            seen.push(name);
        }
        Ok(())
    }
}

/// Refuses a name that has come before: of the two one would be ignored, and another reader might ignore the other.
fn once(seen: &[Cow<'_, str>], name: &str) -> Result<(), InferError> {
    if seen.len() == MOST_PARAMETERS {
        return Err(InferError::invalid(format!("an object has more than {MOST_PARAMETERS} parameters")));
    }
    if seen.iter().any(|known| known == name) {
        let name: String = name.chars().take(64).collect();
        return Err(InferError::invalid(format!("parameter '{name}' stands twice in one object")));
    }
    Ok(())
}

/// One value. What no parameter of the protocol may be is skipped, not kept.
struct ValueSeed<'r>(&'r Reading);

impl ValueSeed<'_> {
    fn inside(&self) -> Skip<'_> {
        Skip { reading: self.0, depth: self.0.depth }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a parameter")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value<'de>, E> {
        Ok(Value::Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Whole(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Real)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Real)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value<'de>, A::Error> {
        self.inside().visit_seq(seq).map(|()| Value::Real)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value<'de>, A::Error> {
        self.inside().visit_map(map).map(|()| Value::Real)
    }
}
