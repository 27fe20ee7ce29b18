//! A file of fixed length whose bytes are allocated, and how both real storages write to it.
//!
//! Appends of odd lengths leave the page cache of a new file in folios of 4 to 32 KiB, for the life of the file; reading it
//! first leaves folios as large as read-ahead likes, 2 MiB where the device's is 8 MiB. Every later write and sync goes
//! through the folios that it touches and through all buffers of each: small ones are too many, large ones too long. So
//! the first entry that reaches a new stretch of [`AHEAD_BYTES`] fills it with zeros to its end, and the kernel (ext4 since
//! Linux 6.16, XFS before) makes it one folio. A file that stays open is filled so once, however often it is recycled.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::file;

/// Bytes of the page cache that are to be one folio. Measured with rows: 4 KiB cost writer and sync 255 ns a row, 64 and
/// 128 KiB 180, 512 KiB 215, 2 MiB 460.
const AHEAD_BYTES: usize = 128 * 1024;

static ZEROS: [u8; AHEAD_BYTES] = [0; AHEAD_BYTES];

/// See the module.
#[derive(Debug)]
pub(super) struct Allocated {
    pub(super) file: File,
    pub(super) bytes: u64,
    /// Below this, entries have been written through this handle; stored by the writer alone.
    ahead: AtomicU64,
}

impl Allocated {
    /// Creates a file that must not exist, with its bytes allocated; leaves nothing behind when that fails.
    pub(super) fn create(path: &Path, bytes: u64) -> io::Result<Allocated> {
        let created = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        if let Err(error) = file::allocate(&created, bytes) {
            fs::remove_file(path)?;
            return Err(error);
        }
        Ok(Allocated { file: created, bytes, ahead: AtomicU64::new(0) })
    }

    /// Opens a file that exists and is as long as it is.
    pub(super) fn open(path: &Path) -> io::Result<Allocated> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Allocated { file, bytes, ahead: AtomicU64::new(0) })
    }

    /// Writes into the allocated bytes: a log file never grows, its length is what was allocated.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check(offset + bytes.len() as u64)?;
        self.file.write_all_at(bytes, offset)
    }

    /// Writes the body, with zeros behind it in a new stretch, and then the head: who reads the file from elsewhere never
    /// sees a head without its body. Fails when somebody has cut the file off: written behind the cut it would have a hole
    /// where blocks were that wait to be sent, and a hole reads as zeros without a fault.
    pub(super) fn write_entry_at(&self, offset: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        let body_offset = offset + head.len() as u64;
        let end = body_offset + body.len() as u64;
        self.check(end)?;
        if !self.is_whole() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "somebody has cut the file off"));
        }
        let written = file::write_parts_at(&self.file, body_offset, [body, self.zeros(end)])?.min(body.len());
        self.file.write_all_at(&body[written..], body_offset + written as u64)?;
        self.file.write_all_at(head, offset)
    }

    /// Whether nobody has cut the file off.
    pub(super) fn is_whole(&self) -> bool {
        self.file.metadata().is_ok_and(|file| file.len() >= self.bytes)
    }

    fn check(&self, end: u64) -> io::Result<()> {
        if end <= self.bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// The zeros that belong behind an entry which ends at `end`: nothing but older uses of the file stands there.
    fn zeros(&self, end: u64) -> &'static [u8] {
        // Relaxed: only the writer has use for it.
        if end <= self.ahead.load(Ordering::Relaxed) {
            return &[];
        }
        let to = end.next_multiple_of(AHEAD_BYTES as u64).min(self.bytes);
        self.ahead.store(to, Ordering::Relaxed);
        let zeros = usize::try_from(to - end).expect("less than a stretch");
        &ZEROS[..zeros]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: u64 = 3 * AHEAD_BYTES as u64;

    fn old_file(directory: &Path) -> Allocated {
        let file = Allocated::create(&directory.join("seg"), FILE_BYTES).unwrap();
        file.write_at(0, &vec![0xff; usize::try_from(FILE_BYTES).unwrap()]).unwrap();
        file
    }

    fn read(file: &Allocated) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(FILE_BYTES).unwrap()];
        file.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn zeros_are_written_once_a_stretch_and_only_behind_the_entry() {
        let directory = tempfile::tempdir().unwrap();
        let file = old_file(directory.path());
        file.write_entry_at(4096, &[1; 64], &[2; 1000]).unwrap();
        let end = 4096 + 1064;
        let mut expected = vec![0xff; usize::try_from(FILE_BYTES).unwrap()];
        expected[4096..4160].fill(1);
        expected[4160..end].fill(2);
        expected[end..AHEAD_BYTES].fill(0);
        assert_eq!(read(&file), expected);

        file.write_at(end as u64 + 500, &[7; 10]).unwrap();
        file.write_entry_at(end as u64, &[3; 64], &[4; 100]).unwrap();
        assert_eq!(read(&file)[end + 500..end + 510], [7; 10], "the stretch was written before");

        file.write_entry_at(AHEAD_BYTES as u64 - 64, &[5; 64], &vec![6; AHEAD_BYTES]).unwrap();
        let bytes = read(&file);
        assert_eq!(bytes[2 * AHEAD_BYTES - 1], 6);
        assert!(bytes[2 * AHEAD_BYTES..].iter().all(|byte| *byte == 0xff), "an entry that ends a stretch begins none");
    }

    #[test]
    fn the_file_never_grows_and_one_that_was_cut_off_takes_no_entry() {
        let directory = tempfile::tempdir().unwrap();
        let file = old_file(directory.path());
        assert!(file.write_entry_at(FILE_BYTES - 100, &[1; 64], &[2; 37]).is_err());
        file.write_entry_at(FILE_BYTES - 100, &[1; 64], &[2; 36]).unwrap();
        assert_eq!(file.file.metadata().unwrap().len(), FILE_BYTES);
        file.file.set_len(FILE_BYTES - 4096).unwrap();
        assert!(file.write_entry_at(4096, &[1; 64], &[2; 36]).is_err());
    }
}
