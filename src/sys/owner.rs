//! Working on files as the user who owns them.
//!
//! A tool that root runs on the files of a service would leave files there that the service may not open. So before it
//! writes, it becomes the owner of the directory, for good: whatever it makes there is the service's own.

#![allow(unsafe_code, reason = "the standard library changes the user of other processes only")]

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// From now on the process is the user and the group that own `directory`, if it is root's and the directory is not. Nobody
/// else can become another user, and nobody else is. Fails when the kernel refuses; then the process is to end.
pub fn become_owner_of(directory: &Path) -> io::Result<()> {
    let owner = fs::metadata(directory)?;
    // SAFETY: it takes nothing, reads a number of the process, and never fails.
    let user = unsafe { libc::geteuid() };
    if user != 0 || owner.uid() == 0 {
        return Ok(());
    }
    // Groups first: only root may change them.
    // SAFETY: a list of no groups is not read, so its pointer may be null.
    done(unsafe { libc::setgroups(0, std::ptr::null()) })?;
    // SAFETY: it takes numbers; libc changes all threads of the process alike.
    done(unsafe { libc::setresgid(owner.gid(), owner.gid(), owner.gid()) })?;
    // SAFETY: as above.
    done(unsafe { libc::setresuid(owner.uid(), owner.uid(), owner.uid()) })
}

fn done(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;
    use std::process::Command;

    use super::*;

    /// Set for the process that becomes somebody else: a directory.
    const CHANGED: &str = "MILLRACE_TEST_OF_OWNERS";

    /// Whoever that is on this machine.
    const OTHER: u32 = 65_534;

    #[test]
    fn what_root_makes_in_the_directory_of_a_service_belongs_to_the_service() {
        if let Some(directory) = std::env::var_os(CHANGED) {
            let directory = Path::new(&directory);
            become_owner_of(directory).unwrap();
            fs::write(directory.join("made"), "").unwrap();
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        // Only root can give files away; for everybody else the directory stays its own, and so does the user.
        let expected = chown(directory.path(), Some(OTHER), Some(OTHER)).map(|()| (OTHER, OTHER));
        let own = fs::metadata(directory.path()).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap());
        let name = "sys::owner::tests::what_root_makes_in_the_directory_of_a_service_belongs_to_the_service";
        let output = child.args(["--exact", name]).env(CHANGED, directory.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let made = fs::metadata(directory.path().join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), expected.unwrap_or((own.uid(), own.gid())));
    }
}
