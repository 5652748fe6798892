//! The writer of one blob.

use super::Verified;
use crate::error::{Error, Result};
use crate::image::Hasher;

/// Writes one blob.
///
/// 1. A writer that is dropped before `commit` succeeds leaves nothing that looks like a blob.
/// 2. A failed writer may leave a partial file, from which a later run resumes.
pub trait BlobWriter: Send {
    /// The offset where writing starts and the hasher's state there: 0 and `fresh`, or the end of a partial file.
    ///
    /// 1. It is called once, before the first `write`. It is not called for a layer that is recompressed, which cannot
    ///    be resumed: then writing starts at 0.
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        Ok((0, fresh))
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// - `Invalid`: more bytes than the claim of `Sink::begin` announced.
    /// - `Unwritable`, `Network`: the storage or the connection failed.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// The offset to resume from after `write` or `commit` failed with `error`; or the error that remains.
    ///
    /// 1. A sink whose writers return an offset has `SinkCapabilities::needs_replay`.
    fn recover(&mut self, error: Error) -> Result<u64> {
        Err(error)
    }

    /// Stores the blob under the digest of `blob.stored()`.
    ///
    /// 1. After a failure and a successful `recover`, the bytes are written again from that offset, and this is called
    ///    once more.
    ///
    /// # Errors
    /// - `Failed`: the bytes are not those that `Sink::begin` announced.
    /// - `Unwritable`, `Network`, `Denied`: the storage, the connection or the registry failed.
    fn commit(&mut self, blob: &Verified) -> Result<()>;
}
