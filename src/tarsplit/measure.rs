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
/// The maximum size of a layer of which the store recorded none, in bytes.
const MAX_UNRECORDED_BYTES: u64 = 256 << 30;

/// The size that the store recorded for a layer, in bytes. The layer may have 1.1 times the size, and 16 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recorded {
    /// The contents of its files together (docker's `size`).
    Contents(u64),
    /// Its tar (`diff-size` of containers-storage).
    Tar(u64),
    /// None, as for some layers that podman pulled in part: at most [`MAX_UNRECORDED_BYTES`].
    Unknown,
}

impl Recorded {
    /// Fails with `Invalid` where the size does not allow a tar of `bytes` whose files have `contents` together.
    fn check(self, bytes: u64, contents: u64) -> Result<()> {
        let (found, expected) = match self {
            Recorded::Contents(expected) => (contents, expected),
            Recorded::Tar(expected) => (bytes, expected),
            Recorded::Unknown if bytes > MAX_UNRECORDED_BYTES => {
                return Err(Error::invalid(format!(
                    "its tar-split lists more than the {MAX_UNRECORDED_BYTES} bytes allowed for a layer without a \
                     recorded size; the layer is refused"
                )));
            }
            Recorded::Unknown => return Ok(()),
        };
        match found > expected.saturating_add(expected / 10).saturating_add(ALLOWANCE_BYTES) {
            true => Err(Error::invalid(format!(
                "its tar-split lists more than its recorded size of {expected} bytes allows; the layer is refused"
            ))),
            false => Ok(()),
        }
    }
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
            Entry::Segment => {
                let (added, found) = lines.pass_segment(PAX_SPARSE, MAX_HEADER_BYTES)?;
                is_sparse = is_sparse || found;
                added
            }
        };
        bytes = bytes.saturating_add(added);
        recorded.check(bytes, contents)?;
    }
    Ok(Measured { bytes, is_sparse })
}
