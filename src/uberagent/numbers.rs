//! Reads the numbers and words of a row: JSON's, less what is unusual.
//!
//! Exponents, numbers of more than 18 digits and a negative zero are left to simd-json, which is the authority: a test holds
//! the two to the same values. Digits are read a word of eight bytes at a time.

use super::row::{Packed, Value};

/// More digits than this may not fit an `i64`.
const MAX_DIGITS: usize = 18;

/// Integers up to here are exact as doubles.
const MAX_EXACT: u64 = 1 << 53;

/// Makes digits their values, and everything else at least 10.
const DIGITS: u64 = 0x3030_3030_3030_3030;

/// A point among the values of digits.
const POINT: u64 = (b'.' ^ b'0') as u64;

/// Reads a number or a word.
#[inline]
pub(super) fn settle(line: &[u8], start: usize, bytes: usize) -> Option<Packed> {
    let digits = word(line, start) ^ DIGITS;
    let whole = leading_digits(digits);
    if whole == bytes && (1..8).contains(&bytes) && (bytes == 1 || byte(line, start) != b'0') {
        let value = eight_digits(digits << (64 - 8 * bytes));
        return Some(Packed::of_int(value.cast_signed()));
    }
    match short_fraction(digits, whole, bytes) {
        Some(value) => Some(Packed::of_double(value)),
        None => settle_unusual(line, start, bytes).map(Packed::from),
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

#[inline(never)]
fn settle_unusual(line: &[u8], start: usize, bytes: usize) -> Option<Value> {
    match line.get(start..start + bytes)? {
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        b"null" => Some(Value::Null),
        _ => number(line, start).filter(|(_, end)| *end == start + bytes).map(|(value, _)| value),
    }
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

/// The byte at `at`; 0, which no number begins with, beyond the end.
#[inline]
fn byte(line: &[u8], at: usize) -> u8 {
    line.get(at).copied().unwrap_or(0)
}

/// Eight bytes from `at`, zeros behind the line's end.
#[inline]
pub(super) fn word(line: &[u8], at: usize) -> u64 {
    match line.get(at..at + 8) {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("a range of eight bytes")),
        None => word_at_end(line, at),
    }
}

/// The last bytes of a line are those of its last word, moved.
#[cold]
fn word_at_end(line: &[u8], at: usize) -> u64 {
    let Some(last) = line.last_chunk::<8>() else { return short_word(line.get(at..).unwrap_or_default()) };
    u64::from_le_bytes(*last).checked_shr(u32::try_from(8 * (at + 8 - line.len())).unwrap_or(u32::MAX)).unwrap_or(0)
}

fn short_word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
