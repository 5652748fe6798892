//! Progress events. The library never prints: it sends events to the [`Watch`] that the caller supplies.

use std::time::Duration;

/// One progress event.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// The blobs of a copy, before the first one starts. Bytes are sizes in the source.
    Plan {
        /// The number of blobs to send; the sink may report a few of them as held later.
        blobs: usize,
        /// The sum of their sizes, in bytes.
        bytes: u64,
        /// The number of blobs that the sink already has.
        existing_blobs: usize,
        /// The sum of their sizes, in bytes.
        existing_bytes: u64,
    },
    /// A blob starts; `id` identifies it until `BlobEnd`.
    BlobStart {
        /// A number that is unique in the copy.
        id: u64,
        /// A short digest, or another name for the user.
        label: &'a str,
        /// The size in bytes, if it is known.
        size: Option<u64>,
    },
    /// Bytes of the blob transferred since the previous event.
    BlobProgress {
        /// The number of the blob.
        id: u64,
        /// The bytes since the previous event.
        bytes: u64,
    },
    /// A blob ends.
    BlobEnd {
        /// The number of the blob.
        id: u64,
        /// The result of its transfer.
        outcome: Outcome,
    },
    /// A note for the user, printed unless `--quiet`.
    Info(&'a str),
    /// A detail, printed with `-v`.
    Detail(&'a str),
    /// An operation failed and is retried after a pause.
    Retry {
        /// The failed operation.
        what: &'a str,
        /// The reason of the failure.
        why: &'a str,
        /// The pause before the retry.
        after: Duration,
    },
}

/// The end of a blob's transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes were written.
    Transferred,
    /// The sink already has the blob.
    Existing,
    /// An error or a cancelled copy; nothing was committed.
    Failed,
}

/// A receiver of events. Several threads call it, so it must not block for long.
pub trait Watch: Send + Sync {
    /// Receives an event.
    fn event(&self, event: Event<'_>);

    /// Sends `text` as [`Event::Info`].
    fn say(&self, text: &str) {
        self.event(Event::Info(text));
    }

    /// As [`Watch::say`], for a `text` that other copies of the same run send too: it is printed once.
    fn say_once(&self, text: &'static str) {
        self.say(text);
    }
}

/// Ignores every event.
pub struct Silent;

impl Watch for Silent {
    fn event(&self, _: Event<'_>) {}
}
