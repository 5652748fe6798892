//! The content of a stream that was read to its end, without its layers.

use super::again::LayersAgain;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, media_type};
use crate::source::{Profile, ReferrerList, Root, Selector, Store, select, with_unlisted};
use crate::tarball::attached::AttachedTable;
use std::{
    collections::{HashMap, HashSet},
    io::Read,
};

/// The images of a stream that was read to its end.
#[derive(Debug, Default)]
pub struct StreamSummary {
    pub roots: Vec<Root>,
    /// Manifests, indexes and configs (small JSON documents), which are not among the blobs of `next_blob`.
    pub documents: HashMap<Digest, Vec<u8>>,
    pub(crate) attached: AttachedTable,
    /// The other blobs.
    pub streamed: HashSet<Digest>,
    /// The layers of an archive in a file.
    pub(crate) layers: Option<LayersAgain>,
    /// [`Profile::empty_message`] for this archive.
    pub empty_message: String,
}

impl StreamSummary {
    /// Returns the roots that `selectors` select, as [`Store::roots`] does.
    pub fn select(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        select(&self.roots, selectors)
    }
}

/// A stream that was read to its end, as a store of its documents. Its layers can be opened only if it is a
/// file, which is then read from its start.
pub struct StreamedStore {
    /// The documents of the stream.
    pub summary: StreamSummary,
    /// The blobs that were streamed and belong to the images.
    pub blobs: HashSet<Digest>,
}

impl StreamedStore {
    /// The images of `summary` with all blobs of the stream.
    pub fn of_all(summary: StreamSummary) -> StreamedStore {
        StreamedStore { blobs: summary.streamed.clone(), summary }
    }
}

impl Store for StreamedStore {
    fn roots(&self, selectors: &[Selector]) -> Result<Vec<Root>> {
        let roots = self.summary.roots.clone();
        let known = with_unlisted(roots, selectors, |digest| Ok(self.summary.documents.get(digest).cloned()))?;
        Ok(self.summary.attached.with_originals(select(&known, selectors)?))
    }

    fn manifest(&self, at: &Descriptor) -> Result<Vec<u8>> {
        let found = self.summary.documents.get(&at.digest).cloned();
        found.ok_or_else(|| Error::invalid(format!("manifest {} is missing in the archive", at.digest)))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let Some(bytes) = self.summary.documents.get(&blob.digest) else {
            if !self.blobs.contains(&blob.digest) {
                return Err(Error::not_found(format!("the archive does not have blob {}", blob.digest)));
            }
            if let Some(layers) = &self.summary.layers
                && let Some(bytes) = layers.open(blob, from)?
            {
                return Ok(bytes);
            }
            return Err(Error::usage(format!(
                "blob {}: already streamed and cannot be read again; save the archive to a file first",
                blob.digest
            )));
        };
        Ok(Box::new(&bytes[(from as usize).min(bytes.len())..]))
    }

    fn find(&self, digest: &Digest) -> Result<Option<Descriptor>> {
        let document = self.summary.documents.get(digest).map(|bytes| bytes.len() as u64);
        let streamed = self.blobs.contains(digest).then_some(0);
        Ok(document.or(streamed).map(|size| Descriptor::new(media_type::OCTETS, *digest, size)))
    }

    fn referrers(&self, subject: &Digest) -> Result<ReferrerList> {
        Ok(self.summary.attached.referrers(subject))
    }

    fn digest_tagged(&self, subject: &Digest) -> Result<Vec<(String, Descriptor)>> {
        Ok(self.summary.attached.digest_tagged(subject))
    }

    fn profile(&self) -> Profile {
        let empty_message = self.summary.empty_message.clone();
        Profile { is_sparse: true, empty_message, ..Profile::default() }
    }
}
