//! Ranges of addresses that a signal handler may look up: a list that never moves and never shrinks.
//!
//! A range is one word, its first page and the number of its pages, so that a look never joins the start of one range with
//! the end of another that took its place. A look takes no lock and allocates nothing. The words stand in chunks, and a
//! chunk is added when all of them are taken, so their number has no limit of its own. Imports nothing from the crate:
//! `tests/loom` checks it.

#[cfg(loom)]
use loom::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::ptr;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// Ranges that are allocated together; in a model the second needs a chunk.
const CHUNK_RANGES: usize = if cfg!(loom) { 1 } else { 128 };

/// The smallest page of any kernel we run on: mappings begin at a multiple of it.
const PAGE_BYTES: usize = 4096;

/// Of a word: the low bits are the number of pages, up to 1 TiB; above is the number of the first, for addresses of 48 bits.
/// Kernels give no others to who does not ask for them.
const COUNT_BITS: u32 = 28;

/// The ranges that are held now.
#[derive(Debug)]
pub(super) struct Ranges(Chunk);

#[derive(Debug)]
struct Chunk {
    /// 0 is a free place.
    words: [AtomicU64; CHUNK_RANGES],
    next: AtomicPtr<Chunk>,
}

/// A range, as long as this lives.
#[derive(Debug)]
pub(super) struct Held(&'static AtomicU64);

impl Ranges {
    pub(super) fn new() -> Ranges {
        Ranges(Chunk::new())
    }

    /// Holds `bytes` from `start`, a multiple of a page; `None` when that is more, or further up, than a word can say.
    pub(super) fn hold(&'static self, start: usize, bytes: usize) -> Option<Held> {
        let (first, count) = ((start / PAGE_BYTES) as u64, bytes.div_ceil(PAGE_BYTES) as u64);
        if !start.is_multiple_of(PAGE_BYTES) || count >> COUNT_BITS != 0 || first >> (u64::BITS - COUNT_BITS) != 0 {
            return None;
        }
        let word = first << COUNT_BITS | count;
        let mut chunk = &self.0;
        loop {
            // Relaxed: the word is all there is, and whoever reads the range has been given it after this.
            let is_taken =
                |place: &&AtomicU64| place.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if let Some(place) = chunk.words.iter().find(is_taken) {
                return Some(Held(place));
            }
            chunk = chunk.next_or_new();
        }
    }

    /// Whether the address lies in a range that is held. One that the caller's thread may read is always found.
    pub(super) fn has(&self, address: usize) -> bool {
        let page = (address / PAGE_BYTES) as u64;
        let mut chunk = Some(&self.0);
        while let Some(current) = chunk {
            let is_in = |place: &AtomicU64| {
                // Relaxed: as in `hold`.
                let word = place.load(Ordering::Relaxed);
                let (first, count) = (word >> COUNT_BITS, word & ((1 << COUNT_BITS) - 1));
                (first..first + count).contains(&page)
            };
            if current.words.iter().any(is_in) {
                return true;
            }
            chunk = current.next();
        }
        false
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Release: what was read of the range was read before, for the compiler too. A thread to which the kernel gives the
        // addresses again got them after they were unmapped, which is after this.
        self.0.store(0, Ordering::Release);
    }
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { words: std::array::from_fn(|_| AtomicU64::new(0)), next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // Acquire: pairs with the Release in `next_or_new`; the words are there.
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: null, or a chunk that was leaked.
        unsafe { next.as_ref() }
    }

    fn next_or_new(&self) -> &'static Chunk {
        if let Some(next) = self.next() {
            return next;
        }
        let fresh = Box::into_raw(Box::new(Chunk::new()));
        // Release: pairs with the Acquire in `next`. Acquire: what another has put there is as whole.
        let raced = self.next.compare_exchange(ptr::null_mut(), fresh, Ordering::Release, Ordering::Acquire);
        if let Err(theirs) = raced {
            // SAFETY: `fresh` came from a box just now and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            // SAFETY: what was found there was leaked by whoever put it there.
            return unsafe { &*theirs };
        }
        // SAFETY: from now on it is never freed.
        unsafe { &*fresh }
    }
}
