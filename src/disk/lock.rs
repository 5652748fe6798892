//! Whose a file is that several processes may write: the one that holds its lock.

use super::directory::Directory;
use rustix::fs::{AtFlags, statat};
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Locked until it is closed, and still under its name.
    Acquired,
    /// Another one holds it, or it has been renamed or removed since it was opened.
    Held,
    /// The file system knows no locks.
    NoLocks,
}

/// Takes the lock of `file`, which was opened as `name`.
pub(crate) fn hold(folder: &Directory, name: &str, file: &File) -> Lock {
    let locked = match file.try_lock() {
        Ok(()) => Lock::Acquired,
        Err(TryLockError::WouldBlock) => return Lock::Held,
        Err(TryLockError::Error(_)) => Lock::NoLocks,
    };
    // Whoever held it before may have made a blob of it: then the lock is on that blob, which is not to be touched.
    let same = match (file.metadata(), statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(file), Ok(named)) => file.is_file() && (file.ino(), file.dev()) == (named.st_ino, named.st_dev),
        _ => false,
    };
    if same { locked } else { Lock::Held }
}
