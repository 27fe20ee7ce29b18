//! One decoded row: the values of its known fields, before anything is made of them.
//!
//! Values are small and plain; texts are ranges of the line, or of the row's own arena where they had escapes. A row is
//! reused for the next line, so nothing here allocates once warm. Reading is lenient by field: a number may be written as
//! text, a value that is not what the field holds is as good as absent and is counted. The last of two values wins.

use super::fields::{FIELD_COUNT, FIELDS, Role};

/// Words of a set of fields.
pub(crate) const SET_WORDS: usize = FIELD_COUNT.div_ceil(64);

/// A set of fields, a bit each.
pub(crate) type FieldSet = [u64; SET_WORDS];

/// A value as the sender wrote it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    /// Text: a range of the line.
    Text { start: u32, bytes: u32 },
    /// Text that had escapes: a range of the arena.
    Unescaped { start: u32, bytes: u32 },
    /// A whole number.
    Int(i64),
    /// Any other number.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// Nothing, said explicitly.
    Null,
    /// An object or array.
    Nested,
}

/// A value as it is stored: what it is, and its bits. Written and read as two plain words: an enum would be written in
/// pieces and read whole, and the processor waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    what: What,
    bits: u64,
}

/// What a stored value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum What {
    Text,
    Unescaped,
    Int,
    Double,
    Bool,
    Null,
    Nested,
    Unread,
}

impl Packed {
    /// A range of the line: a text when it has a quote on either side, else what is to be read later. Looked up, because
    /// nobody can predict which.
    #[inline]
    pub(crate) fn range(quotes: usize, start: u32, bytes: u32) -> Packed {
        Packed { what: [What::Unread, What::Text][quotes], bits: range_bits(start, bytes) }
    }

    /// A whole number.
    #[inline]
    pub(crate) fn of_int(number: i64) -> Packed {
        Packed { what: What::Int, bits: number.cast_unsigned() }
    }

    /// Any other number.
    #[inline]
    pub(crate) fn of_double(number: f64) -> Packed {
        Packed { what: What::Double, bits: number.to_bits() }
    }

    /// The range of a value that is to be read later.
    #[inline]
    pub(crate) fn unread(self) -> Option<(usize, usize)> {
        let (start, bytes) = range_of(self.bits);
        (self.what == What::Unread).then_some((start as usize, bytes as usize))
    }

    /// A whole number that was sent as one.
    #[inline]
    pub(crate) fn int(self) -> Option<i64> {
        (self.what == What::Int).then_some(self.bits.cast_signed())
    }

    /// A finite number that was sent as one.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is a statistic")]
    pub(crate) fn number(self) -> Option<f64> {
        match self.what {
            What::Int => Some(self.bits.cast_signed() as f64),
            What::Double => Some(f64::from_bits(self.bits)).filter(|number| number.is_finite()),
            _ => None,
        }
    }

    /// The range of a text of the line.
    #[inline]
    pub(crate) fn text(self) -> Option<(usize, usize)> {
        let (start, bytes) = range_of(self.bits);
        (self.what == What::Text).then_some((start as usize, bytes as usize))
    }

    /// Whether it is an object or array.
    #[inline]
    pub(crate) fn is_nested(self) -> bool {
        self.what == What::Nested
    }

    #[inline]
    fn value(self) -> Value {
        let (start, bytes) = range_of(self.bits);
        match self.what {
            What::Text => Value::Text { start, bytes },
            What::Unescaped => Value::Unescaped { start, bytes },
            What::Int => Value::Int(self.bits.cast_signed()),
            What::Double => Value::Double(f64::from_bits(self.bits)),
            What::Bool => Value::Bool(self.bits != 0),
            What::Null => Value::Null,
            What::Nested | What::Unread => Value::Nested,
        }
    }
}

impl From<Value> for Packed {
    #[inline]
    fn from(value: Value) -> Packed {
        let (what, bits) = match value {
            Value::Text { start, bytes } => (What::Text, range_bits(start, bytes)),
            Value::Unescaped { start, bytes } => (What::Unescaped, range_bits(start, bytes)),
            Value::Int(number) => (What::Int, number.cast_unsigned()),
            Value::Double(number) => (What::Double, number.to_bits()),
            Value::Bool(value) => (What::Bool, u64::from(value)),
            Value::Null => (What::Null, 0),
            Value::Nested => (What::Nested, 0),
        };
        Packed { what, bits }
    }
}

