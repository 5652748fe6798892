//! The blobs that no worker has started.

use crate::copy::Work;
use std::cmp::Reverse;
use std::collections::VecDeque;

/// The blobs to transfer, and the workers that transfer them.
#[derive(Default)]
pub(super) struct Queue {
    pub large: VecDeque<Work>,
    pub small: VecDeque<Work>,
    /// Large blobs that are being transferred.
    pub active_large: usize,
    pub workers: usize,
    /// A worker waits until the next large blob may start.
    pub waits: bool,
}

/// The order of the large blobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Large {
    Ascending,
    Descending,
}

impl Queue {
    /// The blobs in the order of the plan.
    pub fn in_order(work: Vec<Work>) -> Queue {
        Queue { small: work.into(), ..Queue::default() }
    }

    /// The blobs by size; large are those of at least `large_bytes`.
    pub fn by_size(work: Vec<Work>, large_bytes: u64, order: Large) -> Queue {
        let (mut large, mut small) = work.into_iter().partition::<Vec<_>, _>(|work| work.blob.size >= large_bytes);
        small.sort_by_key(|work| Reverse(work.blob.size));
        large.sort_by_key(|work| work.blob.size);
        if order == Large::Descending {
            large.reverse();
        }
        Queue { large: large.into(), small: small.into(), ..Queue::default() }
    }

    /// The next blob, where at most `max_large` large ones may be transferred at the same time.
    pub fn next(&mut self, max_large: usize) -> Option<Work> {
        if self.active_large < max_large
            && let Some(work) = self.large.pop_front()
        {
            self.active_large += 1;
            return Some(work);
        }
        self.small.pop_front()
    }
}
