//! Process-wide limit on concurrent layer recompression: each uses several times a copy's memory budget, and no more
//! threads than there are cores help.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::transfer::Budget;
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const MAX_SLOTS: usize = 3;
/// A waiting copy checks this often whether it is cancelled.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

static USED: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The right to recompress one layer, until it is dropped.
pub(crate) struct CompressSlot(());

impl CompressSlot {
    /// Waits for a slot where several copies run; a single copy needs none.
    pub fn wait(budget: Budget, cancel: &Cancel) -> Result<Option<CompressSlot>> {
        if !budget.is_shared() {
            return Ok(None);
        }
        let mut used = used();
        while *used >= MAX_SLOTS {
            cancel.check()?;
            used = FREED.wait_timeout(used, POLL_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        *used += 1;
        Ok(Some(CompressSlot(())))
    }
}

impl Drop for CompressSlot {
    fn drop(&mut self) {
        *used() -= 1;
        FREED.notify_one();
    }
}

fn used() -> MutexGuard<'static, usize> {
    USED.lock().unwrap_or_else(PoisonError::into_inner)
}
