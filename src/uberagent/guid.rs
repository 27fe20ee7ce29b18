//! The session GUID and the ids made of it.
//!
//! Layout, seen on three unrelated hosts: bytes 0-3 the session number, big-endian; 4-7 constant for a host; 8-15 the
//! session's creation as a Windows FILETIME, little-endian: 100 ns since 1601, UTC. Nothing that is not 32 hexadecimal
//! digits (with or without dashes and braces) ever gets into an id.

/// Between 1601 and 1970, in units of 100 ns.
const EPOCH_OFFSET: u64 = 116_444_736_000_000_000;

/// Creation times that are believed: 2001 to 2200, Unix seconds.
const BELIEVED_SECONDS: std::ops::Range<u64> = 978_307_200..7_258_118_400;

/// A checked session GUID: its 32 digits as sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Guid([u8; 16]);

impl Guid {
    /// Reads 32 hexadecimal digits, with or without dashes in the usual places and braces.
    pub(crate) fn parse(text: &[u8]) -> Option<Guid> {
        let text = text.trim_ascii();
        let text = text.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).unwrap_or(text);
        let mut guid = [0u8; 16];
        if text.len() == 36 {
            let dashes = [8, 13, 18, 23].iter().all(|at| text[*at] == b'-');
            let starts = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
            let digits = |at: usize| Some(digit(text[at])? << 4 | digit(text[at + 1])?);
            for (byte, at) in guid.iter_mut().zip(starts) {
                *byte = digits(at)?;
            }
            return dashes.then_some(Guid(guid));
        }
        if text.len() != 32 {
            return None;
        }
        for (byte, pair) in guid.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Guid(guid))
    }

    /// The trace id: the digit `kind` (1 logon, 2 logoff) and the first 31 digits.
    pub(crate) fn trace_id(self, kind: u8) -> [u8; 16] {
        (u128::from_be_bytes(self.0) >> 4 | u128::from(kind) << 124).to_be_bytes()
    }

    /// 36 lower-case characters.
    pub(crate) fn to_text(self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        let starts = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];
        for (byte, at) in self.0.iter().zip(starts) {
            text[at] = b"0123456789abcdef"[usize::from(byte >> 4)];
            text[at + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        text
    }

    /// The number of the session on its host.
    pub(crate) fn session_number(self) -> u32 {
        u32::from_be_bytes(self.0[..4].try_into().expect("a range of four bytes"))
    }

    /// When the session was created, Unix nanoseconds; `None` when that is no time between 2001 and 2200.
    pub(crate) fn created_ns(self) -> Option<u64> {
        let filetime = u64::from_le_bytes(self.0[8..].try_into().expect("a range of eight bytes"));
        let unix = filetime.checked_sub(EPOCH_OFFSET)?;
        BELIEVED_SECONDS.contains(&(unix / 10_000_000)).then(|| unix * 100)
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_tells_session_and_creation() {
        let guid = Guid::parse(b"00000023-7165-2c71-b690-607404b9db01").unwrap();
        assert_eq!(guid.session_number(), 35);
        // 2025-04-29 12:44:32.105 UTC.
        assert_eq!(guid.created_ns().unwrap() / 1_000_000, 1_745_930_672_105);
        assert_eq!(&guid.to_text(), b"00000023-7165-2c71-b690-607404b9db01");
        let hex = |id: [u8; 16]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(guid.trace_id(1)), "10000002371652c71b690607404b9db0");
        assert_eq!(hex(guid.trace_id(2)), "20000002371652c71b690607404b9db0");
        assert_eq!(Guid::default().created_ns(), None);
    }

    #[test]
    fn spellings_are_normalised_and_anything_else_is_refused() {
        let guid = Guid::parse(b"0000002a-dead-beef-0102-030405c3db01").unwrap();
        for text in [
            "{0000002A-DEAD-BEEF-0102-030405C3DB01}",
            "0000002adeadbeef0102030405c3db01",
            " 0000002A-dead-beef-0102-030405c3db01 ",
        ] {
            assert_eq!(Guid::parse(text.as_bytes()), Some(guid), "{text}");
        }
        for text in [
            "",
            "0000002a-dead",
            "0000002a-dead-beef-0102-03040Gc3db01",
            "No GUID found for SessionID",
            "0000002a+dead-beef-0102-030405c3db01",
            "００00002a-dead-beef-0102-030405c3db01",
            "{0000002adeadbeef0102030405c3db01",
        ] {
            assert_eq!(Guid::parse(text.as_bytes()), None, "{text}");
        }
    }
}
