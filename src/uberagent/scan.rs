//! Reads the usual JSON row in one pass: a flat object of texts and plain numbers, as uberAgent and Fluent Bit write it.
//!
//! Anything unusual (blanks between tokens, nesting beyond Fluent Bit's `@meta`, escapes in names, a field given twice,
//! anything that might not be JSON) is left to simd-json, which is the authority: a test holds the two to the same values.
//! Texts stay where they are in the line; those with escapes go to the row's arena. The line is UTF-8.
//!
//! Where the colons and commas outside of texts are says nearly all: they alternate, and each stands between the quotes
//! that it must. No pair has to be read before the next can be, and what its value is, text or number, is computed, not
//! branched on: nobody could predict it where the sender mixes its keys.

use memchr::memchr;

use super::fields;
use super::marks::Marks;
use super::names::Names;
use super::numbers::settle;
use super::row::{Packed, Row, Value, is_unwanted};
use super::tape::unit;

/// Reads `line`, at which `marks` has looked, into an empty row. `None` when it is unusual: the row then has no meaning.
pub(crate) fn scan(line: &[u8], marks: &Marks, names: &Names, row: &mut Row) -> Option<()> {
    let (found, separators) = (marks.found(), marks.separators());
    if found.has_controls || !line.starts_with(b"{\"") || !line.ends_with(b"}") {
        return None;
    }
    let mut backslashes = found.backslashes;
    let (mut at, mut quotes, mut begin, mut is_closed) = (0, 0, 0, true);
    while let [colon, mut end, ..] = separators[at..] {
        at += 2;
        let (mut value, closed) = value(line, colon, end)?;
        if at < separators.len() && !follows(line, end) {
            end = end_of_meta(line, colon, separators.get(at)?)?;
            value = Value::Nested.into();
            at += 1;
            quotes += 2;
        }
        is_closed &= closed;
        quotes += 2 + 2 * usize::from(value.text().is_some());
        // The name is between the quotes behind the brace or comma and in front of the colon.
        let name = (begin + 2, (colon as usize).checked_sub(begin + 3)?);
        begin = end as usize;
        match names.find(line, name) {
            Some(field) if row.has(field) || value.is_nested() && field != fields::META => return None,
            Some(field) => row.set(field, value),
            None => {
                check_unknown(line, value, &mut backslashes, row)?;
                row.unknown += 1;
            }
        }
    }
    // Other quotes would be inside of a name or text, or between tokens.
    if at != separators.len() || quotes != found.quotes || !is_closed {
        return None;
    }
    settle_all(line, row)?;
    if backslashes > 0 { unescape_all(line, backslashes, row) } else { Some(()) }
}

/// The value between a colon and what ends it, without its quotes if it is a text, and whether such a text has its second
/// one: told apart, for a branch on it would be one on what the value is.
#[inline]
fn value(line: &[u8], colon: u32, end: u32) -> Option<(Packed, bool)> {
    let last = *line.get(end as usize - 1)?;
    let [b'"', b':', first] = *line.get(colon as usize - 1..)?.first_chunk()? else { return None };
    let is_text = u32::from(first == b'"');
    let start = colon + 1 + is_text;
    let value = Packed::range(is_text as usize, start, end.checked_sub(start + is_text)?);
    Some((value, is_text <= u32::from(last == b'"')))
}

/// Whether a comma and a name are at `end`.
#[inline]
fn follows(line: &[u8], end: u32) -> bool {
    line.get(end as usize..).is_some_and(|rest| rest.starts_with(b",\""))
}

/// Where the value behind `colon` ends, if it is what Fluent Bit puts in for the action line of a bulk request; `end` is the
/// separator behind that one's own colon.
#[cold]
#[inline(never)]
fn end_of_meta(line: &[u8], colon: u32, end: &u32) -> Option<u32> {
    let known: [&[u8]; 2] = [br#"{"create":{}}"#, br#"{"index":{}}"#];
    let value = line.get(colon as usize + 1..*end as usize)?;
    let is_last = *end as usize + 1 == line.len();
    (known.contains(&value) && (is_last || follows(line, *end))).then_some(*end)
}

/// Whether the value of an unknown field is JSON; takes its backslashes off those that are left.
#[cold]
#[inline(never)]
fn check_unknown(line: &[u8], value: Packed, backslashes: &mut usize, row: &mut Row) -> Option<()> {
    if let Some((start, bytes)) = value.unread() {
        settle(line, start, bytes)?;
    }
    if *backslashes > 0
        && let Some((start, bytes)) = value.text()
    {
        let kept = row.arena.len();
        *backslashes = backslashes.checked_sub(unescape(line.get(start..start + bytes)?, &mut row.arena)?)?;
        row.arena.truncate(kept);
    }
    Some(())
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

/// Copies the texts that have escapes to the arena, without them. All `backslashes` must be found in texts of the row, else
/// one is where nothing may be escaped.
fn unescape_all(line: &[u8], mut backslashes: usize, row: &mut Row) -> Option<()> {
    let mut at = 0;
    while backslashes > 0 {
        at += memchr(b'\\', line.get(at..)?)?;
        // A field that was given twice has no part in this: such rows are not read here.
        let (field, (start, bytes)) = row.text_at(at)?;
        let begin = row.arena.len();
        backslashes = backslashes.checked_sub(unescape(line.get(start..start + bytes)?, &mut row.arena)?)?;
        row.set(field, row.kept_since(begin));
        at = start + bytes;
    }
    Some(())
}

/// Appends a text without its escapes; the backslashes that it has.
fn unescape(text: &[u8], arena: &mut Vec<u8>) -> Option<usize> {
    let (mut rest, mut backslashes) = (text, 0);
    while let Some(plain) = memchr(b'\\', rest) {
        arena.extend_from_slice(&rest[..plain]);
        let bytes = escape(&rest[plain..], arena)?;
        let (escape, behind) = rest[plain..].split_at_checked(bytes)?;
        backslashes += escape.iter().filter(|byte| **byte == b'\\').count();
        rest = behind;
    }
    arena.extend_from_slice(rest);
    Some(backslashes)
}

/// Appends what the escape at the beginning of `text` stands for; the bytes that it takes.
fn escape(text: &[u8], arena: &mut Vec<u8>) -> Option<usize> {
    let (character, bytes) = match *text.get(1)? {
        plain @ (b'"' | b'\\' | b'/') => (char::from(plain), 2),
        b'b' => ('\u{8}', 2),
        b'f' => ('\u{c}', 2),
        b'n' => ('\n', 2),
        b'r' => ('\r', 2),
        b't' => ('\t', 2),
        b'u' => match unit(text, 0)? {
            high @ 0xd800..0xdc00 => {
                let pair = [high, unit(text, 6)?];
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
