//! A layer while it passes: its first bytes were read already, and it is hashed where its name does not say what it is.

use super::diff_id;
use super::diff_id::Unpacked;
use super::documents::Passed;
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::path::shown;

pub(crate) struct Passing {
    pub name: String,
    /// In bytes.
    pub size: u64,
    coding: Coding,
    /// Its first bytes, read to see what it is.
    head: Vec<u8>,
    handed: usize,
    bytes: Bytes,
}

enum Bytes {
    /// The name says the digest; whoever takes the bytes checks it.
    Named(Digest),
    Hashed {
        whole: Hasher,
        /// Of a packed layer.
        unpacked: Option<Unpacked>,
    },
}

impl Passing {
    /// A layer under the digest that it is by its name; it may be anything.
    pub fn named(name: String, size: u64, head: Vec<u8>, digest: Digest) -> Passing {
        let coding = Coding::sniff(&head);
        Passing { name, size, coding, head, handed: 0, bytes: Bytes::Named(digest) }
    }

    /// A layer that has to be hashed to be known.
    pub fn hashed(name: String, size: u64, head: Vec<u8>) -> Result<Passing> {
        let coding = diff_id::coding(&head).map_err(|e| e.at(shown(&name)))?;
        let unpacked = (coding != Coding::Raw).then(|| Unpacked::new(coding)).transpose()?;
        let algorithm = blob_digest(&name).map(|digest| digest.algorithm()).unwrap_or_default();
        let bytes = Bytes::Hashed { whole: Hasher::new(algorithm), unpacked };
        Ok(Passing { name, size, coding, head, handed: 0, bytes })
    }

    pub fn is_hashed(&self) -> bool {
        matches!(self.bytes, Bytes::Hashed { .. })
    }

    /// Hands on the first bytes; 0 when they are all gone.
    pub fn first(&mut self, buffer: &mut [u8]) -> usize {
        let left = &self.head[self.handed..];
        let n = left.len().min(buffer.len());
        buffer[..n].copy_from_slice(&left[..n]);
        self.handed += n;
        n
    }

    /// Hears of `bytes` that were handed on.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<()> {
        let Bytes::Hashed { whole, unpacked } = &mut self.bytes else { return Ok(()) };
        whole.update(bytes);
        match unpacked {
            Some(unpacked) => unpacked.update(bytes).map_err(|e| e.at(shown(&self.name))),
            None => Ok(()),
        }
    }

    /// What it was; all of it has passed. Under the name of a blob it has to be that blob.
    pub fn end(self) -> Result<(Box<str>, Passed)> {
        let (digest, raw) = match self.bytes {
            Bytes::Named(digest) => (digest, None),
            Bytes::Hashed { whole, unpacked } => {
                let raw = unpacked.map(Unpacked::finish).transpose();
                (whole.finish(), raw.map_err(|e| e.at(shown(&self.name)))?)
            }
        };
        match blob_digest(&self.name) {
            Some(named) if named != digest => {
                Err(Error::invalid(format!("{} is not the blob that its name says: got {digest}", shown(&self.name))))
            }
            _ => Ok((self.name.into(), Passed { digest, raw, size: self.size, coding: self.coding })),
        }
    }
}
