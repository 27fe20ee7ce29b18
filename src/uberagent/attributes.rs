//! The fields of a row as attributes, by the table.
//!
//! Absent and empty values make no attribute, a value that its field cannot hold makes none and is counted. Attributes
//! come in the table's order, so the same row gives the same bytes whatever order or transport it came in. OTLP wants
//! keys to be unique: of two fields that share a key and both have a value, the one that is no column of the row's
//! sourcetype is left out and counted, else the later in the table.

use std::io::Write;

use super::fields::{self, EARLIER, FIELD_COUNT, FIELDS, Kind, LONG_TEXT_CAP_BYTES, Role, TEXT_CAP_BYTES};
use super::row::{ATTRIBUTES, FieldSet, SET_WORDS, Value, View};
use super::sourcetypes::{Csv, Sourcetype};
use super::times;
use crate::otlp::writer::{Key, MAX_SHORT_BYTES, Writer};

/// `Span.attributes`.
pub(crate) const SPAN_ATTRIBUTE: u8 = 0x4a;

/// The key of each field that becomes an attribute.
static KEYS: [Key; FIELD_COUNT] = {
    let mut keys = [Key::new(""); FIELD_COUNT];
    let mut field = 0;
    while field < FIELD_COUNT {
        if matches!(FIELDS[field].role, Role::Attribute) {
            keys[field] = Key::new(FIELDS[field].key);
        }
        field += 1;
    }
    keys
};

/// What each field holds, close together.
static KINDS: [Kind; FIELD_COUNT] = {
    let mut kinds = [Kind::Text; FIELD_COUNT];
    let mut field = 0;
    while field < FIELD_COUNT {
        kinds[field] = FIELDS[field].kind;
        field += 1;
    }
    kinds
};

/// The consumed fields that hold numbers.
const CONSUMED_NUMBERS: FieldSet = {
    let mut set = [0; SET_WORDS];
    let mut field = 0;
    while field < FIELD_COUNT {
        let number = matches!(FIELDS[field].kind, Kind::Int | Kind::Double);
        if number && matches!(FIELDS[field].role, Role::Consumed) {
            set[field / 64] |= 1 << (field % 64);
        }
        field += 1;
    }
    set
};

/// The fields whose key an earlier one has too.
const SECONDS: FieldSet = {
    let mut set = [0; SET_WORDS];
    let mut field = 0;
    while field < FIELD_COUNT {
        if EARLIER[field].is_some() {
            set[field / 64] |= 1 << (field % 64);
        }
        field += 1;
    }
    set
};

/// What became of the fields of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    /// Fields left out.
    pub dropped: u32,
    /// A text was cut.
    pub truncated: bool,
}

/// Writes the attributes of those fields of `view`, a row of `sourcetype`, that are in `present` and become one.
pub(crate) fn write_all(writer: &mut Writer, view: View<'_>, mut present: FieldSet, sourcetype: Sourcetype) -> Written {
    let mut written = Written { dropped: view.row.unknown, truncated: false };
    for word in 0..SET_WORDS {
        let mut set = present[word] & SECONDS[word];
        while set != 0 {
            let second = word * 64 + set.trailing_zeros() as usize;
            set &= set - 1;
            if let Some(weaker) = weaker(view, sourcetype, second) {
                present[weaker / 64] &= !(1 << (weaker % 64));
                written.dropped += 1;
            }
        }
    }
    for word in 0..SET_WORDS {
        let mut set = present[word] & ATTRIBUTES[word];
        while set != 0 {
            let field = word * 64 + set.trailing_zeros() as usize;
            set &= set - 1;
            write(writer, view, field, &mut written);
        }
        let mut set = present[word] & CONSUMED_NUMBERS[word];
        while set != 0 {
            let field = word * 64 + set.trailing_zeros() as usize;
            set &= set - 1;
            written.dropped += u32::from(is_unreadable(view, field));
        }
    }
    written
}

/// Which field is to be left out, so that the key of `second` is written once; `None` when only one would be written.
#[inline]
fn weaker(view: View<'_>, sourcetype: Sourcetype, second: usize) -> Option<usize> {
    let first = usize::from(EARLIER[second]?);
    if view.value(first).is_none() { None } else { weaker_of_both(view, sourcetype, (first, second)) }
}

