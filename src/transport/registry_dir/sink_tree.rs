//! The files of a tree, for writing.

use super::link::{self, LINK};
use super::owner::Owner;
use super::repository::{CURRENT, INDEX, LAYERS, MANIFESTS, REVISIONS, TAGS};
use super::stages::{Stages, refuse_mount};
use super::temp_directory::{self, removed};
use super::tree::{BASE, BLOBS, DATA, REPOSITORIES, Tree, open, root};
use crate::blob_files::{BlobPlace, StoredBlobs, temp_file};
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest};
use rustix::fs::{Mode, OFlags, openat, renameat};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of attempts to make a folder that other processes remove.
const MAX_ATTEMPTS: usize = 4;

/// A tree that exists and is written.
pub(super) struct SinkTree {
    pub tree: Tree,
    root: Directory,
    repositories: Directory,
    /// `blobs/sha256`, which also has the unfinished files.
    unfinished: Directory,
    stages: Stages,
    /// Blobs were stored since they were written to the disk.
    has_unsynced: AtomicBool,
}

/// The owner that new files in `dir` get: that of `repositories`, or of the deepest folder of its path that exists.
/// `None` if `dir` does not exist.
pub(super) fn owner(dir: &Path) -> Result<Option<Owner>> {
    let Some(mut at) = open(&root(dir))? else { return Ok(None) };
    for name in BASE.into_iter().chain([REPOSITORIES]) {
        match at.subdirectory(name)? {
            Some(below) => at = below,
            None => break,
        }
    }
    Owner::of(&at, dir.display().to_string()).map(Some)
}

/// Fails with `Unwritable` if a folder of the repository `name`, in which nothing can be staged, is a mount point.
pub(super) fn refuse_mounts(tree: &Tree, name: &str) -> Result<()> {
    let names: Vec<&str> = name.split('/').collect();
    let Some(repository) = tree.repositories()?.map(|all| all.descend(&names)).transpose()?.flatten() else {
        return Ok(());
    };
    refuse_mount(&repository, &[LAYERS])?;
    let Some(manifests) = repository.subdirectory(MANIFESTS)? else { return Ok(()) };
    refuse_mount(&manifests, &[REVISIONS])?;
    refuse_mount(&manifests, &[TAGS])
}

impl SinkTree {
    /// Opens the tree in `dir`; creates it if it is missing.
    ///
    /// Fails with `Unwritable`, and with `Denied` if new files cannot get the owner of the tree's.
    pub fn create(dir: &Path) -> Result<SinkTree> {
        let path = root(dir);
        fs::create_dir_all(&path).map_err(|e| Error::writing(path.display(), e))?;
        let gone = || Error::unwritable(format!("{} was removed while imgmv used it", path.display()));
        let (Some(root), Some(owner)) = (open(&path)?, owner(dir)?) else { return Err(gone()) };
        owner.check()?;
        let stages = Stages::new(owner);
        let below = |parent: &Directory, name| stages.make((&root, parent), parent, name);
        let docker = below(&root, BASE[0])?;
        let base = below(&below(&docker, BASE[1])?, BASE[2])?;
        let unfinished = below(&below(&base, BLOBS)?, Algorithm::Sha256.name())?;
        let repositories = below(&base, REPOSITORIES)?;
        Ok(SinkTree {
            tree: Tree::at(base),
            root,
            repositories,
            unfinished,
            stages,
            has_unsynced: AtomicBool::new(true),
        })
    }

    /// The folder of the repository `name`, created if it is missing.
    pub fn repository(&self, name: &str) -> Result<Directory> {
        let mut at: Option<Directory> = None;
        for name in name.split('/') {
            let parent = at.as_ref().unwrap_or(&self.repositories);
            at = Some(self.stages.make((&self.unfinished, parent), parent, name)?);
        }
        at.ok_or_else(|| removed(&self.repositories, name))
    }

    /// The folder at the path `names` below `parent`, created if it is missing. `near` is a folder of the same mount for
    /// unfinished files.
    pub fn folder(&self, near: &Directory, parent: &Directory, names: &[&str]) -> Result<Directory> {
        let mut at: Option<Directory> = None;
        for name in names {
            at = Some(self.stages.make((&self.unfinished, near), at.as_ref().unwrap_or(parent), name)?);
        }
        at.ok_or_else(|| removed(parent, ""))
    }

