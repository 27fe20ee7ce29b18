//! Writes protobuf by hand: OTLP items without a tree of structs in between.
//!
//! [`Writer`] is a scratch for one item (a span or log record), kept by the thread that encodes: it is written front to
//! back, every length is known before its bytes, so all lengths are minimal. Messages that are still growing (resource
//! and scope wrappers) get a length of fixed width instead, see [`open_message`]: a varint padded with continuation bits,
//! which protobuf allows. Does not check that texts are UTF-8: callers hand over bytes that were checked.

/// Bytes of the longest attribute key.
pub const MAX_KEY_BYTES: usize = 60;

/// Bytes that a fixed-size copy may write beyond the end of what counts.
const SLACK: usize = 64;

/// Bytes of the longest text that [`Writer::short_text_attribute`] takes: all lengths around it fit one byte.
pub const MAX_SHORT_BYTES: usize = 60;

/// Bytes of a short attribute at most: two of its head, a key, and its value with the lengths and tags in front of it.
const SHORT_BYTES: usize = 2 + 64 + 3 + 64;

/// Bytes of a padded length: enough for two megabytes, twice the size of a block.
const PADDED_BYTES: usize = 3;

/// An attribute's key, encoded once: the first field of a `KeyValue` and the tag of its second.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    bytes: [u8; 64],
    len: usize,
}

impl Key {
    /// Encodes `name`, at most [`MAX_KEY_BYTES`] long.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the length is checked to be at most 60")]
    pub const fn new(name: &str) -> Key {
        let name = name.as_bytes();
        assert!(name.len() <= MAX_KEY_BYTES, "an attribute key is longer than its fixed room");
        let mut bytes = [0u8; 64];
        bytes[0] = 0x0a; // KeyValue.key
        bytes[1] = name.len() as u8;
        let mut at = 0;
        while at < name.len() {
            bytes[2 + at] = name[at];
            at += 1;
        }
        bytes[2 + name.len()] = 0x12; // KeyValue.value
        Key { bytes, len: name.len() + 3 }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.bytes[2..self.len - 1]).expect("made from a str")
    }
}

/// A scratch that one item is written to.
#[derive(Debug)]
pub struct Writer {
    /// Always [`SLACK`] longer than what is written; bytes from `at` on have no meaning.
    bytes: Vec<u8>,
    at: usize,
}

impl Writer {
    /// A writer that grows beyond `capacity` bytes only when an item does.
    #[must_use]
    pub fn new(capacity: usize) -> Writer {
        Writer { bytes: vec![0; capacity + SLACK], at: 0 }
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.at = 0;
    }

    /// What was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// Appends bytes as they are.
    #[inline]
    pub fn raw<const N: usize>(&mut self, bytes: [u8; N]) {
        self.reserve(N);
        self.bytes[self.at..self.at + N].copy_from_slice(&bytes);
        self.at += N;
    }

    /// A field of wire type 1: `tag` and eight bytes.
    #[inline]
    pub fn fixed64_field(&mut self, tag: u8, value: u64) {
        self.raw([tag]);
        self.raw(value.to_le_bytes());
    }

    /// A length-delimited field of bytes or text.
    #[inline]
    pub fn bytes_field(&mut self, tag: u8, value: &[u8]) {
        self.raw([tag]);
        self.varint(value.len() as u64);
        self.append(value);
    }

    /// A text attribute under `tag`, the tag of the repeated `KeyValue` field. `value` is UTF-8.
    #[inline]
    pub fn text_attribute(&mut self, tag: u8, key: &Key, value: &[u8]) {
        let any_bytes = 1 + varint_bytes(value.len() as u64) + value.len();
        let pair_bytes = key.len + varint_bytes(any_bytes as u64) + any_bytes;
        self.raw([tag]);
        self.varint(pair_bytes as u64);
        self.key(key);
        self.varint(any_bytes as u64);
        self.bytes_field(0x0a, value); // AnyValue.string_value
    }

