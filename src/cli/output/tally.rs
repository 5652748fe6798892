//! Counters of a copy in progress.

use crate::message::counted;
use crate::progress::{Event, Outcome};
use indicatif::HumanBytes;
use std::collections::HashMap;
use std::time::Duration;

/// Counters of a copy in progress. Bytes are counted as the source has them.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// None before the first plan. A streamed source has no plan.
    pub total: Option<u64>,
    pub done: u64,
    pub blobs: usize,
    pub blobs_done: usize,
    pub held: u64,
    open: HashMap<u64, Open>,
}

/// A blob that is being transferred.
#[derive(Debug, Default, Clone)]
struct Open {
    size: Option<u64>,
    moved: u64,
}

impl Tally {
    pub fn count(&mut self, event: &Event<'_>) {
        match *event {
            Event::Plan { blobs, bytes, existing_bytes, .. } => {
                self.total = Some(self.total.unwrap_or(self.done) + bytes);
                self.blobs += blobs;
                self.held += existing_bytes;
            }
            Event::BlobStart { id, size, .. } => {
                self.open.insert(id, Open { size, moved: 0 });
            }
            Event::BlobProgress { id, bytes } => {
                self.done += bytes;
                self.open.entry(id).or_default().moved += bytes;
            }
            Event::BlobEnd { id, outcome } => {
                let open = self.open.remove(&id).unwrap_or_default();
                self.blobs_done += usize::from(outcome != Outcome::Failed);
                match outcome {
                    // The blob was planned, but existed at the destination.
                    Outcome::Existing => self.done += open.size.unwrap_or(0).saturating_sub(open.moved),
                    Outcome::Transferred => {}
                    Outcome::Failed => self.done = self.done.saturating_sub(open.moved),
                }
            }
            Event::Info(_) | Event::Detail(_) | Event::Retry { .. } => {}
        }
    }

    /// Returns one line: transferred bytes and blobs, rate and remaining time.
    pub fn describe(&self, elapsed: Duration) -> String {
        let rate = (self.done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let done = HumanBytes(self.done);
        let Some(total) = self.total else {
            return format!("{done} transferred, {}/s", HumanBytes(rate));
        };
        let remaining = match rate {
            0 => String::new(),
            rate => format!(", {} s left", total.saturating_sub(self.done) / rate),
        };
        let blobs = self.blobs_done_of_all();
        format!("{done} of {}, {blobs}, {}/s{remaining}", HumanBytes(total), HumanBytes(rate))
    }

    /// `2 of 3 blobs`.
    pub fn blobs_done_of_all(&self) -> String {
        format!("{} of {}", self.blobs_done, counted(self.blobs, "blob"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_after_all_counts_as_done_and_what_failed_does_not() {
        let mut tally = Tally::default();
        tally.count(&Event::Plan { blobs: 3, bytes: 300, existing_blobs: 0, existing_bytes: 0 });
        for (id, moved, outcome) in
            [(1, 100, Outcome::Transferred), (2, 0, Outcome::Existing), (3, 50, Outcome::Failed)]
        {
            tally.count(&Event::BlobStart { id, label: "x", size: Some(100) });
            tally.count(&Event::BlobProgress { id, bytes: moved });
            tally.count(&Event::BlobEnd { id, outcome });
        }
        assert_eq!((tally.done, tally.total, tally.blobs_done), (200, Some(300), 2));
        assert_eq!(tally.describe(Duration::from_secs(2)), "200 B of 300 B, 2 of 3 blobs, 100 B/s, 1 s left");
    }

    #[test]
    fn a_streamed_source_has_no_total() {
        let mut tally = Tally::default();
        tally.count(&Event::BlobProgress { id: 1, bytes: 2048 });
        assert_eq!(tally.describe(Duration::from_secs(1)), "2.00 KiB transferred, 2.00 KiB/s");
    }
}
