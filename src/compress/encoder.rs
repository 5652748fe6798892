//! Compresses one block independently: as a gzip member, a zstd frame, or not at all. The sizes, levels and libraries
//! here determine the bytes of every compressed layer. Each change of them needs a new [`super::RECIPE_VERSION`].

use super::block::Block;
use crate::error::{Error, Result};
use crate::image::Coding;
use libdeflater::{CompressionLvl, Compressor as Deflate};
use std::ops::RangeInclusive;
use zstd::bulk::Compressor as Zstd;

/// Larger members reduce the size by only 0.25 % (at 4 MiB), since deflate looks back only 32 KiB.
const GZIP_BLOCK_BYTES: usize = 512 << 10;
/// A frame refers only to its own bytes: half the block costs 2 % of size, twice the block costs twice the memory.
const ZSTD_BLOCK_BYTES: usize = 1 << 20;
/// The limit for the blocks and tables of one layer.
const LAYER_MEMORY_BYTES: usize = 16 << 20;

/// Returns the levels of `coding`, fastest first. zstd has higher ones, but their tables need more memory than one layer
/// may use.
pub fn levels(coding: Coding) -> RangeInclusive<i32> {
    match coding {
        Coding::Raw => 0..=0,
        Coding::Gzip => 1..=12,
        Coding::Zstd => 1..=19,
    }
}

/// Returns the default level. Measured on 734 MB of Debian's `/usr`, relative to skopeo 1.9 with gzip: gzip needs 0.44 of
/// the CPU time and 2.6 % more size, zstd 0.30 and 7 % less.
pub fn default_level(coding: Coding) -> i32 {
    match coding {
        Coding::Raw => 0,
        Coding::Gzip => 1,
        Coding::Zstd => 3,
    }
}

/// Compresses blocks, each independently of the others.
pub enum Compressor {
    Raw,
    Gzip(Deflate, i32),
    Zstd(Zstd<'static>, i32),
}

impl Compressor {
    /// Creates a compressor for `to`. Uncompressed output ignores the level.
    pub fn new(to: Coding, level: Option<i32>) -> Result<Compressor> {
        let level = level.unwrap_or(default_level(to));
        if to != Coding::Raw && !levels(to).contains(&level) {
            let (least, most) = levels(to).into_inner();
            return Err(Error::usage(format!(
                "{level} is not a level of {}; use one from {least} to {most}",
                to.name()
            )));
        }
        Ok(match to {
            Coding::Raw => Compressor::Raw,
            Coding::Gzip => {
                let known = CompressionLvl::new(level).expect("levels() are within libdeflate's");
                Compressor::Gzip(Deflate::new(known), level)
            }
            Coding::Zstd => {
                let out_of_memory = |_| Error::failed("not enough memory to compress a layer with zstd");
                let mut zstd = Zstd::new(level).map_err(out_of_memory)?;
                // As the zstd command does, so that `zstd -t` detects damage.
                zstd.include_checksum(true).map_err(out_of_memory)?;
                Compressor::Zstd(zstd, level)
            }
        })
    }

    /// Creates another compressor with the same coding and level.
    pub fn try_clone(&self) -> Result<Compressor> {
        match self {
            Compressor::Raw => Ok(Compressor::Raw),
            Compressor::Gzip(_, level) => Compressor::new(Coding::Gzip, Some(*level)),
            Compressor::Zstd(_, level) => Compressor::new(Coding::Zstd, Some(*level)),
        }
    }

    /// Returns the number of uncompressed bytes in a block.
    pub fn block_size(&self) -> usize {
        match self {
            Compressor::Gzip(..) => GZIP_BLOCK_BYTES,
            Compressor::Raw | Compressor::Zstd(..) => ZSTD_BLOCK_BYTES,
        }
    }

    /// Limits the `requested` threads to the memory of one layer; at least one.
    pub fn threads(&self, requested: usize) -> usize {
        let block = 2 * self.block_size();
        let fitting = LAYER_MEMORY_BYTES.saturating_sub(2 * block) / (block + self.table_bytes());
        requested.clamp(1, fitting.max(1))
    }

    /// Returns the memory of a compressor without its blocks, from measured peaks, rounded up. Levels in one row were
    /// measured at both ends.
    fn table_bytes(&self) -> usize {
        match self {
            Compressor::Raw => 0,
            Compressor::Gzip(_, ..10) => 1 << 20,
            Compressor::Gzip(..) => 10 << 20,
            Compressor::Zstd(_, ..6) => 2 << 20,
            Compressor::Zstd(..) => 16 << 20,
        }
    }

    /// Compresses `block.input` into `block.output`.
    pub fn compress(&mut self, block: &mut Block) -> Result<()> {
        let Block { input, output } = block;
        let size = match self {
            Compressor::Raw => {
                std::mem::swap(input, output);
                return Ok(());
            }
            Compressor::Gzip(deflate, _) => {
                let buffer = output.writable(deflate.gzip_compress_bound(input.content().len()));
                deflate.gzip_compress(input.content(), buffer).expect("the buffer has libdeflate's own bound")
            }
            Compressor::Zstd(zstd, _) => {
                let buffer = output.writable(zstd::zstd_safe::compress_bound(input.content().len()));
                let size = zstd.compress_to_buffer(input.content(), buffer);
                size.map_err(|error| Error::failed(format!("cannot compress a layer with zstd: {error}")))?
            }
        };
        output.set_len(size);
        Ok(())
    }
}