    /// A text attribute whose value is the first `bytes` (at most [`MAX_SHORT_BYTES`]) of `window`, UTF-8; what lies behind
    /// them does not matter. Two moves of a fixed size cost less than a call and a length that nobody can predict.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a short text has at most 60 bytes")]
    pub fn short_text_attribute(&mut self, tag: u8, key: &Key, window: &[u8; 64], bytes: usize) {
        debug_assert!(bytes <= MAX_SHORT_BYTES);
        let rest = self.short_pair(tag, key, 2 + bytes);
        rest[1] = 0x0a; // AnyValue.string_value
        rest[2] = bytes as u8;
        rest[3..67].copy_from_slice(window);
        self.at += 3 + bytes;
    }

    /// An integer attribute.
    #[inline]
    pub fn int_attribute(&mut self, tag: u8, key: &Key, value: i64) {
        let value = value.cast_unsigned();
        let value_bytes = varint_bytes(value);
        let rest = self.short_pair(tag, key, 1 + value_bytes);
        rest[1] = 0x18; // AnyValue.int_value
        if value < 1 << 56 {
            rest[2..10].copy_from_slice(&short_varint(value, value_bytes).to_le_bytes());
            self.at += 2 + value_bytes;
        } else {
            self.at += 2;
            self.varint(value);
        }
    }

    /// A floating-point attribute.
    #[inline]
    pub fn double_attribute(&mut self, tag: u8, key: &Key, value: f64) {
        let rest = self.short_pair(tag, key, 9);
        rest[1] = 0x21; // AnyValue.double_value
        rest[2..10].copy_from_slice(&value.to_bits().to_le_bytes());
        self.at += 10;
    }

    /// A boolean attribute.
    pub fn bool_attribute(&mut self, tag: u8, key: &Key, value: bool) {
        self.pair_head(tag, key, 2);
        self.raw([0x10, u8::from(value)]); // AnyValue.bool_value
    }

    /// An attribute whose `AnyValue` is the `N` given bytes; returns where they begin.
    pub fn encoded_attribute<const N: usize>(&mut self, tag: u8, key: &Key, any_value: [u8; N]) -> usize {
        self.pair_head(tag, key, N);
        let at = self.at;
        self.raw(any_value);
        at
    }

    /// The head of a pair whose value is short: all lengths fit one byte.
    #[inline]
    fn pair_head(&mut self, tag: u8, key: &Key, any_bytes: usize) {
        self.short_pair(tag, key, any_bytes);
        self.at += 1;
    }

    /// Writes a pair whose value is short up to its value; what is returned begins with the value's length, which is
    /// written but not counted. One look at the room for all of it.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a key has at most 63 bytes, a short value at most 63")]
    fn short_pair(&mut self, tag: u8, key: &Key, any_bytes: usize) -> &mut [u8; 67] {
        debug_assert!(any_bytes < 64);
        self.reserve(SHORT_BYTES);
        let room: &mut [u8; SHORT_BYTES] =
            self.bytes[self.at..].first_chunk_mut().expect("room was reserved for as many");
        room[0] = tag;
        room[1] = (key.len + 1 + any_bytes) as u8;
        room[2..66].copy_from_slice(&key.bytes);
        self.at += 2 + key.len;
        let rest: &mut [u8; 67] = room[2 + key.len..].first_chunk_mut().expect("a key leaves room for a value");
        rest[0] = any_bytes as u8;
        rest
    }

    /// Copies a key with one fixed-size move; what lies behind its end is overwritten by what follows.
    #[inline]
    fn key(&mut self, key: &Key) {
        self.reserve(SLACK);
        self.bytes[self.at..self.at + 64].copy_from_slice(&key.bytes);
        self.at += key.len;
    }

