//! The files of a tree, opened one path component after the other without following links.

use super::repository::Repository;
use crate::blob_files::StoredBlobs;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest, is_repository};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The path of a tree below the `rootdirectory` of the registry.
pub(super) const BASE: [&str; 3] = ["docker", "registry", "v2"];
pub(super) const BLOBS: &str = "blobs";
pub(super) const REPOSITORIES: &str = "repositories";
/// The file name of each blob.
pub(super) const DATA: &str = "data";

/// An open tree.
#[derive(Debug)]
pub(super) struct Tree {
    /// `docker/registry/v2`.
    base: Directory,
    /// `blobs/sha256` and `blobs/sha512`, opened on first use.
    blobs: [OnceLock<Directory>; 2],
    repositories: OnceLock<Directory>,
}

/// The `rootdirectory` that `dir` means: without `docker/registry/v2` at its end, which a relative path or a link hides.
pub(super) fn root(dir: &Path) -> PathBuf {
    let above = |dir: &Path| dir.ends_with("docker/registry/v2").then(|| dir.ancestors().nth(BASE.len()).map(or_here));
    let real = || above(&dir.canonicalize().ok()?);
    above(dir).or_else(real).flatten().unwrap_or_else(|| dir.to_owned())
}

/// The current directory for an empty path.
fn or_here(path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { ".".into() } else { path.to_owned() }
}

impl Tree {
    /// Opens the tree in `dir`, a `rootdirectory` or its `docker/registry/v2`; `None` if it is missing.
    ///
    /// Fails with `Usage` if `dir` is a file.
    pub fn open(dir: &Path) -> Result<Option<Tree>> {
        let Some(root) = open(&root(dir))? else { return Ok(None) };
        Ok(root.descend(&BASE)?.map(|base| Tree { base, blobs: Default::default(), repositories: OnceLock::new() }))
    }

    /// The tree in the open directory `docker/registry/v2`.
    pub fn at(base: Directory) -> Tree {
        Tree { base, blobs: Default::default(), repositories: OnceLock::new() }
    }

    pub fn base(&self) -> &Directory {
        &self.base
    }

    /// The size of the blob `digest` in bytes; `None` if it is missing.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.blob_directory(digest)? {
            Some(directory) => directory.size(DATA),
            None => Ok(None),
        }
    }

    /// Opens the blob `digest`; `None` if it is missing.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        match self.blob_directory(digest)? {
            Some(directory) => directory.file(DATA),
            None => Ok(None),
        }
    }

    /// At most `limit` bytes of the blob `digest`; `None` if it is missing.
    ///
    /// Fails with `Invalid` if it is larger.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        match self.blob_directory(digest)? {
            Some(directory) => directory.read(DATA, limit),
            None => Ok(None),
        }
    }

    /// The path of the blob `digest`, for messages.
    pub fn blob_path(&self, digest: &Digest) -> String {
        let hex = digest.hex();
        let parts = [BLOBS, digest.algorithm().name(), &hex[..2], &hex, DATA];
        self.base.path().join(parts.iter().collect::<PathBuf>()).display().to_string()
    }

    fn blob_directory(&self, digest: &Digest) -> Result<Option<Directory>> {
        let hex = digest.hex();
        match self.blobs(digest.algorithm())? {
            Some(blobs) => blobs.descend(&[&hex[..2], &hex]),
            None => Ok(None),
        }
    }

    /// `blobs/ALG`, if it exists.
    pub fn blobs(&self, algorithm: Algorithm) -> Result<Option<&Directory>> {
        self.cached(&self.blobs[algorithm as usize], &[BLOBS, algorithm.name()])
    }

    /// `repositories`, if it exists.
    pub fn repositories(&self) -> Result<Option<&Directory>> {
        self.cached(&self.repositories, &[REPOSITORIES])
    }

    fn cached<'t>(&'t self, slot: &'t OnceLock<Directory>, parts: &[&str]) -> Result<Option<&'t Directory>> {
        if slot.get().is_none() {
            let Some(found) = self.base.descend(parts)? else { return Ok(None) };
            slot.get_or_init(|| found);
        }
        Ok(slot.get())
    }

    /// The repository `name`; `None` if the tree does not have it.
    pub fn repository(&self, name: &str) -> Result<Option<Repository>> {
        if !is_repository(name) || name.len() > Repository::MAX_NAME_BYTES {
            return Ok(None);
        }
        let Some(all) = self.repositories()? else { return Ok(None) };
        let parts: Vec<&str> = name.split('/').collect();
        let found = all.descend(&parts)?.map(|directory| Repository::new(name, directory));
        Ok(found.transpose()?.flatten())
    }

    /// The path of the tree, for messages.
    pub fn describe(&self) -> String {
        self.base.path().display().to_string()
    }
}

impl StoredBlobs for Tree {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Tree::size(self, digest)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        Tree::blob(self, digest)
    }

    fn describe(&self) -> String {
        Tree::describe(self)
    }
}

/// Opens `dir`; `None` if it does not exist.
///
/// Fails with `Usage` if it is not a directory.
pub(super) fn open(dir: &Path) -> Result<Option<Directory>> {
    match Directory::open(dir) {
        Ok(directory) => Ok(Some(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::usage(format!(
            "{} is not a directory, so it is not a registry's storage tree; write an archive as oci-archive:FILE",
            dir.display()
        ))),
        Err(error) => Err(Error::reading(dir.display(), error)),
    }
}
