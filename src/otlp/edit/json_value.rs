//! JSON text to the body of an `AnyValue`: objects become maps, arrays arrays, whole numbers integers where they fit in
//! 64 bits, all other numbers doubles, `null` a value of no kind.
//!
//! Nested no deeper than the check of a request allows at any place where a value may stand.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::super::check::MAX_DEPTH;
use super::super::writer::{push_bytes_field, push_varint};

/// Messages around the value of an attribute of a span, the deepest place that is edited.
const DEPTH: u32 = 6;

/// Appends the value that `json` says to `out`.
pub(super) fn encode(json: &[u8], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    ValueSeed { depth: DEPTH, out }.deserialize(&mut reader)?;
    reader.end()
}

/// Appends the fields of one `AnyValue`, which lies in `depth` messages.
struct ValueSeed<'a> {
    depth: u32,
    out: &'a mut Vec<u8>,
}

impl ValueSeed<'_> {
    /// The message of an array or map.
    fn nested<E: Error>(self, tag: u8, elements: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        if self.depth + 1 >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        message(tag, self.out, elements)
    }
}

/// Appends a message whose length is known only when it is written: the length is put behind it and turned to its front.
fn message<E>(tag: u8, out: &mut Vec<u8>, fields: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
    out.push(tag);
    let start = out.len();
    fields(out)?;
    let length = out.len() - start;
    push_varint(out, length as u64);
    let length_bytes = out.len() - start - length;
    out[start..].rotate_right(length_bytes);
    Ok(())
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.out.extend_from_slice(&[0x10, u8::from(value)]);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.out.push(0x18);
        push_varint(self.out, value.cast_unsigned());
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        #[expect(clippy::cast_precision_loss, reason = "what JSON's readers do with an integer that is too large")]
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.out.push(0x21);
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        push_bytes_field(self.out, 0x0a, text.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        let depth = self.depth + 2;
        self.nested(0x2a, |out| {
            // The length is that of an element that may not be there: written first, taken back at the end.
            loop {
                let before = out.len();
                let mut more = false;
                message(0x0a, out, |out| {
                    more = values.next_element_seed(ValueSeed { depth, out })?.is_some();
                    Ok(())
                })?;
                if !more {
                    out.truncate(before);
                    return Ok(());
                }
            }
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let depth = self.depth + 3;
        self.nested(0x32, |out| {
            while let Some(key) = object.next_key::<Cow<'_, str>>()? {
                message(0x0a, out, |out| {
                    push_bytes_field(out, 0x0a, key.as_bytes());
                    message(0x12, out, |out| object.next_value_seed(ValueSeed { depth, out }))
                })?;
            }
            Ok(())
        })
    }
}
