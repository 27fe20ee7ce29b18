//! Reads the usual JSON row in one pass: a flat object of texts and plain numbers, as uberAgent and Fluent Bit write it.
//!
//! Anything unusual (more than one blank between tokens, nesting beyond Fluent Bit's `@meta`, escapes in names, exponents,
//! numbers of more than 18 digits, anything that might not be JSON) is left to simd-json, which is the authority: a test
//! holds the two to the same values. Texts stay where they are in the line; those with escapes go to the row's arena.
//! The line is UTF-8. Numbers are read a word of eight bytes at
//! a time, with zeros behind the line's end.

use super::fields;
use super::marks::Marks;
use super::names::{MAX_NAME_BYTES, Names, fold};
use super::row::{Packed, Row, Value, is_unwanted};
use super::tape::unit;

/// More digits than this may not fit an `i64`.
const MAX_DIGITS: usize = 18;

/// Integers up to here are exact as doubles.
const MAX_EXACT: u64 = 1 << 53;

/// Makes digits their values, and everything else at least 10.
const DIGITS: u64 = 0x3030_3030_3030_3030;

/// A point among the values of digits.
const POINT: u64 = (b'.' ^ b'0') as u64;

/// Reads `line` into an empty row. `None` when it is unusual: the row then has no meaning.
pub(crate) fn scan(line: &[u8], marks: &mut Marks, names: &Names, row: &mut Row) -> Option<()> {
    let line = line.trim_ascii_end();
    let marks = marks.index(line)?;
    if byte(line, 0) != b'{' || marks[0] as usize != skip_blank(line, 1) {
        return None;
    }
    let mut mark = 0;
    loop {
        let (open, close) = (marks[mark] as usize, marks[mark + 1] as usize);
        if byte(line, open) != b'"' || byte(line, close) != b'"' || byte(line, close + 1) != b':' {
            return None;
        }
        let field = name(line, open + 1, close - open - 1, names);
        let found = value(line, skip_blank(line, close + 2), (marks, mark + 2), row)?;
        if found.value.is_nested() && field != Some(fields::META) {
            return None;
        }
        match field {
            Some(field) => row.set(field, found.value),
            None if found.value.unread().is_some_and(|range| settle(line, range.0, range.1).is_none()) => return None,
            None => row.unknown += 1,
        }
        mark = found.mark;
        if mark + 4 >= marks.len() {
            break;
        }
    }
    settle_all(line, row)
}

/// A value that was found.
struct Found {
    value: Packed,
    /// The place in the marks of the opening quote of the next name; that of the line's end behind the last value.
    mark: usize,
}

/// The value that begins at `at`; `mark` is the place of the next mark.
///
/// The next name begins at the next mark behind the value: the very next one behind anything that is no text, two further
/// behind a text. Which it is cannot be predicted where the sender mixes its keys, so it is computed, not branched on.
#[inline]
fn value(line: &[u8], at: usize, (marks, mark): (&[u32], usize), row: &mut Row) -> Option<Found> {
    let first = *line.get(at)?;
    let quotes = usize::from(first == b'"');
    let next = mark + 2 * quotes;
    let closing = *marks.get(next.checked_sub(1)?)? as usize;
    if byte(line, closing) != b'"' {
        return escaped_text(line, at + 1, (marks, mark + 1), row);
    }
    if first == b'{' {
        return nested(line, at, (marks, mark));
    }
    let end = separator(line, marks, next)?;
    // A text ends with its closing quote; of anything else the mark before the next name is the one in front of it.
    if quotes * (closing + 1).abs_diff(end) != 0 {
        return None;
    }
    let start = at + quotes;
    let bytes = u32::try_from((end - quotes).checked_sub(start)?).ok()?;
    let value = Packed::range(quotes, u32::try_from(start).ok()?, bytes);
    Some(Found { value, mark: next })
}

/// Where the comma in front of the name at a mark is, or the brace that ends the line.
#[inline]
fn separator(line: &[u8], marks: &[u32], mark: usize) -> Option<usize> {
    let next = *marks.get(mark)? as usize;
    let is_last = mark + 4 >= marks.len();
    let end = next.checked_sub(1)?;
    let end = end - usize::from(line[end] == b' ');
    (byte(line, end) == if is_last { b'}' } else { b',' }).then_some(end)
}

/// The field with this name, if it is known. A longer name is not, and unknown names are only counted.
#[inline]
fn name(line: &[u8], at: usize, bytes: usize, names: &Names) -> Option<usize> {
    if bytes > MAX_NAME_BYTES {
        return None;
    }
    names.find(&fold(&window(line, at), bytes))
}

