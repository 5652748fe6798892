//! The size limit of a cache, and the eviction that enforces it.

use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::serve::access_log::{Metrics, add};
use crate::transport::layout::LayoutCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval between two counts of the cache's bytes; other processes may share the cache.
const AGAIN: Duration = Duration::from_secs(60);
/// Partial downloads that were not written for this time are removed before blobs.
const CUT: Duration = Duration::from_secs(60 * 60);

/// One size limit for several layouts.
pub struct Budget {
    /// The limit in bytes; `None`: limited only by the disk.
    limit: Option<u64>,
    layouts: Vec<Arc<LayoutCache>>,
    used: Mutex<Used>,
    metrics: Arc<Metrics>,
    watch: Arc<dyn Watch>,
}

#[derive(Default)]
struct Used {
    /// Bytes of stored blobs.
    kept: u64,
    /// Bytes reserved for running downloads.
    coming: u64,
    counted: Option<Instant>,
}

impl Budget {
    /// Creates a limit of `limit` bytes for `layouts` together.
    pub fn new(
        limit: Option<u64>,
        layouts: Vec<Arc<LayoutCache>>,
        metrics: Arc<Metrics>,
        watch: Arc<dyn Watch>,
    ) -> Budget {
        Budget { limit, layouts, used: Mutex::default(), metrics, watch }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves `size` bytes; evicts blobs if necessary.
    ///
    /// Fails with `Unwritable` if `size` exceeds the limit, or the stored blobs are in use.
    pub fn reserve(self: &Arc<Budget>, size: u64) -> Result<Room> {
        let room = |size| Room { budget: self.clone(), size, kept: false };
        let Some(limit) = self.limit else { return Ok(room(0)) };
        let mut used = self.used();
        let most = limit.saturating_sub(used.coming).saturating_sub(size);
        if used.counted.is_none_or(|counted| counted.elapsed() > AGAIN) || used.kept > most {
            self.count(&mut used)?;
        }
        if used.kept > most {
            for layout in &self.layouts {
                layout.sweep(CUT);
            }
            // Evicts 2% of the limit more than needed, so that the next reservations need no eviction.
            let gone = LayoutCache::evict(&self.layouts, used.kept - most + limit / 50)?;
            self.count(&mut used)?;
            add(&self.metrics.evicted_bytes, gone.bytes);
            if gone.blobs > 0 {
                let (blobs, bytes) = (gone.blobs, gone.bytes);
                self.watch.say(&format!("evicted {blobs} blobs ({bytes} bytes) from the cache"));
            }
        }
        if used.coming + used.kept + size > limit {
            return Err(Error::unwritable(format!(
                "the cache is full: {size} bytes do not fit, the limit is {limit} bytes, and the cached blobs are in use"
            )));
        }
        used.coming += size;
        Ok(room(size))
    }

    fn count(&self, used: &mut Used) -> Result<()> {
        let mut kept = 0;
        for layout in &self.layouts {
            kept += layout.used()?;
        }
        (used.kept, used.counted) = (kept, Some(Instant::now()));
        Ok(())
    }
}

/// The bytes reserved for one download; dropping it releases them.
pub struct Room {
    budget: Arc<Budget>,
    size: u64,
    kept: bool,
}

impl Room {
    /// Converts the reservation into stored bytes.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        used.coming = used.coming.saturating_sub(self.size);
        used.kept += if self.kept { self.size } else { 0 };
    }
}
