//! Locks that keep two users from one image, in other processes (QEMU's programs among them) and in this one.
//!
//! The protocol is the one that `qemu-img` and `qemu-system-*` show in `/proc/locks`, so that they and we respect each
//! other: a user holds read locks on byte 100 + n for what it does and on 200 + n for what it does not allow others to do,
//! where n is 0 for consistent reads, 1 for writes and 3 for resizing. It fails if another holds the counterpart. Locks
//! belong to the open file, not to the process (`F_OFD_SETLK`), so they also work within one process, and go away with it.
//!
//! Where there are no such locks (macOS), the whole file is locked by `flock`.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use crate::error::OpenError;
use crate::options::Locking;
use std::fs::File;
use std::io;
use std::path::Path;

/// Locks `file` for as long as it, or a duplicate of it, is open.
pub(crate) fn lock(
    file: &File,
    path: &Path,
    write: bool,
    locking: Locking,
) -> Result<(), OpenError> {
    if locking == Locking::Off {
        return Ok(());
    }
    match system::lock(file, write) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(OpenError::Locked {
            path: path.into(),
            what,
        }),
        Err(error) if locking == Locking::Auto && unsupported(&error) => {
            tracing::debug!(path = %path.display(), %error, "the file system has no locks");
            Ok(())
        }
        Err(error) => Err(OpenError::io(path, error)),
    }
}

fn unsupported(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [
        Errno::INVAL,
        Errno::NOLCK,
        Errno::NOTSUP,
        Errno::OPNOTSUPP,
        Errno::NOSYS,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;

    const USED: i64 = 100;
    const FORBIDDEN: i64 = 200;
    const CONSISTENT_READ: i64 = 0;
    const WRITE: i64 = 1;
    const RESIZE: i64 = 3;

    /// The name of the lock that another user does not let us have.
    pub(super) fn lock(file: &File, write: bool) -> io::Result<Option<&'static str>> {
        let uses: &[(i64, &str)] = if write {
            &[
                (CONSISTENT_READ, "\"consistent read\""),
                (WRITE, "\"write\""),
                (RESIZE, "\"resize\""),
            ]
        } else {
            &[(CONSISTENT_READ, "\"consistent read\"")]
        };
        let forbids = [(WRITE, "shared \"write\""), (RESIZE, "shared \"resize\"")];
        // Our own locks first: of two who come at once, at least one then sees the other's.
        for (n, _) in uses {
            set(file, USED + n)?;
        }
        for (n, _) in forbids {
            set(file, FORBIDDEN + n)?;
        }
        for (n, name) in uses {
            if held(file, FORBIDDEN + n)? {
                return Ok(Some(name));
            }
        }
        for (n, name) in forbids {
            if held(file, USED + n)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn request(kind: i32, byte: i64) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        }
    }

    fn set(file: &File, byte: i64) -> io::Result<()> {
        let request = request(libc::F_RDLCK, byte);
        // SAFETY: the descriptor is open for the length of the call, and the structure outlives it.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Whether another open file has a lock on `byte`.
    fn held(file: &File, byte: i64) -> io::Result<bool> {
        let mut request = request(libc::F_WRLCK, byte);
        // SAFETY: as above; the kernel writes the structure, which is ours alone.
        let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(request.l_type != libc::F_UNLCK as libc::c_short)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use rustix::fs::{FlockOperation, flock};
    use std::fs::File;
    use std::io;

    pub(super) fn lock(file: &File, write: bool) -> io::Result<Option<&'static str>> {
        let (operation, what) = if write {
            (FlockOperation::NonBlockingLockExclusive, "\"write\"")
        } else {
            (FlockOperation::NonBlockingLockShared, "shared \"write\"")
        };
        match flock(file, operation) {
            Ok(()) => Ok(None),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(what)),
            Err(error) => Err(error.into()),
        }
    }
}
