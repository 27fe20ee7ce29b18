//! Files as the log needs them: really allocated, really synced, with errors instead of signals.
//!
//! `fallocate(2)` itself and not libc's emulation, which writes zeros; `fdatasync`; directory syncs; free space. Paths
//! and formats are the caller's.

#![allow(unsafe_code, reason = "this file is the edge to fallocate, statvfs and getrandom")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Allocates the first `bytes` of `file` and makes it that long. Fails with `StorageFull` when there is no room.
pub fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: fallocate takes no pointers, and the descriptor is open as long as the borrow lasts.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, length) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // A file system without fallocate (some network and FUSE ones): the length alone has to do.
    if error.raw_os_error() == Some(libc::EOPNOTSUPP) { file.set_len(bytes) } else { Err(error) }
}

/// Writes both parts at `offset`, one behind the other, in one call. Returns how many bytes were written: perhaps not all,
/// and none when a signal came first.
pub fn write_parts_at(file: &File, offset: u64, parts: [&[u8]; 2]) -> io::Result<usize> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let slices = parts.map(io::IoSlice::new);
    // SAFETY: an `IoSlice` is an iovec on Unix, by its documentation; both slices are readable while the borrows last.
    let written = unsafe { libc::pwritev(file.as_raw_fd(), slices.as_ptr().cast(), 2, offset) };
    if let Ok(written) = usize::try_from(written) {
        return Ok(written);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(0) } else { Err(error) }
}

/// Makes the names in a directory durable.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Drops the clean cached pages of the first `bytes` of a file, so that the next read shows what is on the disk. After a
/// failed sync the cache holds bytes that are marked clean and were never written.
pub fn forget_cached(file: &File, bytes: u64) -> io::Result<()> {
    let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: posix_fadvise takes no pointers, and the descriptor is open as long as the borrow lasts.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, length, libc::POSIX_FADV_DONTNEED) };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Bytes that an unprivileged process may still allocate on the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte and the answer has room for one statvfs.
    let result = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs returned 0, so it filled the answer.
    let answer = unsafe { answer.assume_init() };
    Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
}

/// The name of the file system of `path` when it is one that another machine keeps, or that a program of its own kind serves:
/// what a sync promises there, nobody here can tell.
pub fn remote_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends with a zero byte and the answer has room for one statfs.
    let result = unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs returned 0, so it filled the answer.
    let answer = unsafe { answer.assume_init() };
    Ok(remote_kind(answer.f_type))
}

/// By the magic numbers of statfs(2).
fn remote_kind(magic: i64) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => "SMB",
        0x00c3_6400 => "Ceph",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x0102_1997 => "9P",
        0x0bd0_0bd0 => "Lustre",
        0x4750_4653 => "GPFS",
        0x7375_7245 => "Coda",
        0x6573_5546 => "FUSE",
        _ => return None,
    })
}

/// Sixteen bytes from the kernel's random generator.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is sixteen writable bytes; a request so short is never answered in part.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 16 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_of_other_machines_are_known_by_their_magic() {
        assert_eq!(remote_kind(0x6969), Some("NFS"));
        assert_eq!(remote_kind(0xfe53_4d42), Some("SMB"));
        assert_eq!(remote_kind(0xef53), None, "ext4");
        assert_eq!(remote_kind(0x0102_1994), None, "tmpfs");
        let here = remote_file_system(Path::new("/proc")).unwrap();
        assert_eq!(here, None);
        assert!(remote_file_system(Path::new("/no/such/path")).is_err());
    }
}
