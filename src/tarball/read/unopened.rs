//! A streamed archive of which nothing was read yet.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::fanout;
use crate::fanout::FanoutLimits;
use crate::image::Digest;
use crate::tarball::{ArchiveFile, ArchiveStream};
use std::io::Read;

/// A streamed archive of which nothing was read yet.
pub struct UnopenedArchive {
    /// The decompressed tar.
    pub bytes: Box<dyn Read + Send>,
    /// The name of the archive in messages.
    pub label: String,
    /// Each image's layers, where that is known beforehand ([`ArchiveStream::expected_diff_ids`]).
    pub expected_diff_ids: Vec<Vec<Digest>>,
    /// The same archive, where it is a file and can be read again.
    pub file: Option<ArchiveFile>,
}

impl UnopenedArchive {
    pub fn stream(self) -> ArchiveStream {
        ArchiveStream::new(self.bytes, &self.label).expecting(self.expected_diff_ids).of_file(self.file)
    }

    /// Splits the archive into `readers` equal streams, which must be read in parallel.
    pub fn split(self, readers: usize, limits: &FanoutLimits, cancel: &Cancel) -> Result<Vec<UnopenedArchive>> {
        let ends = fanout::split(self.bytes, readers, limits, cancel)?;
        let archive = |bytes| UnopenedArchive {
            bytes,
            label: self.label.clone(),
            expected_diff_ids: self.expected_diff_ids.clone(),
            file: self.file.clone(),
        };
        Ok(ends.into_iter().map(|end| archive(Box::new(end))).collect())
    }
}
