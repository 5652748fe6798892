//! Progress events. The library never prints: it sends events to the [`Watch`] that the caller supplies.

use std::time::Duration;

/// One progress event.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The blobs to copy, and how many of them the sink already has. Bytes are sizes in the source.
    Plan {
        blobs: usize,
        bytes: u64,
        existing_blobs: usize,
        existing_bytes: u64,
    },
    /// A blob starts; `id` identifies it until `BlobEnd`.
    BlobStart {
        id: u64,
        label: &'a str,
        size: Option<u64>,
    },
    /// Bytes of the blob transferred since the previous event.
    BlobProgress {
        id: u64,
        bytes: u64,
    },
    BlobEnd {
        id: u64,
        outcome: Outcome,
    },
    /// A note for the user, printed unless `--quiet`.
    Info(&'a str),
    /// A detail, printed with `-v`.
    Detail(&'a str),
    /// An operation failed and is retried after a pause.
    Retry {
        what: &'a str,
        why: &'a str,
        after: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Transferred,
    /// The sink already has the blob.
    Existing,
    Failed,
}

/// A receiver of events. Several threads call it, so it must not block for long.
pub trait Watch: Send + Sync {
    fn event(&self, event: Event<'_>);

    fn say(&self, text: &str) {
        self.event(Event::Info(text));
    }
}

/// Ignores every event.
pub struct Silent;

impl Watch for Silent {
    fn event(&self, _: Event<'_>) {}
}
