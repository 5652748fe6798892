//! Compression of the archive for the connection only: the host decompresses it before the engine reads it, so digests
//! do not change. Each chunk is compressed or stored on its own, whichever mode is faster at the moment.

use crate::error::{Error, Result};
use std::{
    io::{self, Write},
    str::FromStr,
    time::{Duration, Instant},
};

/// The size of one frame before compression.
const CHUNK_BYTES: usize = 1 << 20;
/// Chunks after which the modes' speeds are compared.
const WINDOW_CHUNKS: u32 = 8;
/// Windows in the faster mode before the other mode is measured again.
const WINDOWS_PER_CHECK: u32 = 16;
/// Chunks stored without a compression attempt after an incompressible one (a compressed layer).
const STORED_RUN_CHUNKS: u32 = 7;
/// The level is fast enough for a connection of 1 Gbit/s.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: i32 = 1;
/// RFC 8878: a block has at most 128 KiB.
const ZSTD_BLOCK_BYTES: usize = 128 << 10;

/// The compression of an archive on the connection to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireCompression {
    /// No compression.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
}

impl WireCompression {
    /// Returns the name on the command line: `none`, `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            WireCompression::Plain => "none",
            WireCompression::Gzip => "gzip",
            WireCompression::Zstd => "zstd",
        }
    }

    pub(super) fn by_name(text: &str) -> Option<WireCompression> {
        [WireCompression::Gzip, WireCompression::Zstd].into_iter().find(|compression| compression.name() == text)
    }
}

impl FromStr for WireCompression {
    type Err = Error;

    fn from_str(text: &str) -> Result<WireCompression> {
        let all = [WireCompression::Plain, WireCompression::Gzip, WireCompression::Zstd];
        let found = all.into_iter().find(|compression| compression.name() == text);
        found.ok_or_else(|| Error::usage(format!("{text:?} is not a line compression: expected none, gzip or zstd")))
    }
}

/// A writer that compresses or stores each chunk into `out`.
pub(super) struct AdaptiveWriter<W: Write> {
    out: W,
    encoder: Encoder,
    chunk: Vec<u8>,
    chooser: ModeChooser,
    stored_run: u32,
}

enum Encoder {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<(libdeflater::Compressor, libdeflater::Compressor)>),
}

impl<W: Write> AdaptiveWriter<W> {
    /// Returns `out` itself for [`WireCompression::Plain`].
    pub fn new(out: W, compression: WireCompression) -> io::Result<Result<AdaptiveWriter<W>, W>> {
        let encoder = match compression {
            WireCompression::Plain => return Ok(Err(out)),
            WireCompression::Zstd => Encoder::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            WireCompression::Gzip => {
                let level = |n| libdeflater::CompressionLvl::new(n).unwrap_or_default();
                let compressor = |n| libdeflater::Compressor::new(level(n));
                Encoder::Gzip(Box::new((compressor(GZIP_LEVEL), compressor(0))))
            }
        };
        Ok(Ok(AdaptiveWriter {
            out,
            encoder,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            chooser: ModeChooser::default(),
            stored_run: 0,
        }))
    }

    fn write_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mode = self.chooser.mode;
        let mut bytes = Vec::new();
        let mut stored = mode == Mode::Stored;
        if !stored && self.stored_run == 0 {
            bytes = self.encoder.compress(&self.chunk)?;
            // It shrank by less than 2 %: the chunk is already compressed.
            if bytes.len() > self.chunk.len() - self.chunk.len() / 50 {
                self.stored_run = STORED_RUN_CHUNKS;
                stored = true;
            }
        } else if !stored {
            self.stored_run -= 1;
            stored = true;
        }
        if stored {
            bytes = self.encoder.store(&self.chunk)?;
        }
        self.out.write_all(&bytes)?;
        self.chooser.count(self.chunk.len(), started.elapsed());
        self.chunk.clear();
        Ok(())
    }
}

impl Encoder {
    fn compress(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Zstd(compressor) => compressor.compress(chunk),
            Encoder::Gzip(both) => gzip(&mut both.0, chunk),
        }
    }

    /// Encodes `chunk` as a frame without compression.
    fn store(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Zstd(_) => Ok(zstd_stored(chunk)),
            Encoder::Gzip(both) => gzip(&mut both.1, chunk),
        }
    }
}

fn gzip(compressor: &mut libdeflater::Compressor, chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.gzip_compress_bound(chunk.len())];
    let n = compressor.gzip_compress(chunk, &mut out).map_err(io::Error::other)?;
    out.truncate(n);
    Ok(out)
}

