//! Limits the memory of manifests. Most have a few kilobytes, but each may have four megabytes. A thousand clients may
//! request one at the same time.

use crate::image::MAX_MANIFEST_BYTES;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum size of a manifest that needs no permit.
pub const MAX_SMALL_MANIFEST_BYTES: u64 = 16 << 10;
/// The total size of larger manifests in memory.
const MAX_LARGE_MANIFESTS_KIB: usize = 24 << 10;

/// The memory for large manifests.
pub struct ManifestMemory(Arc<Semaphore>);

impl Default for ManifestMemory {
    fn default() -> ManifestMemory {
        ManifestMemory(Arc::new(Semaphore::new(MAX_LARGE_MANIFESTS_KIB)))
    }
}

impl ManifestMemory {
    /// Waits for memory for `size` bytes; a small manifest needs no permit.
    pub async fn reserve(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let kilobytes = size.min(MAX_MANIFEST_BYTES).div_ceil(1 << 10) as u32;
        match size > MAX_SMALL_MANIFEST_BYTES {
            true => self.0.clone().acquire_many_owned(kilobytes).await.ok(),
            false => None,
        }
    }
}
