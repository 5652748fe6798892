//! A layout's directory and where things lie in it.

use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest, LayoutIndex};
use rustix::fs::{Mode, mkdirat};
use rustix::io::Errno;
use serde::Deserialize;
use std::{fs::File, io, path::Path, sync::OnceLock};

pub(super) const LAYOUT_FILE: &str = "oci-layout";
pub(super) const INDEX_FILE: &str = "index.json";
/// In bytes, of an `index.json`: some 25 000 images. What is read of it takes up to ten times as much memory.
pub(super) const MAX_INDEX: u64 = 8 << 20;
const MAX_LAYOUT_FILE: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Place {
    pub folder: Directory,
    /// `blobs/sha256` and `blobs/sha512`, opened when first needed.
    blobs: [OnceLock<Directory>; 2],
}

impl Place {
    /// The directory `dir`, whatever is in it; `None` where there is nothing.
    pub fn open(dir: &Path) -> Result<Option<Place>> {
        match Directory::open(dir) {
            Ok(folder) => Ok(Some(Place { folder, blobs: Default::default() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::usage(format!(
                "{} is not a directory, so it cannot be an OCI layout; an archive is written oci-archive:FILE",
                dir.display()
            ))),
            Err(error) => Err(Error::reading(dir.display(), error)),
        }
    }

    /// The directory `dir`, made with what leads to it where there is nothing.
    pub fn create(dir: &Path) -> Result<Place> {
        std::fs::create_dir_all(dir).map_err(|e| Error::writing(dir.display(), e))?;
        let gone = || Error::unwritable(format!("{} was removed while imgmv was at work", dir.display()));
        Place::open(dir)?.ok_or_else(gone)
    }

    /// The file `oci-layout`, checked: whether it is there.
    pub fn is_layout(&self) -> Result<bool> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            image_layout_version: String,
        }
        let Some(bytes) = self.folder.read(LAYOUT_FILE, MAX_LAYOUT_FILE)? else { return Ok(false) };
        let file = self.folder.display(LAYOUT_FILE);
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|e| Error::invalid(format!("{file} is not what an OCI layout has there ({e})")))?;
        // image-layout.md: 1.0.0 is the only version there is; a 1.1 would be a compatible one.
        match version.image_layout_version.starts_with("1.") {
            true => Ok(true),
            false => Err(Error::invalid(format!(
                "{file} says version {:?}, expected was 1.0.0; a newer imgmv may know it",
                version.image_layout_version.chars().take(40).collect::<String>()
            ))),
        }
    }

    /// What `index.json` holds; `None` where there is none.
    pub fn index(&self) -> Result<Option<LayoutIndex>> {
        let bytes = self.folder.read(INDEX_FILE, MAX_INDEX)?;
        bytes.map(|bytes| LayoutIndex::parse(&bytes)).transpose().map_err(|e| e.at(self.shown()))
    }

    /// Size in bytes of the blob under `digest`, if there is one.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.blobs(digest.algorithm())? {
            Some(blobs) => blobs.size(&digest.hex()),
            None => Ok(None),
        }
    }

    /// The blob under `digest`, open for reading.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>> {
        match self.blobs(digest.algorithm())? {
            Some(blobs) => blobs.file(&digest.hex()),
            None => Ok(None),
        }
    }

    /// `blobs/<algorithm>`, if it is there.
    pub fn blobs(&self, algorithm: Algorithm) -> Result<Option<&Directory>> {
        let slot = &self.blobs[algorithm as usize];
        if slot.get().is_none() {
            let Some(all) = self.folder.subdirectory("blobs")? else { return Ok(None) };
            let Some(found) = all.subdirectory(algorithm.name())? else { return Ok(None) };
            slot.get_or_init(|| found);
        }
        Ok(slot.get())
    }

    /// `blobs/<algorithm>`, made if need be.
    pub fn make_blobs(&self, algorithm: Algorithm) -> Result<&Directory> {
        if self.blobs(algorithm)?.is_none() {
            make(&self.folder, "blobs")?;
            let all = self.folder.subdirectory("blobs")?.ok_or_else(|| self.vanished())?;
            make(&all, algorithm.name())?;
        }
        self.blobs(algorithm)?.ok_or_else(|| self.vanished())
    }

    pub fn shown(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn vanished(&self) -> Error {
        Error::unwritable(format!("{} was removed while imgmv was at work", self.shown()))
    }
}

fn make(parent: &Directory, name: &str) -> Result<()> {
    match mkdirat(parent.fd(), name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::writing(parent.display(name), error.into())),
    }
}
