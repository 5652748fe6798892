//! How far away a registry has shown itself to be, and whether it has asked for patience: what decides how much is
//! asked of it at once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From here on the way takes longer than most answers: more is asked at once.
const FAR_LATENCY: Duration = Duration::from_millis(30);
/// Requests for small things at once, where the registry is far away.
const PARALLEL_BLOBS_WHEN_FAR: usize = 32;
/// Pieces of large blobs (see `pull/ranges.rs`) in memory, of one registry.
pub const MAX_PIECES: usize = 12;

/// What the requests to one registry have shown so far.
pub struct Throttle {
    /// The quickest answer, in microseconds.
    min_latency_micros: AtomicU64,
    /// How often it answered 429.
    too_many_requests: AtomicUsize,
    pieces: Mutex<PiecePool>,
    /// In bytes, of an upload's chunks; 0 while uploads go in one piece.
    chunk_bytes: AtomicU64,
    /// It has refused a request with a body.
    refused_body: AtomicBool,
}

impl Default for Throttle {
    fn default() -> Throttle {
        Throttle {
            min_latency_micros: AtomicU64::new(u64::MAX),
            too_many_requests: AtomicUsize::new(0),
            pieces: Mutex::default(),
            chunk_bytes: AtomicU64::new(0),
            refused_body: AtomicBool::new(false),
        }
    }
}

impl Throttle {
    /// A request without a body was answered after so long.
    pub fn record_latency(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.min_latency_micros.fetch_min(micros, Ordering::Relaxed);
    }

    pub fn record_too_many_requests(&self) {
        self.too_many_requests.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the registry has asked for patience.
    pub fn too_many_requests(&self) -> usize {
        self.too_many_requests.load(Ordering::Relaxed)
    }

    /// How long its quickest answer has taken.
    pub fn min_latency(&self) -> Option<Duration> {
        Some(self.min_latency_micros.load(Ordering::Relaxed))
            .filter(|micros| *micros != u64::MAX)
            .map(Duration::from_micros)
    }

    pub fn is_far(&self) -> bool {
        self.min_latency().is_some_and(|min_latency_micros| min_latency_micros >= FAR_LATENCY)
    }

    pub fn record_refused_body(&self) {
        self.refused_body.store(true, Ordering::Relaxed);
    }

    /// Whether a request with a body was refused before: bodies are better sent when they are asked for.
    pub fn refuses_bodies(&self) -> bool {
        self.refused_body.load(Ordering::Relaxed)
    }

    /// How many blobs are best under way at once, where `usual` are for a registry near by.
    pub fn parallel_blobs(&self, usual: usize) -> usize {
        match self.is_far() && self.too_many_requests() == 0 {
            true => usual.max(PARALLEL_BLOBS_WHEN_FAR),
            false => usual,
        }
    }

    /// Whether uploads are better sent in chunks, and in bytes how long those are: the registry has forgotten one that
    /// was cut.
    pub fn chunk_bytes(&self) -> Option<u64> {
        Some(self.chunk_bytes.load(Ordering::Relaxed)).filter(|chunk| *chunk > 0)
    }

    pub fn set_chunk_bytes(&self, chunk_bytes: u64) {
        self.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
    }

    /// Takes room for one more piece, if there is some among `most`.
    pub fn acquire_piece(&self, limit: usize) -> Option<Vec<u8>> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if pieces.taken >= limit.min(MAX_PIECES) {
            return None;
        }
        pieces.taken += 1;
        Some(pieces.spare.pop().unwrap_or_default())
    }

    /// Whether `take_piece` would give some.
    pub fn has_room(&self, limit: usize) -> bool {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).taken < limit.min(MAX_PIECES)
    }

    /// Gives back room that `take_piece` gave.
    pub fn release_piece(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.taken = pieces.taken.saturating_sub(1);
        pieces.spare.push(buffer);
    }
}

/// Room for pieces. It is used again and again: given back to the system by many threads, it would not all return.
#[derive(Default)]
struct PiecePool {
    taken: usize,
    spare: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_registry_gets_more_lanes_until_it_asks_for_patience() {
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
