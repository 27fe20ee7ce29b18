//! Memory mappings of log segments, for reading.
//!
//! A mapping is a view of the page cache, so it shows what `pwrite` has written. Pages that are not there are populated
//! before they are touched: on a failing file system `MADV_POPULATE_READ` answers with an error where a plain access would
//! fault.
//! A page that goes away later, under somebody's slice, reads as zeros (see [`super::sigbus`]). Nothing here knows of entries
//! or formats.

#![allow(unsafe_code, reason = "this file is the mmap mechanism")]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::sigbus::Guard;

/// The smallest page of any kernel we run on; a multiple of it is what offsets are rounded to.
const PAGE_BYTES: usize = 4096;

/// A whole file mapped for reading.
#[derive(Debug)]
pub struct ReadMapping {
    /// Dropped before what it guards.
    _guard: Guard,
    map: MmapRaw,
    /// Every page of `low..high` has been there once; a hint, so races are harmless.
    low: AtomicUsize,
    high: AtomicUsize,
}

impl ReadMapping {
    /// Maps the first `bytes` of the file, whether it is that long now or not: what is not there is an error to read.
    pub fn new(file: &File, bytes: u64) -> io::Result<ReadMapping> {
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        let guard = Guard::new(map.as_ptr(), map.len())?;
        Ok(ReadMapping { _guard: guard, map, low: AtomicUsize::new(0), high: AtomicUsize::new(0) })
    }

    /// The bytes `offset..offset + len`, or an error when they are not in the file or cannot be read.
    ///
    /// # Safety
    ///
    /// Nobody may write to these bytes of the file while the slice lives.
    pub unsafe fn slice(&self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let start = self.check(offset, len)?;
        self.populate(start, len)?;
        // SAFETY: `check` found the range inside of the mapping, which lives as long as `self`; the caller keeps writers away.
        Ok(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(start), len) })
    }

    /// Copies the bytes at `offset` to `buffer`. They may be changing: what comes out is then checked by the reader.
    pub fn copy(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = self.check(offset, buffer.len())?;
        self.populate(start, buffer.len())?;
        // SAFETY: the source lies inside of the mapping and the destination is a separate exclusive borrow.
        unsafe { ptr::copy_nonoverlapping(self.map.as_ptr().add(start), buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    /// Forgets which pages were populated: every one is looked after again before its next use.
    pub fn forget(&self) {
        // Relaxed: as in `populate`.
        self.low.store(0, Ordering::Relaxed);
        self.high.store(0, Ordering::Relaxed);
    }

    fn check(&self, offset: u64, len: usize) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        match start.checked_add(len) {
            Some(end) if end <= self.map.len() => Ok(start),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn populate(&self, start: usize, len: usize) -> io::Result<()> {
        // Relaxed: a hint that carries no data.
        let (low, high) = (self.low.load(Ordering::Relaxed), self.high.load(Ordering::Relaxed));
        let end = start + len;
        if low <= start && end <= high {
            return Ok(());
        }
        let from = start - start % PAGE_BYTES;
        // Not a page further: what the writer has not reached is not in the page cache, and would be read and zeroed.
        let to = end.next_multiple_of(PAGE_BYTES).min(self.map.len());
        if !self.is_cached(from, to) {
            match self.map.advise_range(Advice::PopulateRead, from, to - from) {
                Ok(()) => {}
                // These say that a page cannot be read. Others are of no moment, as that kernels before 5.14 do not know the
                // advice: the access itself will tell, and what is on the disk must not count as lost.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::EHWPOISON)) => {
                    return Err(error);
                }
                Err(_) => return Ok(()),
            }
        }
        if from < low || from > high {
            self.low.store(from, Ordering::Relaxed);
            self.high.store(to, Ordering::Relaxed);
        } else {
            // Of two that read together the one behind does not take back what the one before it has populated.
            self.high.fetch_max(to, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the page cache has every page from `from` up to `to`, both multiples of a page: then there is nothing to
    /// populate. Who reads what was just written is always told so, for a tenth of what populating costs, which takes and
    /// locks every page.
    fn is_cached(&self, from: usize, to: usize) -> bool {
        let mut pages = [0u8; 64];
        (from..to).step_by(pages.len() * PAGE_BYTES).all(|start| {
            let bytes = (to - start).min(pages.len() * PAGE_BYTES);
            let asked = &mut pages[..bytes.div_ceil(PAGE_BYTES)];
            asked.fill(0);
            // SAFETY: `check` found the bytes inside of the mapping.
            let address = unsafe { self.map.as_mut_ptr().add(start) };
            // SAFETY: only asks of the mapping, which `self` holds; `asked` has room for a byte a page.
            let answered = unsafe { libc::mincore(address.cast(), bytes, asked.as_mut_ptr()) } == 0;
            answered && asked.iter().all(|page| page & 1 == 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_mapping_sees_what_was_written_later() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 20).unwrap();
        let reader = ReadMapping::new(&file, 3 << 20).unwrap();
        for offset in [0, 100, (1 << 20) - 3, (3 << 20) - 7] {
            file.write_all_at(b"millrac", offset).unwrap();
            let mut copied = [0u8; 7];
            reader.copy(offset, &mut copied).unwrap();
            assert_eq!(&copied, b"millrac", "through the mapping at {offset}");
        }
        assert!(reader.copy((3 << 20) - 6, &mut [0u8; 7]).is_err());
    }

    #[test]
    fn a_truncated_file_is_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        let reader = ReadMapping::new(&file, 8 << 20).unwrap();
        file.set_len(1 << 20).unwrap();
        assert!(reader.copy(4 << 20, &mut [0u8; 8]).is_err());
        file.set_len(8 << 20).unwrap();
        reader.copy(4 << 20, &mut [0u8; 8]).unwrap();
    }
}
