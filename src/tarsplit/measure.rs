//! The size of a layer's tar, from its tar-split alone, and the bounds for hostile ones.

use super::lines::{Entry, Lines};
use crate::error::{Error, Result};
use std::fs::File;

/// The parts of a tar that a size does not count: headers, padding, and a file that was removed from the disk since.
const ALLOWANCE_BYTES: u64 = 16 << 20;
/// A key in the header of a file whose content has the PAX sparse format 1.0 (GNU tar, "Sparse Formats").
const PAX_SPARSE: &[u8] = b"GNU.sparse.major=";
/// A longer segment is not only a header.
const MAX_HEADER_BYTES: u64 = 64 << 10;

/// The size that the store recorded for a layer, in bytes. The layer may have 1.1 times the size, and 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The contents of its files together (docker's `size`).
    Contents(u64),
    /// Its tar (`diff-size` of containers-storage, which only the tests have yet).
    #[allow(dead_code)]
    Tar(u64),
}

/// A measured tar-split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The size of the tar in bytes.
    pub bytes: u64,
    /// A file seems to have the PAX sparse format, so that the rebuilt layer may be wrong.
    pub is_sparse: bool,
}

/// Reads the tar-split `split` to its end and returns the size of its tar. No file of the layer is opened. `label` is
/// the subject of every error, as in [`LayerTar::new`](super::LayerTar::new).
///
/// # Errors
/// - `Invalid`: a line is not valid or too long, the text expands too much, or the layer is larger than `recorded`
///   allows.
/// - `Failed`, `Denied`: `split` cannot be read.
pub fn measure(split: File, recorded: Recorded, label: &str) -> Result<Measured> {
    sum(split, recorded).map_err(|error| error.at(label))
}

fn sum(split: File, recorded: Recorded) -> Result<Measured> {
    let mut lines = Lines::open(split)?;
    let (mut bytes, mut contents, mut is_sparse) = (0_u64, 0_u64, false);
    while let Some(entry) = lines.next()? {
        let added = match entry {
            Entry::File(file) => {
                contents = contents.saturating_add(file.size);
                file.size
            }
            Entry::Segment(mut segment) => {
                let added = segment.bytes();
                is_sparse = is_sparse || added <= MAX_HEADER_BYTES && segment.contains(PAX_SPARSE)?;
                added
            }
        };
        bytes = bytes.saturating_add(added);
        let (found, expected) = match recorded {
            Recorded::Contents(expected) => (contents, expected),
            Recorded::Tar(expected) => (bytes, expected),
        };
        if found > expected.saturating_add(expected / 10).saturating_add(ALLOWANCE_BYTES) {
            return Err(Error::invalid(format!(
                "its tar-split lists more than its recorded size of {expected} bytes allows; the layer is refused"
            )));
        }
    }
    Ok(Measured { bytes, is_sparse })
}
