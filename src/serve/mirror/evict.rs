//! The size limit of a cache, and the eviction that enforces it.

use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::serve::access_log::{Metrics, add};
use crate::transport::layout::LayoutCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The interval between two counts of the cache's bytes; other processes may share the cache.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(60);
/// Partial downloads that were not written for this time are removed before blobs.
const PARTIAL_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// One size limit for several layouts.
pub struct CacheBudget {
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
    stored: u64,
    /// Bytes reserved for running downloads.
    reserved: u64,
    counted: Option<Instant>,
}

impl CacheBudget {
    /// Creates a limit of `limit` bytes for `layouts` together.
    pub fn new(
        limit: Option<u64>,
        layouts: Vec<Arc<LayoutCache>>,
        metrics: Arc<Metrics>,
        watch: Arc<dyn Watch>,
    ) -> CacheBudget {
        CacheBudget { limit, layouts, used: Mutex::default(), metrics, watch }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves `size` bytes; evicts blobs if necessary.
    ///
    /// Fails with `Unwritable` if `size` exceeds the limit, or the stored blobs are in use.
    pub fn reserve(self: &Arc<CacheBudget>, size: u64) -> Result<Reservation> {
        let reservation = |size| Reservation { budget: self.clone(), size, stored: false };
        let Some(limit) = self.limit else { return Ok(reservation(0)) };
        let mut used = self.used();
        let available = limit.saturating_sub(used.reserved).saturating_sub(size);
        if used.counted.is_none_or(|counted| counted.elapsed() > RECOUNT_INTERVAL) || used.stored > available {
            self.count(&mut used)?;
        }
        if used.stored > available {
            for layout in &self.layouts {
                layout.remove_expired_partials(PARTIAL_LIFETIME);
            }
            // Evicts 2% of the limit more than needed, so that the next reservations need no eviction.
            let evicted = LayoutCache::evict(&self.layouts, used.stored - available + limit / 50)?;
            self.count(&mut used)?;
            add(&self.metrics.evicted_bytes, evicted.bytes);
            if evicted.blobs > 0 {
                let (blobs, bytes) = (evicted.blobs, evicted.bytes);
                self.watch.say(&format!("evicted {blobs} blobs ({bytes} bytes) from the cache"));
            }
        }
        if used.reserved + used.stored + size > limit {
            return Err(Error::unwritable(format!(
                "the cache is full: {size} bytes do not fit into the limit of {limit}, and the cached blobs are in use"
            )));
        }
        used.reserved += size;
        Ok(reservation(size))
    }

    fn count(&self, used: &mut Used) -> Result<()> {
        let mut stored = 0;
        for layout in &self.layouts {
            stored += layout.used()?;
        }
        (used.stored, used.counted) = (stored, Some(Instant::now()));
        Ok(())
    }
}

/// The bytes reserved for one download; dropping it releases them.
pub struct Reservation {
    budget: Arc<CacheBudget>,
    size: u64,
    stored: bool,
}

impl Reservation {
    /// Converts the reservation into stored bytes.
    pub fn commit(mut self) {
        self.stored = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self.budget.used();
        used.reserved = used.reserved.saturating_sub(self.size);
        used.stored += if self.stored { self.size } else { 0 };
    }
}
