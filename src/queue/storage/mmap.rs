//! Storage by memory mappings: readers get slices of the page cache, the writer writes into the same pages by `pwrite`.
//!
//! Writing through a mapping as well was measured and is three times dearer (append of 64 KiB blocks to recycled segments:
//! 1.9-2.1 GB/s against 5.8): each sync write-protects the dirty pages again, so each page faults once a sync, and each of
//! those faults interrupts the other cores. A full disk answers `pwrite` with an error and never with SIGBUS.
//!
//! A view holds its file open and mapped, so a segment may be unlinked under it; it is never recycled under it. A recycled
//! file keeps its mapping: readers of its next use find the pages mapped.

#![allow(unsafe_code, reason = "this file hands out slices of a mapping")]

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::allocated::Allocated;
use super::file::FileStorage;
use super::{Storage, StoredFile};
use crate::sys::file;
use crate::sys::mapping::ReadMapping;
use crate::sys::sigbus;

/// The file system with segments mapped into memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MmapStorage;

impl Storage for MmapStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        FileStorage.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        FileStorage.list(directory)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(MappedFile { allocated: Allocated::create(path, bytes)?, mapping: OnceLock::new() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(MappedFile { allocated: Allocated::open(path)?, mapping: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileStorage.remove(path)
    }

    fn shorten(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        FileStorage.shorten(path, bytes)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        FileStorage.sync_directory(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        FileStorage.free_bytes(path)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        FileStorage.random()
    }
}

#[derive(Debug)]
struct MappedFile {
    allocated: Allocated,
    /// Made at the first read: most segments of a pool are never read through this handle.
    mapping: OnceLock<ReadMapping>,
}

impl MappedFile {
    fn mapping(&self) -> io::Result<&ReadMapping> {
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let mapping = ReadMapping::new(&self.allocated.file, self.allocated.bytes)?;
        Ok(self.mapping.get_or_init(|| mapping))
    }
}

impl StoredFile for MappedFile {
    fn bytes(&self) -> u64 {
        self.allocated.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.mapping()?.copy(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.allocated.write_at(offset, bytes)
    }

    fn write_entry_at(&self, offset: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.allocated.write_entry_at(offset, head, body)
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let view = View { offset, len, file: self };
        // Reads once, so that a failing disk answers here and not in the middle of a send.
        view.bytes()?;
        Ok(Bytes::from_owner(view))
    }

    fn views_share_memory(&self) -> bool {
        !sigbus::has_faulted_since(0)
    }

    fn reuse(&self) {
        self.mapping.get().inspect(|mapping| mapping.forget());
    }

    fn is_whole(&self) -> bool {
        self.allocated.is_whole()
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync covers pages dirtied through a mapping too.
        self.allocated.file.sync_data()
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        file::forget_cached(&self.allocated.file, bytes)
    }
}

/// Some bytes of a mapped file, kept mapped as long as somebody has them.
#[derive(Debug)]
struct View {
    file: Arc<MappedFile>,
    offset: u64,
    len: usize,
}

impl View {
    fn bytes(&self) -> io::Result<&[u8]> {
        let mapping = self.file.mapping()?;
        // SAFETY: `StoredFile::view` demands that nobody writes to these bytes while the view lives; the log upholds it: it
        // views published entries only, never writes below the published end, and recycles no file that is viewed.
        unsafe { mapping.slice(self.offset, self.len) }
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.bytes().expect("view() has read these bytes once; the mapping and its length do not change")
    }
}
