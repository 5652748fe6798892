//! File locks: which process owns a partial file.

use super::directory::Directory;
use rustix::fs::{AtFlags, statat};
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;

/// The result of [`try_lock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// This process owns the file until it closes it, and the file still has its name.
    Acquired,
    /// Another process owns the file, or the file was renamed or removed after it was opened.
    Held,
    /// The file system does not support locks.
    Unsupported,
}

/// Tries to lock `file`, which was opened as `name`; does not wait.
pub(crate) fn try_lock(folder: &Directory, name: &str, file: &File) -> Lock {
    let locked = match file.try_lock() {
        Ok(()) => Lock::Acquired,
        Err(TryLockError::WouldBlock) => return Lock::Held,
        Err(TryLockError::Error(_)) => Lock::Unsupported,
    };
    // The previous owner may have renamed the file to a blob. The lock is then on that blob, which must not change.
    let same = match (file.metadata(), statat(folder.fd(), name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(file), Ok(named)) => file.is_file() && (file.ino(), file.dev()) == (named.st_ino, named.st_dev),
        _ => false,
    };
    if same { locked } else { Lock::Held }
}
