//! A blob that a client sends in pieces.

use super::Verified;
use super::verified::check;
use crate::error::Result;
use crate::image::{Algorithm, Digest, Hasher};
use crate::source::Claim;

/// The part of a blob that was received so far, hashed.
#[derive(Clone)]
pub struct IncomingBlob {
    hasher: Hasher,
    algorithm: Algorithm,
    size: u64,
}

impl IncomingBlob {
    /// Starts an empty blob.
    pub fn new(algorithm: Algorithm) -> IncomingBlob {
        IncomingBlob::resumed(algorithm, Hasher::new(algorithm), 0)
    }

    /// A blob of which `size` bytes are hashed; `hasher` is the state of `algorithm` there.
    pub fn resumed(algorithm: Algorithm, hasher: Hasher, size: u64) -> IncomingBlob {
        IncomingBlob { hasher, algorithm, size }
    }

    /// Hashes and counts the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The algorithm of the hash. A claim with a digest of another algorithm cannot be checked here.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The proof that the complete blob is what `claim` says.
    ///
    /// # Errors
    /// - `Invalid`: it is not.
    pub fn verify(self, claim: &Claim) -> Result<Verified> {
        let digest: Digest = self.hasher.finish();
        check(claim, digest, self.size)?;
        let blob = (digest, self.size);
        Ok(Verified { source: blob, stored: blob, diff_id: None, resumed: 0 })
    }
}
