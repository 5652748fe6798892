//! The current layer of a streamed archive. It is hashed if its name is not its digest.

use super::diff_id;
use super::diff_id::DiffIdHasher;
use super::documents::StreamedLayer;
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::path::shown;

pub(crate) struct CurrentLayer {
    pub name: String,
    /// The size in bytes.
    pub size: u64,
    coding: Coding,
    /// The first bytes, already read to detect the type.
    head: Vec<u8>,
    /// The number of bytes of `head` that were returned.
    returned: usize,
    identity: LayerIdentity,
}

enum LayerIdentity {
    /// The digest in the name; the reader of the layer verifies it.
    Named(Digest),
    Hashed {
        digest: Hasher,
        /// Only for a compressed layer.
        diff_id: Option<DiffIdHasher>,
    },
}

impl CurrentLayer {
    /// Creates a layer whose name has the digest; it may have any content.
    pub fn named(name: String, size: u64, head: Vec<u8>, digest: Digest) -> CurrentLayer {
        let coding = Coding::sniff(&head);
        CurrentLayer { name, size, coding, head, returned: 0, identity: LayerIdentity::Named(digest) }
    }

    /// Creates a layer that is hashed while it is read.
    pub fn hashed(name: String, size: u64, head: Vec<u8>) -> Result<CurrentLayer> {
        let coding = diff_id::coding(&head).map_err(|e| e.at(shown(&name)))?;
        let diff_id = (coding != Coding::Raw).then(|| DiffIdHasher::new(coding)).transpose()?;
        let algorithm = blob_digest(&name).map(|digest| digest.algorithm()).unwrap_or_default();
        let identity = LayerIdentity::Hashed { digest: Hasher::new(algorithm), diff_id };
        Ok(CurrentLayer { name, size, coding, head, returned: 0, identity })
    }

    pub fn is_hashed(&self) -> bool {
        matches!(self.identity, LayerIdentity::Hashed { .. })
    }

    /// Reads from the first bytes; 0 when all were returned.
    pub fn read_head(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.head[self.returned..];
        let n = left.len().min(buffer.len());
        buffer[..n].copy_from_slice(&left[..n]);
        self.returned += n;
        n
    }

    /// Hashes the next `bytes` of the layer.
    pub fn update(&mut self, bytes: &[u8]) -> Result<()> {
        let LayerIdentity::Hashed { digest, diff_id } = &mut self.identity else { return Ok(()) };
        digest.update(bytes);
        match diff_id {
            Some(diff_id) => diff_id.update(bytes).map_err(|e| e.at(shown(&self.name))),
            None => Ok(()),
        }
    }

    /// Returns name and digests after all bytes were read. If the name is a digest, it must match.
    pub fn finish(self) -> Result<(Box<str>, StreamedLayer)> {
        let (digest, diff_id) = match self.identity {
            LayerIdentity::Named(digest) => (digest, None),
            LayerIdentity::Hashed { digest, diff_id } => {
                let diff_id = diff_id.map(DiffIdHasher::finish).transpose();
                (digest.finish(), diff_id.map_err(|e| e.at(shown(&self.name)))?)
            }
        };
        match blob_digest(&self.name) {
            Some(named) if named != digest => Err(Error::invalid(format!(
                "{} does not match the digest in its name: got {digest}",
                shown(&self.name)
            ))),
            _ => Ok((self.name.into(), StreamedLayer { digest, diff_id, size: self.size, coding: self.coding })),
        }
    }
}
