//! Where the quotes, backslashes and control characters of a line are: one bit a byte, found 64 bytes at a time.
//!
//! Finding them all first and walking the bits afterwards costs a fixed amount a byte; looking for the end of each text
//! as it comes costs a mispredicted branch a text. The comparisons are written so that the compiler uses vectors; there is
//! no unsafe and nothing for one processor only. Behind the line's end all bytes count as control characters.

/// Bytes of a word of marks.
const BLOCK_BYTES: usize = 64;

/// The marks of one line; reused for the next.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    words: Vec<u64>,
}

/// A walk over the marks, in order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    words: &'a [u64],
    word: usize,
    /// What is left of `words[word]`.
    bits: u64,
}

impl Marks {
    /// Marks a line and begins a walk.
    pub(crate) fn walk(&mut self, line: &[u8]) -> Walk<'_> {
        self.words.clear();
        let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
        self.words.extend(blocks.iter().map(marks));
        let mut last = [0; BLOCK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        self.words.push(marks(&last));
        Walk { words: &self.words, word: 0, bits: self.words[0] }
    }
}

impl Walk<'_> {
    /// Where the next mark is; beyond the line when there is none.
    #[inline]
    pub(crate) fn next(&mut self) -> usize {
        while self.bits == 0 {
            self.word += 1;
            match self.words.get(self.word) {
                Some(bits) => self.bits = *bits,
                None => return self.words.len() * BLOCK_BYTES,
            }
        }
        let at = self.word * BLOCK_BYTES + self.bits.trailing_zeros() as usize;
        self.bits &= self.bits - 1;
        at
    }

    /// Goes on at `at`.
    #[inline]
    pub(crate) fn seek(&mut self, at: usize) {
        self.word = at / BLOCK_BYTES;
        let bits = self.words.get(self.word).copied().unwrap_or(0);
        self.bits = bits & (u64::MAX << (at % BLOCK_BYTES));
    }
}

/// The marks of 64 bytes, the first in the lowest bit.
#[inline]
fn marks(block: &[u8; BLOCK_BYTES]) -> u64 {
    let mut marked = [0u8; BLOCK_BYTES];
    for (marked, byte) in marked.iter_mut().zip(block) {
        *marked = u8::from((*byte == b'"') | (*byte == b'\\') | (*byte < b' '));
    }
    let (words, _) = marked.as_chunks::<8>();
    // The product moves bit 0 of every byte to the top byte, in order.
    let top = |word: &[u8; 8]| u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    words.iter().rev().fold(0, |marks, word| marks << 8 | top(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_meets_every_mark_and_no_other_byte() {
        let all: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for line in [&all[..], &all[7..71], &all[..64], b"", b"\"", br#"{"a":"b\\c"}"#] {
            let expected: Vec<usize> =
                (0..line.len()).filter(|at| matches!(line[*at], b'"' | b'\\' | 0..0x20)).collect();
            let mut marks = Marks::default();
            let mut walk = marks.walk(line);
            let met: Vec<usize> = std::iter::repeat_with(|| walk.next()).take_while(|at| *at < line.len()).collect();
            assert_eq!(met, expected);
            for at in 0..line.len() {
                walk.seek(at);
                let next = walk.next();
                assert_eq!(expected.iter().find(|mark| **mark >= at).copied(), (next < line.len()).then_some(next));
            }
        }
    }
}
