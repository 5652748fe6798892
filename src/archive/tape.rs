//! An archive that passes once, before anybody has read of it.

use super::ArchiveStream;
use crate::cancel::Cancel;
use crate::error::Result;
use crate::share::{self, Limits};
use crate::source::Stream;
use std::io::Read;

pub struct Tape {
    /// The tar, unpacked.
    pub bytes: Box<dyn Read + Send>,
    /// What messages call it.
    pub label: String,
}

impl Tape {
    pub fn stream(self) -> Box<dyn Stream> {
        Box::new(ArchiveStream::new(self.bytes, &self.label))
    }

    /// As many tapes of the same, which are to be read side by side.
    pub fn split(self, readers: usize, limits: &Limits, cancel: &Cancel) -> Result<Vec<Tape>> {
        let ends = share::split(self.bytes, readers, limits, cancel)?;
        Ok(ends.into_iter().map(|end| Tape { bytes: Box::new(end), label: self.label.clone() }).collect())
    }
}
