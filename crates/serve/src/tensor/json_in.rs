//! Numbers, flags and strings of JSON, straight into the bytes of a tensor.
//!
//! Arrays may be nested or flat; their elements count in order. Strict on overflow: what does not fit is named with
//! its place. A whole number may stand for a real one, not the other way round.
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use xebec_core::Datatype;

/// Elements read.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    /// Little-endian, row-major.
    pub(crate) bytes: Vec<u8>,
    /// How many.
    pub(crate) count: usize,
}

/// Reads the data of one input.
#[derive(Clone, Copy)]
pub(crate) struct Seed<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: Datatype,
    /// How deep arrays may be nested.
    pub(crate) depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Elements;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Elements, D::Error> {
        let mut into = Elements::default();
        if matches!(self.datatype, Datatype::Fp16 | Datatype::Bf16) {
            return Err(D::Error::custom(format!(
                "input '{}': {} has no form in JSON; send it as binary data",
                self.name, self.datatype
            )));
        }
        Level { seed: self, into: &mut into, depth: self.depth }.deserialize(deserializer)?;
        Ok(into)
    }
}

struct Level<'a, 'b> {
    seed: Seed<'a>,
    into: &'b mut Elements,
    /// Levels that may still open.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Level<'_, '_> {
    fn push<const N: usize>(self, bytes: [u8; N]) {
        self.into.bytes.extend_from_slice(&bytes);
        self.into.count += 1;
    }

    fn misfit<E: Error>(&self, what: impl fmt::Display, why: &str) -> E {
        let Seed { name, datatype, .. } = self.seed;
        E::custom(format!("input '{name}' element {}: {what} {why} {datatype}", self.into.count))
    }

    fn whole<E: Error>(self, value: i128) -> Result<(), E> {
        macro_rules! narrow {
            ($kind:ty) => {
                match <$kind>::try_from(value) {
                    Ok(narrow) => self.push(narrow.to_le_bytes()),
                    Err(_) => return Err(self.misfit(value, "does not fit")),
                }
            };
        }
        match self.seed.datatype {
            #[expect(clippy::cast_precision_loss, reason = "a whole number stands for the nearest real one")]
            Datatype::Fp32 => self.push((value as f32).to_le_bytes()),
            #[expect(clippy::cast_precision_loss, reason = "a whole number stands for the nearest real one")]
            Datatype::Fp64 => self.push((value as f64).to_le_bytes()),
            Datatype::Int8 => narrow!(i8),
            Datatype::Int16 => narrow!(i16),
            Datatype::Int32 => narrow!(i32),
            Datatype::Int64 => narrow!(i64),
            Datatype::Uint8 => narrow!(u8),
            Datatype::Uint16 => narrow!(u16),
            Datatype::Uint32 => narrow!(u32),
            Datatype::Uint64 => narrow!(u64),
            Datatype::Bool if value == 0 || value == 1 => self.push([u8::from(value == 1)]),
            _ => return Err(self.misfit(value, "is not")),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "elements of {}", self.seed.datatype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some(depth) = self.depth.checked_sub(1) else {
            return Err(A::Error::custom(format!("input '{}': arrays are nested too deep", self.seed.name)));
        };
        while seq.next_element_seed(Level { seed: self.seed, into: &mut *self.into, depth })?.is_some() {}
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.seed.datatype {
            Datatype::Fp64 => self.push(value.to_le_bytes()),
            Datatype::Fp32 => {
                #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
                let narrow = value as f32;
                if narrow.is_infinite() {
                    return Err(self.misfit(value, "does not fit"));
                }
                self.push(narrow.to_le_bytes());
            }
            _ => return Err(self.misfit(value, "is not")),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.whole(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.whole(value.into())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.seed.datatype {
            Datatype::Bool => self.push([u8::from(value)]),
            _ => return Err(self.misfit(value, "is not")),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.seed.datatype != Datatype::Bytes {
            return Err(self.misfit("a string", "is not"));
        }
        let length = u32::try_from(value.len()).map_err(|_| self.misfit("a string of 4 GiB", "does not fit"))?;
        self.into.bytes.extend_from_slice(&length.to_le_bytes());
        self.into.bytes.extend_from_slice(value.as_bytes());
        self.into.count += 1;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.misfit("null", "is not"))
    }
}
