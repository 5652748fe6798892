//! The limit of recoveries for one blob, so that a transfer ends whatever its writer returns.

use super::verified::named;
use super::{BlobWriter, Verified};
use crate::error::{Error, Result};
use crate::image::Hasher;
use crate::source::Claim;

/// The maximum number of recoveries in a row that keep no new bytes. The registry's writer ends after `--retry` failures
/// much earlier; but after a lost session it may recover once for every 16 KiB that it sends again.
const MAX_RECOVERIES_WITHOUT_PROGRESS: u32 = 10_000;

/// A writer whose recoveries are limited.
pub(super) struct LimitedWriter<'w> {
    writer: Box<dyn BlobWriter + 'w>,
    claim: &'w Claim,
    /// The highest offset that a recovery returned, in bytes.
    kept: u64,
    /// The recoveries since then.
    without_progress: u32,
}

impl<'w> LimitedWriter<'w> {
    pub fn new(writer: Box<dyn BlobWriter + 'w>, claim: &'w Claim) -> LimitedWriter<'w> {
        LimitedWriter { writer, claim, kept: 0, without_progress: 0 }
    }
}

impl BlobWriter for LimitedWriter<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let (from, hasher) = self.writer.start(fresh)?;
        self.kept = from;
        Ok((from, hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write(bytes)
    }

    fn recover(&mut self, error: Error) -> Result<u64> {
        if self.without_progress == MAX_RECOVERIES_WITHOUT_PROGRESS {
            let times = MAX_RECOVERIES_WITHOUT_PROGRESS;
            return Err(error.at(format!("{}: resumed {times} times without progress", named(self.claim))));
        }
        let from = self.writer.recover(error)?;
        self.without_progress = if from > self.kept { 0 } else { self.without_progress + 1 };
        self.kept = self.kept.max(from);
        Ok(from)
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.writer.commit(blob)
    }
}
