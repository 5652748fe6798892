//! Folders that are made complete under a temporary name and renamed into place, so that a registry never sees one with
//! another owner, or a tag without its link.

use super::owner::Owner;
use crate::blob_files::temp_file::{fresh_name, unfinished_files};
use crate::disk::directory::Directory;
use crate::disk::lock::Lock;
use crate::error::{Error, Result};
use rustix::fs::{
    AtFlags, Dir, FlockOperation, Mode, RenameFlags, flock, fstat, mkdirat, renameat_with, statat, unlinkat,
};
use rustix::io::Errno;

/// The number of attempts at a name that no sweep of another process removes.
const MAX_ATTEMPTS: usize = 16;
/// The depth of a tag's folder, and some more.
const MAX_DEPTH: usize = 8;

/// The result of renaming a new folder to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placed {
    Done,
    /// The name exists.
    Exists,
    /// The place is in another mount than the new folder, and no rename leaves a mount.
    OtherMount,
}

/// A new folder; removed on drop, unless it was renamed with [`TempDirectory::place`].
pub(super) struct TempDirectory<'d> {
    staging: &'d Directory,
    owner: &'d Owner,
    name: String,
    /// Locked: a sweep of another process leaves it.
    pub directory: Directory,
    placed: bool,
}

impl<'d> TempDirectory<'d> {
    /// Creates a folder of `owner` in `staging`.
    ///
    /// Fails with `Unwritable`, and with `Denied` if it cannot get that owner.
    pub fn new(staging: &'d Directory, owner: &'d Owner) -> Result<TempDirectory<'d>> {
        for _ in 0..MAX_ATTEMPTS {
            let name = fresh_name();
            create(staging, &name)?;
            let Some(directory) = staging.subdirectory(&name)? else { continue };
            let temp = TempDirectory { staging, owner, name, directory, placed: false };
            if lock(staging, &temp.name, &temp.directory) != Lock::Held {
                owner.apply(temp.directory.fd())?;
                return Ok(temp);
            }
        }
        Err(Error::unwritable(format!("{}: no free name for a temporary folder", staging.path().display())))
    }

    /// Creates the folders `names`, one in the other, and opens the last one.
    pub fn nested(&self, names: &[&str]) -> Result<Directory> {
        let mut at: Option<Directory> = None;
        for name in names {
            let parent = at.as_ref().unwrap_or(&self.directory);
            create(parent, name)?;
            let made = parent.subdirectory(name)?.ok_or_else(|| removed(parent, name))?;
            self.owner.apply(made.fd())?;
            at = Some(made);
        }
        at.ok_or_else(|| removed(&self.directory, ""))
    }

    /// Renames the folder to `name` in `parent`.
    ///
    /// Fails with `Unwritable`.
    pub fn place(mut self, parent: &Directory, name: &str) -> Result<Placed> {
        let (from, to) = (self.staging.fd(), parent.fd());
        let flags = RenameFlags::NOREPLACE;
        let mut renamed = renameat_with(from, &self.name, to, name, flags);
        if matches!(renamed, Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) {
            // A file system without the flag. A folder with content is not replaced in any case.
            renamed = match parent.subdirectory(name)? {
                Some(_) => Err(Errno::EXIST),
                None => rustix::fs::renameat(from, &self.name, to, name),
            };
        }
        match renamed {
            Ok(()) => {
                self.placed = true;
                Ok(Placed::Done)
            }
            Err(Errno::EXIST | Errno::NOTEMPTY) => Ok(Placed::Exists),
            Err(Errno::XDEV) => Ok(Placed::OtherMount),
            Err(error) => Err(Error::writing(parent.display(name), error.into())),
        }
    }
}

impl Drop for TempDirectory<'_> {
    fn drop(&mut self) {
        if !self.placed {
            // If it cannot be removed now, a later run sweeps it.
            remove(self.staging, &self.name);
        }
    }
}

/// Removes the temporary folders in `staging` that no process has locked.
pub(super) fn sweep(staging: &Directory) {
    for name in unfinished_files(staging) {
        if let Ok(Some(directory)) = staging.subdirectory(&name)
            && lock(staging, &name, &directory) == Lock::Acquired
        {
            remove(staging, &name);
        }
    }
}

pub(super) fn removed(parent: &Directory, name: &str) -> Error {
    Error::unwritable(format!("{} was removed while imgmv used it; run the same command again", parent.display(name)))
}

fn create(parent: &Directory, name: &str) -> Result<()> {
    mkdirat(parent.fd(), name, Mode::RWXU).map_err(|e| Error::writing(parent.display(name), e.into()))
}

/// Tries to lock `directory`, which was opened as `name`; does not wait.
fn lock(staging: &Directory, name: &str, directory: &Directory) -> Lock {
    let locked = match flock(directory.fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Lock::Acquired,
        Err(Errno::WOULDBLOCK) => return Lock::Held,
        Err(_) => Lock::Unsupported,
    };
    // The previous owner may have renamed the folder into place.
    match (fstat(directory.fd()), statat(staging.fd(), name, AtFlags::SYMLINK_NOFOLLOW)) {
        (Ok(open), Ok(named)) if (open.st_dev, open.st_ino) == (named.st_dev, named.st_ino) => locked,
        _ => Lock::Held,
    }
}

/// Removes the folder `name` with all that it has.
fn remove(parent: &Directory, name: &str) {
    if let Ok(Some(directory)) = parent.subdirectory(name) {
        remove_content(&directory, MAX_DEPTH);
    }
    let _ = unlinkat(parent.fd(), name, AtFlags::REMOVEDIR);
}

fn remove_content(directory: &Directory, depth: usize) {
    let Ok(entries) = Dir::read_from(directory.fd()) else { return };
    for entry in entries.flatten() {
        let Some(name) = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | "..")) else { continue };
        if unlinkat(directory.fd(), name, AtFlags::empty()).is_err()
            && depth > 0
            && let Ok(Some(below)) = directory.subdirectory(name)
        {
            remove_content(&below, depth - 1);
            let _ = unlinkat(directory.fd(), name, AtFlags::REMOVEDIR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_in_use_stays() {
        let temp = tempfile::tempdir().unwrap();
        let staging = Directory::open(temp.path()).unwrap();
        let owner = Owner::of(&staging, "it".into()).unwrap();
        let used = TempDirectory::new(&staging, &owner).unwrap();
        used.nested(&["index", "sha256", "ab"]).unwrap();
        let left = temp.path().join(".imgmv-0000000000000000.tmp");
        fs::create_dir_all(left.join("current")).unwrap();
        fs::write(left.join("current/link"), b"x").unwrap();
        sweep(&staging);
        assert_eq!(unfinished_files(&staging), std::slice::from_ref(&used.name));
        assert_eq!(used.place(&staging, "tag").unwrap(), Placed::Done);
        assert!(temp.path().join("tag/index/sha256/ab").is_dir());
        assert_eq!(TempDirectory::new(&staging, &owner).unwrap().place(&staging, "tag").unwrap(), Placed::Exists);
        assert!(unfinished_files(&staging).is_empty());
    }
}
