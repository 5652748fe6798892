//! The directory of a layout, and the files in it.

use crate::blob_files::{BlobPlace, StoredBlobs};
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest, LayoutIndex};
use rustix::fs::{Mode, mkdirat, renameat};
use rustix::io::Errno;
use serde::Deserialize;
use std::{fs::File, io, path::Path, sync::OnceLock};

pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const INDEX_FILE: &str = "index.json";
/// The size limit of `index.json`: about 25 000 images. Parsed, it uses up to ten times as much memory.
pub(super) const MAX_INDEX_BYTES: u64 = 8 << 20;
const MAX_LAYOUT_FILE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub(crate) struct LayoutDirectory {
    pub directory: Directory,
    /// `blobs/sha256` and `blobs/sha512`, opened on first use.
    blobs: [OnceLock<Directory>; 2],
}

impl LayoutDirectory {
    /// Opens the directory `dir`, whatever it contains; `None` if it does not exist.
    pub fn open(dir: &Path) -> Result<Option<LayoutDirectory>> {
        match Directory::open(dir) {
            Ok(directory) => Ok(Some(LayoutDirectory { directory, blobs: Default::default() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::usage(format!(
                "{} is not a directory, so it is not an OCI layout; write an archive as oci-archive:FILE",
                dir.display()
            ))),
            Err(error) => Err(Error::reading(dir.display(), error)),
        }
    }

    /// Opens the directory `dir`; creates it and its parents if they are missing.
    pub fn create(dir: &Path) -> Result<LayoutDirectory> {
        std::fs::create_dir_all(dir).map_err(|e| Error::writing(dir.display(), e))?;
        LayoutDirectory::open(dir)?.ok_or_else(|| removed(dir.display()))
    }

    /// Whether the file `oci-layout` exists; if so, its version is checked.
    pub fn is_layout(&self) -> Result<bool> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let Some(bytes) = self.directory.read(LAYOUT_FILE, MAX_LAYOUT_FILE_BYTES)? else { return Ok(false) };
        let file = self.directory.display(LAYOUT_FILE);
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(format!("{file} is not the version file of an OCI layout ({e})")))?;
        // image-layout.md: 1.0.0 is the only version so far; a 1.1 would be compatible.
        match version.image_layout_version.starts_with("1.") {
            true => Ok(true),
            false => Err(Error::invalid(format!(
                "{file} has version {:?}, expected 1.0.0; a newer imgmv may support it",
                version.image_layout_version.chars().take(40).collect::<String>()
            ))),
        }
    }

    /// Reads `index.json`; `None` if it is missing.
    pub fn index(&self) -> Result<Option<LayoutIndex>> {
        let bytes = self.directory.read(INDEX_FILE, MAX_INDEX_BYTES)?;
        bytes.map(|bytes| LayoutIndex::parse(&bytes)).transpose().map_err(|e| e.at(self.describe()))
    }

    /// The size of the blob `digest`, in bytes; `None` if it is missing.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.blobs(digest.algorithm())? {
            Some(blobs) => blobs.size(&digest.hex()),
            None => Ok(None),
        }
    }

    /// Opens the blob `digest` for reading; `None` if it is missing.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        match self.blobs(digest.algorithm())? {
            Some(blobs) => blobs.file(&digest.hex()),
            None => Ok(None),
        }
    }

    /// `blobs/<algorithm>`, if it exists.
    pub fn blobs(&self, algorithm: Algorithm) -> Result<Option<&Directory>> {
        let slot = &self.blobs[algorithm as usize];
        if slot.get().is_none() {
            let Some(all) = self.directory.subdirectory("blobs")? else { return Ok(None) };
            let Some(found) = all.subdirectory(algorithm.name())? else { return Ok(None) };
            slot.get_or_init(|| found);
        }
        Ok(slot.get())
    }

    /// `blobs/<algorithm>`, created if it is missing.
    pub fn make_blobs(&self, algorithm: Algorithm) -> Result<&Directory> {
        if self.blobs(algorithm)?.is_none() {
            make(&self.directory, "blobs")?;
            let all = self.directory.subdirectory("blobs")?.ok_or_else(|| removed(self.describe()))?;
            make(&all, algorithm.name())?;
        }
        self.blobs(algorithm)?.ok_or_else(|| removed(self.describe()))
    }

    pub fn describe(&self) -> String {
        self.directory.path().display().to_string()
    }
}

impl StoredBlobs for LayoutDirectory {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        LayoutDirectory::size(self, digest)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        LayoutDirectory::blob(self, digest)
    }

    fn describe(&self) -> String {
        LayoutDirectory::describe(self)
    }
}

/// Unfinished files are in the layout's directory.
impl BlobPlace for LayoutDirectory {
    fn unfinished(&self) -> Result<&Directory> {
        Ok(&self.directory)
    }

    fn store(&self, name: &str, digest: &Digest) -> Result<()> {
        let blobs = self.make_blobs(digest.algorithm())?;
        let renamed = renameat(self.directory.fd(), name, blobs.fd(), digest.hex());
        renamed.map_err(|e| Error::writing(format!("blob {digest} in {}", self.describe()), e.into()))
    }
}

fn removed(directory: impl std::fmt::Display) -> Error {
    Error::unwritable(format!("{directory} was removed while imgmv used it"))
}

fn make(parent: &Directory, name: &str) -> Result<()> {
    match mkdirat(parent.fd(), name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::writing(parent.display(name), error.into())),
    }
}
