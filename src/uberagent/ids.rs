//! Ids that are made up: hashes of what identifies a trace or a span, the same on every lane and after every restart.
//!
//! SipHash-1-3 under a fixed key: ids are no secret, and the same row must get the same id everywhere. Each part goes in
//! with its length, so ("ab", "c") and ("a", "bc") differ. A made-up span id has a high word of 0, which no process's
//! span has.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as Sip128};

const KEY: (u64, u64) = (0x6d69_6c6c_7261_6365, 0x7562_6572_4167_656e);

/// A trace id out of `parts`; never all zeros.
pub(crate) fn trace_id(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = Sip128::new_with_keys(KEY.0, KEY.1);
    write(&mut hasher, parts);
    let hash = hasher.finish128();
    ((u128::from(hash.h1) << 64 | u128::from(hash.h2)).max(1)).to_be_bytes()
}

/// A made-up span id out of `parts`: high word 0, low word not 0.
pub(crate) fn span_id(parts: &[&[u8]]) -> [u8; 8] {
    (key(parts) & 0xffff_ffff).max(1).to_be_bytes()
}

/// A key of the tables.
pub(crate) fn key(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(KEY.0, KEY.1);
    write(&mut hasher, parts);
    hasher.finish()
}

fn write(hasher: &mut impl Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.write(&(part.len() as u64).to_le_bytes());
        hasher.write(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_every_part_and_never_change() {
        let ids = [trace_id(&[b"ab", b"c"]), trace_id(&[b"a", b"bc"]), trace_id(&[b"abc"]), trace_id(&[])];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id));
        }
        assert_eq!(span_id(&[b"root", b"host"])[..4], [0; 4]);
        assert_ne!(span_id(&[b"root", b"host"]), span_id(&[b"root", b"hosT"]));
        // Spans that were stored by an older version must still be found: these bytes are part of the format.
        assert_eq!(u64::from_be_bytes(span_id(&[b"root", b"host"])), 2_670_521_612);
    }
}
