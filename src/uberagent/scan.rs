//! Reads the usual JSON row in one pass: a flat object of texts and plain numbers, as uberAgent and Fluent Bit write it.
//!
//! Anything unusual (more than one blank between tokens, nesting beyond Fluent Bit's `@meta`, escapes in names, exponents,
//! numbers of more than 18 digits, anything that might not be JSON) is left to simd-json, which is the authority: a test
//! holds the two to the same values. Texts stay where they are in the line; those with escapes go to the row's arena.
//! The line is UTF-8. Numbers are read a word of eight bytes at
//! a time, with zeros behind the line's end.

use super::fields;
use super::marks::{Marks, Walk};
use super::names::{MAX_NAME_BYTES, Names, fold};
use super::row::{Row, Value, is_unwanted};
use super::tape::unit;

/// More digits than this may not fit an `i64`.
const MAX_DIGITS: usize = 18;

/// Integers up to here are exact as doubles.
const MAX_EXACT: u64 = 1 << 53;

/// Reads `line` into an empty row. `None` when it is unusual: the row then has no meaning.
pub(crate) fn scan(line: &[u8], marks: &mut Marks, names: &Names, row: &mut Row) -> Option<()> {
    let mut at = line.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    if line[at] != b'{' {
        return None;
    }
    let mut walk = marks.walk(line);
    walk.seek(at);
    loop {
        at = skip_blank(line, at + 1);
        let start = at + 1;
        // A mark where the name's quote is expected is the quote.
        if walk.next() != at || byte(line, at) != b'"' {
            return None;
        }
        let end = walk.next();
        if byte(line, end) != b'"' || byte(line, end + 1) != b':' {
            return None;
        }
        let field = name(line, start, end - start, names);
        at = skip_blank(line, end + 2);
        let (value, end) = value(line, at, field, (&mut walk, row))?;
        match field {
            Some(field) => row.set(field, value),
            None => row.unknown += 1,
        }
        at = end;
        match byte(line, at) {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    line[at + 1..].iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).then_some(())
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

/// The field with this name, if it is known. A longer name is not, and unknown names are only counted.
#[inline]
fn name(line: &[u8], at: usize, bytes: usize, names: &Names) -> Option<usize> {
    if bytes > MAX_NAME_BYTES {
        return None;
    }
    names.find(&fold(&window(line, at), bytes))
}

/// The value that begins at `at`, and where it ends.
#[inline]
fn value(
    line: &[u8],
    at: usize,
    field: Option<usize>,
    (walk, row): (&mut Walk<'_>, &mut Row),
) -> Option<(Value, usize)> {
    match byte(line, at) {
        b'"' => text(line, at, walk, row),
        b'-' | b'0'..=b'9' => number(line, at),
        b'{' if field == Some(fields::META) => {
            let (value, end) = nested(line, at)?;
            walk.seek(end);
            Some((value, end))
        }
        b't' if line[at..].starts_with(b"true") => Some((Value::Bool(true), at + 4)),
        b'f' if line[at..].starts_with(b"false") => Some((Value::Bool(false), at + 5)),
        b'n' if line[at..].starts_with(b"null") => Some((Value::Null, at + 4)),
        _ => None,
    }
}

/// What Fluent Bit puts in for the action line of a bulk request.
fn nested(line: &[u8], at: usize) -> Option<(Value, usize)> {
    let known: [&[u8]; 3] = [br#"{"create":{}}"#, br#"{"index":{}}"#, b"{}"];
    let found = known.into_iter().find(|known| line[at..].starts_with(known))?;
    Some((Value::Nested, at + found.len()))
}

/// The text whose opening quote stands at `at`.
#[inline]
fn text(line: &[u8], at: usize, walk: &mut Walk<'_>, row: &mut Row) -> Option<(Value, usize)> {
    // The opening quote is the next mark: no value before it held one.
    walk.next();
    let end = walk.next();
    match byte(line, end) {
        b'"' => {
            let value = Value::Text { start: u32::try_from(at + 1).ok()?, bytes: u32::try_from(end - at - 1).ok()? };
            Some((value, end + 1))
        }
        b'\\' => escaped_text(line, (at + 1, end), walk, row),
        _ => None,
    }
}

/// A text with escapes, copied to the arena without them; the first escape is at `mark`.
fn escaped_text(
    line: &[u8],
    (mut at, mut mark): (usize, usize),
    walk: &mut Walk<'_>,
    row: &mut Row,
) -> Option<(Value, usize)> {
    let start = row.arena.len();
    loop {
        row.arena.extend_from_slice(line.get(at..mark)?);
        match byte(line, mark) {
            b'"' => return Some((row.kept_since(start), mark + 1)),
            b'\\' => at = mark + escape(line, mark, &mut row.arena)?,
            _ => return None,
        }
        walk.seek(at);
        mark = walk.next();
    }
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
        // Digits become their values, everything else at least 10.
        let chunk = word(line, at + count) ^ 0x3030_3030_3030_3030;
        let others = (chunk.wrapping_add(0x7676_7676_7676_7676) | chunk) & 0x8080_8080_8080_8080;
        let found = others.trailing_zeros() as usize / 8;
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
