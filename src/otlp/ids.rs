//! The two identifiers of OpenTelemetry, as bytes and as the hex that people and JSON see.
//!
//! An id of zeros is invalid by the specification and cannot be made here. Nothing generates ids: who makes spans
//! decides how theirs come about.

use std::fmt;

/// A trace id: 16 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// A span id: 8 bytes, never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// The id with these bytes; `None` for another length or zeros.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<TraceId> {
        <[u8; 16]>::try_from(bytes).ok().filter(|bytes| u128::from_ne_bytes(*bytes) != 0).map(TraceId)
    }

    /// The id with these 32 hex digits, either case.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<TraceId> {
        from_hex::<16>(hex).and_then(|bytes| TraceId::from_bytes(&bytes))
    }

    /// Its bytes, most significant first.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }
}

impl SpanId {
    /// The id with these bytes; `None` for another length or zeros.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<SpanId> {
        <[u8; 8]>::try_from(bytes).ok().filter(|bytes| u64::from_ne_bytes(*bytes) != 0).map(SpanId)
    }

    /// The id with these 16 hex digits, either case.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<SpanId> {
        from_hex::<8>(hex).and_then(|bytes| SpanId::from_bytes(&bytes))
    }

    /// Its bytes, most significant first.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn from_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0u8; N];
    read_hex(hex.as_bytes(), &mut bytes).then_some(bytes)
}

/// Fills `bytes` from twice as many hex digits, either case; false if it is given anything else.
pub(super) fn read_hex(hex: &[u8], bytes: &mut [u8]) -> bool {
    let (pairs, odd) = hex.as_chunks::<2>();
    let fits = odd.is_empty() && pairs.len() == bytes.len();
    fits && bytes.iter_mut().zip(pairs).all(|(byte, [high, low])| {
        let value = digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low);
        value.map(|value| *byte = value).is_some()
    })
}

fn digit(hex: u8) -> Option<u8> {
    match hex {
        b'0'..=b'9' => Some(hex - b'0'),
        b'a'..=b'f' => Some(hex - b'a' + 10),
        b'A'..=b'F' => Some(hex - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_in_either_case_and_written_in_lower() {
        let id = TraceId::from_hex("4BF92F3577B34DA6A3CE929D0E0E4736").unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(SpanId::from_hex("00f067aa0ba902b7").unwrap().to_string(), "00f067aa0ba902b7");
    }

    #[test]
    fn zeros_wrong_lengths_and_other_digits_are_no_ids() {
        assert_eq!(TraceId::from_hex("00000000000000000000000000000000"), None);
        assert_eq!(TraceId::from_hex("4bf92f3577b34da6"), None);
        assert_eq!(SpanId::from_hex("00f067aa0ba902bg"), None);
        assert_eq!(SpanId::from_bytes(&[0; 8]), None);
        assert_eq!(SpanId::from_bytes(&[1; 7]), None);
    }
}
