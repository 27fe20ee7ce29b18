//! Finding the colons and commas of a line of JSON with the vector instructions that the processor has.
//!
//! On x86-64 that is SSE2, which is part of the architecture. AVX-512 with its compression of bytes is asked for at run
//! time: the standard library keeps the answer, so that is a load and a test a line. AVX2 compares twice as many bytes
//! but writes positions no faster, which is where the time goes: measured, it gained nothing. Elsewhere plain code that
//! compilers turn into vectors where they can. All give the same answer: a test holds them to it.
//!
//! What is inside of texts does not count, so quotes and the backslashes before them are looked at too. What else a reader
//! has to know of a line is told in the same pass.

#![allow(unsafe_code, reason = "this file calls vector intrinsics, which take a target feature")]

/// Bytes that are looked at together.
const BLOCK_BYTES: usize = 64;

/// [`BLOCK_BYTES`], as positions are counted.
const BLOCK: u32 = 64;

/// Positions that are written together: more than most blocks have, so the loop over them is mostly not taken twice.
const BURST: usize = 12;

/// Positions beyond one a byte that may be written without meaning.
pub const SPARE_POSITIONS: usize = 2 * BLOCK_BYTES;

/// What was found in a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Colons and commas outside of texts.
    pub separators: usize,
    /// Quotes that no backslash escapes.
    pub quotes: usize,
    /// Backslashes.
    pub backslashes: usize,
    /// A control character (below a blank) is among the bytes.
    pub has_controls: bool,
    /// No byte is beyond ASCII.
    pub is_ascii: bool,
}

