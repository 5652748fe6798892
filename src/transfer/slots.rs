//! The transfers that the copies of one run have at the same time. Only blobs whose bytes move take memory, so a copy may
//! ask for many blobs at the same time: a slot is taken when the sink wants the bytes, and held until they are stored.
//!
//! A thread with a slot must not wait for another copy. A copy that shares one read of its source takes none.

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The transfers of a run.
const SLOTS: usize = 12;
/// The blobs that all copies ask for at the same time; each has a thread.
const MAX_ASKED: usize = 48;
/// The maximum number of these of one copy: a registry far away has time for more of other images.
const MAX_ASKED_BY_COPY: usize = 6;
/// In bytes; a transfer has several buffers.
const BUFFER_BYTES: usize = 128 << 10;
/// A thread that waits for a slot checks this often whether it has to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The slots of a run. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct TransferSlots(Arc<Slots>);

#[derive(Debug, Default)]
struct Slots {
    used: Mutex<usize>,
    freed: Condvar,
}

impl TransferSlots {
    /// Waits for a slot. Fails with `Interrupted` once `cancel` or `stop` is raised.
    pub(crate) fn wait(&self, cancel: &Cancel, stop: &AtomicBool) -> Result<TransferSlot> {
        let mut used = self.0.used();
        while *used >= SLOTS {
            cancel.check()?;
            if stop.load(Ordering::Relaxed) {
                return Err(Error::interrupted());
            }
            used = self.0.freed.wait_timeout(used, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += 1;
        Ok(TransferSlot(self.0.clone()))
    }

    /// The blobs that one of `copies` asks for at the same time.
    pub(crate) fn parallel_blobs(&self, copies: usize) -> usize {
        (MAX_ASKED / copies.max(1)).clamp(1, MAX_ASKED_BY_COPY)
    }

    /// The size of one buffer, in bytes.
    pub(crate) fn buffer_bytes(&self) -> usize {
        BUFFER_BYTES
    }
}

impl Slots {
    fn used(&self) -> MutexGuard<'_, usize> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to transfer one blob, until it is dropped.
pub(crate) struct TransferSlot(Arc<Slots>);

impl Drop for TransferSlot {
    fn drop(&mut self) {
        *self.0.used() -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_limited_number_of_transfers_and_a_wait_ends() {
        let (slots, cancel, stop) = (TransferSlots::default(), Cancel::default(), AtomicBool::new(false));
        let mut taken: Vec<_> = (0..SLOTS).map(|_| slots.clone().wait(&cancel, &stop).unwrap()).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(slots.wait(&cancel, &stop).is_err());
        taken.pop();
        assert!(slots.wait(&cancel, &stop).is_ok());
    }

    #[test]
    fn few_copies_ask_for_several_blobs_each() {
        let slots = TransferSlots::default();
        assert_eq!([2, 8, 16, 64].map(|copies| slots.parallel_blobs(copies)), [6, 6, 3, 1]);
    }
}
