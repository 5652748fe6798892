//! One source for several copies that run at the same time.
//!
//! Each destination is a copy with its own sink, plan and thread. One thread reads each blob of a **store** into a
//! window of shared chunks (`reader`, `windows`). The window keeps a chunk until every copy that reads this blob, or
//! has announced it (`Subscriber::announce`), has taken the chunk; `coordinator` is the one state behind one lock. All
//! copies transfer their blobs in the order of the plan. The read earliest in that order always has room for two
//! chunks, so the slowest copy makes progress and the copies cannot deadlock. A copy may delay the others for
//! `FanoutLimits::max_delay`; after that it loses its oldest chunk and reads the blob itself. All windows together hold
//! 12 MiB, and buffers shrink with the number of copies: 50 copies take 42 MiB.
//!
//! A **stream** is split as bytes before it is parsed (`tee`), so that every copy can relay, select and rename as it
//! would alone.

mod coordinator;
mod metadata;
mod reader;
mod store;
mod tee;
mod windows;

use std::time::Duration;

pub use store::{SharedStore, Subscriber};
pub use tee::{TeeReader, split};

/// The size of a chunk: one shared buffer of a blob's bytes, without a relation to the chunks of an upload.
const CHUNK_BYTES: usize = 128 << 10;

/// The memory and the time for copies that are slower than the others.
#[derive(Debug, Clone)]
pub struct FanoutLimits {
    /// Maximum bytes of one read's window.
    pub window_bytes: usize,
    /// Maximum bytes of all windows together (and two buffers more).
    pub all_windows_bytes: usize,
    /// One copy may delay the others by this time plus a tenth of the elapsed time. Then it reads the blob itself.
    pub max_delay: Duration,
    /// A stream's reader that takes nothing for this time while the others wait has failed.
    pub stall_timeout: Duration,
}

impl Default for FanoutLimits {
    fn default() -> FanoutLimits {
        FanoutLimits {
            window_bytes: 4 << 20,
            all_windows_bytes: 12 << 20,
            max_delay: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(60),
        }
    }
}
