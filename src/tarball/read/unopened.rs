//! An archive that passes once, before anybody has read of it.

use crate::cancel::Cancel;
use crate::error::Result;
use crate::fanout;
use crate::fanout::Limits;
use crate::image::Digest;
use crate::tarball::ArchiveStream;
use std::io::Read;

pub struct UnopenedArchive {
    /// The tar, unpacked.
    pub bytes: Box<dyn Read + Send>,
    /// What messages call it.
    pub label: String,
    /// Each image's layers, where that is known beforehand ([`ArchiveStream::expected_diff_ids`]).
    pub expected_diff_ids: Vec<Vec<Digest>>,
}

impl UnopenedArchive {
    pub fn stream(self) -> ArchiveStream {
        ArchiveStream::new(self.bytes, &self.label).expecting(self.expected_diff_ids)
    }

    /// As many tapes of the same, which are to be read side by side.
    pub fn split(self, readers: usize, limits: &Limits, cancel: &Cancel) -> Result<Vec<UnopenedArchive>> {
        let ends = fanout::split(self.bytes, readers, limits, cancel)?;
        let tape = |bytes| UnopenedArchive {
            bytes,
            label: self.label.clone(),
            expected_diff_ids: self.expected_diff_ids.clone(),
        };
        Ok(ends.into_iter().map(|end| tape(Box::new(end))).collect())
    }
}
