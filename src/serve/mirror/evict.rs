//! How large a cache may be, and who makes room.

use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::serve::access_log::{Metrics, count};
use crate::transport::layout::LayoutCache;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What lies there is counted again after so long: other processes may share it.
const AGAIN: Duration = Duration::from_secs(60);
/// What was cut and not gone on with for so long goes before blobs do.
const CUT: Duration = Duration::from_secs(60 * 60);

/// A limit for several layouts together.
pub struct Budget {
    /// In bytes; none: as much as the disk holds.
    limit: Option<u64>,
    layouts: Vec<Arc<LayoutCache>>,
    used: Mutex<Used>,
    figures: Arc<Metrics>,
    watch: Arc<dyn Watch>,
}

#[derive(Default)]
struct Used {
    /// Bytes that lie there.
    kept: u64,
    /// Bytes that are on their way.
    coming: u64,
    counted: Option<Instant>,
}

impl Budget {
    /// Of `limit` bytes for `layouts` together.
    pub fn new(
        limit: Option<u64>,
        layouts: Vec<Arc<LayoutCache>>,
        figures: Arc<Metrics>,
        watch: Arc<dyn Watch>,
    ) -> Budget {
        Budget { limit, layouts, used: Mutex::default(), figures, watch }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `size` bytes.
    ///
    /// Fails with `Unwritable` where there is none: the blob is larger than the limit, or all that lies here is being
    /// read.
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
            // A little more than is needed, so that the next one need not look again.
            let gone = LayoutCache::evict(&self.layouts, used.kept - most + limit / 50)?;
            self.count(&mut used)?;
            count(&self.figures.evicted_bytes, gone.bytes);
            if gone.blobs > 0 {
                let (blobs, bytes) = (gone.blobs, gone.bytes);
                self.watch.say(&format!("{blobs} blobs ({bytes} bytes) went from the cache to make room"));
            }
        }
        if used.coming + used.kept + size > limit {
            return Err(Error::unwritable(format!(
                "there is no room in the cache for {size} bytes: its limit is {limit}, and what it holds is in use"
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

/// Bytes that are promised to one fill, until it is dropped.
pub struct Room {
    budget: Arc<Budget>,
    size: u64,
    kept: bool,
}

impl Room {
    /// They are used now.
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
