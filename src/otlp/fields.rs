//! Reading the fields of one protobuf message, for whoever walks bytes that were checked when they came in.
//!
//! It borrows, allocates nothing and never panics; what is not well-formed ends the iteration, because the strict check
//! of a request happened before the log and its verdict is not repeated here. It knows no message type.

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0: integers, enums and booleans.
    Varint(u64),
    /// Wire type 1: `fixed64`, `sfixed64`, `double`.
    Fixed64(u64),
    /// Wire type 2: strings, bytes and messages.
    Bytes(&'a [u8]),
    /// Wire type 5: `fixed32`, `sfixed32`, `float`.
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited field, else none.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        if let Value::Bytes(bytes) = self { bytes } else { &[] }
    }

    /// The number of a varint or fixed field, else 0.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            Value::Varint(value) | Value::Fixed64(value) => value,
            Value::Fixed32(value) => u64::from(value),
            Value::Bytes(_) => 0,
        }
    }

    /// The text of a string field, else the empty string.
    #[must_use]
    pub fn text(self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Value<'a>,
    /// Key and value as they stand.
    pub raw: &'a [u8],
}

/// The fields of a message in the order of the wire.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The fields of the message with these bytes.
    #[must_use]
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    /// The last bytes value of field `number`; protobuf says that the last one counts.
    #[must_use]
    pub fn bytes(self, number: u32) -> Option<&'a [u8]> {
        self.each(number).last()
    }

    /// Every bytes value of field `number`.
    pub fn each(self, number: u32) -> impl Iterator<Item = &'a [u8]> {
        self.filter_map(move |field| match field.value {
            Value::Bytes(bytes) if field.number == number => Some(bytes),
            _ => None,
        })
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        // One byte or two is by far the most frequent: tags, lengths of spans, small numbers.
        match *self.0 {
            [first @ ..0x80, ref rest @ ..] => {
                self.0 = rest;
                Some(u64::from(first))
            }
            [first, second @ ..0x80, ref rest @ ..] => {
                self.0 = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => self.long_varint(),
        }
    }

    #[cold]
    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.0 = &self.0[index + 1..];
                return Some(value);
            }
        }
        None
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    // Called, it hands a field over in memory, and that costs as much as reading it.
    #[inline(always)]
    fn next(&mut self) -> Option<Field<'a>> {
        let whole = self.0;
        let tag = u32::try_from(self.varint()?).ok()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let bytes = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(bytes)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some(Field { number: tag >> 3, value, raw: &whole[..whole.len() - self.0.len()] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_is_read_and_damage_ends_the_walk() {
        let message = [
            [0x08, 0xac, 0x02].as_slice(),
            &[0x11, 1, 0, 0, 0, 0, 0, 0, 0],
            &[0x1a, 3, b'a', b'b', b'c'],
            &[0x25, 2, 0, 0, 0],
        ]
        .concat();
        let all: Vec<_> = Fields::of(&message).map(|field| (field.number, field.value)).collect();
        let expected =
            [(1, Value::Varint(300)), (2, Value::Fixed64(1)), (3, Value::Bytes(b"abc")), (4, Value::Fixed32(2))];
        assert_eq!(all, expected);
        for cut in 0..message.len() {
            assert!(Fields::of(&message[..cut]).count() < 4, "{cut} bytes of the message");
        }
        assert_eq!(Fields::of(&[0x0b, 0x0c]).count(), 0, "groups are not read");
        assert_eq!(Fields::of(&[0xff; 11]).count(), 0);
    }

    #[test]
    fn the_last_value_of_a_field_counts() {
        let message = [0x0a, 1, b'x', 0x12, 1, b'-', 0x0a, 1, b'y'];
        assert_eq!(Fields::of(&message).bytes(1), Some(b"y".as_slice()));
        assert_eq!(Fields::of(&message).each(1).count(), 2);
        assert_eq!(Fields::of(&message).bytes(9), None);
    }

    #[test]
    fn fields_lend_key_and_value() {
        let bytes = [0x08, 0x05, 0x12, 0x02, b'h', b'i', 0x1d, 1, 0, 0, 0];
        let fields: Vec<_> = Fields::of(&bytes).collect();
        assert_eq!(fields[0], Field { number: 1, value: Value::Varint(5), raw: &bytes[0..2] });
        assert_eq!(fields[1].value.text(), "hi");
        assert_eq!(fields[2].value.number(), 1);
        assert_eq!(fields.iter().map(|field| field.raw.len()).sum::<usize>(), bytes.len());
    }
}
