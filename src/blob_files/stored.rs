//! The blobs that are stored already.

use super::{BlobCheck, StoredBlobs};
use crate::cancel::Cancel;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Hasher};
use std::io::Read;

const BUFFER_BYTES: usize = 256 << 10;

/// Whether `blob` does not have to be sent, for [`crate::sink::Sink::missing`].
pub(crate) fn is_held(
    stored: &dyn StoredBlobs,
    blob: &Descriptor,
    verify: BlobCheck,
    dry_run: bool,
    cancel: &Cancel,
) -> bool {
    match verify {
        BlobCheck::Size => has(stored, &blob.digest, Some(blob.size)),
        // `begin` checks the blobs, since several lanes hash in parallel.
        BlobCheck::Digest => {
            dry_run && matches!(hash(stored, &blob.digest, cancel), Ok(Some(found)) if found == blob.digest)
        }
    }
}

/// Whether the blob `digest` exists, with `size` bytes if given.
pub(super) fn has(stored: &dyn StoredBlobs, digest: &Digest, size: Option<u64>) -> bool {
    let found = stored.size(digest).ok().flatten();
    found.is_some_and(|found| size.is_none_or(|size| size == found))
}

/// The digest of the file of the blob `digest`; `None` if it is missing, or cannot be read.
///
/// Fails with `Interrupted` if the copy is cancelled.
pub(super) fn hash(stored: &dyn StoredBlobs, digest: &Digest, cancel: &Cancel) -> Result<Option<Digest>> {
    let Ok(Some(mut file)) = stored.blob(digest) else { return Ok(None) };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        cancel.check()?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(hasher.finish())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // An unreadable blob (a bad sector) is written again.
            Err(_) => return Ok(None),
        }
    }
}
