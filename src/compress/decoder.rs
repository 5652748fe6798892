//! The raw bytes of a packed layer, block by block, hashed and counted as they come out, and bounded: a layer of a few
//! kilobytes may claim to hold all the zeros there are.

use super::block::Block;
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use zstd::stream::read::Decoder as ZstdDecoder;

/// In bytes: few calls for a file, few copies for a slow socket.
const PACKED_BUFFER: usize = 128 << 10;
/// Frames that look back further are refused: 2^27 bytes is what `zstd --long` asks for and the library's own limit.
const LARGEST_WINDOW: u32 = 27;

/// How far a layer may swell.
#[derive(Clone, Copy)]
pub struct Bound {
    /// In bytes, whatever it is packed.
    pub free: u64,
    /// More, for each packed byte.
    pub ratio: u64,
}

/// A sparse file in an honest layer packs ten thousandfold, so no ratio alone tells a bomb.
pub const BOUND: Bound = Bound { free: 32 << 30, ratio: 256 };

/// A layer being unpacked.
pub struct Unpacked<'a> {
    bytes: Decoder<'a>,
    bound: Bound,
    /// None where nobody asks for the digest.
    hasher: Option<Hasher>,
    size: u64,
}

enum Decoder<'a> {
    Raw(Packed<'a>),
    Gzip(Box<MultiGzDecoder<BufReader<Packed<'a>>>>),
    Zstd(ZstdDecoder<'static, BufReader<Packed<'a>>>),
}

impl<'a> Unpacked<'a> {
    /// A layer that comes from `from` packed as `was`. Once `stop` is set, `from` is not read again.
    pub fn open(
        from: &'a mut (dyn Read + Send),
        was: Coding,
        bound: Bound,
        stop: &'a AtomicBool,
    ) -> Result<Unpacked<'a>> {
        let packed = Packed { from, stop, count: 0 };
        let buffered = |packed| BufReader::with_capacity(PACKED_BUFFER, packed);
        let bytes = match was {
            Coding::Raw => Decoder::Raw(packed),
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(packed)))),
            Coding::Zstd => {
                let out_of_memory = |_| Error::failed("no memory to unpack a layer with zstd");
                let mut decoder = ZstdDecoder::with_buffer(buffered(packed)).map_err(out_of_memory)?;
                decoder.window_log_max(LARGEST_WINDOW).map_err(out_of_memory)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(Unpacked { bytes, bound, hasher: Some(Hasher::default()), size: 0 })
    }

    /// Bytes of any kind, as they are and without their digest.
    pub fn plain(from: &'a mut (dyn Read + Send), stop: &'a AtomicBool) -> Unpacked<'a> {
        Unpacked { bytes: Decoder::Raw(Packed { from, stop, count: 0 }), bound: BOUND, hasher: None, size: 0 }
    }

    /// Puts the next `size` bytes into `block.raw`; fewer at the layer's end. Whether the end has come.
    pub fn fill(&mut self, block: &mut Block, size: usize) -> Result<bool> {
        let room = &mut block.raw.room(size)[..size];
        let mut filled = 0;
        while filled < size {
            match self.bytes.read(&mut room[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.bytes.damage(error)),
            }
        }
        self.size += filled as u64;
        self.bounded()?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&room[..filled]);
        }
        block.raw.wrote(filled);
        Ok(filled < size)
    }

    fn bounded(&self) -> Result<()> {
        let packed = self.bytes.packed().count;
        let most = packed.saturating_mul(self.bound.ratio).saturating_add(self.bound.free);
        match self.bytes {
            Decoder::Gzip(_) | Decoder::Zstd(_) if self.size > most => Err(Error::invalid(format!(
                "{packed} bytes of a layer unpack to more than {most}, which no honest layer does; it was not kept"
            ))),
            _ => Ok(()),
        }
    }

    /// Digest and size of all that `fill` gave.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.unwrap_or_default().finish(), self.size)
    }
}

impl<'a> Decoder<'a> {
    fn packed(&self) -> &Packed<'a> {
        match self {
            Decoder::Raw(packed) => packed,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// What `error` means: the reader's own comes wrapped, so one that does not is the decoder's.
    fn damage(&self, error: io::Error) -> Error {
        let coding = match self {
            Decoder::Raw(_) => Coding::Raw,
            Decoder::Gzip(_) => Coding::Gzip,
            Decoder::Zstd(_) => Coding::Zstd,
        };
        let after = self.packed().count;
        Error::carried(error).unwrap_or_else(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::invalid(format!(
                "a layer ends after {after} bytes in the middle of its {} stream; take it from its source again",
                coding.name()
            )),
            _ => Error::invalid(format!(
                "a layer is not what it says: its {} stream is damaged within the first {after} bytes: {error}; \
                 take it from its source again",
                coding.name()
            )),
        })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Raw(packed) => packed.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The layer as it comes in: counts, stops when told to, and wraps the reader's errors so that they are not taken for
/// a decoder's.
struct Packed<'a> {
    from: &'a mut (dyn Read + Send),
    stop: &'a AtomicBool,
    count: u64,
}

impl Read for Packed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::interrupted().into());
        }
        match self.from.read(buffer) {
            Ok(n) => {
                self.count += n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Err(Error::reading("a layer", error).into()),
        }
    }
}
