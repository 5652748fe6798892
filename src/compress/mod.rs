//! Recompressing a layer while it is streamed, deterministically: the same raw bytes, coding and level give the same
//! compressed bytes, for any number of threads and any size of reads.
//!
//! A layer is cut into blocks of a fixed size, and each block is compressed independently: a gzip member (RFC 1952,
//! 2.2) or a zstd frame (RFC 8878, 3) a block. Readers decode consecutive members and frames as one stream.
//! `layer_cache` remembers which compressed blob this user's imgmv made from which source blob.

mod block;
mod decoder;
mod encoder;
pub mod layer_cache;
mod pipeline;
#[cfg(test)]
mod tests;

use crate::error::Result;
use crate::image::{Coding, Digest};
use block::Block;
use decoder::Unpacked;
use encoder::Packer;
use std::io::Read;
use std::sync::atomic::AtomicBool;

pub use encoder::{default_level, levels};

/// The version of how layers are packed. Goes up with every change of blocks, libraries or default levels that
/// changes packed bytes, so that nobody takes layers packed otherwise for the same.
pub const RECIPE: u32 = 1;

/// What a layer is, unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recoded {
    /// Digest (sha256: the layer's `diff_id`, image-spec, config.md) and size, in bytes.
    pub raw: (Digest, u64),
}

/// Reads a layer that is packed as `was` to its end and hands it to `out`, in order and in pieces, packed as `to`.
///
/// `level` is one of [`levels`]`(to)`; `None` means [`default_level`]. Blocks are packed by `threads` threads, fewer
/// where that many would need more than some 16 MiB of blocks and tables (gzip from level 10 and zstd from level 6 on
/// keep to one thread, and zstd needs up to 24 MiB for it); a layer of less than a block is packed
/// without any. `out` runs on the calling thread.
///
/// Errors: `Usage` for a level that there is not; `Invalid` for a layer that cannot be unpacked or that swells beyond
/// reason; those of `from` and of `out` as they are. After a failure `from` is not read again, but a `read` that is
/// under way is waited for.
pub fn recode(
    from: &mut (dyn Read + Send),
    was: Coding,
    to: Coding,
    level: Option<i32>,
    threads: usize,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Recoded> {
    let packer = Packer::new(to, level)?;
    let stop = AtomicBool::new(false);
    let mut layer = Unpacked::open(from, was, decoder::BOUND, &stop)?;
    pack(&mut layer, packer, threads, &stop, out)?;
    Ok(Recoded { raw: layer.finish() })
}

/// Reads `from` to its end and hands it to `out` compressed as `to`: what [`recode`] does with a raw layer, with the same
/// levels, threads, memory and errors, and without a digest.
pub fn compress(
    from: &mut (dyn Read + Send),
    to: Coding,
    level: Option<i32>,
    threads: usize,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let packer = Packer::new(to, level)?;
    let stop = AtomicBool::new(false);
    pack(&mut Unpacked::plain(from, &stop), packer, threads, &stop, out)
}

/// Fails with `Usage` where `coding` has no such `level`.
pub fn check_level(coding: Coding, level: Option<i32>) -> Result<()> {
    Packer::new(coding, level).map(drop)
}

fn pack(
    bytes: &mut Unpacked<'_>,
    mut packer: Packer,
    threads: usize,
    stop: &AtomicBool,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut first = Block::default();
    let ended = bytes.fill(&mut first, packer.block_size())?;
    packer.pack(&mut first)?;
    out(first.packed())?;
    if ended { Ok(()) } else { pipeline::run(bytes, first, packer, threads, stop, out) }
}

/// Threads that compress one layer.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}
