//! A blob that nobody reads from a source: its bytes are brought, piece after piece, by who sends them.

use super::{Verified, check};
use crate::error::Result;
use crate::image::{Algorithm, Digest, Hasher};
use crate::source::Claim;

/// What has come of a blob so far, hashed as it came.
#[derive(Clone)]
pub struct IncomingBlob {
    hasher: Hasher,
    algorithm: Algorithm,
    size: u64,
}

impl IncomingBlob {
    pub fn new(algorithm: Algorithm) -> IncomingBlob {
        IncomingBlob::going_on(algorithm, Hasher::new(algorithm), 0)
    }

    /// Behind `size` bytes, after which the hasher of `algorithm` is in the state `hasher`.
    pub fn going_on(algorithm: Algorithm, hasher: Hasher, size: u64) -> IncomingBlob {
        IncomingBlob { hasher, algorithm, size }
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// In which it is hashed: a claim with a digest of another one cannot be checked here.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The proof that all of it is what `claim` says.
    ///
    /// Fails with `Invalid` where it is not.
    pub fn verify(self, claim: &Claim) -> Result<Verified> {
        let digest: Digest = self.hasher.finish();
        check(claim, digest, self.size)?;
        let one = (digest, self.size);
        Ok(Verified { source: one, stored: one, raw: None, resumed: 0 })
    }
}
