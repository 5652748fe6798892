//! What a copy did.

use crate::image::{Digest, Name, Platform};

/// What a copy did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub images: Vec<Copied>,
    /// Blobs that were read and written, in the source's bytes.
    pub moved: Count,
    /// Bytes of those that an earlier run had left there; they are not among `moved`'s.
    pub resumed: u64,
    /// Blobs that were there already.
    pub held: Count,
    pub dry_run: bool,
}

impl Report {
    /// Adds what another copy moved and found.
    pub fn count(&mut self, other: &Report) {
        for (sum, count) in [(&mut self.moved, other.moved), (&mut self.held, other.held)] {
            sum.blobs += count.blobs;
            sum.bytes += count.bytes;
        }
        self.resumed += other.resumed;
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub blobs: usize,
    pub bytes: u64,
}

impl Count {
    pub(super) fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

/// One image that is there now.
#[derive(Debug, Clone)]
pub struct Copied {
    pub names: Vec<Name>,
    /// Of the manifest or index at the destination.
    pub digest: Digest,
    pub media_type: String,
    /// Of the manifest or index at the source; another than `digest` where something was converted.
    pub source_digest: Digest,
    /// Of an index: the platforms that came along.
    pub platforms: Vec<Platform>,
}
