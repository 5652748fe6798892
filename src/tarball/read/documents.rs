//! The contents of a streamed archive: its documents as bytes, its layers as digests.

use super::contents::{Contents, Layer, missing};
use super::diff_id;
use super::table::{Slot, resolve};
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::manifest_json;
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::entries::{EntryKind, TarEntry};
use crate::tarball::tar::path::shown;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{HashMap, HashSet};

/// The maximum size of a document that is neither manifest, index nor config of an image.
const MAX_OTHER_BYTES: u64 = 64 << 10;
/// The maximum size of all such documents together.
const MAX_ALL_OTHER_BYTES: u64 = 4 << 20;

#[derive(Default)]
pub(crate) struct StreamContents {
    pub documents: HashMap<Box<str>, Vec<u8>>,
    /// The size of all documents.
    pub bytes: u64,
    /// The size of those that are neither manifests, indexes nor configs of images.
    other_bytes: u64,
    pub layers: HashMap<Box<str>, StreamedLayer>,
    /// Layers without a digest as their name, in an archive whose first layer has one. They were not hashed.
    pub unnamed_layers: HashSet<String>,
    links: HashMap<Box<str>, Slot>,
    /// Whether the name of an entry contains a backslash.
    pub backslashes: bool,
}

/// A layer that was read completely.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StreamedLayer {
    /// The digest that was computed, or the one in its name, which the reader of the layer verifies.
    pub digest: Digest,
    /// The diff ID; only for a compressed layer whose digest was computed.
    pub diff_id: Option<Digest>,
    /// The size in bytes.
    pub size: u64,
    pub coding: Coding,
}

impl StreamContents {
    /// Adds a document. If its name is that of a blob, its digest must match.
    pub fn insert_document(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        if let Some(named) = blob_digest(name) {
            let found = Hasher::new(named.algorithm()).with(&bytes).finish();
            if found != named {
                return Err(Error::invalid(format!(
                    "{} does not match the digest in its name: got {found}",
                    shown(name)
                )));
            }
        }
        self.bytes += bytes.len() as u64;
        self.documents.insert(name.into(), bytes);
        Ok(())
    }

    /// Whether the document `bytes`, whose name is its digest, is to be stored: a manifest, an index or a config of an
    /// image. Other documents are stored as long as they are few and small: the config of an artifact may be any JSON.
    pub fn needs(&mut self, bytes: &[u8]) -> bool {
        let size = bytes.len() as u64;
        if describes_image(bytes) {
            return true;
        }
        let is_needed = size <= MAX_OTHER_BYTES && self.other_bytes + size <= MAX_ALL_OTHER_BYTES;
        self.other_bytes += if is_needed { size } else { 0 };
        is_needed
    }

    /// Adds a link; ignores a directory.
    pub fn insert_link(&mut self, entry: &TarEntry) {
        if entry.kind != EntryKind::Directory {
            self.links.insert(entry.name.as_str().into(), Slot::link(&entry.name, &entry.kind));
        }
    }

    /// Whether the layers in `manifest.json` have digests as names. True if `manifest.json` was not read yet.
    pub fn names_blobs(&self) -> bool {
        let saved = self
            .documents
            .get(manifest_json::FILE)
            .and_then(|bytes| manifest_json::parse(bytes).ok())
            .unwrap_or_default();
        saved.iter().flat_map(|image| &image.layers).all(|layer| blob_digest(layer).is_some())
    }

    /// Returns the size of the file `name` in bytes, if it was read.
    pub fn size(&self, name: &str) -> Option<u64> {
        let document = self.documents.get(name).map(|bytes| bytes.len() as u64);
        document.or_else(|| self.layers.get(name).map(|layer| layer.size))
    }

    /// Returns the documents whose names are digests.
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

/// Whether `bytes` are JSON with a field of a manifest, an index or the config of an image.
fn describes_image(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Fields {
        schema_version: Option<IgnoredAny>,
        artifact_type: Option<IgnoredAny>,
        manifests: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        blobs: Option<IgnoredAny>,
        rootfs: Option<IgnoredAny>,
    }
    // serde also accepts a list as an object.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    is_object
        && serde_json::from_slice::<Fields>(bytes).is_ok_and(|found| {
            let Fields { schema_version, artifact_type, manifests, config, layers, blobs, rootfs } = found;
            [schema_version, artifact_type, manifests, config, layers, blobs, rootfs].iter().any(Option::is_some)
        })
}

impl Contents for StreamContents {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.documents.get(self.resolve(name)?).cloned())
    }

    fn has_backslashes(&self) -> bool {
        self.backslashes
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(StreamContents::size(self, self.resolve(name)?))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer> {
        let path = self.resolve(name)?;
        let Some(layer) = self.layers.get(path) else {
            return Err(match self.unnamed_layers.contains(path) {
                true => Error::invalid(format!(
                    "layer {} is not named by its digest, but earlier layers are; save the archive to a file first",
                    shown(name)
                )),
                false => missing(self, name),
            });
        };
        let found = match (layer.coding, layer.diff_id) {
            (Coding::Raw, _) => layer.digest,
            (_, Some(diff_id)) => diff_id,
            (..) => {
                return Err(Error::invalid(format!(
                    "layer {} is compressed, but no manifest lists it, and its diff ID was not computed while it was streamed; save the archive to a file first",
                    shown(name)
                )));
            }
        };
        diff_id::check(name, &found, diff_id)?;
        Ok(Layer { digest: layer.digest, size: layer.size, coding: layer.coding })
    }
}
