//! Where the colons and commas of a line are, and what else has to be known of it before it is read.
//!
//! Finding them all first and jumping from one to the next costs a fixed amount a byte; looking for the end of each value
//! as it comes costs a mispredicted branch a value. `sys::bytes` looks at 64 bytes at a time; here is only the room for
//! what it finds, and the end that saves the scanner from looking for it.

use crate::sys::bytes::{Found, SPARE_POSITIONS, find_separators};

/// The separators of one line; reused for the next.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Only as much as the last line has is in use; kept long so that there is always room.
    positions: Vec<u32>,
    found: Found,
}

impl Marks {
    /// Looks at `line`; false, and nothing is known of it, for an empty one or one of 4 GiB.
    pub(crate) fn look(&mut self, line: &[u8]) -> bool {
        let Some(last) = line.len().checked_sub(1).and_then(|last| u32::try_from(last).ok()) else { return false };
        let room = line.len() + SPARE_POSITIONS;
        if self.positions.len() < room {
            self.positions.resize(room, 0);
        }
        self.found = find_separators(line, &mut self.positions);
        self.positions[self.found.separators] = last;
        true
    }

    /// What was found in the line.
    pub(crate) fn found(&self) -> Found {
        self.found
    }

    /// The positions of all separators, in order, and behind them that of the line's last byte.
    pub(crate) fn separators(&self) -> &[u32] {
        &self.positions[..=self.found.separators]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separators_of_a_line_are_followed_by_its_end() {
        let mut marks = Marks::default();
        for (line, separators) in
            [(&br#"{"a":"b\",c","d":1}"#[..], &[4, 12, 16, 18][..]), (b",", &[0, 0]), (b"x", &[0])]
        {
            assert!(marks.look(line));
            assert_eq!(marks.separators(), separators);
        }
        assert!(!marks.look(b""));
    }
}
