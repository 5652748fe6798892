//! How long the requests of one upload are: one request for a blob, unless something stands against it.

use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::push::session::LONGEST_CHUNK;
use std::time::Duration;

/// A chunk takes at least so many times the time that its answer takes: the waits cost less than 3 %.
const WORTH: u32 = 34;

#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// In bytes: more does not get through before the line breaks. Each chunk has a connection of its own.
    pub(super) line: Option<u64>,
    /// In bytes: what the registry takes as a chunk at least.
    pub(super) least: u64,
    /// In bytes: how a large blob is cut although nothing has failed.
    cut: Option<u64>,
    /// In bytes, of those chunks: beyond it the blob goes whole.
    largest: u64,
    /// In bytes: a larger body than was seen to pass, tried once.
    pub(super) trial: Option<u64>,
    /// The upload in hand has begun with a chunk: all of it goes in chunks, its end too.
    pub(super) begun: bool,
}

impl Lengths {
    /// For a blob of `size` bytes, if that is known, that is sent over `wire`.
    pub(super) fn new(wire: &RegistryClient, size: Option<u64>, least: u64) -> Lengths {
        let whole = wire.bodies.wants_whole_blobs();
        let large = wire.access.large;
        let cut = size.filter(|size| *size > large && !whole).map(|_| large / 2);
        Lengths { line: wire.throttle.chunk_bytes(), least, cut, largest: large, trial: None, begun: false }
    }

    /// In bytes, of the next chunk of an upload of which `left` bytes are left; none where one request takes them all.
    pub(super) fn next(&mut self, wire: &RegistryClient, left: Option<u64>) -> Option<u64> {
        let limit = wire.bodies.most();
        if let Some(limit) = limit
            && left.is_none_or(|left| left > limit)
        {
            self.trial = self.trial.or_else(|| wire.bodies.trial());
        }
        let cut = self.cut.filter(|_| self.least <= LONGEST_CHUNK);
        let most = [self.line, cut, self.trial.or(limit), wire.access.chunk].into_iter().flatten().min();
        let chunk = most.map(|most| most.max(self.least));
        chunk.filter(|chunk| self.begun || left.is_none_or(|left| left > *chunk))
    }

    /// Whether only we have chosen to send chunks.
    pub(super) fn are_free(&self, wire: &RegistryClient) -> bool {
        self.begun && self.line.is_none() && wire.bodies.most().is_none() && wire.access.chunk.is_none()
    }

    /// What is left goes in one request.
    pub(super) fn uncut(&mut self) {
        (self.cut, self.begun) = (None, false);
    }

    /// A chunk was sent and answered within `took`, by a registry whose answers take `answer`: chunks that cost too much
    /// time become longer.
    pub(super) fn chunk_took(&mut self, took: Duration, answer: Duration) {
        if answer * WORTH > took {
            self.cut = self.cut.map(|cut| cut * 2).filter(|cut| *cut <= self.largest);
        }
    }
}
