//! The folders in which new files and folders are made before they are renamed into place.
//!
//! A rename does not leave a mount, and `blobs` or a repository may be a mount point. So each place has a second stage: a
//! folder near it in which temporary entries harm no registry. `tags` and `revisions` are never one.

use super::owner::Owner;
use super::temp_directory::{self, Placed, TempDirectory, removed};
use crate::blob_files::temp_file::{self, TempFile};
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use rustix::fs::{AtFlags, StatxFlags, statx};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The common part of all stages of a tree.
pub(super) struct Stages {
    pub owner: Owner,
    /// A place was in another mount than the first stage, so the near one is tried first from now on.
    is_near_first: AtomicBool,
    /// The near stages from which this run has removed what killed processes left.
    swept: Mutex<HashSet<PathBuf>>,
}

impl Stages {
    pub fn new(owner: Owner) -> Stages {
        Stages { owner, is_near_first: AtomicBool::new(false), swept: Mutex::default() }
    }

    /// Makes a folder with the content of `fill`, and renames it to `name` in `parent`; returns whether it did: false if
    /// `name` exists. `near` is a folder of the same mount as `parent`, if possible.
    ///
    /// Fails with `Unwritable`, and with `Denied` if it cannot get the owner.
    pub fn place(
        &self,
        (first, near): (&Directory, &Directory),
        (parent, name): (&Directory, &str),
        fill: impl Fn(&TempDirectory<'_>) -> Result<()>,
    ) -> Result<bool> {
        for staging in self.ordered(first, near) {
            let new = TempDirectory::new(staging, &self.owner)?;
            fill(&new)?;
            match new.place(parent, name)? {
                Placed::Done => return Ok(true),
                Placed::Exists => return Ok(false),
                Placed::OtherMount => self.cross(near),
            }
        }
        Err(is_mount(parent))
    }

    /// Makes a file with the content of `fill`, and replaces the file `name` in `parent` by it.
    ///
    /// Fails with `Unwritable`, and with the error of `fill`.
    pub fn replace(
        &self,
        (first, near): (&Directory, &Directory),
        (parent, name): (&Directory, &str),
        fill: impl Fn(&mut TempFile<'_>) -> Result<()>,
    ) -> Result<()> {
        let unwritten = |e| Error::writing(parent.display(name), e);
        for staging in self.ordered(first, near) {
            let mut temp = TempFile::new(staging).map_err(unwritten)?;
            fill(&mut temp)?;
            match temp.persist(parent, name) {
                Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.cross(near),
                done => return done.map_err(unwritten),
            }
        }
        Err(is_mount(parent))
    }

    /// Opens the folder `name` in `parent`; creates it if it is missing.
    ///
    /// Fails as [`Stages::place`].
    pub fn make(&self, stages: (&Directory, &Directory), parent: &Directory, name: &str) -> Result<Directory> {
        if let Some(found) = parent.subdirectory(name)? {
            return Ok(found);
        }
        self.place(stages, (parent, name), |_| Ok(()))?;
        parent.subdirectory(name)?.ok_or_else(|| removed(parent, name))
    }

    fn ordered<'d>(&self, first: &'d Directory, near: &'d Directory) -> [&'d Directory; 2] {
        if self.is_near_first.load(Ordering::Relaxed) { [near, first] } else { [first, near] }
    }

    /// Takes note that a place is in another mount than the first stage.
    fn cross(&self, near: &Directory) {
        self.is_near_first.store(true, Ordering::Relaxed);
        if self.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(near.path().to_owned()) {
            temp_file::sweep(near);
            temp_directory::sweep(near);
        }
    }
}

/// Fails with `Unwritable` if the folder at `path` below `parent` is a mount point, in which nothing can be staged.
pub(super) fn refuse_mount(parent: &Directory, path: &[&str]) -> Result<()> {
    match parent.descend(path)? {
        Some(folder) if matches!((mount(parent), mount(&folder)), (Some(one), Some(other)) if one != other) => {
            Err(is_mount(&folder))
        }
        _ => Ok(()),
    }
}

/// The ID of the mount of `directory`; `None` before Linux 5.8.
fn mount(directory: &Directory) -> Option<u64> {
    let found = statx(directory.fd(), c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

fn is_mount(folder: &Directory) -> Error {
    Error::unwritable(format!(
        "{} is a mount point, or below one, in which imgmv has no folder for unfinished files; mount the folder of the \
         repository, or one above it, instead",
        folder.path().display()
    ))
}
