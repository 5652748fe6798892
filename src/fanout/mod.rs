//! One source for several copies that run side by side: what one of them reads, the others get from the same reading
//! while they keep pace. A store's blobs are read by a thread each into a bounded window ([`Shared`]); what passes once
//! goes to everybody ([`split`]).

mod coordinator;
mod metadata;
mod reader;
mod store;
mod tee;
mod windows;

use std::time::Duration;

pub use store::{Shared, Sharer};
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