/// Creates a frame of raw blocks (RFC 8878, 3.1.1): a single segment with its size in four bytes.
fn zstd_stored(chunk: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunk.len() + 64);
    out.extend([0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    out.extend((chunk.len() as u32).to_le_bytes());
    let mut blocks = chunk.chunks(ZSTD_BLOCK_BYTES).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        out.extend_from_slice(&((block.len() as u32) << 3 | last).to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

impl<W: Write> Write for AdaptiveWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..n]);
        if self.chunk.len() == CHUNK_BYTES {
            self.write_chunk()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_chunk()?;
        self.out.flush()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Mode {
    #[default]
    Compressed,
    Stored,
}

/// Selects the faster mode. The first window is compressed: a small image on a slow connection is the common case.
#[derive(Default)]
struct ModeChooser {
    mode: Mode,
    /// Uncompressed bytes per second in each mode's last window.
    compressed: Option<f64>,
    stored: Option<f64>,
    chunks: u32,
    bytes: usize,
    time: Duration,
    windows: u32,
}

impl ModeChooser {
    fn count(&mut self, bytes: usize, time: Duration) {
        self.chunks += 1;
        self.bytes += bytes;
        self.time += time;
        if self.chunks < WINDOW_CHUNKS {
            return;
        }
        let rate = Some(self.bytes as f64 / self.time.as_secs_f64().max(1e-6));
        match self.mode {
            Mode::Compressed => self.compressed = rate,
            Mode::Stored => self.stored = rate,
        }
        (self.chunks, self.bytes, self.time) = (0, 0, Duration::ZERO);
        self.windows += 1;
        if self.windows > WINDOWS_PER_CHECK {
            self.windows = 0;
            // The other mode is measured again.
            match self.mode {
                Mode::Compressed => self.stored = None,
                Mode::Stored => self.compressed = None,
            }
        }
        self.mode = match (self.compressed, self.stored) {
            (Some(_), None) => Mode::Stored,
            (None, _) => Mode::Compressed,
            (Some(compressed), Some(stored)) if compressed >= stored => Mode::Compressed,
            _ => Mode::Stored,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn through(compression: WireCompression, bytes: &[u8], slow: Duration) -> Vec<u8> {
        struct Line(Vec<u8>, Duration);
        impl Write for Line {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                std::thread::sleep(self.1 * (bytes.len() as u32 >> 10) / 1024);
                self.0.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = AdaptiveWriter::new(Line(Vec::new(), slow), compression).unwrap().ok().unwrap();
        for piece in bytes.chunks(70_001) {
            writer.write_all(piece).unwrap();
        }
        writer.flush().unwrap();
        writer.out.0
    }

    fn text(size: usize) -> Vec<u8> {
        (0..size).map(|i| (i / 9 % 97) as u8 ^ (i / 4001) as u8).collect()
    }

    fn noise(size: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..size).map(|_| next()).collect()
    }

    fn decompressed(compression: WireCompression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            WireCompression::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
            _ => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        };
        out
    }

    #[test]
    fn the_host_gets_back_what_was_written_packed_or_stored() {
        for compression in [WireCompression::Zstd, WireCompression::Gzip] {
            for bytes in [text(1), text(CHUNK_BYTES), noise(CHUNK_BYTES + 1), [text(3 << 20), noise(9 << 20)].concat()]
            {
                let compressed = through(compression, &bytes, Duration::ZERO);
                assert!(decompressed(compression, &compressed) == bytes, "{compression:?} {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_slow_line_gets_it_packed_and_packed_layers_as_they_are() {
        let slow = Duration::from_millis(40);
        let compressed = through(WireCompression::Zstd, &text(12 << 20), slow);
        assert!(compressed.len() < 6 << 20, "{}", compressed.len());
        let stored = through(WireCompression::Zstd, &noise(3 << 20), slow);
        assert!(stored.len() < (3 << 20) + (1 << 12));
    }

    #[test]
    fn the_faster_way_is_kept_and_looked_at_anew() {
        let mut chooser = ModeChooser::default();
        let mut window = |ms: u64| {
            (0..WINDOW_CHUNKS).for_each(|_| chooser.count(CHUNK_BYTES, Duration::from_millis(ms)));
            chooser.mode
        };
        assert_eq!(window(5), Mode::Stored);
        assert_eq!(window(9), Mode::Compressed);
        assert_eq!(
            (2..WINDOWS_PER_CHECK).map(|_| window(5)).filter(|mode| *mode == Mode::Compressed).count(),
            WINDOWS_PER_CHECK as usize - 2
        );
        assert_eq!(window(5), Mode::Stored);
        assert_eq!(window(1), Mode::Stored);
    }
}
