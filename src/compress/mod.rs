//! Recompressing a layer while it is streamed, deterministically: the same uncompressed bytes, coding and level give the
//! same compressed bytes, for any number of threads and any size of reads.
//!
//! A layer is cut into blocks of a fixed size, and each block is compressed independently: as a gzip member (RFC 1952,
//! 2.2) or a zstd frame (RFC 8878, 3). Readers decode consecutive members and frames as one stream.
//! `layer_cache` records which compressed blob this user's imgmv made from which layer.

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
use decoder::LayerReader;
use encoder::Compressor;
use std::io::Read;
use std::sync::atomic::AtomicBool;

pub use encoder::default_level;

/// The version of the compression. It increases with every change of blocks, libraries or default levels that changes
/// the compressed bytes, so that the layer cache never mixes versions.
pub const RECIPE_VERSION: u32 = 1;

/// The layer that was recompressed, in uncompressed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recompressed {
    /// Digest (the layer's diff ID, image-spec, config.md) and size in bytes.
    pub uncompressed: (Digest, u64),
}

/// Reads a layer compressed as `was` to its end and passes it to `out`, in order and in pieces, compressed as `to`.
///
/// `level` is in `encoder::levels(to)`; `None` means [`default_level`]. At most `threads` threads compress blocks, fewer
/// if they needed more than about 16 MiB for blocks and tables: gzip from level 10 and zstd from level 6 use one thread,
/// for which zstd needs up to 24 MiB. A layer smaller than a block is compressed on the calling thread, where `out`
/// always runs.
///
/// Errors: `Usage` for an unknown level; `Invalid` for a layer that cannot be decompressed or that expands too much;
/// errors of `from` and `out` unchanged. After a failure `from` is not read again, but this function waits for a `read`
/// that has started.
pub fn recompress(
    from: &mut (dyn Read + Send),
    was: Coding,
    to: Coding,
    level: Option<i32>,
    threads: usize,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Recompressed> {
    let compressor = Compressor::new(to, level)?;
    let stop = AtomicBool::new(false);
    let mut layer = LayerReader::open(from, was, decoder::SIZE_LIMIT, &stop)?;
    compress_blocks(&mut layer, compressor, threads, &stop, out)?;
    Ok(Recompressed { uncompressed: layer.finish() })
}

/// Reads `from` to its end and passes it to `out` compressed as `to`: as [`recompress`] for an uncompressed layer, but
/// without a digest.
pub fn compress(
    from: &mut (dyn Read + Send),
    to: Coding,
    level: Option<i32>,
    threads: usize,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let compressor = Compressor::new(to, level)?;
    let stop = AtomicBool::new(false);
    compress_blocks(&mut LayerReader::unhashed(from, &stop), compressor, threads, &stop, out)
}

/// Fails with `Usage` if `coding` does not have the level `level`.
pub fn check_level(coding: Coding, level: Option<i32>) -> Result<()> {
    Compressor::new(coding, level).map(drop)
}

fn compress_blocks(
    layer: &mut LayerReader<'_>,
    mut compressor: Compressor,
    threads: usize,
    stop: &AtomicBool,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut first = Block::default();
    let ended = layer.fill(&mut first, compressor.block_size())?;
    compressor.compress(&mut first)?;
    out(first.output.content())?;
    if ended { Ok(()) } else { pipeline::run(layer, first, compressor, threads, stop, out) }
}

/// Returns the number of threads that compress one layer.
pub(crate) fn threads_per_layer() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(8)
}
