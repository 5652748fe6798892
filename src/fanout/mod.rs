//! One source for several copies that run side by side.
//!
//! Each destination is a copy with its own sink, plan and thread. One thread reads each blob of a **store** into a
//! window of shared chunks (`reader`, `windows`). The window keeps a chunk until all copies that follow, or have
//! announced the blob (`Subscriber::announce`), have taken it; `coordinator` is the one state behind one lock. All copies
//! transfer their blobs in the order of the plan. The read earliest in that order always has room for two chunks, so
//! the slowest copy makes progress and the copies cannot deadlock. A copy that holds up the others beyond its patience
//! loses its oldest chunk and reads the blob itself. All windows together hold 12 MiB, and buffers shrink with the
//! number of copies: 50 copies take 42 MiB.
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
pub use tee::{End, split};

/// Bytes in one refcounted buffer.
const CHUNK: usize = 128 << 10;

/// How much is kept for those who are behind, and how long they are waited for.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes that one reading keeps, at most.
    pub window: usize,
    /// Bytes that all readings keep together, at most (and two buffers more).
    pub pool: usize,
    /// A member may make the others wait so long in all, and for a tenth of the time besides; then it reads by itself.
    pub patience: Duration,
    /// Of what passes once: a member that the others wait for and that takes nothing for so long has failed.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { window: 4 << 20, pool: 12 << 20, patience: Duration::from_secs(5), silence: Duration::from_secs(60) }
    }
}