#[inline]
fn range_bits(start: u32, bytes: u32) -> u64 {
    u64::from(start) << 32 | u64::from(bytes)
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the two halves of a word")]
fn range_of(bits: u64) -> (u32, u32) {
    ((bits >> 32) as u32, bits as u32)
}

/// The places of the bits of a word, the lowest first.
#[inline]
pub(crate) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        let any = word != 0;
        word &= word.wrapping_sub(1);
        any.then_some(bit)
    })
}

/// The values of one row.
#[derive(Debug)]
pub(crate) struct Row {
    present: FieldSet,
    whats: [What; FIELD_COUNT],
    bits: [u64; FIELD_COUNT],
    /// Texts that had escapes.
    pub arena: Vec<u8>,
    /// Fields that are not in the table.
    pub unknown: u32,
}

impl Row {
    pub(crate) fn new() -> Row {
        Row {
            present: [0; SET_WORDS],
            whats: [What::Null; FIELD_COUNT],
            bits: [0; FIELD_COUNT],
            arena: Vec::with_capacity(4096),
            unknown: 0,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.present = [0; SET_WORDS];
        self.arena.clear();
        self.unknown = 0;
    }

    /// Sets a field, whatever it was before.
    #[inline]
    pub(crate) fn set(&mut self, field: usize, value: impl Into<Packed>) {
        let Packed { what, bits } = value.into();
        self.present[field / 64] |= 1 << (field % 64);
        self.whats[field] = what;
        self.bits[field] = bits;
    }

    /// Whether a field was set.
    #[inline]
    pub(crate) fn has(&self, field: usize) -> bool {
        self.present[field / 64] & (1 << (field % 64)) != 0
    }

    /// The fields that were set.
    pub(crate) fn present(&self) -> FieldSet {
        self.present
    }

    /// The field whose text a place of the line lies in, and its range.
    pub(crate) fn text_at(&self, at: usize) -> Option<(usize, (usize, usize))> {
        let fields = self.present.iter().enumerate().flat_map(|(word, set)| bits(*set).map(move |bit| word * 64 + bit));
        let texts = fields.filter_map(|field| Some((field, self.packed(field).text()?)));
        texts.into_iter().find(|(_, (start, bytes))| (*start..start + bytes).contains(&at))
    }

    /// The value of a field that was set.
    #[inline]
    pub(crate) fn packed(&self, field: usize) -> Packed {
        Packed { what: self.whats[field], bits: self.bits[field] }
    }

    /// Copies a text to the arena. Control characters, which only escapes can bring in, become U+FFFD.
    pub(crate) fn keep(&mut self, text: &str) -> Value {
        let start = self.arena.len();
        for part in text.split_inclusive(is_unwanted) {
            let kept = part.strip_suffix(is_unwanted);
            self.arena.extend_from_slice(kept.unwrap_or(part).as_bytes());
            if kept.is_some() {
                self.arena.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.kept_since(start)
    }

    /// The text that was appended to the arena since it was `start` bytes long.
    pub(crate) fn kept_since(&self, start: usize) -> Value {
        let bytes = self.arena.len() - start;
        match (u32::try_from(start), u32::try_from(bytes)) {
            (Ok(start), Ok(bytes)) => Value::Unescaped { start, bytes },
            _ => Value::Nested,
        }
    }
}

/// Whether a character of an escaped text is replaced: C0 controls but tab and line ends, which real texts have.
pub(crate) fn is_unwanted(c: char) -> bool {
    c < ' ' && !matches!(c, '\t' | '\n' | '\r')
}

/// A row together with the line that its texts are in.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// The values.
    pub row: &'a Row,
    /// The line; UTF-8 wherever a text of the row points.
    pub line: &'a [u8],
}

impl<'a> View<'a> {
    /// The fields of the row.
    pub(crate) fn present(self) -> FieldSet {
        self.row.present
    }

    /// The value of a field; an explicit null is none.
    #[inline]
    pub(crate) fn value(self, field: usize) -> Option<Value> {
        let packed = self.row.packed(field);
        (self.row.has(field) && packed.what != What::Null).then(|| packed.value())
    }

    /// A text field's bytes, empty or not.
    #[inline]
    pub(crate) fn text(self, field: usize) -> Option<&'a [u8]> {
        self.value(field).and_then(|value| self.text_of(value))
    }

    #[inline]
    pub(crate) fn text_of(self, value: Value) -> Option<&'a [u8]> {
        match value {
            Value::Text { start, bytes } => self.line.get(start as usize..start as usize + bytes as usize),
            Value::Unescaped { start, bytes } => self.row.arena.get(start as usize..start as usize + bytes as usize),
            _ => None,
        }
    }

