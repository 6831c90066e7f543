//! Typed contents of gRPC (`InferTensorContents`) to bytes, straight from the message.
//!
//! Invariant: no more elements are made than the shape says.
use crate::grpc::fields::{Content, Fields, malformed, varints};
use bytes::Bytes;
use xebec_core::{Datatype, InferError, error::dims_text, tensor::element_count};

/// The tensor that contents belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: Datatype,
    pub(crate) shape: &'a [i64],
}

/// The fields of `InferTensorContents`, by number.
const FIELDS: [&str; 9] = [
    "",
    "bool_contents",
    "int_contents",
    "int64_contents",
    "uint_contents",
    "uint64_contents",
    "fp32_contents",
    "fp64_contents",
    "bytes_contents",
];

const fn field_of(datatype: Datatype) -> Option<u32> {
    Some(match datatype {
        Datatype::Bool => 1,
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => 2,
        Datatype::Int64 => 3,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => 4,
        Datatype::Uint64 => 5,
        Datatype::Fp32 => 6,
        Datatype::Fp64 => 7,
        Datatype::Bytes => 8,
        Datatype::Fp16 | Datatype::Bf16 => return None,
    })
}

fn name_of(field: u32) -> &'static str {
    FIELDS.get(field as usize).copied().unwrap_or_default()
}

/// The bytes of typed contents, which lie in `message`. Narrow integers travel in 32 bits and are checked.
pub(crate) fn bytes(wanted: &Wanted<'_>, contents: &[u8], message: &Bytes) -> Result<Bytes, InferError> {
    let Wanted { name, datatype, shape } = *wanted;
    let field = field_of(datatype).ok_or_else(|| {
        InferError::invalid_hint(
            format!("input '{name}': {datatype} has no typed contents in gRPC"),
            "send it in raw_input_contents",
        )
    })?;
    let mut elements =
        Elements { wanted, most: element_count(shape).unwrap_or(usize::MAX), count: 0, bytes: Vec::new() };
    let mut fields = Fields(contents);
    while let Some((number, content)) = fields.next()? {
        match content {
            _ if number != field && (1..FIELDS.len()).contains(&(number as usize)) => {
                return Err(InferError::invalid_hint(
                    format!("input '{name}' of {datatype} has its elements in {}", name_of(number)),
                    format!("put them into {}", name_of(field)),
                ));
            }
            _ if number != field => (),
            // Numbers of fixed width are packed as they are wanted: the usual single block stays where it is.
            Content::Bytes(block) if matches!(field, 6 | 7) && fields.0.is_empty() && elements.count == 0 => {
                elements.block(block)?;
                elements.complete()?;
                return Ok(message.slice_ref(block));
            }
            content => elements.field(content)?,
        }
    }
    elements.complete()?;
    Ok(elements.bytes.into())
}

struct Elements<'a> {
    wanted: &'a Wanted<'a>,
    most: usize,
    count: usize,
    bytes: Vec<u8>,
}

impl Elements<'_> {
    fn field(&mut self, content: Content<'_>) -> Result<(), InferError> {
        let width = self.wanted.datatype.size_bytes();
        match (content, width) {
            (Content::Bytes(element), None) => self.string(element),
            (Content::Bytes(block), Some(_)) if self.is_real() => {
                self.block(block)?;
                self.bytes.extend_from_slice(block);
                Ok(())
            }
            (Content::Bytes(block), Some(width)) => {
                // A number takes at least one byte of the block.
                self.bytes
                    .reserve(self.most.saturating_sub(self.count).min(block.len()).saturating_mul(width));
                varints(block, |number| self.number(number))
            }
            (Content::Varint(number), Some(_)) if !self.is_real() => self.number(number),
            (Content::Fixed32(bytes), Some(4)) if self.is_real() => self.push(&bytes),
            (Content::Fixed64(bytes), Some(8)) if self.is_real() => self.push(&bytes),
            _ => Err(malformed("contents have the wrong wire type")),
        }
    }

    fn is_real(&self) -> bool {
        matches!(self.wanted.datatype, Datatype::Fp32 | Datatype::Fp64)
    }

    /// Counts a packed block of numbers of fixed width.
    fn block(&mut self, block: &[u8]) -> Result<(), InferError> {
        let width = self.wanted.datatype.size_bytes().unwrap_or(1);
        if !block.len().is_multiple_of(width) {
            return Err(malformed("a packed field ends inside a number"));
        }
        self.count += block.len() / width;
        if self.count > self.most { Err(self.miscounted()) } else { Ok(()) }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), InferError> {
        if self.count == self.most {
            self.count += 1;
            return Err(self.miscounted());
        }
        self.count += 1;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn string(&mut self, element: &[u8]) -> Result<(), InferError> {
        let length = u32::try_from(element.len()).map_err(|_| malformed("an element has 4 GiB or more"))?;
        self.push(&length.to_le_bytes())?;
        self.bytes.extend_from_slice(element);
        Ok(())
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "protobuf: 32-bit fields are the low half of their varint"
    )]
    fn number(&mut self, number: u64) -> Result<(), InferError> {
        let (signed, unsigned) = ((number as u32).cast_signed(), number as u32);
        let misfit = |value: &dyn std::fmt::Display, count| {
            let Wanted { name, datatype, .. } = self.wanted;
            InferError::invalid(format!("input '{name}' element {count}: {value} does not fit {datatype}"))
        };
        match self.wanted.datatype {
            Datatype::Bool => self.push(&[u8::from(number != 0)]),
            Datatype::Int8 => {
                let narrow = i8::try_from(signed).map_err(|_| misfit(&signed, self.count))?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int16 => {
                let narrow = i16::try_from(signed).map_err(|_| misfit(&signed, self.count))?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Uint8 => {
                let narrow = u8::try_from(unsigned).map_err(|_| misfit(&unsigned, self.count))?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Uint16 => {
                let narrow = u16::try_from(unsigned).map_err(|_| misfit(&unsigned, self.count))?;
                self.push(&narrow.to_le_bytes())
            }
            Datatype::Int32 | Datatype::Uint32 => self.push(&unsigned.to_le_bytes()),
            _ => self.push(&number.to_le_bytes()),
        }
    }

    /// Whether there are as many as the shape says. A shape that cannot be is left to the model's own check.
    fn complete(&self) -> Result<(), InferError> {
        if self.most == usize::MAX || self.count == self.most { Ok(()) } else { Err(self.miscounted()) }
    }

    fn miscounted(&self) -> InferError {
        let Wanted { name, shape, .. } = self.wanted;
        crate::tensor::miscounted(name, self.count, self.most, &dims_text(shape), "contents")
    }
}
