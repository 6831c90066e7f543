//! The fields of one protobuf message, read in place.
//!
//! The generated types would make a structure of a hundred bytes out of two bytes on the wire; reading in place
//! makes nothing. Invariant: every slice given out lies inside the message.
//!
//! # Source
//! Protocol Buffers, "Encoding".
use prost::encoding::{WireType, decode_key, decode_varint};
use xebec_core::InferError;

/// What stands behind a field's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// Fields not read yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

pub(crate) fn malformed(what: impl std::fmt::Display) -> InferError {
    InferError::invalid(format!("the message is not a ModelInferRequest: {what}"))
}

impl<'a> Fields<'a> {
    /// The next field, or nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Content<'a>)>, InferError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, kind) = decode_key(&mut self.0).map_err(malformed)?;
        let content = match kind {
            WireType::Varint => Content::Varint(decode_varint(&mut self.0).map_err(malformed)?),
            WireType::ThirtyTwoBit => Content::Fixed32(self.fixed()?),
            WireType::SixtyFourBit => Content::Fixed64(self.fixed()?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).map_err(malformed)?;
                Content::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            WireType::StartGroup | WireType::EndGroup => return Err(malformed("it has a group")),
        };
        Ok(Some((number, content)))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], InferError> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| malformed("a field ends after the message"))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], InferError> {
        let split = self.0.split_at_checked(length);
        let (field, rest) = split.ok_or_else(|| malformed("a field ends after the message"))?;
        self.0 = rest;
        Ok(field)
    }
}

impl<'a> Content<'a> {
    /// A field that is bytes or a message.
    pub(crate) fn bytes(self) -> Result<&'a [u8], InferError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed("a field has the wrong wire type")),
        }
    }

    /// A field that is text.
    pub(crate) fn text(self) -> Result<&'a str, InferError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| malformed("a text is not UTF-8"))
    }
}

/// The numbers of a packed field.
pub(crate) fn varints(
    mut packed: &[u8],
    mut each: impl FnMut(u64) -> Result<(), InferError>,
) -> Result<(), InferError> {
    while !packed.is_empty() {
        each(decode_varint(&mut packed).map_err(malformed)?)?;
    }
    Ok(())
}