    /// A whole number, perhaps written as `1000.0` or `"1000"`.
    #[inline]
    pub(crate) fn int(self, field: usize) -> Option<i64> {
        self.value(field).and_then(|value| self.int_of(value))
    }

    #[inline]
    pub(crate) fn int_of(self, value: Value) -> Option<i64> {
        match value {
            Value::Int(value) => Some(value),
            Value::Double(value) => whole(value),
            text @ (Value::Text { .. } | Value::Unescaped { .. }) => self.text_of(text).and_then(int_in_text),
            _ => None,
        }
    }

    /// A finite number, perhaps written as text.
    #[inline]
    pub(crate) fn double(self, field: usize) -> Option<f64> {
        self.value(field).and_then(|value| self.double_of(value))
    }

    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is a statistic")]
    pub(crate) fn double_of(self, value: Value) -> Option<f64> {
        match value {
            Value::Int(value) => Some(value as f64),
            Value::Double(value) => value.is_finite().then_some(value),
            text @ (Value::Text { .. } | Value::Unescaped { .. }) => self.text_of(text).and_then(double_in_text),
            _ => None,
        }
    }

    /// A truth value, perhaps written as text or as 0 or 1.
    pub(crate) fn bool_of(self, value: Value) -> Option<bool> {
        match value {
            Value::Bool(value) => Some(value),
            Value::Int(0) => Some(false),
            Value::Int(1) => Some(true),
            text @ (Value::Text { .. } | Value::Unescaped { .. }) => match self.text_of(text)?.trim_ascii() {
                b"0" => Some(false),
                b"1" => Some(true),
                word if word.eq_ignore_ascii_case(b"false") => Some(false),
                word if word.eq_ignore_ascii_case(b"true") => Some(true),
                _ => None,
            },
            _ => None,
        }
    }
}

/// The fields that become attributes.
pub(crate) const ATTRIBUTES: FieldSet = {
    let mut set = [0; SET_WORDS];
    let mut field = 0;
    while field < FIELD_COUNT {
        if matches!(FIELDS[field].role, Role::Attribute) {
            set[field / 64] |= 1 << (field % 64);
        }
        field += 1;
    }
    set
};

#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
fn whole(value: f64) -> Option<i64> {
    // 2^63 is the first double that does not fit.
    let fits = value.fract() == 0.0 && value.abs() < 9_223_372_036_854_775_808.0;
    fits.then_some(value as i64)
}

fn int_in_text(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    text.parse().ok().or_else(|| double_in_text(text.as_bytes()).and_then(whole))
}

/// Only digits, signs, a point and an exponent: what Rust reads beyond that (`inf`, `nan`) is no measurement.
fn double_in_text(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let plain = text.iter().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte));
    let number: f64 = if plain { std::str::from_utf8(text).ok()?.parse().ok()? } else { return None };
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_leniently_and_never_guessed() {
        let cases: [(&[u8], Option<i64>, Option<f64>); 10] = [
            (b"4242", Some(4242), Some(4242.0)),
            (b" 7 ", Some(7), Some(7.0)),
            (b"1000.0", Some(1000), Some(1000.0)),
            (b"4.242", None, Some(4.242)),
            (b"-1", Some(-1), Some(-1.0)),
            (b"20,6", None, None),
            (b"nan", None, None),
            (b"inf", None, None),
            (b"1e999", None, None),
            (b"", None, None),
        ];
        for (text, int, double) in cases {
            assert_eq!(int_in_text(text), int, "{}", text.escape_ascii());
            assert_eq!(double_in_text(text), double, "{}", text.escape_ascii());
        }
        assert_eq!(whole(9.3e18), None);
        assert_eq!(whole(-9.2e18), Some(-9_200_000_000_000_000_000));
    }

    #[test]
    fn kept_texts_lose_their_control_characters_only() {
        let mut row = Row::new();
        let value = row.keep("a\0b\u{1b}[31m\tü\r\n\u{7f}");
        let view = View { row: &row, line: b"" };
        assert_eq!(view.text_of(value), Some("a\u{fffd}b\u{fffd}[31m\tü\r\n\u{7f}".as_bytes()));
    }
}
