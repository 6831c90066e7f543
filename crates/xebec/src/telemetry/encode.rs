//! Messages of OTLP written as they are known, without values of their types in between: a traced call has ten spans, each
//! of several pieces of memory that would live for a moment.
//!
//! # Source
//! Protocol Buffers, "Encoding". The messages are those of `proto/otlp.proto`, whose types read them in tests.

/// Kinds of the encoding.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;

/// Bytes of messages. Fields of their default value are left out, as proto3 has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// What was written elsewhere.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn tag(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    pub(super) fn bytes(&mut self, field: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.present(field, bytes);
        }
    }

    /// Also if there are none.
    fn present(&mut self, field: u64, bytes: &[u8]) {
        self.tag(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(super) fn number(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.tag(field, VARINT);
            self.varint(number);
        }
    }

    pub(super) fn fixed64(&mut self, field: u64, number: u64) {
        if number != 0 {
            self.tag(field, FIXED64);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    pub(super) fn fixed32(&mut self, field: u64, number: u32) {
        if number != 0 {
            self.tag(field, FIXED32);
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A message that `write` writes; it is there also if it is empty.
    pub(super) fn message(&mut self, field: u64, write: impl FnOnce(&mut Self)) {
        self.tag(field, LENGTH);
        let at = self.0.len();
        // Most are short enough for a length of one byte; the others move.
        self.0.push(0);
        write(self);
        let length = self.0.len() - at - 1;
        if length < 0x80 {
            self.0[at] = length.to_le_bytes()[0];
            return;
        }
        let mut prefix = Self::default();
        prefix.varint(length as u64);
        self.0.splice(at..=at, prefix.0);
    }

    /// An attribute of a span or of a resource: field `field` of type KeyValue.
    fn attribute(&mut self, field: u64, key: &str, value: impl FnOnce(&mut Self)) {
        self.message(field, |pair| {
            pair.text(1, key);
            pair.message(2, value);
        });
    }

    pub(super) fn text_attribute(&mut self, field: u64, key: &str, value: &str) {
        // A text that is empty is one all the same.
        self.attribute(field, key, |any| any.present(1, value.as_bytes()));
    }

    pub(super) fn flag_attribute(&mut self, field: u64, key: &str, value: bool) {
        self.attribute(field, key, |any| {
            any.tag(2, VARINT);
            any.varint(value.into());
        });
    }

    /// A number; one that a signed number of 64 bits cannot hold is the largest that it can.
    pub(super) fn number_attribute(&mut self, field: u64, key: &str, value: impl TryInto<i64>) {
        let value = value.try_into().unwrap_or(i64::MAX);
        self.attribute(field, key, |any| {
            any.tag(3, VARINT);
            any.varint(value.cast_unsigned());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use xebec_net::wire::otlp::{AnyValue, KeyValue, Link, Span, any_value::Value};

    #[test]
    fn what_is_written_is_what_the_types_read() {
        let long = "x".repeat(20_000);
        let mut writer = Writer::default();
        writer.bytes(1, &[7; 16]);
        writer.text(5, "");
        writer.text(5, &long);
        writer.number(6, 2);
        writer.number(14, 300);
        writer.fixed64(7, u64::MAX);
        writer.fixed64(8, 0);
        writer.text_attribute(9, "text", &long);
        writer.text_attribute(9, "empty", "");
        writer.number_attribute(9, "number", -1_i64);
        writer.number_attribute(9, "large", u64::MAX);
        writer.flag_attribute(9, "flag", false);
        writer.message(13, |link| {
            link.bytes(2, &[1; 8]);
            link.fixed32(6, 0x101);
        });
        writer.message(13, |_| ());
        let pair = |key: &str, value: Value| KeyValue {
            key: key.into(),
            value: Some(AnyValue { value: Some(value) }),
        };
        let want = Span {
            trace_id: vec![7; 16].into(),
            name: long.clone(),
            kind: 2,
            start_time_unix_nano: u64::MAX,
            attributes: vec![
                pair("text", Value::StringValue(long)),
                pair("empty", Value::StringValue(String::new())),
                pair("number", Value::IntValue(-1)),
                pair("large", Value::IntValue(i64::MAX)),
                pair("flag", Value::BoolValue(false)),
            ],
            links: vec![
                Link { span_id: vec![1; 8].into(), flags: 0x101, ..Link::default() },
                Link::default(),
            ],
            dropped_links_count: 300,
            ..Span::default()
        };
        assert_eq!(Span::decode(writer.into_bytes().as_slice()).unwrap(), want);
    }
}
