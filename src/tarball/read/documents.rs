//! What is remembered of an archive that passes: its documents whole, its layers by what they hashed to.

use super::contents::{Contents, Layer, missing};
use super::diff_id::agree;
use super::table::{Slot, resolve};
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::entries::{Entry, What};
use crate::tarball::tar::path::shown;
use std::collections::{HashMap, HashSet};

#[derive(Default)]
pub(crate) struct Held {
    pub documents: HashMap<Box<str>, Vec<u8>>,
    /// Of all documents together.
    pub bytes: u64,
    pub passed: HashMap<Box<str>, Passed>,
    /// Layers under names that are no digests, in an archive that began with digests; they were not hashed.
    pub strays: HashSet<String>,
    links: HashMap<Box<str>, Slot>,
    /// Whether the name of an entry has a backslash in it.
    pub backslashes: bool,
}

/// A layer that has passed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    /// As it passed: hashed here, or its name, which whoever took it has to check.
    pub digest: Digest,
    /// Unpacked; only where it was packed and hashed here.
    pub raw: Option<Digest>,
    /// In bytes.
    pub size: u64,
    pub coding: Coding,
}

impl Held {
    /// Keeps a document. Under the name of a blob it has to be that blob.
    pub fn hold(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        if let Some(named) = blob_digest(name) {
            let found = Hasher::new(named.algorithm()).with(&bytes).finish();
            if found != named {
                return Err(Error::invalid(format!("{} is not the blob that its name says: got {found}", shown(name))));
            }
        }
        self.bytes += bytes.len() as u64;
        self.documents.insert(name.into(), bytes);
        Ok(())
    }

    /// Remembers a link.
    pub fn note(&mut self, entry: &Entry) {
        if entry.what != What::Directory {
            self.links.insert(entry.name.as_str().into(), Slot::link(&entry.name, &entry.what));
        }
    }

    /// Whether layers lie under their digests by `manifest.json`, if that has passed already.
    pub fn names_blobs(&self) -> bool {
        let saved = self
            .documents
            .get(manifest_json::FILE)
            .and_then(|bytes| manifest_json::parse(bytes).ok())
            .unwrap_or_default();
        saved.iter().flat_map(|image| &image.layers).all(|layer| blob_digest(layer).is_some())
    }

    /// The size of the file `name`, in bytes, if it has passed.
    pub fn size(&self, name: &str) -> Option<u64> {
        let document = self.documents.get(name).map(|bytes| bytes.len() as u64);
        document.or_else(|| self.passed.get(name).map(|passed| passed.size))
    }

    /// The documents that lie under their digests.
    pub fn into_blobs(self) -> impl Iterator<Item = (Digest, Vec<u8>)> {
        self.documents.into_iter().filter_map(|(name, bytes)| Some((blob_digest(&name)?, bytes)))
    }

    fn resolve<'n>(&'n self, name: &'n str) -> Result<&'n str> {
        resolve(name, |name| match self.links.get(name) {
            Some(Slot::Link(target)) => Some(target.as_deref()),
            _ => None,
        })
    }
}

impl Contents for Held {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.documents.get(self.resolve(name)?).cloned())
    }

    fn has_backslashes(&self) -> bool {
        self.backslashes
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(Held::size(self, self.resolve(name)?))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer> {
        let path = self.resolve(name)?;
        let Some(passed) = self.passed.get(path) else {
            return Err(match self.strays.contains(path) {
                true => Error::invalid(format!(
                    "layer {} lies under no digest in an archive that began with digests; save it to a file first",
                    shown(name)
                )),
                false => missing(self, name),
            });
        };
        let raw = match (passed.coding, passed.raw) {
            (Coding::Raw, _) => passed.digest,
            (_, Some(raw)) => raw,
            (..) => {
                return Err(Error::invalid(format!(
                    "layer {} is packed and has no manifest, so it had to be unpacked when it passed; save the archive to a file first",
                    shown(name)
                )));
            }
        };
        agree(name, &raw, diff_id)?;
        Ok(Layer { digest: passed.digest, size: passed.size, coding: passed.coding })
    }
}
