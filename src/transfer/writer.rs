//! Where the bytes of one blob go.

use super::Verified;
use crate::error::{Error, Result};
use crate::image::Hasher;

/// Takes one blob's bytes. Dropped without `commit`, it leaves nothing that could be taken for a blob.
pub trait BlobWriter: Send {
    /// Where writing goes on and the hasher's state there: 0 and fresh (`Hasher::new(algorithm)`), or where a partial
    /// left off. Called once, first; not called where nothing can be gone on with (a layer that is packed anew): then
    /// writing begins at 0.
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        Ok((0, fresh))
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()>;
    /// Whether `recover` may ask for bytes again. What comes only once is kept for it then, and not copied otherwise.
    fn recovers(&self) -> bool {
        false
    }
    /// After a failed write: the offset to go on from, or the error again.
    fn recover(&mut self, error: Error) -> Result<u64> {
        Err(error)
    }
    /// Hands on what is still held back, once the bytes were found to be right. After a failure `recover` says from where
    /// the bytes are to be written again, and then this is called once more.
    fn finish(&mut self, _blob: &Verified) -> Result<()> {
        Ok(())
    }
    /// After `finish`: keeps the blob under `blob.stored()`'s digest.
    fn commit(self: Box<Self>, blob: &Verified) -> Result<()>;
}
