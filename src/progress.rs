//! What the engine tells while it works. The library never prints: whoever constructs things hands in a [`Watch`].

use std::time::Duration;

/// Something worth telling.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// What there is to move, and what is known to be there already. Bytes are the source's.
    Plan {
        blobs: usize,
        bytes: u64,
        held_blobs: usize,
        held_bytes: u64,
    },
    /// A blob begins; `id` stands for it until `BlobEnd`.
    BlobStart {
        id: u64,
        label: &'a str,
        size: Option<u64>,
    },
    /// Bytes of it that came in since the last time.
    BlobMoved {
        id: u64,
        bytes: u64,
    },
    BlobEnd {
        id: u64,
        outcome: Outcome,
    },
    /// A decision or a fact that a person may want: shown unless quiet.
    Say(&'a str),
    /// For `-v`.
    Detail(&'a str),
    /// Something failed and is tried again after a pause.
    Retry {
        what: &'a str,
        why: &'a str,
        after: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Moved,
    /// The sink had it.
    Held,
    Failed,
}

/// Listens. Called from several threads; must not block for long.
pub trait Watch: Send + Sync {
    fn event(&self, event: Event<'_>);

    fn say(&self, text: &str) {
        self.event(Event::Say(text));
    }
}

/// Hears nothing.
pub struct Silent;

impl Watch for Silent {
    fn event(&self, _: Event<'_>) {}
}
