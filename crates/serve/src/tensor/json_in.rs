//! Numbers, flags and strings of JSON, straight into the bytes of a tensor.
//!
//! Arrays may be nested or flat; their elements count in order. Strict on overflow: what does not fit is named with
//! its place. A whole number may stand for a real one, not the other way round. Invariant: reading ends at the first
//! element that the shape has no place for.
use super::miscounted;
use crate::http::Reading;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;
use xebec_core::{Datatype, InferError, error::dims_text, tensor::element_count};

/// Room made at once where the length of the text is not known; more is made as elements come.
pub(crate) const UNKNOWN_BYTES: usize = 16 << 10;

/// Reads the data of one input.
#[derive(Clone, Copy)]
pub(crate) struct Seed<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: Datatype,
    pub(crate) shape: &'a [i64],
    pub(crate) reading: &'a Reading,
    /// Bytes of the text, or [`UNKNOWN_BYTES`].
    pub(crate) text_bytes: usize,
}

/// Elements read: little-endian, row-major.
struct Elements<'a> {
    seed: Seed<'a>,
    bytes: Vec<u8>,
    count: usize,
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Vec<u8>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u8>, D::Error> {
        let Self { name, datatype, shape, reading, text_bytes } = self;
        if matches!(datatype, Datatype::Fp16 | Datatype::Bf16) {
            return Err(reading.refuse(InferError::invalid_hint(
                format!("input '{name}': {datatype} has no JSON form"),
                "send it as binary tensor data",
            )));
        }
        // A shape that cannot be is refused by the model's own check, in its words.
        let most = element_count(shape).unwrap_or(usize::MAX);
        // Every element takes a sign and a comma.
        let room = most.min(text_bytes / 2).saturating_mul(datatype.size_bytes().unwrap_or(4));
        let mut elements = Elements { seed: self, bytes: Vec::with_capacity(room), count: 0, most };
        deserializer.deserialize_seq(Level { into: &mut elements, depth: reading.depth })?;
        if elements.count < most && most != usize::MAX {
            return Err(elements.miscounted());
        }
        Ok(elements.bytes)
    }
}

impl Elements<'_> {
    fn push<const N: usize, E: Error>(&mut self, bytes: [u8; N]) -> Result<(), E> {
        if self.count == self.most {
            self.count += 1;
            return Err(self.miscounted());
        }
        self.count += 1;
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    fn miscounted<E: Error>(&self) -> E {
        let Seed { name, shape, reading, .. } = self.seed;
        reading.refuse(miscounted(name, self.count, self.most, &dims_text(shape), "data"))
    }

    /// `why` is the word between the value and the datatype.
    fn misfit<E: Error>(&self, what: impl fmt::Display, why: &str) -> E {
        let Seed { name, datatype, reading, .. } = self.seed;
        let place = self.count;
        reading
            .refuse(InferError::invalid(format!("input '{name}' element {place}: {what} {why} {datatype}")))
    }

    /// A real number is told as it was written, not as it was understood.
    fn misfit_real<E: Error>(&self) -> E {
        let Seed { name, datatype, reading, .. } = self.seed;
        reading.refuse_number(name, self.count, datatype)
    }

    /// A whole number that fits neither a flag nor a real number's tensor.
    fn whole<T: Copy + fmt::Display, E: Error>(&mut self, value: T) -> Result<(), E>
    where
        i8: TryFrom<T>,
        i16: TryFrom<T>,
        i32: TryFrom<T>,
        i64: TryFrom<T>,
        u8: TryFrom<T>,
        u16: TryFrom<T>,
        u32: TryFrom<T>,
        u64: TryFrom<T>,
    {
        macro_rules! narrow {
            ($kind:ty) => {
                match <$kind>::try_from(value) {
                    Ok(narrow) => self.push(narrow.to_le_bytes()),
                    Err(_) => Err(self.misfit(value, "does not fit")),
                }
            };
        }
        match self.seed.datatype {
            Datatype::Int8 => narrow!(i8),
            Datatype::Int16 => narrow!(i16),
            Datatype::Int32 => narrow!(i32),
            Datatype::Int64 => narrow!(i64),
            Datatype::Uint8 => narrow!(u8),
            Datatype::Uint16 => narrow!(u16),
            Datatype::Uint32 => narrow!(u32),
            Datatype::Uint64 => narrow!(u64),
            Datatype::Bool => match u8::try_from(value) {
                Ok(flag @ (0 | 1)) => self.push([flag]),
                _ => Err(self.misfit(value, "is not")),
            },
            _ => Err(self.misfit(value, "is not")),
        }
    }
}

/// One array, or one element of one.
struct Level<'a, 'b> {
    into: &'b mut Elements<'a>,
    /// Levels that may still open.
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} for input '{}'", self.into.seed.datatype, self.into.seed.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| self.into.seed.reading.too_deep())?;
        while seq.next_element_seed(Level { into: &mut *self.into, depth })?.is_some() {}
        Ok(())
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding to the nearest is what is wanted")]
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.into.seed.datatype {
            Datatype::Fp32 if (value as f32).is_infinite() => Err(self.into.misfit_real()),
            Datatype::Fp32 => self.into.push((value as f32).to_le_bytes()),
            Datatype::Fp64 => self.into.push(value.to_le_bytes()),
            // JSON's -0 is a whole number, but serde_json knows no whole number below zero that is zero.
            _ if value == 0.0 && value.is_sign_negative() => self.into.whole(0u64),
            _ => Err(self.into.misfit_real()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a whole number stands for the nearest real one")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.into.seed.datatype {
            Datatype::Fp32 => self.into.push((value as f32).to_le_bytes()),
            Datatype::Fp64 => self.into.push((value as f64).to_le_bytes()),
            _ => self.into.whole(value),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a whole number stands for the nearest real one")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.into.seed.datatype {
            Datatype::Fp32 => self.into.push((value as f32).to_le_bytes()),
            Datatype::Fp64 => self.into.push((value as f64).to_le_bytes()),
            _ => self.into.whole(value),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.into.seed.datatype {
            Datatype::Bool => self.into.push([u8::from(value)]),
            _ => Err(self.into.misfit(value, "is not")),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        if self.into.seed.datatype != Datatype::Bytes {
            return Err(self.into.misfit("a string", "is not"));
        }
        let length =
            u32::try_from(value.len()).map_err(|_| self.into.misfit("a string of 4 GiB", "does not fit"))?;
        self.into.push(length.to_le_bytes())?;
        self.into.bytes.extend_from_slice(value.as_bytes());
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Err(self.into.misfit("null", "is not"))
    }
}
