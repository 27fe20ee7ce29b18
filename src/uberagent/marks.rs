//! Where the quotes, backslashes and control characters of a line are.
//!
//! Finding them all first and jumping from one to the next costs a fixed amount a byte; looking for the end of each text
//! as it comes costs a mispredicted branch a text. `sys::bytes` compares 64 bytes at a time.

use crate::sys::bytes::{BLOCK_BYTES, marks};

/// Positions that are written together: more than most blocks have, so the loop over them is mostly not taken twice.
const BURST: usize = 12;

/// [`BLOCK_BYTES`], as positions are counted.
const BLOCK: u32 = 64;

/// The marks of one line; reused for the next.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Only as much as the last line has is in use; kept long so that bursts have room.
    positions: Vec<u32>,
}

impl Marks {
    /// The positions of all marks of `line`, in order, and behind them four times its length. `None` for a line of
    /// 4 GiB.
    pub(crate) fn index(&mut self, line: &[u8]) -> Option<&[u32]> {
        let end = u32::try_from(line.len()).ok()?;
        let room = line.len() + BLOCK_BYTES + BURST;
        if self.positions.len() < room {
            self.positions.resize(room, 0);
        }
        let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
        let (mut count, mut from) = (0, 0);
        for block in blocks {
            count = self.write(count, from, marks(block));
            from += BLOCK;
        }
        let mut last = [b' '; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        count = self.write(count, from, marks(&last));
        self.positions[count..count + 4].fill(end);
        Some(&self.positions[..count + 4])
    }

    /// Writes the positions of one block behind the first `count`; how many there are then.
    #[inline]
    fn write(&mut self, count: usize, from: u32, marks: u64) -> usize {
        let (mut left, mut at) = (marks, count);
        loop {
            for position in &mut self.positions[at..at + BURST] {
                *position = from + left.trailing_zeros();
                left &= left.wrapping_sub(1);
            }
            if left == 0 {
                return count + marks.count_ones() as usize;
            }
            at += BURST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_is_found_and_no_other_byte() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let quotes = [b'"'; 300];
        let mut marks = Marks::default();
        for line in [&all[..], &all[7..71], &all[..64], &quotes, b"", b"\"", br#"{"a":"b\\c"}"#] {
            let is_mark = |at: &u32| matches!(line[*at as usize], b'"' | b'\\' | 0..0x20);
            let end = u32::try_from(line.len()).unwrap();
            let expected: Vec<u32> = (0..end).filter(is_mark).chain([end; 4]).collect();
            assert_eq!(marks.index(line).unwrap(), expected);
        }
    }
}
