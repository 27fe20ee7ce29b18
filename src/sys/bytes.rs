//! Finding bytes with the vector instructions that every processor of an architecture has.
//!
//! On x86-64 that is SSE2, which is part of the architecture: nothing is detected at run time. Elsewhere plain code that
//! compilers turn into vectors where they can; both give the same answer.

#![allow(unsafe_code, reason = "this file calls vector intrinsics, which take a target feature")]

/// Bytes that are looked at together.
pub const BLOCK_BYTES: usize = 64;

/// One bit for each byte that is a quote, a backslash or a control character (below a blank), the first in the lowest bit.
#[inline]
#[must_use]
pub fn marks(block: &[u8; BLOCK_BYTES]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: SSE2 is part of x86-64, so the processor has it.
        unsafe { marks_sse2(block) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        marks_portable(block)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
#[inline]
fn marks_sse2(block: &[u8; BLOCK_BYTES]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let (halves, _) = block.as_chunks::<8>();
    let mut marks = 0;
    for quarter in (0..4).rev() {
        let word = |at: usize| i64::from_le_bytes(halves[2 * quarter + at]);
        let bytes: __m128i = _mm_set_epi64x(word(1), word(0));
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x22));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x5c));
        // What the smaller of itself and 0x1f is, is at most 0x1f.
        let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
        let found = _mm_or_si128(_mm_or_si128(quote, backslash), control);
        marks = marks << 16 | u64::from(_mm_movemask_epi8(found).cast_unsigned());
    }
    marks
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn marks_portable(block: &[u8; BLOCK_BYTES]) -> u64 {
    let bit = |byte: u8| u64::from((byte == b'"') | (byte == b'\\') | (byte < b' '));
    block.iter().rev().fold(0, |marks, byte| marks << 1 | bit(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_and_plain_code_agree_on_every_byte_in_every_place() {
        for byte in 0..=255 {
            for place in 0..BLOCK_BYTES {
                let mut block = [b'x'; BLOCK_BYTES];
                block[place] = byte;
                let expected = if matches!(byte, b'"' | b'\\' | 0..0x20) { 1 << place } else { 0 };
                assert_eq!((marks(&block), marks_portable(&block)), (expected, expected), "{byte} at {place}");
            }
        }
    }
}
