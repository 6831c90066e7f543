//! Header compression: blocks become fields.
//!
//! What is sent is never put into a table: our heads are a few bytes, the same each time, and the peer keeps nothing.
//! Invariants: the table never holds more than [`TABLE_BYTES`]; a block is read to its end whatever its fields are, since
//! later blocks mean what earlier ones left in the table.
//!
//! # Source
//! RFC 7541.
use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use std::{collections::VecDeque, sync::LazyLock};

mod huffman;

/// The table that we grant a peer: what every peer may assume.
pub(super) const TABLE_BYTES: u32 = 4096;

/// What a block begins with to say that it, and all behind it, use no table of the peer's (sections 4.2 and 6.3).
pub(super) const NO_TABLE: [u8; 1] = [0x20];

/// What text of a field may take between two blocks.
const KEPT_BYTES: usize = 1 << 10;

/// What a field costs beside its text (section 4.1).
const FIELD_COST_BYTES: usize = 32;

/// The block breaks the rules of the compression: nobody knows what later blocks mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// What a field is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    /// A header.
    Plain(HeaderName),
    /// No request may have it: it has capitals, is no word, or begins with a colon and is none of the above.
    Wrong,
}

impl Name {
    fn parse(name: &[u8]) -> Self {
        match name {
            b":method" => Self::Method,
            b":scheme" => Self::Scheme,
            b":authority" => Self::Authority,
            b":path" => Self::Path,
            _ => HeaderName::from_lowercase(name).map_or(Self::Wrong, Self::Plain),
        }
    }
}

/// A field of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Name,
    /// None if it has bytes that no value may have.
    pub(crate) value: Option<HeaderValue>,
    /// What it counts for in a table and in a list.
    pub(crate) bytes: usize,
    name_bytes: usize,
}

impl Field {
    fn new(name: Name, name_bytes: usize, value: &[u8]) -> Self {
        let bytes = name_bytes + value.len() + FIELD_COST_BYTES;
        let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)).ok();
        Self { name, value, bytes, name_bytes }
    }
}

/// Reads the blocks of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest first.
    table: VecDeque<Field>,
    table_bytes: usize,
    /// What the peer wants the table to hold at most.
    most_bytes: usize,
    changes: u64,
    text: Vec<u8>,
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            table: VecDeque::new(),
            table_bytes: 0,
            most_bytes: TABLE_BYTES as usize,
            changes: 0,
            text: Vec::new(),
        }
    }

    /// Counts what has become of the table: while it stays, equal blocks mean the same.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Reads a block whole and hands over its fields.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub(crate) fn decode(&mut self, mut block: &[u8], mut take: impl FnMut(&Field)) -> Result<(), Malformed> {
        let mut fields = false;
        while let Some(first) = block.first().copied() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7)?;
                take(self.field(index)?);
            } else if first & 0xe0 == 0x20 {
                // The size changes before the first field or not at all (section 4.2).
                let most = integer(&mut block, 5)?;
                if fields || most > TABLE_BYTES as usize {
                    return Err(Malformed);
                }
                self.most_bytes = most;
                self.changes += 1;
                self.make_room(0);
                continue;
            } else {
                let kept = first & 0x40 != 0;
                let field = self.literal(&mut block, if kept { 6 } else { 4 })?;
                take(&field);
                if kept {
                    self.keep(field);
                }
            }
            fields = true;
        }
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        Ok(())
    }

    fn field(&self, index: usize) -> Result<&Field, Malformed> {
        let place = index.checked_sub(1).ok_or(Malformed)?;
        let field = match place.checked_sub(STATIC.len()) {
            None => STATIC.get(place),
            Some(place) => self.table.get(place),
        };
        field.ok_or(Malformed)
    }

    fn literal(&mut self, block: &mut &[u8], bits: u32) -> Result<Field, Malformed> {
        let index = integer(block, bits)?;
        let (name, bytes) = if index == 0 {
            let name = text(block, &mut self.text)?;
            (Name::parse(name), name.len())
        } else {
            let named = self.field(index)?;
            (named.name.clone(), named.name_bytes)
        };
        Ok(Field::new(name, bytes, text(block, &mut self.text)?))
    }

    fn keep(&mut self, field: Field) {
        self.changes += 1;
        self.make_room(field.bytes);
        // One that is larger than the table empties it and is not kept (section 4.4).
        if field.bytes <= self.most_bytes {
            self.table_bytes += field.bytes;
            self.table.push_front(field);
        }
    }

    fn make_room(&mut self, bytes: usize) {
        while self.table_bytes + bytes > self.most_bytes
            && let Some(oldest) = self.table.pop_back()
        {
            self.table_bytes -= oldest.bytes;
        }
    }
}

/// A number whose beginning is the last `bits` of the first byte (section 5.1).
fn integer(block: &mut &[u8], bits: u32) -> Result<usize, Malformed> {
    let most = (1usize << bits) - 1;
    let mut number = usize::from(take(block)?) & most;
    if number < most {
        return Ok(number);
    }
    // Four bytes more are beyond every limit.
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(take(block)?);
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Malformed)
}

fn take(block: &mut &[u8]) -> Result<u8, Malformed> {
    let (first, rest) = block.split_first().ok_or(Malformed)?;
    *block = rest;
    Ok(*first)
}

/// A text of the block (section 5.2), put into `space`.
fn text<'a>(block: &mut &[u8], space: &'a mut Vec<u8>) -> Result<&'a [u8], Malformed> {
    let packed = block.first().ok_or(Malformed)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Malformed)?;
    *block = rest;
    space.clear();
    if packed {
        huffman::decode(text, space)?;
    } else {
        space.extend_from_slice(text);
    }
    Ok(space)
}

/// Adds a field that is kept in no table.
pub(crate) fn put(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    block.push(0);
    for text in [name.as_bytes(), value] {
        put_integer(block, text.len());
        block.extend_from_slice(text);
    }
}

fn put_integer(block: &mut Vec<u8>, mut number: usize) {
    const MOST: usize = 0x7f;
    let low = |number: usize| u8::try_from(number & MOST).unwrap_or_default();
    if number < MOST {
        return block.push(low(number));
    }
    block.push(0x7f);
    number -= MOST;
    while number > MOST {
        block.push(low(number) | 0x80);
        number >>= 7;
    }
    block.push(low(number));
}

/// Fields that every peer knows (appendix A).
static STATIC: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let field =
        |(name, value): (&str, &str)| Field::new(Name::parse(name.as_bytes()), name.len(), value.as_bytes());
    WITH_VALUES.into_iter().chain(NAMES.map(|name| (name, ""))).map(field).collect()
});

const WITH_VALUES: [(&str, &str); 16] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
];

const NAMES: [&str; 45] = [
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

#[cfg(test)]
mod tests;