    #[inline]
    fn append(&mut self, value: &[u8]) {
        self.reserve(value.len());
        self.bytes[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
    }

    /// Appends a varint.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
    pub fn varint(&mut self, mut value: u64) {
        self.reserve(10);
        let mut at = self.at;
        while value >= 0x80 {
            self.bytes[at] = value as u8 | 0x80;
            value >>= 7;
            at += 1;
        }
        self.bytes[at] = value as u8;
        self.at = at + 1;
    }

    #[inline]
    fn reserve(&mut self, bytes: usize) {
        if self.bytes.len() < self.at + bytes + SLACK {
            self.grow(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, bytes: usize) {
        let wanted = self.at + bytes + SLACK;
        self.bytes.resize(wanted.max(self.bytes.len() * 2), 0);
    }
}

/// Bytes that `value` takes as a varint.
#[inline]
#[must_use]
pub fn varint_bytes(value: u64) -> usize {
    // One byte for every seven significant bits, and at least one: 9 * bits / 64 rounds as the division by 7 does.
    ((value | 1).ilog2() as usize * 9 + 73) / 64
}

/// The varint of a value below 2^56, which takes `bytes` bytes, the first in the lowest.
///
/// Groups of seven bits are spread to bytes by halves: a loop over them would end where nobody can predict.
#[inline]
fn short_varint(value: u64, bytes: usize) -> u64 {
    let halves = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
    let quarters = halves & 0x0000_3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
    let spread = quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
    let more = 0x8080_8080_8080_8080 & !(u64::MAX << (8 * (bytes - 1)));
    spread | more
}

/// Begins a message that will grow inside `out`: `tag` and room for its length. Returns what [`close_message`] wants.
#[must_use]
pub fn open_message(out: &mut Vec<u8>, tag: u8) -> usize {
    out.push(tag);
    let at = out.len();
    out.extend_from_slice(&[0; PADDED_BYTES]);
    at
}

/// Ends the message begun at `at`: everything behind its length belongs to it.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub fn close_message(out: &mut [u8], at: usize) {
    let bytes = out.len() - at - PADDED_BYTES;
    assert!(bytes < 1 << (7 * PADDED_BYTES), "a message of {bytes} bytes does not fit its padded length");
    out[at] = bytes as u8 | 0x80;
    out[at + 1] = (bytes >> 7) as u8 | 0x80;
    out[at + 2] = (bytes >> 14) as u8;
}

/// Appends a length-delimited field to a growing message.
pub fn push_bytes_field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    push_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a text attribute to a growing message.
pub fn push_text_attribute(out: &mut Vec<u8>, tag: u8, key: &Key, value: &[u8]) {
    let any_bytes = 1 + varint_bytes(value.len() as u64) + value.len();
    out.push(tag);
    push_varint(out, (key.len + varint_bytes(any_bytes as u64) + any_bytes) as u64);
    out.extend_from_slice(&key.bytes[..key.len]);
    push_varint(out, any_bytes as u64);
    push_bytes_field(out, 0x0a, value);
}

/// Appends an integer attribute to a growing message.
pub fn push_int_attribute(out: &mut Vec<u8>, tag: u8, key: &Key, value: i64) {
    let value = value.cast_unsigned();
    let any_bytes = 1 + varint_bytes(value);
    out.push(tag);
    push_varint(out, (key.len + 1 + any_bytes) as u64);
    out.extend_from_slice(&key.bytes[..key.len]);
    push_varint(out, any_bytes as u64);
    out.push(0x18); // AnyValue.int_value
    push_varint(out, value);
}

/// Appends a varint.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(super) fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_by_halves_is_that_of_the_loop() {
        let edges = (0..56).flat_map(|bit| [1u64 << bit, (1 << bit) - 1, 0x00aa_5533_0ff1_27b9 >> bit]);
        for value in edges.chain([(1 << 56) - 1, 300]) {
            let mut slow = Writer::new(0);
            slow.varint(value);
            let bytes = varint_bytes(value);
            assert_eq!(short_varint(value, bytes).to_le_bytes()[..bytes], *slow.as_bytes(), "{value:#x}");
        }
    }

