//! The sizes of one upload's requests: one request per blob, unless a limit or the connection requires chunks.

use crate::transport::registry::http::client::RegistryClient;
use crate::transport::registry::push::session::MAX_CHUNK_BYTES;
use std::time::Duration;

/// The minimum ratio of a chunk's transfer time to the registry's latency: waiting then costs below 3 %.
const MIN_TRANSFER_PER_LATENCY: u32 = 34;

/// All sizes are in bytes.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    /// The chunk size for a connection that breaks on longer requests. Each such chunk has its own connection.
    pub(super) connection_chunk: Option<u64>,
    /// The registry's minimum chunk size.
    pub(super) min_chunk: u64,
    /// The chunk size for large blobs; no failure is needed for it.
    large_chunk: Option<u64>,
    /// The maximum of `large_chunk`; above it the blob is sent in one request.
    max_large_chunk: u64,
    /// A body larger than the known limit, tried once.
    pub(super) trial: Option<u64>,
    /// The first request was a chunk, so the last request is a chunk too.
    pub(super) in_chunks: bool,
}

impl Lengths {
    /// For a blob of `size` bytes, if known, sent over `client`.
    pub(super) fn new(client: &RegistryClient, size: Option<u64>, min_chunk: u64) -> Lengths {
        let one_request = client.bodies.refuses_chunks();
        let large = client.access.chunk_above_bytes;
        let large_chunk = size.filter(|size| *size > large && !one_request).map(|_| large / 2);
        Lengths {
            connection_chunk: client.throttle.chunk_bytes(),
            min_chunk,
            large_chunk,
            max_large_chunk: large,
            trial: None,
            in_chunks: false,
        }
    }

    /// The size of the next chunk of an upload with `left` bytes left; `None`: one request for all of them.
    pub(super) fn next(&mut self, client: &RegistryClient, left: Option<u64>) -> Option<u64> {
        let limit = client.bodies.max_body();
        if let Some(limit) = limit
            && left.is_none_or(|left| left > limit)
        {
            self.trial = self.trial.or_else(|| client.bodies.take_trial());
        }
        let large_chunk = self.large_chunk.filter(|_| self.min_chunk <= MAX_CHUNK_BYTES);
        let sizes = [self.connection_chunk, large_chunk, self.trial.or(limit), client.access.chunk_bytes];
        let chunk = sizes.into_iter().flatten().min().map(|size| size.max(self.min_chunk));
        chunk.filter(|chunk| self.in_chunks || left.is_none_or(|left| left > *chunk))
    }

    /// Whether the upload is in chunks although nothing requires them.
    pub(super) fn chunks_are_optional(&self, client: &RegistryClient) -> bool {
        self.in_chunks
            && self.connection_chunk.is_none()
            && client.bodies.max_body().is_none()
            && client.access.chunk_bytes.is_none()
    }

    /// Sends the rest in one request.
    pub(super) fn stop_chunks(&mut self) {
        (self.large_chunk, self.in_chunks) = (None, false);
    }

    /// Doubles the chunk size if a chunk took `took` in all and the registry's `latency` is too large a part
    /// of it.
    pub(super) fn chunk_took(&mut self, took: Duration, latency: Duration) {
        if latency * MIN_TRANSFER_PER_LATENCY > took {
            self.large_chunk = self.large_chunk.map(|chunk| chunk * 2).filter(|chunk| *chunk <= self.max_large_chunk);
        }
    }
}