#[cold]
fn weaker_of_both(view: View<'_>, sourcetype: Sourcetype, (first, second): (usize, usize)) -> Option<usize> {
    if !makes_attribute(view, first) || !makes_attribute(view, second) {
        return None;
    }
    let is_column = |field: usize| match sourcetype.rule().map(|rule| &rule.csv) {
        Some(Csv::Columns(columns)) => columns.contains(&FIELDS[field].name),
        _ => false,
    };
    Some(if is_column(second) && !is_column(first) { first } else { second })
}

/// Whether a field has a value that it can hold.
fn makes_attribute(view: View<'_>, field: usize) -> bool {
    let Some(value) = view.value(field) else { return false };
    match FIELDS[field].kind {
        Kind::Int => view.int_of(value).is_some(),
        Kind::Double => view.double_of(value).is_some(),
        Kind::Count => view.int_of(value).is_some_and(|count| count != 0),
        Kind::Amount => view.double_of(value).is_some_and(|amount| amount != 0.0),
        Kind::Bool => view.bool_of(value).is_some(),
        Kind::Text | Kind::LongText | Kind::Account | Kind::RequestHost => match value {
            Value::Int(_) | Value::Double(_) => true,
            _ => view.text_of(value).is_some_and(|text| !text.is_empty()),
        },
    }
}

/// Writes a field that was set. What is nearly always there, a value of the field's own kind, takes few steps.
#[inline]
fn write(writer: &mut Writer, view: View<'_>, field: usize, written: &mut Written) {
    let (key, value) = (&KEYS[field], view.row.packed(field));
    match KINDS[field] {
        Kind::Int => {
            if let Some(number) = value.int() {
                return writer.int_attribute(SPAN_ATTRIBUTE, key, number);
            }
        }
        Kind::Count => match value.int() {
            Some(0) => return,
            Some(number) => return writer.int_attribute(SPAN_ATTRIBUTE, key, number),
            None => {}
        },
        Kind::Double => {
            if let Some(number) = value.number() {
                return writer.double_attribute(SPAN_ATTRIBUTE, key, number);
            }
        }
        Kind::Amount => match value.number() {
            Some(0.0) => return,
            Some(number) => return writer.double_attribute(SPAN_ATTRIBUTE, key, number),
            None => {}
        },
        kind @ (Kind::Text | Kind::LongText | Kind::Account) => {
            let Some((start, bytes)) = value.text() else { return write_unusual(writer, view, field, written) };
            let is_shorthand = kind == Kind::Account && bytes <= LONGEST_SHORTHAND_BYTES;
            let window = view.line.get(start..).and_then(<[u8]>::first_chunk);
            match window {
                _ if bytes == 0 => return,
                Some(window) if bytes <= MAX_SHORT_BYTES && !is_shorthand => {
                    return writer.short_text_attribute(SPAN_ATTRIBUTE, key, window, bytes);
                }
                _ => {}
            }
        }
        Kind::RequestHost | Kind::Bool => {}
    }
    write_unusual(writer, view, field, written);
}

/// Writes a field that was set, whatever it holds.
#[inline(never)]
fn write_unusual(writer: &mut Writer, view: View<'_>, field: usize, written: &mut Written) {
    let (key, Some(value)) = (&KEYS[field], view.value(field)) else { return };
    let is_written = match KINDS[field] {
        Kind::Int => view.int_of(value).map(|number| writer.int_attribute(SPAN_ATTRIBUTE, key, number)),
        Kind::Double => view.double_of(value).map(|number| writer.double_attribute(SPAN_ATTRIBUTE, key, number)),
        Kind::Bool => view.bool_of(value).map(|value| writer.bool_attribute(SPAN_ATTRIBUTE, key, value)),
        Kind::Count => view.int_of(value).map(|number| {
            if number != 0 {
                writer.int_attribute(SPAN_ATTRIBUTE, key, number);
            }
        }),
        Kind::Amount => view.double_of(value).map(|number| {
            if number != 0.0 {
                writer.double_attribute(SPAN_ATTRIBUTE, key, number);
            }
        }),
        Kind::Text | Kind::LongText | Kind::Account | Kind::RequestHost => match view.text_of(value) {
            Some([]) => return,
            Some(text) => {
                written.truncated |= write_text(writer, view, field, text);
                return;
            }
            None => write_number_as_text(writer, key, value),
        },
    };
    written.dropped += u32::from(is_written.is_none() && !is_empty(value));
}

