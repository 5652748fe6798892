//! How many layers are packed anew at once by all copies that run side by side: packing takes the memory that a copy is
//! allowed several times over, and no more than the processor has.

use crate::cancel::Cancel;
use crate::error::Result;
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

const AT_ONCE: usize = 3;
/// How often who waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to pack one layer, until it is dropped.
pub(crate) struct CompressSlot(());

impl CompressSlot {
    /// Waits for it where several copies run; a copy that is alone needs none.
    pub fn wait(company: usize, cancel: &Cancel) -> Result<Option<CompressSlot>> {
        if company <= 1 {
            return Ok(None);
        }
        let mut under_way = under_way();
        while *under_way >= AT_ONCE {
            cancel.check()?;
            under_way = ENDED.wait_timeout(under_way, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        *under_way += 1;
        Ok(Some(CompressSlot(())))
    }
}

impl Drop for CompressSlot {
    fn drop(&mut self) {
        *under_way() -= 1;
        ENDED.notify_one();
    }
}

fn under_way() -> MutexGuard<'static, usize> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}
