//! The proof that a blob is the announced one.

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest};
use crate::source::Claim;

/// The proof that a blob's bytes were hashed here and agree with the claim.
#[derive(Debug, Clone)]
pub struct Verified {
    pub(super) source: (Digest, u64),
    pub(super) stored: (Digest, u64),
    pub(super) diff_id: Option<Digest>,
    pub(super) resumed: u64,
}

impl Verified {
    /// Digest and size in bytes of the blob that was read.
    pub fn source(&self) -> (Digest, u64) {
        self.source
    }

    /// Digest and size in bytes of the blob that was written; a recompression makes them differ from `source`.
    pub fn stored(&self) -> (Digest, u64) {
        self.stored
    }

    /// The diff ID of a layer that was recompressed.
    pub fn diff_id(&self) -> Option<Digest> {
        self.diff_id
    }

    /// The bytes at the start of the blob that an earlier run wrote.
    pub fn resumed(&self) -> u64 {
        self.resumed
    }

    /// `like` with digest and size of the blob that was written.
    pub fn descriptor(&self, like: &Descriptor) -> Descriptor {
        Descriptor { digest: self.stored.0, size: self.stored.1, ..like.clone() }
    }
}

/// Checks digest and size of a blob that was read.
pub(super) fn check(claim: &Claim, digest: Digest, size: u64) -> Result<()> {
    if let Some(expected) = claim.size
        && expected != size
    {
        return Err(Error::invalid(format!(
            "{} has {size} bytes instead of {expected}; it was not stored",
            named(claim)
        )));
    }
    match claim.digest {
        Some(expected) if expected != digest => {
            Err(Error::digest_mismatch(format!("blob {expected} does not match: got {digest}; it was not stored")))
        }
        _ => Ok(()),
    }
}

pub(super) fn named(claim: &Claim) -> String {
    match claim.digest {
        Some(digest) => format!("blob {digest}"),
        None => "a blob".to_owned(),
    }
}

/// The error for bytes behind the announced size.
pub(crate) fn longer_than_announced(claim: &Claim) -> Error {
    let size = claim.size.map_or_else(|| "the".to_owned(), |size| format!("the {size}"));
    Error::invalid(format!("{} has more than {size} bytes announced", named(claim)))
}

/// The error for a commit of another blob than the announced one.
pub(crate) fn not_announced(digest: &Digest) -> Error {
    Error::failed(format!("blob {digest} is not the blob that was announced"))
}
