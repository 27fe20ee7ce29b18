//! Searching in cells, many bytes a turn.
//!
//! The host's check of the time limit sits at the end of every loop turn; these look at several bytes between two checks.

/// Where `byte` is for the first time.
#[inline]
#[must_use]
pub fn find(byte: u8, text: &str) -> Option<usize> {
    memchr::memchr(byte, text.as_bytes())
}

/// Where `needle` is for the first time. Who looks for the same text in every row keeps a [`memchr::memmem::Finder`].
#[inline]
#[must_use]
pub fn find_text(needle: &str, text: &str) -> Option<usize> {
    memchr::memmem::find(text.as_bytes(), needle.as_bytes())
}

/// What is before and behind the first `byte`, which must be ASCII; `None` when it is not there.
///
/// ```
/// assert_eq!(millrace_plugin::split_once("http://shop/?card=1", b'?'), Some(("http://shop/", "card=1")));
/// ```
#[inline]
#[must_use]
pub fn split_once(text: &str, byte: u8) -> Option<(&str, &str)> {
    let at = find(byte, text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}