/// Writes a text; true when it was cut.
#[inline]
fn write_text(writer: &mut Writer, view: View<'_>, field: usize, text: &[u8]) -> bool {
    let (text, cap_bytes) = match FIELDS[field].kind {
        Kind::LongText => (text, LONG_TEXT_CAP_BYTES),
        Kind::Account => (account(text), TEXT_CAP_BYTES),
        Kind::RequestHost => (request_host(view, text), TEXT_CAP_BYTES),
        _ => (text, TEXT_CAP_BYTES),
    };
    let kept = cut(text, cap_bytes);
    writer.text_attribute(SPAN_ATTRIBUTE, &KEYS[field], kept);
    kept.len() < text.len()
}

/// A number where a text belongs, such as a version `1.0` that lost its quotes, is the text that it was.
#[cold]
fn write_number_as_text(writer: &mut Writer, key: &Key, value: Value) -> Option<()> {
    let mut text = [0u8; 32];
    let mut rest = &mut text[..];
    match value {
        Value::Int(number) => write!(rest, "{number}").ok()?,
        Value::Double(number) => write!(rest, "{number}").ok()?,
        _ => return None,
    }
    let bytes = 32 - rest.len();
    writer.text_attribute(SPAN_ATTRIBUTE, key, &text[..bytes]);
    Some(())
}

/// Whether a field that becomes a time or duration holds something that is none.
fn is_unreadable(view: View<'_>, field: usize) -> bool {
    let Some(value) = view.value(field) else { return false };
    let written_time = || view.text_of(value).and_then(times::written_ns).is_some();
    !is_empty(value) && view.double_of(value).is_none() && !written_time()
}

/// Whether a value is an empty text, which is as good as none.
pub(crate) fn is_empty(value: Value) -> bool {
    matches!(value, Value::Text { bytes: 0, .. } | Value::Unescaped { bytes: 0, .. })
}

/// Bytes of the longest account that [`account`] spells out.
const LONGEST_SHORTHAND_BYTES: usize = 3;

/// Spells out the accounts that uberAgent's Splunk form abbreviates.
#[inline]
pub(crate) fn account(text: &[u8]) -> &[u8] {
    match text {
        b"sys" => b"NT AUTHORITY\\SYSTEM",
        b"lvc" => b"NT AUTHORITY\\LOCAL SERVICE",
        b"nvc" => b"NT AUTHORITY\\NETWORK SERVICE",
        spelled => spelled,
    }
}

/// Resolves `$0`, the tab's host, and `$2`, its last two labels. What follows either is the transport's, not a host.
pub(crate) fn request_host<'a>(view: View<'a>, text: &'a [u8]) -> &'a [u8] {
    let Some(tab) = view.text(fields::TAB_HOST) else { return text };
    match text {
        b"$0" => tab,
        b"$2" => {
            let dots = tab.iter().enumerate().rev().filter(|(_, byte)| **byte == b'.');
            dots.map(|(at, _)| at).nth(1).map_or(tab, |at| &tab[at + 1..])
        }
        written => written,
    }
}

/// The first `cap_bytes` of a text, less what would be half a character.
#[inline]
pub(crate) fn cut(text: &[u8], cap_bytes: usize) -> &[u8] {
    if text.len() <= cap_bytes {
        return text;
    }
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    let end = (0..=cap_bytes).rev().find(|end| !is_continuation(text[*end])).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uberagent::fields::id;
    use crate::uberagent::row::Row;

    #[test]
    fn texts_are_cut_between_characters() {
        let text = "aü€😀".as_bytes();
        let cuts: Vec<_> = (0..=text.len()).map(|cap| std::str::from_utf8(cut(text, cap)).unwrap()).collect();
        assert_eq!(cuts, ["", "a", "a", "aü", "aü", "aü", "aü€", "aü€", "aü€", "aü€", "aü€😀"]);
    }

    #[test]
    fn shorthand_hosts_mean_the_tab() {
        let mut row = Row::new();
        let tab = row.keep("mail.emea.contoso.com");
        row.set(id("TabHost"), tab);
        let view = View { row: &row, line: b"" };
        assert_eq!(request_host(view, b"$0"), b"mail.emea.contoso.com");
        assert_eq!(request_host(view, b"$2"), b"contoso.com");
        assert_eq!(request_host(view, b"cdn.net"), b"cdn.net");
    }
}
