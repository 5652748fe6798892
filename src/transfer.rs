//! One blob through: read, hash, write, check. The only maker of [`Verified`].

use crate::image::{Descriptor, Digest};

/// The proof that a blob's bytes were hashed here and were what the claim said.
#[derive(Debug, Clone)]
pub struct Verified {
    source: (Digest, u64),
    stored: (Digest, u64),
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

    /// `like` with what was stored.
    pub fn descriptor(&self, like: &Descriptor) -> Descriptor {
        Descriptor { digest: self.stored.0, size: self.stored.1, ..like.clone() }
    }
}
