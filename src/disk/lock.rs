//! Whose a file is that several processes may write: the one that holds its lock.

use super::directory::Folder;
use rustix::fs::{AtFlags, statat};
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Locked until it is closed, and still under its name.
    Ours,
    /// Another one holds it, or it has been renamed or removed since it was opened.
    Others,
    /// The file system knows no locks.
    NoLocks,
}

/// Takes the lock of `file`, which was opened as `name`.
pub(crate) fn hold(folder: &Folder, name: &str, file: &File) -> Hold {
    let locked = match file.try_lock() {
        Ok(()) => Hold::Ours,
        Err(TryLockError::WouldBlock) => return Hold::Others,
        Err(TryLockError::Error(_)) => Hold::NoLocks,
    };
    // Whoever held it before may have made a blob of it: then the lock is on that blob, which is not to be touched.
    let same = match (file.metadata(), statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(file), Ok(named)) => file.is_file() && (file.ino(), file.dev()) == (named.st_ino, named.st_dev),
        _ => false,
    };
    if same { locked } else { Hold::Others }
}
