//! The directory of blobs that a transport writes to.

use crate::disk::directory::Directory;
use crate::error::Result;
use crate::image::Digest;
use std::fs::File;

/// Blobs that are files below one directory, for reading.
pub(crate) trait StoredBlobs: Sync {
    /// The size of the blob `digest` in bytes; `None` if it is missing.
    fn size(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Opens the blob `digest` for reading; `None` if it is missing.
    fn blob(&self, digest: &Digest) -> Result<Option<File>>;

    /// The name of the place in messages.
    fn describe(&self) -> String;
}

/// Blobs that are files below one directory, for writing.
pub(crate) trait BlobPlace: StoredBlobs {
    /// The directory of unfinished files, on the file system of the blobs.
    ///
    /// Fails with `Unwritable` if it is missing and cannot be created.
    fn unfinished(&self) -> Result<&Directory>;

    /// Gives a new unfinished file the owner and the permissions of a blob.
    fn prepare(&self, _file: &File) -> Result<()> {
        Ok(())
    }

    /// Renames the unfinished file `name` to the blob `digest`; replaces an existing blob.
    ///
    /// Fails with `Unwritable`.
    fn store(&self, name: &str, digest: &Digest) -> Result<()>;
}
