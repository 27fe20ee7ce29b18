//! Which blocks of an open segment have passed their CRC a moment ago, so that destinations that read together sum each
//! block once: a sum is most of what a further destination costs beside its sends.
//!
//! A verdict speaks of pages of the page cache, and is not believed beyond what is known of them:
//! - it belongs to one use of one open file: it goes when its last reader leaves the segment, before the file can be
//!   closed, reopened or recycled. Files whose views are copies, and blocks that are packed or encrypted, have none;
//! - it lasts a second: a page may be evicted and read again from a disk that rots, and a reader that comes later sums;
//! - from the first failed sync of the lane on, or once a page of any mapping was lost, none is believed: the kernel then
//!   shows bytes that are not on the disk, until it evicts them, or zeros;
//! - only destinations have use for it, which send. Moving blocks, recovery, `verify` and marks never ask.
//!
//! What is left is what any payload runs that waits in a window for its turn, for longer than a second: it was summed when
//! it was read, and is sent later. Any thread asks and notes; a note that is overwritten costs a sum.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::sabotage::{Sabotage, planted};

/// Blocks remembered: a segment of full ones.
const SLOTS: usize = 1024;

/// How long a verdict is believed.
const BELIEVED_MS: u64 = 1000;

/// Of a note: the low bits are the time, milliseconds and one, so that 0 is no note; above is what tells the sequence from
/// others of its slot. A segment has less than 2^34 blocks, and 2^40 ms are 34 years.
const TIME_BITS: u32 = 40;

/// See the module. Boxed, so that nothing is left of it in the segments of a backlog behind their readers.
#[derive(Debug)]
pub(super) struct Passed(Box<[AtomicU64]>);

impl Passed {
    pub(super) fn none() -> Passed {
        Passed((0..SLOTS).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether the block has passed within the last second before `now`, a time since any start.
    pub(super) fn has(&self, sequence: u64, now: Duration) -> bool {
        // Relaxed: the bytes were published by the extent; this says only that they need no sum.
        let note = self.slot(sequence).load(Ordering::Relaxed);
        let (tag, time) = (note >> TIME_BITS, note & ((1 << TIME_BITS) - 1));
        let is_fresh = time_of(now).saturating_sub(time) <= BELIEVED_MS || planted(Sabotage::SumsSharedForever);
        time != 0 && tag == tag_of(sequence) && is_fresh
    }

    /// The block has passed not before `now`.
    pub(super) fn note(&self, sequence: u64, now: Duration) {
        let note = tag_of(sequence) << TIME_BITS | time_of(now);
        // Relaxed: as in `has`.
        self.slot(sequence).store(note, Ordering::Relaxed);
    }

    fn slot(&self, sequence: u64) -> &AtomicU64 {
        &self.0[usize::try_from(sequence % SLOTS as u64).expect("below the slots")]
    }
}

fn tag_of(sequence: u64) -> u64 {
    (sequence / SLOTS as u64) & ((1 << (u64::BITS - TIME_BITS)) - 1)
}

fn time_of(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX) % ((1 << TIME_BITS) - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_block_and_for_a_second() {
        let passed = Passed::none();
        let at = Duration::from_millis;
        for (sequence, noted_at) in [(0, 0), (7, 0), (1 << 33, 5), (u64::MAX, 123_456_789)] {
            assert!(!passed.has(sequence, at(noted_at)), "nothing was noted of {sequence}");
            passed.note(sequence, at(noted_at));
            assert!(passed.has(sequence, at(noted_at)) && passed.has(sequence, at(noted_at + 1000)));
            assert!(!passed.has(sequence, at(noted_at + 1001)), "too old");
            assert!(!passed.has(sequence ^ 1024, at(noted_at)), "another block of the slot");
            assert!(!passed.has(sequence ^ 1, at(noted_at)), "another slot");
        }
        passed.note(9, at(10));
        passed.note(9 + 1024, at(10));
        assert!(!passed.has(9, at(10)) && passed.has(9 + 1024, at(10)), "the later note stands");
        assert!(passed.has(9 + 1024, at(3)), "who began its turn before it was noted believes it");
    }
}
