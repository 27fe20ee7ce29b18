//! Storage by memory mappings: the writer copies into a window, readers get slices of the page cache.
//!
//! A view holds its file open and mapped, so a segment may be unlinked under it; it is never recycled under it. Where
//! the kernel cannot populate pages (before 5.14), the writer falls back to `pwrite`, because there a full disk would
//! answer a store with SIGBUS.

#![allow(unsafe_code, reason = "this file hands out slices of a mapping")]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::file::{FileStorage, create_allocated, open_existing};
use super::{SegmentWriter, Storage, StoredFile};
use crate::sys::file;
use crate::sys::mapping::{ReadMapping, WriteWindow};

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
        Ok(Arc::new(MappedFile { file: create_allocated(path, bytes)?, bytes, mapping: OnceLock::new() }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let (file, bytes) = open_existing(path)?;
        Ok(Arc::new(MappedFile { file, bytes, mapping: OnceLock::new() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileStorage.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileStorage.remove(path)
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
    file: File,
    bytes: u64,
    /// Made at the first read: most segments of a pool are never read through this handle.
    mapping: OnceLock<ReadMapping>,
}

impl MappedFile {
    fn mapping(&self) -> io::Result<&ReadMapping> {
        if let Some(mapping) = self.mapping.get() {
            return Ok(mapping);
        }
        let mapping = ReadMapping::new(&self.file)?;
        Ok(self.mapping.get_or_init(|| mapping))
    }
}

impl StoredFile for MappedFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.mapping()?.copy(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let view = View { offset, len, file: self };
        // Reads once, so that a failing disk answers here and not in the middle of a send.
        view.bytes()?;
        Ok(Bytes::from_owner(view))
    }

    fn writer(self: Arc<Self>) -> Box<dyn SegmentWriter> {
        let window = WriteWindow::new(self.bytes);
        Box::new(MappedWriter { file: self, window, populates: true })
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync covers pages dirtied through a mapping too.
        self.file.sync_data()
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        file::forget_cached(&self.file, bytes)
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

#[derive(Debug)]
struct MappedWriter {
    file: Arc<MappedFile>,
    window: WriteWindow,
    populates: bool,
}

impl SegmentWriter for MappedWriter {
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.populates {
            match self.window.write(&self.file.file, offset, bytes) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.populates = false,
                result => return result,
            }
        }
        if offset + bytes.len() as u64 > self.file.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.write_at(offset, bytes)
    }

    fn prepare(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        if !self.populates {
            return Ok(());
        }
        let to = (offset + bytes).min(self.file.bytes);
        match self.window.prepare(&self.file.file, offset, to) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.populates = false;
                Ok(())
            }
            result => result,
        }
    }
}
