//! How far away a registry has shown itself to be, and whether it has asked for patience: what decides how much is
//! asked of it at once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// From here on the way takes longer than most answers: more is asked at once.
const FAR: Duration = Duration::from_millis(30);
/// Requests for small things at once, where the registry is far away.
const LANES_WHEN_FAR: usize = 32;
/// Pieces of large blobs (see `pull/ranges.rs`) in memory, of one registry.
pub const PIECES: usize = 12;

/// What the requests to one registry have shown so far.
pub struct Pace {
    /// The quickest answer, in microseconds.
    quickest: AtomicU64,
    /// How often it answered 429.
    patience: AtomicUsize,
    pieces: Mutex<Pieces>,
    /// In bytes, of an upload's chunks; 0 while uploads go in one piece.
    chunk: AtomicU64,
    /// It has refused a request with a body.
    refuses: AtomicBool,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            quickest: AtomicU64::new(u64::MAX),
            patience: AtomicUsize::new(0),
            pieces: Mutex::default(),
            chunk: AtomicU64::new(0),
            refuses: AtomicBool::new(false),
        }
    }
}

impl Pace {
    /// A request without a body was answered after so long.
    pub fn answered(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.quickest.fetch_min(micros, Ordering::Relaxed);
    }

    pub fn asked_for_patience(&self) {
        self.patience.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the registry has asked for patience.
    pub fn patience(&self) -> usize {
        self.patience.load(Ordering::Relaxed)
    }

    /// How long its quickest answer has taken.
    pub fn quickest(&self) -> Option<Duration> {
        Some(self.quickest.load(Ordering::Relaxed)).filter(|micros| *micros != u64::MAX).map(Duration::from_micros)
    }

    pub fn is_far(&self) -> bool {
        self.quickest().is_some_and(|quickest| quickest >= FAR)
    }

    pub fn refused_a_body(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// Whether a request with a body was refused before: bodies are better sent when they are asked for.
    pub fn refuses_bodies(&self) -> bool {
        self.refuses.load(Ordering::Relaxed)
    }

    /// How many blobs are best under way at once, where `usual` are for a registry near by.
    pub fn lanes(&self, usual: usize) -> usize {
        match self.is_far() && self.patience() == 0 {
            true => usual.max(LANES_WHEN_FAR),
            false => usual,
        }
    }

    /// Whether uploads are better sent in chunks, and in bytes how long those are: the registry has forgotten one that
    /// was cut.
    pub fn chunk(&self) -> Option<u64> {
        Some(self.chunk.load(Ordering::Relaxed)).filter(|chunk| *chunk > 0)
    }

    pub fn cut_into(&self, chunk: u64) {
        self.chunk.store(chunk, Ordering::Relaxed);
    }

    /// Takes room for one more piece, if there is some among `most`.
    pub fn take_piece(&self, most: usize) -> Option<Vec<u8>> {
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if pieces.taken >= most.min(PIECES) {
            return None;
        }
        pieces.taken += 1;
        Some(pieces.spare.pop().unwrap_or_default())
    }

    /// Whether `take_piece` would give some.
    pub fn has_room(&self, most: usize) -> bool {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).taken < most.min(PIECES)
    }

    /// Gives back room that `take_piece` gave.
    pub fn give_piece(&self, mut room: Vec<u8>) {
        room.clear();
        let mut pieces = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.taken = pieces.taken.saturating_sub(1);
        pieces.spare.push(room);
    }
}

/// Room for pieces. It is used again and again: given back to the system by many threads, it would not all return.
#[derive(Default)]
struct Pieces {
    taken: usize,
    spare: Vec<Vec<u8>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_far_registry_gets_more_lanes_until_it_asks_for_patience() {
        let pace = Pace::default();
        assert_eq!(pace.lanes(6), 6);
        pace.answered(Duration::from_millis(200));
        assert!(pace.is_far() && pace.lanes(6) == LANES_WHEN_FAR);
        pace.asked_for_patience();
        assert_eq!(pace.lanes(6), 6);
        pace.answered(Duration::from_millis(2));
        assert!(!pace.is_far());
    }
}
