//! Finding bytes with the vector instructions that the processor has.
//!
//! On x86-64 that is SSE2, which is part of the architecture. AVX-512 with its compression of bytes is asked for at run
//! time: the standard library keeps the answer, so that is a load and a test a line. AVX2 compares twice as many bytes
//! but writes positions no faster, which is where the time goes: measured, it gained nothing. Elsewhere plain code that
//! compilers turn into vectors where they can. All give the same answer: a test holds them to it.

#![allow(unsafe_code, reason = "this file calls vector intrinsics, which take a target feature")]

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 64;

/// [`BLOCK_BYTES`], as positions are counted.
const BLOCK: u32 = 64;

/// Positions that are written together: more than most blocks have, so the loop over them is mostly not taken twice.
const BURST: usize = 12;

/// Positions beyond one a byte that may be written without meaning.
pub const SPARE_POSITIONS: usize = 2 * BLOCK_BYTES;

/// Writes the positions of all quotes, backslashes and control characters (below a blank) of `line` to `positions`, in
/// order; how many there are. `line` is below 4 GiB, and `positions` longer by [`SPARE_POSITIONS`] at least.
#[must_use]
pub fn mark_positions(line: &[u8], positions: &mut [u32]) -> usize {
    assert!(positions.len() >= line.len() + SPARE_POSITIONS, "no room for a position a byte");
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor was just found to have the features of the function.
            unsafe { x86::positions_avx512(line, positions) }
        } else {
            x86::positions_sse2(line, positions)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        positions_portable(line, positions)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("popcnt")
}

