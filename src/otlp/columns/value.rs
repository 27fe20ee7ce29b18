//! `KeyValue` and `AnyValue` as bytes: what key, what value, and the value as a cell or as JSON text.
//!
//! Encoders write a key and one value, and nothing else; that is the fast way. Everything else that protobuf allows is
//! read as protobuf says: of several keys the last counts, several values are one, whose last kind counts.

use std::borrow::Cow;

use super::super::fields::{Field, Fields, Value};
use super::super::json;
use super::Kind;

/// Values inside values that become JSON: more than the check lets pass.
const MAX_JSON_DEPTH: u32 = 32;

/// A cell.
#[derive(Debug, PartialEq)]
pub(in crate::otlp) enum Cell<'a> {
    Text(&'a [u8]),
    Num(i64),
    /// A value that is written as JSON.
    Json(&'a [u8]),
    /// A value of another kind.
    None,
}

/// Key and value of a `KeyValue`, the value being the body of an `AnyValue`. `None` if it is written in an odd way.
#[inline]
pub(in crate::otlp) fn plain_pair(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let &[0x0a, key_bytes @ ..0x80, ref rest @ ..] = pair else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(key_bytes))?;
    match *rest {
        [0x12, bytes @ ..0x80, ref value @ ..] if value.len() == usize::from(bytes) => Some((key, value)),
        [0x12, low @ 0x80..=0xff, high @ ..0x80, ref value @ ..]
            if value.len() == usize::from(low & 0x7f) | usize::from(high) << 7 =>
        {
            Some((key, value))
        }
        _ => None,
    }
}

/// As [`plain_pair`], however it is written.
#[cold]
pub(in crate::otlp) fn odd_pair(pair: &[u8]) -> (&[u8], Cow<'_, [u8]>) {
    let mut key: &[u8] = &[];
    let mut value = Cow::Borrowed(&[][..]);
    for field in Fields::of(pair) {
        match field {
            Field { number: 1, value: Value::Bytes(bytes), .. } => key = bytes,
            // The concatenation of messages is their merge.
            Field { number: 2, value: Value::Bytes(bytes), .. } if value.is_empty() => value = Cow::Borrowed(bytes),
            Field { number: 2, value: Value::Bytes(bytes), .. } => value.to_mut().extend_from_slice(bytes),
            _ => {}
        }
    }
    (key, value)
}

/// The cell of a value, the body of an `AnyValue`.
#[inline]
pub(super) fn cell(value: &[u8], kind: Kind) -> Cell<'_> {
    let last = if let [0x0a, bytes @ ..0x80, text @ ..] = value
        && text.len() == usize::from(*bytes)
    {
        Some((1, Value::Bytes(text)))
    } else {
        last_kind(value)
    };
    match (kind, last) {
        (Kind::Text | Kind::Bytes | Kind::Any, Some((1, Value::Bytes(text)))) => Cell::Text(text),
        (Kind::Bytes, Some((7, Value::Bytes(bytes)))) => Cell::Text(bytes),
        (Kind::Integer, Some((3, Value::Varint(number)))) => Cell::Num(number.cast_signed()),
        (Kind::Boolean, Some((2, Value::Varint(number)))) => Cell::Num(i64::from(number != 0)),
        (Kind::Double, Some((4, Value::Fixed64(bits)))) => Cell::Num(bits.cast_signed()),
        (Kind::Double, Some((3, Value::Varint(number)))) => {
            #[expect(clippy::cast_precision_loss, reason = "who asks for a floating point number gets one")]
            let double = number.cast_signed() as f64;
            Cell::Num(double.to_bits().cast_signed())
        }
        (Kind::Json | Kind::Any, _) => Cell::Json(value),
        _ => Cell::None,
    }
}

/// The last of the kinds that a value has: it is the one that counts.
fn last_kind(value: &[u8]) -> Option<(u32, Value<'_>)> {
    Fields::of(value).filter(is_kind).last().map(|field| (field.number, field.value))
}

fn is_kind(field: &Field<'_>) -> bool {
    (1..=7).contains(&field.number)
}

/// Appends a value, the body of an `AnyValue`, as JSON: bytes in base64, maps as objects, what JSON's numbers cannot say
/// in words.
pub(super) fn push_json(value: &[u8], depth: u32, out: &mut Vec<u8>) {
    let Some((number, last)) = last_kind(value).filter(|_| depth < MAX_JSON_DEPTH) else {
        return out.extend_from_slice(b"null");
    };
    match number {
        1 => json::json_text(&String::from_utf8_lossy(last.bytes()), out),
        2 => out.extend_from_slice(if last.number() == 0 { b"false" } else { b"true" }),
        3 => out.extend_from_slice(last.number().cast_signed().to_string().as_bytes()),
        4 => json::double(f64::from_bits(last.number()), out),
        5 => {
            out.push(b'[');
            for (index, element) in elements(value, 5).enumerate() {
                separate(index, out);
                push_json(element, depth + 1, out);
            }
            out.push(b']');
        }
        6 => {
            out.push(b'{');
            for (index, pair) in elements(value, 6).enumerate() {
                separate(index, out);
                let (key, value) = odd_pair(pair);
                json::json_text(&String::from_utf8_lossy(key), out);
                out.push(b':');
                push_json(&value, depth + 1, out);
            }
            out.push(b'}');
        }
        _ => json::base64(last.bytes(), out),
    }
}

fn separate(index: usize, out: &mut Vec<u8>) {
    if index > 0 {
        out.push(b',');
    }
}

/// The elements of the array or map that `value` is: of all fields `number` behind the last of another kind.
fn elements(value: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    let mut from = value;
    let mut rest = value;
    for field in Fields::of(value) {
        rest = &rest[field.raw.len()..];
        if is_kind(&field) && field.number != number {
            from = rest;
        }
    }
    Fields::of(from).each(number).flat_map(|list| Fields::of(list).each(1))
}
