//! A registry's latency and its refusals, which decide how many requests it gets in parallel.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The latency from which a registry counts as far away. Most of a request's time is then latency.
const MIN_FAR_LATENCY: Duration = Duration::from_millis(30);
/// The number of parallel blobs of a registry that is far away.
const PARALLEL_BLOBS_WHEN_FAR: usize = 32;
/// The limit on ranges of one registry's large blobs in memory (see `pull/ranges.rs`).
pub const MAX_BUFFERED_RANGES: usize = 12;

/// The latency and the refusals of one registry so far.
pub struct Throttle {
    /// The shortest time to a response.
    min_latency_micros: AtomicU64,
    /// The number of responses with status 429.
    too_many_requests: AtomicUsize,
    range_buffers: Mutex<RangeBuffers>,
    /// The size of an upload's chunks; 0 while uploads are not chunked.
    chunk_bytes: AtomicU64,
    /// The registry has refused a request with a body.
    refused_body: AtomicBool,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            min_latency_micros: AtomicU64::new(u64::MAX),
            too_many_requests: AtomicUsize::new(0),
            range_buffers: Mutex::default(),
            chunk_bytes: AtomicU64::new(0),
            refused_body: AtomicBool::new(false),
        }
    }
}

impl Throttle {
    /// Records the time to the response of a request without a body.
    pub fn record_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.min_latency_micros.fetch_min(micros, Ordering::Relaxed);
    }

    pub fn record_too_many_requests(&self) {
        self.too_many_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of responses with status 429.
    pub fn too_many_requests(&self) -> usize {
        self.too_many_requests.load(Ordering::Relaxed)
    }

    /// Returns the shortest time to a response, if any.
    pub fn min_latency(&self) -> Option<Duration> {
        Some(self.min_latency_micros.load(Ordering::Relaxed))
            .filter(|micros| *micros != u64::MAX)
            .map(Duration::from_micros)
    }

    /// Whether the latency is high.
    pub fn is_far(&self) -> bool {
        self.min_latency().is_some_and(|latency| latency >= MIN_FAR_LATENCY)
    }

    pub fn record_refused_body(&self) {
        self.refused_body.store(true, Ordering::Relaxed);
    }

    /// Whether a request with a body was refused before. Bodies are then sent only after `100 Continue`.
    pub fn refuses_bodies(&self) -> bool {
        self.refused_body.load(Ordering::Relaxed)
    }

    /// Returns the number of blobs to transfer in parallel; `usual` is the number for a near registry.
    pub fn parallel_blobs(&self, usual: usize) -> usize {
        match self.is_far() && self.too_many_requests() == 0 {
            true => usual.max(PARALLEL_BLOBS_WHEN_FAR),
            false => usual,
        }
    }

    /// Returns the chunk size for uploads, once the registry has lost an upload that was interrupted.
    pub fn chunk_bytes(&self) -> Option<u64> {
        Some(self.chunk_bytes.load(Ordering::Relaxed)).filter(|chunk| *chunk > 0)
    }

    pub fn set_chunk_bytes(&self, chunk_bytes: u64) {
        self.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
    }

    /// Takes a buffer for one more range, unless `limit` buffers are in use.
    pub fn take_buffer(&self, limit: usize) -> Option<Vec<u8>> {
        let mut buffers = self.range_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.taken >= limit.min(MAX_BUFFERED_RANGES) {
            return None;
        }
        buffers.taken += 1;
        Some(buffers.spare.pop().unwrap_or_default())
    }

    /// Whether `take_buffer` would return a buffer.
    pub fn has_room(&self, limit: usize) -> bool {
        self.range_buffers.lock().unwrap_or_else(PoisonError::into_inner).taken < limit.min(MAX_BUFFERED_RANGES)
    }

    /// Returns a buffer from `take_buffer`.
    pub fn return_buffer(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut buffers = self.range_buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.taken = buffers.taken.saturating_sub(1);
        buffers.spare.push(buffer);
    }
}

/// The buffers of ranges. They are reused, since memory that many threads free does not all return to the system.
#[derive(Default)]
struct RangeBuffers {
    taken: usize,
    spare: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_registry_gets_more_parallel_blobs_until_a_429() {
        let throttle = Throttle::default();
        assert_eq!(throttle.parallel_blobs(6), 6);
        throttle.record_latency(Duration::from_millis(200));
        assert!(throttle.is_far() && throttle.parallel_blobs(6) == PARALLEL_BLOBS_WHEN_FAR);
        throttle.record_too_many_requests();
        assert_eq!(throttle.parallel_blobs(6), 6);
        throttle.record_latency(Duration::from_millis(2));
        assert!(!throttle.is_far());
    }
}
