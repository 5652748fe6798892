//! Decompresses a layer block by block, hashes and counts the uncompressed bytes, and limits them: a layer of a few
//! kilobytes may expand to any number of zeros.

use super::block::Block;
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use zstd::stream::read::Decoder as ZstdDecoder;

/// Large enough for few system calls on a file, small enough for few copies from a slow socket.
const INPUT_BUFFER_BYTES: usize = 128 << 10;
const TAR_BLOCK_BYTES: usize = 512;
/// The place of `ustar` in the header of a tar's entry.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
/// The maximum zstd window is 2^27 bytes: the window of `zstd --long` and the limit of the zstd library.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// The limit of the uncompressed size: `base + compressed size * ratio`, in bytes.
#[derive(Clone, Copy)]
pub struct SizeLimit {
    pub base: u64,
    pub ratio: u64,
}

/// A sparse file in a valid layer may be compressed to a ten-thousandth, so a ratio alone cannot detect a
/// decompression bomb.
pub const SIZE_LIMIT: SizeLimit = SizeLimit { base: 32 << 30, ratio: 256 };

/// A layer that is decompressed while it is read.
pub struct LayerReader<'a> {
    bytes: Decoder<'a>,
    limit: SizeLimit,
    /// `None` if the digest is not needed.
    hasher: Option<Hasher>,
    size: u64,
}

enum Decoder<'a> {
    Raw(BoundedSource<'a>),
    Gzip(Box<MultiGzDecoder<BufReader<BoundedSource<'a>>>>),
    Zstd(ZstdDecoder<'static, BufReader<BoundedSource<'a>>>),
}

impl<'a> LayerReader<'a> {
    /// Opens a layer that `from` delivers compressed as `coding`. Once `stop` is set, `from` is not read again.
    pub fn open(
        from: &'a mut (dyn Read + Send),
        coding: Coding,
        limit: SizeLimit,
        stop: &'a AtomicBool,
    ) -> Result<LayerReader<'a>> {
        let mut source = BoundedSource { from, stop, count: 0, head: Vec::new(), read: 0 };
        let buffered = |source| BufReader::with_capacity(INPUT_BUFFER_BYTES, source);
        let bytes = match coding {
            Coding::Raw => Decoder::Raw(source),
            _ if source.is_tar()? => Decoder::Raw(source),
            Coding::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(buffered(source)))),
            Coding::Zstd => {
                let out_of_memory = |_| Error::failed("not enough memory to decompress a layer with zstd");
                let mut decoder = ZstdDecoder::with_buffer(buffered(source)).map_err(out_of_memory)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(out_of_memory)?;
                Decoder::Zstd(decoder)
            }
        };
        Ok(LayerReader { bytes, limit, hasher: Some(Hasher::default()), size: 0 })
    }

    /// Opens any bytes: they are neither decompressed nor hashed.
    pub fn unhashed(from: &'a mut (dyn Read + Send), stop: &'a AtomicBool) -> LayerReader<'a> {
        LayerReader {
            bytes: Decoder::Raw(BoundedSource { from, stop, count: 0, head: Vec::new(), read: 0 }),
            limit: SIZE_LIMIT,
            hasher: None,
            size: 0,
        }
    }

    /// Reads the next `size` bytes into `block.input`, fewer at the end of the layer. Returns whether the end was
    /// reached.
    pub fn fill(&mut self, block: &mut Block, size: usize) -> Result<bool> {
        let buffer = &mut block.input.writable(size)[..size];
        let mut filled = 0;
        while filled < size {
            match self.bytes.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.bytes.describe(error)),
            }
        }
        self.size += filled as u64;
        self.check_size()?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..filled]);
        }
        block.input.set_len(filled);
        Ok(filled < size)
    }

    fn check_size(&self) -> Result<()> {
        let compressed = self.bytes.source().count;
        let most = compressed.saturating_mul(self.limit.ratio).saturating_add(self.limit.base);
        match self.bytes {
            Decoder::Gzip(_) | Decoder::Zstd(_) if self.size > most => Err(Error::invalid(format!(
                "a layer is refused: its first {compressed} compressed bytes expand to more than {most} bytes, as in a \
                 decompression bomb; it was not stored"
            ))),
            _ => Ok(()),
        }
    }

    /// Returns digest and size of the uncompressed layer.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.unwrap_or_default().finish(), self.size)
    }
}

impl<'a> Decoder<'a> {
    fn source(&self) -> &BoundedSource<'a> {
        match self {
            Decoder::Raw(source) => source,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref(),
        }
    }

    /// Converts an error. [`BoundedSource`] wraps the errors of the source, so any other error is one of the decoder.
    fn describe(&self, error: io::Error) -> Error {
        let coding = match self {
            Decoder::Raw(_) => Coding::Raw,
            Decoder::Gzip(_) => Coding::Gzip,
            Decoder::Zstd(_) => Coding::Zstd,
        };
        let after = self.source().count;
        Error::carried(error).unwrap_or_else(|error| match error.kind() {
            ErrorKind::UnexpectedEof => Error::invalid(format!(
                "a layer is truncated: its {} stream is not complete after {after} bytes; fetch it from the source again",
                coding.name()
            )),
            _ => Error::invalid(format!(
                "a layer is damaged: its {} stream is invalid within the first {after} bytes ({error}); fetch it from \
                 the source again",
                coding.name()
            )),
        })
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Raw(source) => source.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// The layer as the source delivers it: counts the bytes, checks `stop`, and wraps errors to distinguish them from those
/// of a decoder.
struct BoundedSource<'a> {
    from: &'a mut (dyn Read + Send),
    stop: &'a AtomicBool,
    count: u64,
    /// The bytes at the start that were looked at.
    head: Vec<u8>,
    /// The number of those that were read.
    read: usize,
}

impl BoundedSource<'_> {
    /// Looks at the start of the layer: whether it is a tar. podman labels the layers of the archives that it loads as
    /// compressed with gzip, also those that are not.
    fn is_tar(&mut self) -> Result<bool> {
        let mut head = vec![0; TAR_BLOCK_BYTES];
        let mut filled = 0;
        while filled < head.len() {
            match self.read_on(&mut head[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::reading("a layer", error)),
            }
        }
        head.truncate(filled);
        let is_empty_tar = filled == TAR_BLOCK_BYTES && head.iter().all(|byte| *byte == 0);
        let is_tar = is_empty_tar || head.get(TAR_MAGIC) == Some(b"ustar");
        self.head = head;
        Ok(is_tar)
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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

impl Read for BoundedSource<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let looked_at = self.head.get(self.read..).unwrap_or_default();
        if looked_at.is_empty() {
            return self.read_on(buffer);
        }
        let length = looked_at.len().min(buffer.len());
        buffer[..length].copy_from_slice(&looked_at[..length]);
        self.read += length;
        Ok(length)
    }
}
