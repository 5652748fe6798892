//! Packing one block on its own: a gzip member, a zstd frame, or nothing at all. The sizes, levels and libraries chosen
//! here make the bytes of every packed layer; changing any of them needs a new [`super::RECIPE`].

use super::block::Block;
use crate::error::{Error, Result};
use crate::image::Coding;
use libdeflater::{CompressionLvl, Compressor as Deflate};
use std::ops::RangeInclusive;
use zstd::bulk::Compressor as Zstd;

/// Larger members gain nothing that shows (0.25 % of size at 4 MiB): deflate looks back 32 KiB only.
const GZIP_BLOCK: usize = 512 << 10;
/// A frame looks back no further than its beginning: half of this costs 2 % of size, twice this twice the memory.
const ZSTD_BLOCK: usize = 1 << 20;
/// What the blocks and tables of one layer may take together, in bytes.
const MEMORY: usize = 16 << 20;

/// The levels of `coding`, weakest and fastest first: libdeflate's for gzip, zstd's own up to where its tables outgrow
/// a layer's share of memory.
pub fn levels(coding: Coding) -> RangeInclusive<i32> {
    match coding {
        Coding::Raw => 0..=0,
        Coding::Gzip => 1..=12,
        Coding::Zstd => 1..=19,
    }
}

/// The level that is taken when none is asked for. Measured on 734 MB of Debian's `/usr`, against what skopeo 1.9 makes
/// of it with gzip: for gzip 0.44 of the CPU time and 2.6 % more size, for zstd 0.30 and 7 % less.
pub fn default_level(coding: Coding) -> i32 {
    match coding {
        Coding::Raw => 0,
        Coding::Gzip => 1,
        Coding::Zstd => 3,
    }
}

/// Packs blocks, one after the other, each as if there were no other.
pub enum Packer {
    Raw,
    Gzip(Deflate, i32),
    Zstd(Zstd<'static>, i32),
}

impl Packer {
    /// A packer for `to`; raw has no levels and takes any.
    pub fn new(to: Coding, level: Option<i32>) -> Result<Packer> {
        let level = level.unwrap_or(default_level(to));
        if to != Coding::Raw && !levels(to).contains(&level) {
            let (least, most) = levels(to).into_inner();
            return Err(Error::usage(format!("{level} is no level of {}; use one from {least} to {most}", to.name())));
        }
        Ok(match to {
            Coding::Raw => Packer::Raw,
            Coding::Gzip => {
                let known = CompressionLvl::new(level).expect("levels() are within libdeflate's");
                Packer::Gzip(Deflate::new(known), level)
            }
            Coding::Zstd => {
                let out_of_memory = |_| Error::failed("no memory to pack a layer with zstd");
                let mut zstd = Zstd::new(level).map_err(out_of_memory)?;
                // As the zstd command does, so that `zstd -t` finds damage.
                zstd.include_checksum(true).map_err(out_of_memory)?;
                Packer::Zstd(zstd, level)
            }
        })
    }

    /// Another one that packs alike.
    pub fn twin(&self) -> Result<Packer> {
        match self {
            Packer::Raw => Ok(Packer::Raw),
            Packer::Gzip(_, level) => Packer::new(Coding::Gzip, Some(*level)),
            Packer::Zstd(_, level) => Packer::new(Coding::Zstd, Some(*level)),
        }
    }

    /// How many raw bytes make a block.
    pub fn block_size(&self) -> usize {
        match self {
            Packer::Gzip(..) => GZIP_BLOCK,
            Packer::Raw | Packer::Zstd(..) => ZSTD_BLOCK,
        }
    }

    /// How many threads of those that were `asked` for fit into a layer's share of memory, at least one.
    pub fn threads(&self, asked: usize) -> usize {
        let block = 2 * self.block_size();
        let fitting = MEMORY.saturating_sub(2 * block) / (block + self.tables());
        asked.clamp(1, fitting.max(1))
    }

    /// What a packer of this level keeps in memory, in bytes: what peaks of memory leave when the blocks are taken off,
    /// rounded up. Levels that share a row were measured at its ends.
    fn tables(&self) -> usize {
        match self {
            Packer::Raw => 0,
            Packer::Gzip(_, ..10) => 1 << 20,
            Packer::Gzip(..) => 10 << 20,
            Packer::Zstd(_, ..6) => 2 << 20,
            Packer::Zstd(..) => 16 << 20,
        }
    }

    /// Packs what is in `block.raw` into `block.packed`.
    pub fn pack(&mut self, block: &mut Block) -> Result<()> {
        let Block { raw, packed } = block;
        let size = match self {
            Packer::Raw => {
                std::mem::swap(raw, packed);
                return Ok(());
            }
            Packer::Gzip(deflate, _) => {
                let room = packed.room(deflate.gzip_compress_bound(raw.written().len()));
                deflate.gzip_compress(raw.written(), room).expect("the bound is libdeflate's own")
            }
            Packer::Zstd(zstd, _) => {
                let room = packed.room(zstd::zstd_safe::compress_bound(raw.written().len()));
                let packed = zstd.compress_to_buffer(raw.written(), room);
                packed.map_err(|error| Error::failed(format!("cannot pack a layer with zstd: {error}")))?
            }
        };
        packed.wrote(size);
        Ok(())
    }
}
