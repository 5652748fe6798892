//! The transfer of one layer that is recompressed.

use super::recovery::LimitedWriter;
use super::replay::ReplayBuffer;
use super::verified::check;
use super::{BlobWriter, TransferContext, Verified};
use crate::compress;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Coding, Digest, Hasher};
use crate::source::Claim;
use std::io::Read;

/// The recompression of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompress {
    pub was: Coding,
    pub to: Coding,
    /// The compression level; the codec's default when none.
    pub level: Option<i32>,
}

/// Writes one layer from `from` to `writer`, recompressed, and commits it.
///
/// # Errors
/// - `Invalid`: the layer is not what `claim` says; then nothing is committed.
/// - `Failed`: the result is not `expected`, the digest in the layer cache.
/// - Those of the source, and those of the writer that it cannot recover from.
pub fn transfer_recompressed(
    claim: &Claim,
    expected: Option<Digest>,
    how: Recompress,
    from: &mut (dyn Read + Send),
    writer: Box<dyn BlobWriter + '_>,
    context: &TransferContext<'_>,
) -> Result<Verified> {
    let mut writer = LimitedWriter::new(writer, claim);
    // `start` is not called: a recompression cannot be resumed.
    let (mut stored, mut stored_size) = (Hasher::default(), 0);
    let mut replay = ReplayBuffer::new(context.replay_bytes);
    let (source, diff_id) = recompress(claim, how, from, context, &mut |bytes| {
        stored.update(bytes);
        let offset = stored_size;
        stored_size += bytes.len() as u64;
        if context.replay_bytes == 0 {
            return writer.write(bytes);
        }
        replay.add(bytes);
        replay.write(offset, &mut writer)
    })?;
    let stored = (stored.finish(), stored_size);
    if let Some(expected) = expected
        && expected != stored.0
    {
        return Err(Error::failed(format!(
            "layer {} was compressed to {}, and the layer cache says {expected}; remove the layer cache",
            source.0, stored.0
        )));
    }
    let verified = Verified { source, stored, diff_id: Some(diff_id), resumed: 0 };
    while let Err(error) = writer.commit(&verified) {
        let again = writer.recover(error)?;
        replay.write(again, &mut writer)?;
    }
    Ok(verified)
}

/// Digest and size of the recompressed layer, for sinks that need the size beforehand.
pub fn measure_recompressed(
    claim: &Claim,
    how: Recompress,
    from: &mut (dyn Read + Send),
    context: &TransferContext<'_>,
) -> Result<Claim> {
    let (mut stored, mut size) = (Hasher::default(), 0);
    recompress(claim, how, from, context, &mut |bytes| {
        stored.update(bytes);
        size += bytes.len() as u64;
        Ok(())
    })?;
    Ok(Claim { digest: Some(stored.finish()), size: Some(size) })
}

/// Recompresses `from` into `out` and checks it against `claim`; returns its digest and size, and its diff ID.
fn recompress(
    claim: &Claim,
    how: Recompress,
    from: &mut (dyn Read + Send),
    context: &TransferContext<'_>,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<((Digest, u64), Digest)> {
    let algorithm = claim.digest.map_or_else(Algorithm::default, |digest| digest.algorithm());
    // The SHA-256 of an uncompressed layer is its diff ID, which is computed anyway.
    let own_hash = how.was != Coding::Raw || algorithm != Algorithm::default();
    let mut tee =
        ReplayTee { from, hasher: own_hash.then(|| Hasher::new(algorithm)), size: 0, limit: claim.size, context };
    let result = compress::recompress(&mut tee, how.was, how.to, how.level, context.threads, out)?;
    let digest = match tee.hasher {
        // Bytes after the end of the compressed stream belong to the blob too.
        Some(_) => {
            std::io::copy(&mut tee, &mut std::io::sink())?;
            tee.hasher.take().expect("set above").finish()
        }
        None => result.uncompressed.0,
    };
    check(claim, digest, tee.size)?;
    Ok(((digest, tee.size), result.uncompressed.0))
}

/// A reader that counts, reports and, where needed, hashes.
struct ReplayTee<'a, 'f> {
    from: &'a mut (dyn Read + Send),
    hasher: Option<Hasher>,
    size: u64,
    limit: Option<u64>,
    context: &'a TransferContext<'f>,
}

impl Read for ReplayTee<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.size += n as u64;
        if self.limit.is_some_and(|limit| self.size > limit) {
            return Err(Error::invalid(format!(
                "a layer has more than the {} bytes announced",
                self.limit.unwrap_or(0)
            ))
            .into());
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.context.moved(n)?;
        Ok(n)
    }
}