    /// Writes the link to the blob or manifest `digest` below `parent` (`_layers`, `revisions`). `near` as for
    /// [`SinkTree::folder`].
    ///
    /// Fails with `Unwritable`.
    pub fn link(&self, near: &Directory, parent: &Directory, digest: &Digest) -> Result<()> {
        let folder = self.folder(near, parent, &[digest.algorithm().name()])?;
        self.link_in(near, (&folder, &digest.hex()), digest)
    }

    /// Makes `tag` of the repository whose `_manifests` is `manifests` point at `digest`. A new tag appears complete.
    ///
    /// Fails with `Unwritable`.
    pub fn point(&self, manifests: &Directory, tag: &str, digest: &Digest) -> Result<()> {
        let tags = self.folder(manifests, manifests, &[TAGS])?;
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        for _ in 0..MAX_ATTEMPTS {
            if let Some(folder) = tags.subdirectory(tag)? {
                let index = self.folder(manifests, &folder, &[INDEX, algorithm])?;
                self.link_in(manifests, (&index, &hex), digest)?;
                return self.link_in(manifests, (&folder, CURRENT), digest);
            }
            let is_placed = self.stages.place((&self.unfinished, manifests), (&tags, tag), |new| {
                self.write_link(&new.nested(&[INDEX, algorithm, &hex])?, digest)?;
                self.write_link(&new.nested(&[CURRENT])?, digest)
            })?;
            if is_placed {
                return Ok(());
            }
        }
        Err(removed(&tags, tag))
    }

    /// Writes `parent/name/link`, unless it is right already.
    fn link_in(&self, near: &Directory, (parent, name): (&Directory, &str), target: &Digest) -> Result<()> {
        let stages = (&self.unfinished, near);
        for _ in 0..MAX_ATTEMPTS {
            if let Some(folder) = parent.subdirectory(name)? {
                return match link::read(&folder) {
                    Ok(Some(found)) if found == *target => Ok(()),
                    _ => {
                        self.stages.replace(stages, (&folder, LINK), |temp| self.fill(&mut temp.file, &folder, target))
                    }
                };
            }
            if self.stages.place(stages, (parent, name), |new| self.write_link(&new.directory, target))? {
                return Ok(());
            }
        }
        Err(removed(parent, name))
    }

    /// Writes the link file of a new folder.
    fn write_link(&self, folder: &Directory, target: &Digest) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(folder.fd(), LINK, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|e| Error::writing(folder.display(LINK), e.into()))?;
        self.fill(&mut File::from(file), folder, target)
    }

    fn fill(&self, file: &mut File, folder: &Directory, target: &Digest) -> Result<()> {
        self.stages.owner.apply(&*file)?;
        let written = file.write_all(target.to_string().as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|e| Error::writing(folder.display(LINK), e))
    }

    /// Writes the blobs that were stored so far to the disk.
    ///
    /// Fails with `Unwritable`.
    pub fn sync(&self) -> Result<()> {
        if !self.has_unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        rustix::fs::syncfs(self.unfinished.fd()).map_err(|e| {
            self.has_unsynced.store(true, Ordering::Release);
            Error::writing(self.unfinished.path().display(), e.into())
        })
    }

    /// Removes what killed processes left, except partial blobs.
    pub fn sweep(&self) {
        temp_file::sweep(&self.unfinished);
        temp_directory::sweep(&self.unfinished);
        temp_directory::sweep(&self.root);
    }
}

impl StoredBlobs for SinkTree {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.tree.size(digest)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        self.tree.blob(digest)
    }

    fn describe(&self) -> String {
        self.tree.describe()
    }
}

impl BlobPlace for SinkTree {
    fn unfinished(&self) -> Result<&Directory> {
        Ok(&self.unfinished)
    }

    fn prepare(&self, file: &File) -> Result<()> {
        self.stages.owner.apply(file)
    }

    fn store(&self, name: &str, digest: &Digest) -> Result<()> {
        let hex = digest.hex();
        let folder =
            self.folder(&self.unfinished, self.tree.base(), &[BLOBS, digest.algorithm().name(), &hex[..2], &hex])?;
        let renamed = renameat(self.unfinished.fd(), name, folder.fd(), DATA);
        renamed.map_err(|e| Error::writing(folder.display(DATA), e.into()))?;
        self.has_unsynced.store(true, Ordering::Release);
        Ok(())
    }
}