/// What Fluent Bit puts in for the action line of a bulk request.
fn nested(line: &[u8], at: usize, (marks, mark): (&[u32], usize)) -> Option<Found> {
    let known: [&[u8]; 3] = [br#"{"create":{}}"#, br#"{"index":{}}"#, b"{}"];
    let end = at + known.into_iter().find(|known| line[at..].starts_with(known))?.len();
    let mark = mark + marks[mark..].iter().position(|mark| *mark as usize >= end)?;
    (separator(line, marks, mark)? == end).then_some(Found { value: Value::Nested.into(), mark })
}

/// A text with escapes from `at`, copied to the arena without them; `mark` is the place of its first mark.
fn escaped_text(line: &[u8], at: usize, (marks, mut mark): (&[u32], usize), row: &mut Row) -> Option<Found> {
    let begin = row.arena.len();
    let mut from = at;
    loop {
        let found = *marks.get(mark)? as usize;
        row.arena.extend_from_slice(line.get(from..found)?);
        mark += 1;
        match byte(line, found) {
            b'"' => {
                let value = row.kept_since(begin).into();
                return (separator(line, marks, mark)? == found + 1).then_some(Found { value, mark });
            }
            b'\\' => from = found + escape(line, found, &mut row.arena)?,
            _ => return None,
        }
        // The escape itself may hold a mark.
        mark += marks[mark..].iter().position(|mark| *mark as usize >= from)?;
    }
}

/// Reads all numbers and words of the row. Later than the texts, because fields now come in the table's order, in which
/// the kind of each can be predicted.
fn settle_all(line: &[u8], row: &mut Row) -> Option<()> {
    let present = row.present();
    for (word, present) in present.into_iter().enumerate() {
        let mut set = present;
        while set != 0 {
            let field = word * 64 + set.trailing_zeros() as usize;
            set &= set - 1;
            if let Some((start, bytes)) = row.packed(field).unread() {
                row.set(field, settle(line, start, bytes)?);
            }
        }
    }
    Some(())
}

/// Reads a number or a word.
#[inline]
fn settle(line: &[u8], start: usize, bytes: usize) -> Option<Value> {
    let digits = word(line, start) ^ DIGITS;
    let whole = leading_digits(digits);
    if whole == bytes && (1..8).contains(&bytes) && (bytes == 1 || byte(line, start) != b'0') {
        let value = eight_digits(digits << (64 - 8 * bytes));
        return Some(Value::Int(value.cast_signed()));
    }
    match short_fraction(digits, whole, bytes) {
        Some(value) => Some(Value::Double(value)),
        None => settle_unusual(line, start, bytes),
    }
}

/// A number with a point in `bytes` bytes, eight at most, of which `whole` are in front of the point; `digits` are its
/// first eight, as values.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "seven digits are exact")]
fn short_fraction(digits: u64, whole: usize, bytes: usize) -> Option<f64> {
    let leading_zero = whole > 1 && digits & 0xff == 0;
    if whole == 0 || leading_zero || bytes > 8 || bytes < whole + 2 || digits >> (8 * whole) & 0xff != POINT {
        return None;
    }
    // The digits on either side of the point, put together.
    let front = (1 << (8 * whole)) - 1;
    let joined = digits & front | digits >> 8 & !front;
    if leading_digits(joined) < bytes - 1 {
        return None;
    }
    let mantissa = eight_digits(joined << (64 - 8 * (bytes - 1)));
    // Both are exact, so the quotient is the nearest double, as in `fraction`.
    Some(mantissa as f64 / POWERS[bytes - 1 - whole] as f64)
}

fn settle_unusual(line: &[u8], start: usize, bytes: usize) -> Option<Value> {
    match line.get(start..start + bytes)? {
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        b"null" => Some(Value::Null),
        _ => number(line, start).filter(|(_, end)| *end == start + bytes).map(|(value, _)| value),
    }
}

/// The byte at `at`; 0, which no token begins with, beyond the end.
#[inline]
fn byte(line: &[u8], at: usize) -> u8 {
    line.get(at).copied().unwrap_or(0)
}

#[inline]
fn skip_blank(line: &[u8], at: usize) -> usize {
    at + usize::from(byte(line, at) == b' ')
}

/// Appends what the escape at `at` stands for; the bytes that it takes.
fn escape(line: &[u8], at: usize, arena: &mut Vec<u8>) -> Option<usize> {
    let (character, bytes) = match byte(line, at + 1) {
        plain @ (b'"' | b'\\' | b'/') => (char::from(plain), 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => match unit(line, at)? {
            high @ 0xd800..0xdc00 => {
                let pair = [high, unit(line, at + 6)?];
                (char::decode_utf16(pair).next()?.ok()?, 12)
            }
            single => (char::from_u32(u32::from(single))?, 6),
        },
        _ => return None,
    };
    let character = if is_unwanted(character) { '\u{fffd}' } else { character };
    arena.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(bytes)
}

/// A plain number: digits, perhaps a sign and a fraction.
#[inline]
fn number(line: &[u8], at: usize) -> Option<(Value, usize)> {
    let negative = byte(line, at) == b'-';
    let start = at + usize::from(negative);
    let (whole, whole_digits) = digits(line, start);
    let zero = byte(line, start) == b'0';
    // A leading zero is no JSON, and what a negative zero means is not for this function to say.
    if whole_digits == 0 || whole_digits > MAX_DIGITS || zero && (whole_digits > 1 || negative) {
        return None;
    }
    let end = start + whole_digits;
    match byte(line, end) {
        b'.' => fraction(line, at, end + 1, (whole, whole_digits)),
        b'e' | b'E' => None,
        _ => {
            let value = i64::try_from(whole).ok()?;
            Some((Value::Int(if negative { -value } else { value }), end))
        }
    }
}

/// The rest of a number that began at `start`, from behind its point.
#[expect(clippy::cast_precision_loss, reason = "checked to be exact")]
fn fraction(line: &[u8], start: usize, at: usize, whole: (u64, usize)) -> Option<(Value, usize)> {
    let (fraction, fraction_digits) = digits(line, at);
    let end = at + fraction_digits;
    if fraction_digits == 0 || whole.1 + fraction_digits > MAX_DIGITS || matches!(byte(line, end), b'e' | b'E') {
        return None;
    }
    let mantissa = whole.0 * POWERS[fraction_digits] + fraction;
    let value = if mantissa <= MAX_EXACT {
        // Both are exact (10^18 has 42 significant bits), so the quotient is the nearest double: Clinger's fast path.
        let value = mantissa as f64 / POWERS[fraction_digits] as f64;
        if line[start] == b'-' { -value } else { value }
    } else {
        std::str::from_utf8(&line[start..end]).ok()?.parse().ok()?
    };
    Some((Value::Double(value), end))
}

/// The number that the digits from `at` make, and how many there are; of more than 24 digits the number is wrong.
#[inline]
fn digits(line: &[u8], at: usize) -> (u64, usize) {
    let (mut value, mut count) = (0u64, 0);
    while count < 24 {
        let chunk = word(line, at + count) ^ DIGITS;
        let found = leading_digits(chunk);
        if found == 8 {
            value = value.wrapping_mul(POWERS[8]).wrapping_add(eight_digits(chunk));
            count += 8;
            continue;
        }
        if found > 0 {
            // Zeros move in from the front.
            value = value.wrapping_mul(POWERS[found]).wrapping_add(eight_digits(chunk << (64 - 8 * found)));
        }
        return (value, count + found);
    }
    (value, count)
}

/// How many of the bytes of `word ^ DIGITS` are values of digits, from the first on.
#[inline]
fn leading_digits(chunk: u64) -> usize {
    // Adding 0x76 sets the top bit of what is 10 or more; a carry spoils only bytes behind such a one.
    let others = (chunk.wrapping_add(0x7676_7676_7676_7676) | chunk) & 0x8080_8080_8080_8080;
    others.trailing_zeros() as usize / 8
}

/// The number that eight digit values make, the first in the lowest byte: pairs, then fours, then all.
#[inline]
fn eight_digits(chunk: u64) -> u64 {
    let pairs = chunk.wrapping_mul(10).wrapping_add(chunk >> 8);
    let low = (pairs & 0x0000_00ff_0000_00ff).wrapping_mul(0x000f_4240_0000_0064);
    let high = (pairs >> 16 & 0x0000_00ff_0000_00ff).wrapping_mul(0x0000_2710_0000_0001);
    low.wrapping_add(high) >> 32
}

static POWERS: [u64; 19] = {
    let mut powers = [1u64; 19];
    let mut at = 1;
    while at < 19 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

#[inline]
fn word(line: &[u8], at: usize) -> u64 {
    match line.get(at..at + 8) {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("a range of eight bytes")),
        None => u64::from_le_bytes(padded(line, at)),
    }
}

/// As many bytes as the longest name has.
#[inline]
fn window(line: &[u8], at: usize) -> [u8; MAX_NAME_BYTES] {
    match line.get(at..at + MAX_NAME_BYTES) {
        Some(bytes) => bytes.try_into().expect("a range of that many bytes"),
        None => padded(line, at),
    }
}

#[cold]
fn padded<const N: usize>(line: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    let rest = line.get(at..).unwrap_or_default();
    let rest = &rest[..rest.len().min(N)];
    bytes[..rest.len()].copy_from_slice(rest);
    bytes
}
