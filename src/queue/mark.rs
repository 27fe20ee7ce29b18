//! The commit-mark: an entry by which the log says how far it was durable, and how much was ever appended.
//!
//! Its stored bytes, little-endian, 56 of them:
//!
//! ```text
//! off size field
//!   0   8  durable sequence: every block up to it was synced when the mark was written
//!   8   8  encoded    \
//!  16   8  passed      |
//!  24   8  synthesised | the lane balance, in spans, of exactly the blocks before the mark
//!  32   8  dropped     | (`LaneTotals`; dropped is `transform_dropped`)
//!  40   8  refused     |
//!  48   8  appended   /
//! ```
//!
//! A mark has the sequence of the last block before it, and uses none up. It is the first entry of every segment, the last
//! of every segment sealed in order, follows every sync that it tells of, and is written at drain and after a second of
//! silence. So whatever was damaged, the next mark tells exactly how many spans are missing.

use super::fields::Fields;
use crate::telemetry::ledger::LaneTotals;

/// Bytes of a mark's payload.
pub(super) const MARK_BYTES: usize = 56;

/// The payload of a commit-mark.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Every block up to this sequence was synced.
    pub(super) durable: u64,
    /// The lane balance of the blocks before.
    pub(super) totals: LaneTotals,
}

impl Mark {
    pub(super) fn encode(&self) -> [u8; MARK_BYTES] {
        let totals = &self.totals;
        let fields = [
            self.durable,
            totals.encoded,
            totals.passed,
            totals.synthesised,
            totals.transform_dropped,
            totals.refused,
            totals.appended,
        ];
        let mut out = [0u8; MARK_BYTES];
        for (place, field) in out.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Mark> {
        let mut fields = Fields(bytes);
        Some(Mark { durable: fields.count()?, totals: read_totals(&mut fields)? })
    }
}

/// The six counters of a lane in the order of the mark.
pub(super) fn read_totals(fields: &mut Fields<'_>) -> Option<LaneTotals> {
    Some(LaneTotals {
        encoded: fields.count()?,
        passed: fields.count()?,
        synthesised: fields.count()?,
        transform_dropped: fields.count()?,
        refused: fields.count()?,
        appended: fields.count()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let totals =
            LaneTotals { encoded: 2, passed: 3, synthesised: 4, transform_dropped: 5, refused: 6, appended: 7 };
        let mark = Mark { durable: 1, totals };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        assert_eq!(Mark::decode(&mark.encode()[1..]), None);
    }
}
