//! Blobs that are files below one directory, written by several processes: a layout, a registry's storage tree.
//!
//! Unfinished files have names that start with `.imgmv-`: a temporary file for a small blob, a partial file with its
//! checkpoints for a large one, which a later copy resumes. A finished file is renamed to its place as a blob. The
//! transports say where these places are ([`BlobPlace`]).

pub(crate) mod partial;
mod place;
mod stored;
pub(crate) mod temp_file;
mod writer;

pub(crate) use place::{BlobPlace, StoredBlobs};
pub(crate) use stored::is_held;
pub(crate) use writer::{BlobFiles, TempFileWriter, Writer};

/// How an existing blob is checked before it is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlobCheck {
    /// By its size.
    #[default]
    Size,
    /// By its digest: the blob is read and hashed.
    Digest,
}