/// Writes the positions of all colons and commas of `line` outside of texts to `positions`, in order. `line` is below
/// 4 GiB, and `positions` longer by [`SPARE_POSITIONS`] at least.
#[must_use]
pub fn find_separators(line: &[u8], positions: &mut [u32]) -> Found {
    assert!(positions.len() >= line.len() + SPARE_POSITIONS, "no room for a position a byte");
    #[cfg(target_arch = "x86_64")]
    {
        if has_avx512() {
            // SAFETY: the processor was just found to have the features of the function.
            unsafe { x86::find_avx512(line, positions) }
        } else {
            x86::find_sse2(line, positions)
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        find_portable(line, positions)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("popcnt")
}

/// What the bytes of a block are, a bit each, the first in the lowest.
#[derive(Clone, Copy)]
struct Masks {
    separators: u64,
    quotes: u64,
    backslashes: u64,
    controls: u64,
    beyond_ascii: u64,
}

/// Tells every block of `line` by `look`, the last one filled up with blanks, and hands its separators to `write`, with the
/// number of those before it and the place of its first byte; `write` says how many there are then.
#[inline(always)]
fn each_block(
    line: &[u8],
    mut look: impl FnMut(&[u8; BLOCK_BYTES]) -> Masks,
    texts: impl Fn(u64) -> u64,
    mut write: impl FnMut(usize, u32, u64) -> usize,
) -> Found {
    let (mut found, mut from) = (Found::default(), 0);
    let (mut controls, mut beyond_ascii, mut escaped_first, mut inside) = (0, 0, 0, 0);
    let (blocks, rest) = line.as_chunks::<BLOCK_BYTES>();
    let mut last = [b' '; BLOCK_BYTES];
    last[..rest.len()].copy_from_slice(rest);
    // One loop for all of them: what is called from one place alone is inlined, and only then has vectors.
    for at in 0..=blocks.len() {
        let mut masks = look(blocks.get(at).unwrap_or(&last));
        controls |= masks.controls;
        beyond_ascii |= masks.beyond_ascii;
        if masks.backslashes | escaped_first != 0 {
            found.backslashes += masks.backslashes.count_ones() as usize;
            masks.quotes &= !escaped(masks.backslashes, &mut escaped_first);
        }
        found.quotes += masks.quotes.count_ones() as usize;
        // All ones when the block before ended inside of a text.
        inside = texts(masks.quotes) ^ 0u64.wrapping_sub(inside >> 63);
        found.separators = write(found.separators, from, masks.separators & !inside);
        from += BLOCK;
    }
    Found { has_controls: controls != 0, is_ascii: beyond_ascii == 0, ..found }
}

/// The bytes from every other quote up to the next: each bit is the sum of the quotes up to its place.
#[inline]
fn texts(quotes: u64) -> u64 {
    let mut sums = quotes;
    for shift in [1, 2, 4, 8, 16, 32] {
        sums ^= sums << shift;
    }
    sums
}

/// The bytes of a block that a backslash escapes. `first` is the bit that the block before has escaped of this one, and
/// then what this one escapes of the next.
///
/// A byte is escaped behind an odd number of backslashes in a row. As in simdjson: in the sum of a run's beginning and the
/// run the carry comes out behind it, at an even place for a run of even length that began at an even place.
#[inline]
fn escaped(backslashes: u64, first: &mut u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let beginning = backslashes & !*first;
    let codes = (beginning << 1 | ODD).wrapping_sub(beginning) ^ ODD;
    let escaped = codes ^ (backslashes | *first);
    *first = (codes & backslashes) >> 63;
    escaped
}

/// Writes the positions of the bits of `marks` behind the first `count`; how many there are then.
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
fn find_portable(line: &[u8], positions: &mut [u32]) -> Found {
    let look = |block: &[u8; BLOCK_BYTES]| {
        let mask = |is: fn(u8) -> bool| block.iter().rev().fold(0, |mask, byte| mask << 1 | u64::from(is(*byte)));
        Masks {
            separators: mask(|byte| byte == b':' || byte == b','),
            quotes: mask(|byte| byte == b'"'),
            backslashes: mask(|byte| byte == b'\\'),
            controls: mask(|byte| byte < b' '),
            beyond_ascii: mask(|byte| !byte.is_ascii()),
        }
    };
    each_block(line, look, texts, |count, from, marks| burst(positions, count, from, marks))
}

/// What the smaller of itself and this is, is a control character.
#[cfg(target_arch = "x86_64")]
const LAST_CONTROL: i8 = 0x1f;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK_BYTES, Found, LAST_CONTROL, Masks, burst, each_block, texts};

    const QUOTE: i8 = 0x22;
    const BACKSLASH: i8 = 0x5c;
    const COLON: i8 = 0x3a;
    const COMMA: i8 = 0x2c;

    pub(super) fn find_sse2(line: &[u8], positions: &mut [u32]) -> Found {
        // SAFETY: SSE2 is part of x86-64, so the processor has it.
        let look = |block: &[u8; BLOCK_BYTES]| unsafe { look_sse2(block) };
        each_block(line, look, texts, |count, from, marks| burst(positions, count, from, marks))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn look_sse2(block: &[u8; BLOCK_BYTES]) -> Masks {
        let (words, _) = block.as_chunks::<8>();
        let mut masks = Masks { separators: 0, quotes: 0, backslashes: 0, controls: 0, beyond_ascii: 0 };
        let add = |mask: &mut u64, found| *mask = *mask << 16 | u64::from(_mm_movemask_epi8(found).cast_unsigned());
        for quarter in (0..4).rev() {
            let word = |at: usize| i64::from_le_bytes(words[2 * quarter + at]);
            let bytes = _mm_set_epi64x(word(1), word(0));
            let colons = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(COLON));
            add(&mut masks.separators, _mm_or_si128(colons, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(COMMA))));
            add(&mut masks.quotes, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(QUOTE)));
            add(&mut masks.backslashes, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(BACKSLASH)));
            add(&mut masks.controls, _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(LAST_CONTROL)), bytes));
            add(&mut masks.beyond_ascii, bytes);
        }
        masks
    }

    /// Compresses the places of a block to those that are marked, and widens them sixteen at a time.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,pclmulqdq,popcnt")]
    pub(super) fn find_avx512(line: &[u8], positions: &mut [u32]) -> Found {
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
        let look = |block: &[u8; BLOCK_BYTES]| {
            // SAFETY: reads the 64 bytes of an array; no alignment is asked for.
            let bytes = unsafe { _mm512_loadu_si512(block.as_ptr().cast()) };
            let colons = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(COLON));
            Masks {
                separators: colons | _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(COMMA)),
                quotes: _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(QUOTE)),
                backslashes: _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(BACKSLASH)),
                controls: _mm512_cmple_epu8_mask(bytes, _mm512_set1_epi8(LAST_CONTROL)),
                beyond_ascii: _mm512_movepi8_mask(bytes),
            }
        };
        // The product with all ones, without carries, has the sums of the bits up to each place.
        let texts = |quotes: u64| {
            let sums = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, quotes.cast_signed()), _mm_set1_epi8(-1));
            _mm_cvtsi128_si64(sums).cast_unsigned()
        };
        each_block(line, look, texts, |count, from, marks| {
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

    type Find = fn(&[u8], &mut [u32]) -> Found;

    /// Every way that this processor can go.
    fn ways() -> Vec<(&'static str, Find)> {
        let mut ways: Vec<(&'static str, Find)> = vec![("chosen", find_separators), ("portable", find_portable)];
        #[cfg(target_arch = "x86_64")]
        {
            ways.push(("sse2", x86::find_sse2));
            if has_avx512() {
                // SAFETY: the processor was just found to have the features of the function.
                ways.push(("avx512", |line, positions| unsafe { x86::find_avx512(line, positions) }));
            }
        }
        ways
    }

    /// What is to be found, a byte at a time.
    fn plainly(line: &[u8]) -> (Vec<u32>, Found) {
        let (mut positions, mut quotes, mut is_escaped) = (Vec::new(), 0, false);
        for (at, byte) in (0u32..).zip(line) {
            quotes += usize::from(*byte == b'"' && !is_escaped);
            if matches!(*byte, b':' | b',') && quotes % 2 == 0 {
                positions.push(at);
            }
            is_escaped = *byte == b'\\' && !is_escaped;
        }
        let found = Found {
            separators: positions.len(),
            quotes,
            backslashes: line.iter().filter(|byte| **byte == b'\\').count(),
            has_controls: line.iter().any(|byte| *byte < b' '),
            is_ascii: line.is_ascii(),
        };
        (positions, found)
    }

    fn check(line: &[u8]) {
        let expected = plainly(line);
        for (name, find) in ways() {
            let mut positions = vec![7; line.len() + SPARE_POSITIONS];
            let found = find(line, &mut positions);
            positions.truncate(found.separators);
            assert_eq!((positions, found), expected, "{name} on {}", line.escape_ascii());
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
    fn all_ways_agree_however_many_separators_a_block_has() {
        for marks in 0..=200 {
            let spread: Vec<u8> = (0..200).map(|at| if at % 200 < marks { b':' } else { 0x80 }).collect();
            check(&spread);
            check(&spread[200 - marks.min(200)..]);
            let scattered: Vec<u8> = (0..200).map(|at| if at * marks % 199 < marks { b',' } else { b'a' }).collect();
            check(&scattered);
        }
    }

    #[test]
    fn all_ways_agree_on_which_quotes_are_escaped() {
        for before in 0..140 {
            for run in 0..70 {
                let line = [&b"x".repeat(before)[..], &b"\\".repeat(run), b"\",\"y\",:\\\\\\\"\\\","].concat();
                check(&line);
            }
        }
        let mut random = fastrand::Rng::with_seed(20_261_121);
        for _ in 0..2000 {
            let line: Vec<u8> = (0..random.usize(..300)).map(|_| *random.choice(b"\\\\\":,").expect("five")).collect();
            check(&line);
        }
    }
}