/// Hands `write` every block of `line`, the last one filled up with blanks, with the positions before it and the place of
/// its first byte; `write` says how many positions there are then.
#[inline(always)]
fn each_block(line: &[u8], mut write: impl FnMut(usize, u32, &[u8; BLOCK_BYTES]) -> usize) -> usize {
    let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
    let (mut count, mut from) = (0, 0);
    for block in blocks {
        count = write(count, from, block);
        from += BLOCK;
    }
    let mut last = [b' '; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    write(count, from, &last)
}

/// Writes the positions of one block, whose marks are the bits of `marks`, behind the first `count`; how many there are
/// then.
#[inline(always)]
fn burst(positions: &mut [u32], count: usize, from: u32, marks: u64) -> usize {
    let (mut left, mut at) = (marks, count);
    loop {
        for position in &mut positions[at..at + BURST] {
            *position = from + left.trailing_zeros();
            left &= left.wrapping_sub(1);
        }
        if left == 0 {
            return count + marks.count_ones() as usize;
        }
        at += BURST;
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn positions_portable(line: &[u8], positions: &mut [u32]) -> usize {
    let bit = |byte: u8| u64::from((byte == b'"') | (byte == b'\\') | (byte < b' '));
    each_block(line, |count, from, block| {
        burst(positions, count, from, block.iter().rev().fold(0, |marks, byte| marks << 1 | bit(*byte)))
    })
}

/// What the smaller of itself and this is, is a control character.
#[cfg(target_arch = "x86_64")]
const LAST_CONTROL: i8 = 0x1f;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK_BYTES, LAST_CONTROL, burst, each_block};

    const QUOTE: i8 = 0x22;
    const BACKSLASH: i8 = 0x5c;

    pub(super) fn positions_sse2(line: &[u8], positions: &mut [u32]) -> usize {
        // SAFETY: SSE2 is part of x86-64, so the processor has it.
        each_block(line, |count, from, block| burst(positions, count, from, unsafe { marks_sse2(block) }))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn marks_sse2(block: &[u8; BLOCK_BYTES]) -> u64 {
        let (words, _) = block.as_chunks::<8>();
        let mut marks = 0;
        for quarter in (0..4).rev() {
            let word = |at: usize| i64::from_le_bytes(words[2 * quarter + at]);
            let bytes = _mm_set_epi64x(word(1), word(0));
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(QUOTE));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(BACKSLASH));
            let control = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(LAST_CONTROL)), bytes);
            let found = _mm_or_si128(_mm_or_si128(quote, backslash), control);
            marks = marks << 16 | u64::from(_mm_movemask_epi8(found).cast_unsigned());
        }
        marks
    }

    /// Compresses the places of a block to those that are marked, and widens them sixteen at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,popcnt")]
    pub(super) fn positions_avx512(line: &[u8], positions: &mut [u32]) -> usize {
        const PLACES: [u8; BLOCK_BYTES] = {
            let mut places = [0; BLOCK_BYTES];
            let mut at = 0u8;
            while (at as usize) < BLOCK_BYTES {
                places[at as usize] = at;
                at += 1;
            }
            places
        };
        // SAFETY: reads the 64 bytes of an array; no alignment is asked for.
        let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
        each_block(line, |count, from, block| {
            // SAFETY: reads the 64 bytes of an array; no alignment is asked for.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let quote = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(QUOTE));
            let backslash = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(BACKSLASH));
            let control = _mm512_cmple_epu8_mask(bytes, _mm512_set1_epi8(LAST_CONTROL));
            let marks = quote | backslash | control;
            let marked = _mm512_maskz_compress_epi8(marks, places);
            let quarters = [
                _mm512_castsi512_si128(marked),
                _mm512_extracti32x4_epi32::<1>(marked),
                _mm512_extracti32x4_epi32::<2>(marked),
                _mm512_extracti32x4_epi32::<3>(marked),
            ];
            let total = marks.count_ones() as usize;
            let base = _mm512_set1_epi32(from.cast_signed());
            for (quarter, sixteen) in quarters.into_iter().enumerate() {
                let room: &mut [u32; 16] =
                    positions[count + 16 * quarter..].first_chunk_mut().expect("there is a block to spare");
                let wide = _mm512_add_epi32(_mm512_cvtepu8_epi32(sixteen), base);
                // SAFETY: writes the 64 bytes of an array; no alignment is asked for.
                unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), wide) };
                if total <= 16 * (quarter + 1) {
                    break;
                }
            }
            count + total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Find = fn(&[u8], &mut [u32]) -> usize;

    /// Every way that this processor can go.
    fn ways() -> Vec<(&'static str, Find)> {
        let mut ways: Vec<(&'static str, Find)> = vec![("chosen", mark_positions), ("portable", positions_portable)];
        #[cfg(target_arch = "x86_64")]
        {
            ways.push(("sse2", x86::positions_sse2));
            if has_avx512() {
                // SAFETY: the processor was just found to have the features of the function.
                ways.push(("avx512", |line, positions| unsafe { x86::positions_avx512(line, positions) }));
            }
        }
        ways
    }

    fn check(line: &[u8]) {
        let is_mark = |at: &u32| matches!(line[*at as usize], b'"' | b'\\' | 0..0x20);
        let expected: Vec<u32> = (0..u32::try_from(line.len()).unwrap()).filter(is_mark).collect();
        for (name, find) in ways() {
            let mut positions = vec![7; line.len() + SPARE_POSITIONS];
            let count = find(line, &mut positions);
            assert_eq!(positions[..count], expected, "{name} on {}", line.escape_ascii());
        }
    }

    #[test]
    fn all_ways_agree_on_every_byte_in_every_place() {
        for byte in 0..=255 {
            for place in 0..BLOCK_BYTES {
                let mut line = [b'x'; BLOCK_BYTES + 9];
                line[place] = byte;
                check(&line[..place + 1 + place % 9]);
            }
        }
    }

    #[test]
    fn all_ways_agree_however_many_marks_a_block_has() {
        for marks in 0..=200 {
            let spread: Vec<u8> = (0..200).map(|at| if at % 200 < marks { b'"' } else { 0x80 }).collect();
            check(&spread);
            check(&spread[200 - marks.min(200)..]);
            let scattered: Vec<u8> = (0..200).map(|at| if at * marks % 199 < marks { b'\\' } else { b'a' }).collect();
            check(&scattered);
        }
    }
}
