//! The result of a copy.

use crate::image::{Digest, Name, Platform};

/// The result of a copy.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The images at the destination; for a dry run, the planned ones.
    pub images: Vec<Copied>,
    /// Blobs that were read and written, in the source's bytes.
    pub transferred: Count,
    /// Bytes of those that an earlier run wrote; they are not counted in `transferred`.
    pub resumed_bytes: u64,
    /// Blobs that the destination already had.
    pub existing: Count,
    /// Whether this was only a plan ([`Options::dry_run`](super::Options)).
    pub dry_run: bool,
}

impl Report {
    /// Adds the counts of another copy.
    pub fn count(&mut self, other: &Report) {
        for (sum, count) in [(&mut self.transferred, other.transferred), (&mut self.existing, other.existing)] {
            sum.blobs += count.blobs;
            sum.bytes += count.bytes;
        }
        self.resumed_bytes += other.resumed_bytes;
    }
}

/// A number of blobs and the sum of their sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// The number of blobs.
    pub blobs: usize,
    /// The sum of their sizes in the source, in bytes.
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

/// One image that is stored at the destination now.
#[derive(Debug, Clone)]
pub struct Copied {
    /// The names at the destination; empty for an image that is stored by its digest only.
    pub names: Vec<Name>,
    /// The digest of the manifest or index at the destination.
    pub digest: Digest,
    /// The media type of the manifest or index at the destination.
    pub media_type: String,
    /// The digest of the manifest or index at the source; a conversion makes it differ from `digest`.
    pub source_digest: Digest,
    /// The manifests that were copied because they belong to the image: referrers, and what cosign's tags name.
    pub referrers: Vec<Digest>,
    /// The platforms of an index that were copied.
    pub platforms: Vec<Platform>,
}
