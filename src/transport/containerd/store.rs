//! containerd's directory as a source.

use super::catalog::Catalog;
use super::records;
use super::records::{Listing, Record};
use crate::disk::directory::Directory;
use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::source::{Profile, Root, Selector, Store};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

const DATABASE: [&str; 2] = ["io.containerd.metadata.v1.bolt", "meta.db"];
const CONTENT: [&str; 2] = ["io.containerd.content.v1.content", "blobs"];
/// The maximum number of blobs kept open: half of a process's usual limit of open files.
const MAX_OPEN_BLOBS: usize = 512;

/// The images in containerd's directory, as its database listed them when the store was opened.
///
/// Blobs are read from the content store whichever namespace they belong to: the digest identifies them.
pub struct ContainerdStore {
    catalog: Catalog,
    content: Option<Directory>,
    /// The open blobs of the manifests read so far, since containerd may garbage-collect them before they are copied.
    opened: Mutex<HashMap<Digest, Arc<File>>>,
}

impl ContainerdStore {
    /// Opens the directory `root` (usually `/var/lib/containerd`), for the images of `namespace` or of all namespaces.
    ///
    /// Fails with `NotFound` if the directory or namespace is missing, with `Denied` if root's permission is needed,
    /// and with `Invalid` if `root` is not containerd's directory or its database is damaged.
    pub fn open(root: &Path, namespace: Option<&str>) -> Result<ContainerdStore> {
        let directory = Directory::open(root).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::not_found(format!(
                "no containerd directory at {}; name another one with --src-root",
                root.display()
            )),
            _ => with_root_hint(Error::reading(root.display(), e)),
        })?;
        let Listing { namespaces, records } = database(&directory)?;
        let place = format!("containerd at {}", root.display());
        let catalog = Catalog::new(place, namespaces, records, namespace)?;
        let content = inside(&directory, CONTENT[0])?;
        let content = content.map(|content| inside(&content, CONTENT[1])).transpose()?.flatten();
        Ok(ContainerdStore { catalog, content, opened: Mutex::default() })
    }

    /// All namespaces.
    pub fn namespaces(&self) -> &[String] {
        self.catalog.namespaces()
    }

    /// All names of the requested namespaces.
    pub fn records(&self) -> &[Record] {
        self.catalog.records()
    }

    fn file(&self, digest: &Digest) -> Result<Option<File>> {
        let Some(content) = &self.content else { return Ok(None) };
        match inside(content, digest.algorithm().name())? {
            Some(blobs) => blobs.file(&digest.hex()).map_err(with_root_hint),
            None => Ok(None),
        }
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<File>>> {
        self.opened.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Opens a blob and keeps it open, up to [`MAX_OPEN_BLOBS`].
    fn keep_open(&self, digest: &Digest) -> Result<Option<Arc<File>>> {
        if let Some(file) = self.opened().get(digest) {
            return Ok(Some(file.clone()));
        }
        let Some(file) = self.file(digest)?.map(Arc::new) else { return Ok(None) };
        let mut opened = self.opened();
        if opened.len() < MAX_OPEN_BLOBS {
            opened.insert(*digest, file.clone());
        }
        Ok(Some(file))
    }
}

impl Store for ContainerdStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        self.catalog.roots(selectors, |digest| Ok(self.manifest(&Descriptor::new("", *digest, 0)).ok()))
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let file = self.keep_open(&at.digest)?;
        let file = file.ok_or_else(|| self.catalog.missing_manifest(&at.digest))?;
        let mut bytes = Vec::new();
        let read = BlobAt { file, at: 0 }.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| Error::reading(format!("manifest {}", at.digest), e))?;
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Error::invalid(format!("manifest {} has more than {MAX_MANIFEST_BYTES} bytes", at.digest)));
        }
        if let Ok(manifest) = Manifest::parse(bytes.clone(), at) {
            for blob in manifest.blobs() {
                self.keep_open(&blob.digest)?;
            }
        }
        Ok(bytes)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let file = self.keep_open(&blob.digest)?.ok_or_else(|| self.catalog.missing_blob(blob))?;
        Ok(Box::new(BlobAt { file, at: from }))
    }

    fn file_of(&self, digest: &Digest) -> Option<String> {
        let blobs = inside(self.content.as_ref()?, digest.algorithm().name()).ok().flatten()?;
        Some(blobs.display(&digest.hex()))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let Some(file) = self.keep_open(digest)? else { return Ok(None) };
        let size = file.metadata().map_err(|e| Error::reading(format!("blob {digest}"), e))?.len();
        Ok(Some(Descriptor::new(self.catalog.media_type(digest), *digest, size)))
    }

    fn names(&self) -> Result<Vec<Name>> {
        Ok(self.catalog.names())
    }

    /// containerd stores an index with the image of one platform only.
    fn profile(&self) -> Profile {
        Profile { is_sparse: true, empty_message: self.catalog.empty_message(), ..Profile::default() }
    }
}

/// Reads a shared file from an offset, without the file's own position.
struct BlobAt {
    file: Arc<File>,
    at: u64,
}

impl Read for BlobAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn database(root: &Directory) -> Result<Listing> {
    let directory = inside(root, DATABASE[0])?;
    let file = directory.as_ref().map(|directory| directory.file(DATABASE[1]).map_err(with_root_hint));
    let file = file.transpose()?.flatten();
    let shown = root.display(&DATABASE.join("/"));
    let file = file.ok_or_else(|| {
        Error::invalid(format!("{} is not containerd's directory: {shown} is missing", root.path().display()))
    })?;
    records::listing(&file).map_err(|e| e.at(shown))
}

fn inside(directory: &Directory, name: &str) -> Result<Option<Directory>> {
    directory.subdirectory(name).map_err(with_root_hint)
}

/// Adds the solution to a permission error.
fn with_root_hint(error: Error) -> Error {
    match error.kind() {
        Kind::Denied => Error::denied(format!("{error}; containerd's directory belongs to root: run imgmv as root")),
        _ => error,
    }
}
