//! The proof that a blob is what was announced.

use crate::image::{Descriptor, Digest};

/// The proof that a blob's bytes were hashed here and were what the claim said.
#[derive(Debug, Clone)]
pub struct Verified {
    pub(super) source: (Digest, u64),
    pub(super) stored: (Digest, u64),
    pub(super) raw: Option<Digest>,
    pub(super) resumed: u64,
}

impl Verified {
    /// Digest and size, in bytes, of what was read.
    pub fn source(&self) -> (Digest, u64) {
        self.source
    }

    /// Digest and size, in bytes, of what was written: another only where the layer was recoded on the way.
    pub fn stored(&self) -> (Digest, u64) {
        self.stored
    }

    /// Digest of the layer unpacked, where the blob was recoded and so unpacked on the way.
    pub fn raw(&self) -> Option<Digest> {
        self.raw
    }

    /// Bytes of it, from its start, that an earlier run had left and that were read from there.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// `like` with what was stored.
    pub fn descriptor(&self, like: &Descriptor) -> Descriptor {
        Descriptor { digest: self.stored.0, size: self.stored.1, ..like.clone() }
    }
}
