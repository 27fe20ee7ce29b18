//! Storage by `pread` and `pwrite`: an I/O error is an error code and never a signal, at the price of a copy.
//!
//! Also the directory operations that [`super::MmapStorage`] shares.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::allocated::Allocated;
use super::{Storage, StoredFile};
use crate::sys::file;

/// The file system through `pread` and `pwrite`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileStorage;

impl Storage for FileStorage {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_directory(parent)?;
        }
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        file::sync_directory(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(PlainFile(Allocated::create(path, bytes)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        Ok(Arc::new(PlainFile(Allocated::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn shorten(&self, path: &Path, bytes: u64) -> io::Result<bool> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let is_longer = file.metadata()?.len() > bytes;
        if is_longer {
            file.set_len(bytes)?;
        }
        Ok(is_longer)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        file::sync_directory(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        file::free_bytes(path)
    }

    fn random(&self) -> io::Result<[u8; 16]> {
        file::random_bytes()
    }
}

/// Reads, once more if that fails: one failure must not cost a block that is on the disk.
fn read_exactly(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset).or_else(|_| file.read_exact_at(buffer, offset))
}

#[derive(Debug)]
struct PlainFile(Allocated);

impl StoredFile for PlainFile {
    fn bytes(&self) -> u64 {
        self.0.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exactly(&self.0.file, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn write_entry_at(&self, offset: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.0.write_entry_at(offset, head, body)
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0u8; len];
        read_exactly(&self.0.file, &mut buffer, offset)?;
        Ok(Bytes::from(buffer))
    }

    fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    fn sync(&self) -> io::Result<()> {
        self.0.file.sync_data()
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        file::forget_cached(&self.0.file, bytes)
    }
}
