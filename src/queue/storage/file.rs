//! Storage by `pread` and `pwrite`: an I/O error is an error code and never a signal, at the price of a copy.
//!
//! Also the directory operations that [`super::MmapStorage`] shares.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

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
        Ok(Arc::new(PlainFile { file: create_allocated(path, bytes)?, bytes }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let (file, bytes) = open_existing(path)?;
        Ok(Arc::new(PlainFile { file, bytes }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
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

/// Creates a file that must not exist, with its bytes allocated; leaves nothing behind when that fails.
pub(super) fn create_allocated(path: &Path, bytes: u64) -> io::Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    // Read before it is written: see `read_ahead`.
    if let Err(error) = file::allocate(&created, bytes).and_then(|()| file::read_ahead(&created, bytes)) {
        fs::remove_file(path)?;
        return Err(error);
    }
    Ok(created)
}

/// Opens a file that exists and says how long it is.
pub(super) fn open_existing(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    Ok((file, bytes))
}

/// Writes into a file's allocated bytes: a log file never grows, its length is what was allocated.
pub(super) fn write_allocated(file: &File, allocated_bytes: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
    if offset + bytes.len() as u64 > allocated_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.write_all_at(bytes, offset)
}

/// As [`write_allocated`], both parts in one call: each call walks the page cache anew, which costs more than 64 bytes. Fails
/// when somebody has cut the file off: written behind the cut it would have a hole where blocks were that wait to be sent, and
/// a hole reads as zeros without a fault.
pub(super) fn write_allocated_entry(
    file: &File,
    allocated_bytes: u64,
    offset: u64,
    parts: [&[u8]; 2],
) -> io::Result<()> {
    let [head, body] = parts;
    if file.metadata()?.len() < allocated_bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "somebody has cut the file off"));
    }
    if offset + (head.len() + body.len()) as u64 > allocated_bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let written = file::write_parts_at(file, offset, parts)?;
    let in_head = written.min(head.len());
    let in_body = written - in_head;
    file.write_all_at(&head[in_head..], offset + in_head as u64)?;
    file.write_all_at(&body[in_body..], offset + (head.len() + in_body) as u64)
}

/// Reads, once more if that fails: one failure must not cost a block that is on the disk.
fn read_exactly(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(buffer, offset).or_else(|_| file.read_exact_at(buffer, offset))
}

#[derive(Debug)]
struct PlainFile {
    file: File,
    bytes: u64,
}

impl StoredFile for PlainFile {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read_exactly(&self.file, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_allocated(&self.file, self.bytes, offset, bytes)
    }

    fn write_entry_at(&self, offset: u64, head: &[u8], body: &[u8]) -> io::Result<()> {
        write_allocated_entry(&self.file, self.bytes, offset, [head, body])
    }

    fn view(self: Arc<Self>, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0u8; len];
        read_exactly(&self.file, &mut buffer, offset)?;
        Ok(Bytes::from(buffer))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn forget(&self, bytes: u64) -> io::Result<()> {
        file::forget_cached(&self.file, bytes)
    }
}
