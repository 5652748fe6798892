//! The files of a tree, for writing.

use super::link::{self, LINK};
use super::owner::Owner;
use super::repository::{CURRENT, INDEX, TAGS};
use super::temp_directory::{self, TempDirectory, make, removed};
use super::tree::{BASE, BLOBS, DATA, REPOSITORIES, Tree, open, root};
use crate::blob_files::temp_file::TempFile;
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
    owner: Owner,
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
        let below = |parent: &Directory, name| make(&root, &owner, parent, name);
        let docker = below(&root, BASE[0])?;
        let base = below(&below(&docker, BASE[1])?, BASE[2])?;
        let unfinished = below(&below(&base, BLOBS)?, Algorithm::Sha256.name())?;
        let repositories = below(&base, REPOSITORIES)?;
        Ok(SinkTree {
            tree: Tree::at(base),
            root,
            repositories,
            unfinished,
            owner,
            has_unsynced: AtomicBool::new(true),
        })
    }

    /// The folder of the repository `name`, created if it is missing.
    pub fn repository(&self, name: &str) -> Result<Directory> {
        self.folder(&self.repositories, &name.split('/').collect::<Vec<_>>())
    }

    /// The folder at the path `names` below `parent`, created if it is missing.
    pub fn folder(&self, parent: &Directory, names: &[&str]) -> Result<Directory> {
        let mut at: Option<Directory> = None;
        for name in names {
            at = Some(make(&self.unfinished, &self.owner, at.as_ref().unwrap_or(parent), name)?);
        }
        at.ok_or_else(|| removed(parent, ""))
    }

    /// Writes the link to the blob or manifest `digest` below `parent` (`_layers`, `revisions`).
    ///
    /// Fails with `Unwritable`.
    pub fn link(&self, parent: &Directory, digest: &Digest) -> Result<()> {
        let folder = self.folder(parent, &[digest.algorithm().name()])?;
        self.link_in(&folder, &digest.hex(), digest)
    }

    /// Makes `tag` of the repository whose `_manifests` is `manifests` point at `digest`. A new tag appears complete.
    ///
    /// Fails with `Unwritable`.
    pub fn point(&self, manifests: &Directory, tag: &str, digest: &Digest) -> Result<()> {
        let tags = self.folder(manifests, &[TAGS])?;
        let (algorithm, hex) = (digest.algorithm().name(), digest.hex());
        for _ in 0..MAX_ATTEMPTS {
            if let Some(folder) = tags.subdirectory(tag)? {
                let index = self.folder(&folder, &[INDEX, algorithm])?;
                self.link_in(&index, &hex, digest)?;
                return self.link_in(&folder, CURRENT, digest);
            }
            let new = TempDirectory::new(&self.unfinished, &self.owner)?;
            self.write_link(&new.nested(&[INDEX, algorithm, &hex])?, digest)?;
            self.write_link(&new.nested(&[CURRENT])?, digest)?;
            if new.place(&tags, tag)? {
                return Ok(());
            }
        }
        Err(removed(&tags, tag))
    }

    /// Writes `parent/name/link`, unless it is right already.
    fn link_in(&self, parent: &Directory, name: &str, target: &Digest) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            if let Some(folder) = parent.subdirectory(name)? {
                return match link::read(&folder) {
                    Ok(Some(found)) if found == *target => Ok(()),
                    _ => self.replace_link(&folder, target),
                };
            }
            let new = TempDirectory::new(&self.unfinished, &self.owner)?;
            self.write_link(&new.directory, target)?;
            if new.place(parent, name)? {
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

    /// Replaces the link file in `folder`.
    fn replace_link(&self, folder: &Directory, target: &Digest) -> Result<()> {
        let unwritten = |e| Error::writing(folder.display(LINK), e);
        let mut temp = TempFile::new(&self.unfinished).map_err(unwritten)?;
        self.fill(&mut temp.file, folder, target)?;
        temp.persist(folder, LINK).map_err(unwritten)
    }

    fn fill(&self, file: &mut File, folder: &Directory, target: &Digest) -> Result<()> {
        self.owner.apply(&*file)?;
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
        self.owner.apply(file)
    }

    fn store(&self, name: &str, digest: &Digest) -> Result<()> {
        let hex = digest.hex();
        let folder = self.folder(self.tree.base(), &[BLOBS, digest.algorithm().name(), &hex[..2], &hex])?;
        let renamed = renameat(self.unfinished.fd(), name, folder.fd(), DATA);
        renamed.map_err(|e| Error::writing(folder.display(DATA), e.into()))?;
        self.has_unsynced.store(true, Ordering::Release);
        Ok(())
    }
}
