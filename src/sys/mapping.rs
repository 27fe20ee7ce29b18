//! Memory mappings of log segments: a read mapping of a whole file and a moving window for its writer.
//!
//! Both are views of the page cache, so what the window stores is what the read mapping and `pread` see. Pages are
//! populated before they are touched: on a full or failing file system `MADV_POPULATE_*` answers with an error where a
//! plain access would die of SIGBUS. Nothing here knows of entries or formats.

#![allow(unsafe_code, reason = "this file is the mmap mechanism")]

use std::fs::File;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

/// The smallest page of any kernel we run on; a multiple of it is what offsets are rounded to.
const PAGE_BYTES: usize = 4096;
const POPULATE_BYTES: usize = 2 * 1024 * 1024;
const WINDOW_BYTES: u64 = 8 * 1024 * 1024;

/// A whole file mapped for reading.
#[derive(Debug)]
pub struct ReadMapping {
    map: MmapRaw,
    /// Every page of `low..high` has been populated once; a hint, so races are harmless.
    low: AtomicUsize,
    high: AtomicUsize,
}

impl ReadMapping {
    /// Maps the file as long as it is now.
    pub fn new(file: &File) -> io::Result<ReadMapping> {
        let map = MmapOptions::new().map_raw_read_only(file)?;
        Ok(ReadMapping { map, low: AtomicUsize::new(0), high: AtomicUsize::new(0) })
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
        let to = end.next_multiple_of(POPULATE_BYTES).min(self.map.len());
        match self.map.advise_range(Advice::PopulateRead, from, to - from) {
            // Kernels before 5.14 do not know the advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(()),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        if from < low || from > high {
            self.low.store(from, Ordering::Relaxed);
        }
        self.high.store(to, Ordering::Relaxed);
        Ok(())
    }
}

/// A window of a file mapped for writing: it moves forward with the writer and is populated ahead of it.
#[derive(Debug)]
pub struct WriteWindow {
    file_bytes: u64,
    map: Option<MmapRaw>,
    /// Where the window starts in the file; a multiple of the page.
    base: u64,
    /// Offset in the file up to which the window is populated.
    populated: u64,
}

impl WriteWindow {
    /// A window over a file of `file_bytes`; maps nothing yet.
    #[must_use]
    pub fn new(file_bytes: u64) -> WriteWindow {
        WriteWindow { file_bytes, map: None, base: 0, populated: 0 }
    }

    /// Copies `bytes` to `offset` of the file.
    pub fn write(&mut self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.populate(file, offset, offset + bytes.len() as u64)?;
        let map = self.map.as_ref().expect("populate maps the window");
        let start = usize::try_from(offset - self.base).expect("a place in a window of megabytes");
        assert!(start + bytes.len() <= map.len(), "a write of {} bytes at {offset} leaves the window", bytes.len());
        // SAFETY: the assertion keeps the destination inside of the mapping; the source is a separate borrow.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().add(start), bytes.len()) };
        Ok(())
    }

    /// Populates up to `to`, as far as the window reaches, so that the next writes find their pages.
    pub fn prepare(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        let reach = match &self.map {
            Some(map) => to.min(self.base + map.len() as u64),
            None => to.min(from + WINDOW_BYTES),
        };
        if reach <= from { Ok(()) } else { self.populate(file, from, reach) }
    }

    /// Makes sure that the pages of `from..to` are there and writable; fails where a store would raise SIGBUS.
    fn populate(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if to > self.file_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reach(file, from, to)?;
        if to <= self.populated {
            return Ok(());
        }
        let map = self.map.as_ref().expect("reach maps the window");
        let window_end = self.base + map.len() as u64;
        let target = to.next_multiple_of(POPULATE_BYTES as u64).min(window_end);
        let start = usize::try_from(self.populated - self.base).expect("a place in a window of megabytes");
        let len = usize::try_from(target - self.populated).expect("a length in a window of megabytes");
        map.advise_range(Advice::PopulateWrite, start, len)?;
        self.populated = target;
        Ok(())
    }

    fn reach(&mut self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if let Some(map) = &self.map
            && from >= self.base
            && to <= self.base + map.len() as u64
        {
            return Ok(());
        }
        let base = from - from % PAGE_BYTES as u64;
        let bytes = WINDOW_BYTES.max(to - base).min(self.file_bytes - base);
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        self.map = Some(MmapOptions::new().offset(base).len(len).map_raw(file)?);
        self.base = base;
        self.populated = base;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_window_moves_and_the_reader_sees_what_it_wrote() {
        let file = tempfile::tempfile().unwrap();
        let bytes = 3 * WINDOW_BYTES;
        file.set_len(bytes).unwrap();
        let mut window = WriteWindow::new(bytes);
        let reader = ReadMapping::new(&file).unwrap();
        for offset in [0, 100, WINDOW_BYTES - 3, 2 * WINDOW_BYTES + 5, bytes - 7] {
            window.write(&file, offset, b"millrac").unwrap();
            let mut copied = [0u8; 7];
            reader.copy(offset, &mut copied).unwrap();
            assert_eq!(&copied, b"millrac", "through the mapping at {offset}");
            file.read_exact_at(&mut copied, offset).unwrap();
            assert_eq!(&copied, b"millrac", "through pread at {offset}");
        }
        assert!(window.write(&file, bytes - 6, b"millrac").is_err());
        assert!(reader.copy(bytes - 6, &mut [0u8; 7]).is_err());
    }

    #[test]
    fn a_truncated_file_is_an_error_and_not_a_signal() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4 * POPULATE_BYTES as u64).unwrap();
        let reader = ReadMapping::new(&file).unwrap();
        let mut window = WriteWindow::new(4 * POPULATE_BYTES as u64);
        file.set_len(POPULATE_BYTES as u64).unwrap();
        assert!(reader.copy(2 * POPULATE_BYTES as u64, &mut [0u8; 8]).is_err());
        assert!(window.write(&file, 2 * POPULATE_BYTES as u64, b"12345678").is_err());
    }
}
