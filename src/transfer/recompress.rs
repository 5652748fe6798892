//! One layer through, recompressed on the way.

use super::replay::ReplayBuffer;
use super::{BlobWriter, TransferContext, Verified, check};
use crate::compress;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Coding, Digest, Hasher};
use crate::source::Claim;
use std::io::Read;

/// How a layer is to be packed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompress {
    pub was: Coding,
    pub to: Coding,
    /// Of the codec; its default when none.
    pub level: Option<i32>,
}

/// Moves one layer from `open` to `writer`, packed anew, and commits the result if what was read is what `claim`
/// says, and the result what `expected` says (where a pair is known).
pub fn transfer_recompressed(
    claim: &Claim,
    expected: Option<Digest>,
    how: Recompress,
    from: &mut (dyn Read + Send),
    mut writer: Box<dyn BlobWriter + '_>,
    flow: &TransferContext<'_>,
) -> Result<Verified> {
    // `start` is not called: the packer cannot go on from a partial.
    let (mut stored, mut stored_size) = (Hasher::default(), 0);
    let recovers = writer.recovers();
    let mut recent = ReplayBuffer::new(if recovers { flow.recent } else { 0 });
    let (source, raw) = repack(claim, how, from, flow, &mut |bytes| {
        stored.update(bytes);
        let begun = stored_size;
        stored_size += bytes.len() as u64;
        if !recovers {
            return writer.write(bytes);
        }
        recent.add(bytes);
        recent.write(begun, &mut *writer)
    })?;
    let stored = (stored.finish(), stored_size);
    if let Some(expected) = expected
        && expected != stored.0
    {
        return Err(Error::failed(format!(
            "layer {} was packed to {}, remembered was {expected}; remove the cache of pairs",
            source.0, stored.0
        )));
    }
    let verified = Verified { source, stored, raw: Some(raw), resumed: 0 };
    while let Err(error) = writer.finish(&verified) {
        let again = writer.recover(error)?;
        recent.write(again, &mut *writer)?;
    }
    writer.commit(&verified)?;
    Ok(verified)
}

/// What a layer would be, packed anew: for sinks that must know the size beforehand.
pub fn measure_recompressed(
    claim: &Claim,
    how: Recompress,
    from: &mut (dyn Read + Send),
    flow: &TransferContext<'_>,
) -> Result<Claim> {
    let (mut stored, mut size) = (Hasher::default(), 0);
    repack(claim, how, from, flow, &mut |bytes| {
        stored.update(bytes);
        size += bytes.len() as u64;
        Ok(())
    })?;
    Ok(Claim { digest: Some(stored.finish()), size: Some(size) })
}

/// Reads and checks all of `from` while it is packed anew into `out`: what was read, and the digest unpacked.
fn repack(
    claim: &Claim,
    how: Recompress,
    from: &mut (dyn Read + Send),
    flow: &TransferContext<'_>,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<((Digest, u64), Digest)> {
    let algorithm = claim.digest.map_or_else(Algorithm::default, |digest| digest.algorithm());
    // A raw layer's sha256 is the recoder's.
    let apart = how.was != Coding::Raw || algorithm != Algorithm::default();
    let mut tee = Tee { from, hasher: apart.then(|| Hasher::new(algorithm)), size: 0, limit: claim.size, flow };
    let recompressed = compress::recompress(&mut tee, how.was, how.to, how.level, flow.threads, out)?;
    let digest = match tee.hasher {
        // What lies behind the packed stream's end belongs to the blob too.
        Some(_) => {
            std::io::copy(&mut tee, &mut std::io::sink())?;
            tee.hasher.take().expect("set above").finish()
        }
        None => recompressed.uncompressed.0,
    };
    check(claim, digest, tee.size)?;
    Ok(((digest, tee.size), recompressed.uncompressed.0))
}

/// Counts, reports and (where the recoder does not) hashes what is read.
struct Tee<'a, 'f> {
    from: &'a mut (dyn Read + Send),
    hasher: Option<Hasher>,
    size: u64,
    limit: Option<u64>,
    flow: &'a TransferContext<'f>,
}

impl Read for Tee<'_, '_> {
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
        self.flow.moved(n)?;
        Ok(n)
    }
}