    #[test]
    fn a_short_text_is_written_like_any_other() {
        let window: [u8; 64] = std::array::from_fn(|at| b'a' + u8::try_from(at % 26).unwrap());
        for key in ["", "k", &"k".repeat(MAX_KEY_BYTES)] {
            let key = Key::new(key);
            for bytes in 0..=MAX_SHORT_BYTES {
                let (mut short, mut any) = (Writer::new(0), Writer::new(0));
                short.short_text_attribute(0x4a, &key, &window, bytes);
                any.text_attribute(0x4a, &key, &window[..bytes]);
                assert_eq!(short.as_bytes(), any.as_bytes());
            }
        }
    }
    use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    #[test]
    fn the_size_of_a_varint_is_what_is_written() {
        let mut writer = Writer::new(0);
        for bits in 0..64 {
            for value in [1u64 << bits, (1u64 << bits) - 1, u64::MAX >> bits] {
                writer.clear();
                writer.varint(value);
                assert_eq!(writer.len(), varint_bytes(value), "{value}");
                let mut bytes = writer.as_bytes();
                assert_eq!(prost::encoding::decode_varint(&mut bytes).unwrap(), value);
            }
        }
    }

    #[test]
    fn an_independent_decoder_reads_what_is_written() {
        let (short, long) = (Key::new("k"), Key::new(&"k".repeat(MAX_KEY_BYTES)));
        let texts = ["", "x", &"y".repeat(127), &"z".repeat(20_000)];
        let mut writer = Writer::new(16);
        for key in [&short, &long] {
            for text in texts {
                writer.text_attribute(0x4a, key, text.as_bytes());
            }
            for value in [0, 1, -1, i64::MIN, i64::MAX] {
                writer.int_attribute(0x4a, key, value);
            }
            writer.double_attribute(0x4a, key, 0.3);
            writer.bool_attribute(0x4a, key, true);
        }
        let span = Span::decode(writer.as_bytes()).unwrap();
        let mut expected = Vec::new();
        for key in [&short, &long] {
            let values = texts.iter().map(|text| Value::StringValue((*text).to_owned()));
            let values = values.chain([0, 1, -1, i64::MIN, i64::MAX].map(Value::IntValue));
            let values = values.chain([Value::DoubleValue(0.3), Value::BoolValue(true)]);
            expected.extend(values.map(|value| (key.name().to_owned(), value)));
        }
        assert_eq!(span.attributes.into_iter().map(pair).collect::<Vec<_>>(), expected);
        // Written minimally: an independent encoder gives the same bytes.
        assert_eq!(Span::decode(writer.as_bytes()).unwrap().encode_to_vec(), writer.as_bytes());
    }

    #[test]
    fn a_growing_message_gets_its_length_in_the_end() {
        let mut out = b"prefix".to_vec();
        let at = open_message(&mut out, 0x0a);
        push_text_attribute(&mut out, 0x0a, &Key::new("host.name"), "h".repeat(300).as_bytes());
        for number in [0, 35, -1, i64::MAX] {
            push_int_attribute(&mut out, 0x0a, &Key::new("number"), number);
        }
        close_message(&mut out, at);
        let mut rest = &out[6..];
        let tag = prost::encoding::decode_varint(&mut rest).unwrap();
        let resource = Resource::decode_length_delimited(rest).unwrap();
        let numbers = [0, 35, -1, i64::MAX].map(|number| ("number".to_owned(), Value::IntValue(number)));
        assert_eq!((tag, resource.attributes.len()), (0x0a, 5));
        assert_eq!(resource.attributes.into_iter().skip(1).map(pair).collect::<Vec<_>>(), numbers);
    }

    fn pair(pair: KeyValue) -> (String, Value) {
        (pair.key, pair.value.unwrap().value.unwrap())
    }
}
