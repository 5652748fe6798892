//! The owner and the permissions of new files: those that the registry's own files have.

use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use rustix::fs::{Gid, Mode, Stat, Uid, fchmod, fchown, fstat};
use std::os::fd::AsFd;

/// Set-group-ID and the permissions of a registry's folders. Other users never get the right to write, whatever the
/// folder has above a new tree (0777 for a volume of Kubernetes).
const DIRECTORY_MODE: u32 = 0o2775;
/// Files are not executable.
const FILE_MODE: u32 = 0o666;

/// The owner and the permissions of a tree.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    user: u32,
    group: u32,
    /// Of folders.
    mode: u32,
    /// The tree, for messages.
    shown: String,
}

impl Owner {
    /// The owner of `directory`.
    ///
    /// Fails if it cannot be read.
    pub fn of(directory: &Directory, shown: String) -> Result<Owner> {
        let found = fstat(directory.fd()).map_err(|e| Error::reading(directory.path().display(), e.into()))?;
        Ok(Owner { user: found.st_uid, group: found.st_gid, mode: found.st_mode & DIRECTORY_MODE, shown })
    }

    /// Fails with `Denied` if this process is not able to give files this owner.
    pub fn check(&self) -> Result<()> {
        let user = rustix::process::geteuid();
        let in_group = || {
            rustix::process::getegid().as_raw() == self.group
                || rustix::process::getgroups().is_ok_and(|groups| groups.iter().any(|one| one.as_raw() == self.group))
        };
        match user.is_root() || user.as_raw() == self.user && in_group() {
            true => Ok(()),
            false => Err(self.refused("nothing was written; ")),
        }
    }

    /// Gives a new file or folder this owner.
    ///
    /// Fails with `Denied` if this process is not able to, and with `Unwritable`.
    pub fn apply(&self, file: impl AsFd) -> Result<()> {
        let found = fstat(&file).map_err(|e| Error::reading(&self.shown, e.into()))?;
        if (found.st_uid, found.st_gid) != (self.user, self.group) {
            let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
            fchown(&file, Some(user), Some(group)).map_err(|_| self.refused(""))?;
        }
        let mode = self.mode_of(&found);
        match found.st_mode & 0o7777 == mode {
            true => Ok(()),
            false => fchmod(&file, Mode::from_raw_mode(mode)).map_err(|e| Error::writing(&self.shown, e.into())),
        }
    }

    fn mode_of(&self, found: &Stat) -> u32 {
        let is_directory = rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Directory;
        if is_directory { self.mode } else { self.mode & FILE_MODE }
    }

    /// The error for an owner that new files cannot get. `written` says what was written before.
    fn refused(&self, written: &str) -> Error {
        let runs_as = rustix::process::geteuid();
        let (user, group) = (self.user, self.group);
        let hint = match runs_as.is_root() {
            // In a container or user namespace, or on NFS, root may not give files away.
            true => format!(
                "its file system or the missing capability CAP_CHOWN forbids that to root; run imgmv as user {user} and \
                 group {group}, or on the host that has the disk"
            ),
            false if runs_as.as_raw() == user => format!("run imgmv as root, or with group {group}"),
            false => format!("run imgmv as root, or as user {user} with group {group}"),
        };
        Error::denied(format!(
            "{}: its files belong to user {user} and group {group}, but imgmv runs as user {} and cannot give new files \
             that owner, so the registry could not write to them later; {written}{hint}",
            self.shown,
            runs_as.as_raw()
        ))
    }
}
