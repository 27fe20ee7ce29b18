//! Where the quotes, backslashes and control characters of a line are.
//!
//! Finding them all first and jumping from one to the next costs a fixed amount a byte; looking for the end of each text
//! as it comes costs a mispredicted branch a text. `sys::bytes` looks at 64 bytes at a time; here is only the room for what
//! it finds, and the end that saves the scanner from looking for it.

use crate::sys::bytes::{SPARE_POSITIONS, mark_positions};

/// The marks of one line; reused for the next.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Only as much as the last line has is in use; kept long so that there is always room.
    positions: Vec<u32>,
}

impl Marks {
    /// The positions of all marks of `line`, in order, and behind them four times its length. `None` for a line of
    /// 4 GiB.
    pub(crate) fn index(&mut self, line: &[u8]) -> Option<&[u32]> {
        let end = u32::try_from(line.len()).ok()?;
        let room = line.len() + SPARE_POSITIONS;
        if self.positions.len() < room {
            self.positions.resize(room, 0);
        }
        let count = mark_positions(line, &mut self.positions);
        self.positions[count..count + 4].fill(end);
        Some(&self.positions[..count + 4])
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
