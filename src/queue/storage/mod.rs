//! The storage seam: what the log asks of a disk, and nothing more.
//!
//! Three implementations: [`MmapStorage`] (segments mapped, the default), [`FileStorage`] (`pread` and `pwrite`) and the
//! simulated disk of `crate::sim`, which can build the state that a crash would leave. All of them must pass the same suite.
//! Bytes live in three places: written (visible to every reader of this process and the next), synced (survive a power
//! cut), and named (a file's name survives only after a sync of its directory).

mod allocated;
mod file;
mod mmap;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

pub use file::FileStorage;
pub use mmap::MmapStorage;

/// A file system with the log's directories on it.
pub trait Storage: Send + Sync + Debug {
    /// Creates a directory and its parents; the names are durable on return. One that is there is fine.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// The names of the files in a directory, in any order, directories left out.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;
    /// Creates a file of `bytes` allocated bytes; fails when it exists or there is no room.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>>;
    /// Opens a file that exists.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>>;
    /// Renames a file, perhaps into another directory; durable after a sync of both.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after a sync of its directory. Those who have it open may go on reading.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives back what a file has beyond `bytes`; it lasts some time later. Whoever has it open sees it as it was, and must
    /// not look behind that. False where there is nothing to give back.
    fn shorten(&self, _path: &Path, _bytes: u64) -> io::Result<bool> {
        Ok(false)
    }
    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Bytes that are free on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// A secret that was never used before.
    fn random(&self) -> io::Result<[u8; 16]>;
}

/// An open file of fixed length.
pub trait StoredFile: Send + Sync + Debug {
    /// Its length in bytes.
    fn bytes(&self) -> u64;
    /// Fills `buffer` from `offset`, or fails.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`; fails, and never grows the file, beyond its allocated bytes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes an entry behind all that were written through this file: `head` at `offset`, `body` right behind it, the
    /// body first. What stands behind the entry, of older uses of the file, may be lost.
    fn write_entry_at(&self, offset: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.write_at(offset + head.len() as u64, body)?;
        self.write_at(offset, head)
    }
    /// The bytes at `offset`, without a copy where the storage can. Nobody may write to them while the view lives: the
    /// log views published bytes only and recycles no file that somebody views.
    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes>;
    /// Whether views of the same bytes are the same memory, and no page of it was lost: what one shows, all show.
    fn views_share_memory(&self) -> bool {
        false
    }
    /// Whether the file is still as long as when it was opened: somebody else may have cut it off.
    fn is_whole(&self) -> bool {
        true
    }
    /// A recycled file is about to be written anew: what was learnt of its pages no longer holds.
    fn reuse(&self) {}
    /// Makes every byte written so far durable. After a failure the file must never be synced again: the kernel has
    /// marked its pages clean, and the next sync would lie.
    fn sync(&self) -> io::Result<()>;
    /// Forgets cached ones of the first `bytes` that are not waiting to be written, so that what is read next is what is on
    /// the disk. For recovery: after a failed sync of an earlier process the cache holds bytes that were never written.
    fn forget(&self, bytes: u64) -> io::Result<()>;
}
