//! Room in memory for manifests: most have a few kilobytes, but each may have four megabytes, and a thousand clients
//! may ask for one at once.

use crate::image::MAX_MANIFEST_BYTES;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// In bytes; a manifest up to here waits for nobody.
pub const SMALL: u64 = 16 << 10;
/// In kilobytes, of all larger ones together.
const ROOM: usize = 24 << 10;

/// Who has how much of it.
pub struct Documents(Arc<Semaphore>);

impl Default for Documents {
    fn default() -> Documents {
        Documents(Arc::new(Semaphore::new(ROOM)))
    }
}

impl Documents {
    /// Waits until there is room for `size` bytes; a small document needs none.
    pub async fn room(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let kilobytes = size.min(MAX_MANIFEST_BYTES).div_ceil(1 << 10) as u32;
        match size > SMALL {
            true => self.0.clone().acquire_many_owned(kilobytes).await.ok(),
            false => None,
        }
    }
}
