//! The archive packed for the way only: the host unpacks it before its engine sees it, so no digest changes. Each MiB
//! is packed by itself or travels as it is, by what is the faster on this line just then.

use crate::error::{Error, Result};
use std::{
    io::{self, Write},
    str::FromStr,
    time::{Duration, Instant},
};

/// In bytes: what is packed at once.
const CHUNK: usize = 1 << 20;
/// In chunks: after so many it is looked whether the other way is the faster.
const WINDOW: u32 = 8;
/// In windows: so long the faster way is kept without a look at the other.
const KEPT: u32 = 16;
/// In chunks: so many go as they are after one that packing does not make smaller (a packed layer).
const REST: u32 = 7;
/// Fast enough for a line of 1 Gbit/s.
const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: i32 = 1;
/// RFC 8878: a block has at most 128 KiB.
const ZSTD_BLOCK: usize = 128 << 10;

/// How an archive is packed on its way to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCompression {
    /// As it is.
    Plain,
    Gzip,
    Zstd,
}

impl LineCompression {
    pub fn name(self) -> &'static str {
        match self {
            LineCompression::Plain => "none",
            LineCompression::Gzip => "gzip",
            LineCompression::Zstd => "zstd",
        }
    }

    pub(super) fn named(text: &str) -> Option<LineCompression> {
        [LineCompression::Gzip, LineCompression::Zstd].into_iter().find(|wire| wire.name() == text)
    }
}

impl FromStr for LineCompression {
    type Err = Error;

    fn from_str(text: &str) -> Result<LineCompression> {
        let all = [LineCompression::Plain, LineCompression::Gzip, LineCompression::Zstd];
        let found = all.into_iter().find(|wire| wire.name() == text);
        found.ok_or_else(|| Error::usage(format!("{text:?} is no packing for the way: expected none, gzip or zstd")))
    }
}

/// Packs what is written, MiB by MiB, into `out`.
pub(super) struct Packed<W: Write> {
    out: W,
    packer: Packer,
    chunk: Vec<u8>,
    pace: Pace,
    rest: u32,
}

enum Packer {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<(libdeflater::Compressor, libdeflater::Compressor)>),
}

impl<W: Write> Packed<W> {
    /// `None` for [`LineCompression::Plain`].
    pub fn new(out: W, wire: LineCompression) -> io::Result<Result<Packed<W>, W>> {
        let packer = match wire {
            LineCompression::Plain => return Ok(Err(out)),
            LineCompression::Zstd => Packer::Zstd(zstd::bulk::Compressor::new(ZSTD_LEVEL)?),
            LineCompression::Gzip => {
                let level = |n| libdeflater::CompressionLvl::new(n).unwrap_or_default();
                let compressor = |n| libdeflater::Compressor::new(level(n));
                Packer::Gzip(Box::new((compressor(GZIP_LEVEL), compressor(0))))
            }
        };
        Ok(Ok(Packed { out, packer, chunk: Vec::with_capacity(CHUNK), pace: Pace::default(), rest: 0 }))
    }

    fn emit(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let way = self.pace.way;
        let mut bytes = Vec::new();
        let mut stored = way == Way::Stored;
        if !stored && self.rest == 0 {
            bytes = self.packer.pack(&self.chunk)?;
            // Less than a fiftieth gained: it is packed already.
            if bytes.len() > self.chunk.len() - self.chunk.len() / 50 {
                self.rest = REST;
                stored = true;
            }
        } else if !stored {
            self.rest -= 1;
            stored = true;
        }
        if stored {
            bytes = self.packer.store(&self.chunk)?;
        }
        self.out.write_all(&bytes)?;
        self.pace.count(self.chunk.len(), begun.elapsed());
        self.chunk.clear();
        Ok(())
    }
}

impl Packer {
    fn pack(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Packer::Zstd(compressor) => compressor.compress(chunk),
            Packer::Gzip(both) => gzip(&mut both.0, chunk),
        }
    }

    /// `chunk` as the packing stores what it does not pack.
    fn store(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Packer::Zstd(_) => Ok(zstd_stored(chunk)),
            Packer::Gzip(both) => gzip(&mut both.1, chunk),
        }
    }
}

fn gzip(compressor: &mut libdeflater::Compressor, chunk: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = vec![0; compressor.gzip_compress_bound(chunk.len())];
    let n = compressor.gzip_compress(chunk, &mut out).map_err(io::Error::other)?;
    out.truncate(n);
    Ok(out)
}

/// A frame of raw blocks (RFC 8878, 3.1.1): a single segment with its size in four bytes.
fn zstd_stored(chunk: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(chunk.len() + 64);
    out.extend([0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    out.extend((chunk.len() as u32).to_le_bytes());
    let mut blocks = chunk.chunks(ZSTD_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        out.extend_from_slice(&((block.len() as u32) << 3 | last).to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

impl<W: Write> Write for Packed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..n]);
        if self.chunk.len() == CHUNK {
            self.emit()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.emit()?;
        self.out.flush()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Packed,
    Stored,
}

/// Which way is the faster. The first window is packed: a small image on a slow line is the common case.
#[derive(Default)]
struct Pace {
    way: Way,
    /// Bytes a second, before packing, of each way's last window.
    packed: Option<f64>,
    stored: Option<f64>,
    chunks: u32,
    bytes: usize,
    time: Duration,
    windows: u32,
}

impl Pace {
    fn count(&mut self, bytes: usize, time: Duration) {
        self.chunks += 1;
        self.bytes += bytes;
        self.time += time;
        if self.chunks < WINDOW {
            return;
        }
        let rate = Some(self.bytes as f64 / self.time.as_secs_f64().max(1e-6));
        match self.way {
            Way::Packed => self.packed = rate,
            Way::Stored => self.stored = rate,
        }
        (self.chunks, self.bytes, self.time) = (0, 0, Duration::ZERO);
        self.windows += 1;
        if self.windows > KEPT {
            self.windows = 0;
            // The one that is not under way is looked at anew.
            match self.way {
                Way::Packed => self.stored = None,
                Way::Stored => self.packed = None,
            }
        }
        self.way = match (self.packed, self.stored) {
            (Some(_), None) => Way::Stored,
            (None, _) => Way::Packed,
            (Some(packed), Some(stored)) if packed >= stored => Way::Packed,
            _ => Way::Stored,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn through(wire: LineCompression, bytes: &[u8], slow: Duration) -> Vec<u8> {
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
        let mut packed = Packed::new(Line(Vec::new(), slow), wire).unwrap().ok().unwrap();
        for piece in bytes.chunks(70_001) {
            packed.write_all(piece).unwrap();
        }
        packed.flush().unwrap();
        packed.out.0
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

    fn unpacked(wire: LineCompression, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match wire {
            LineCompression::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out).unwrap(),
            _ => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap(),
        };
        out
    }

    #[test]
    fn the_host_gets_back_what_was_written_packed_or_stored() {
        for wire in [LineCompression::Zstd, LineCompression::Gzip] {
            for bytes in [text(1), text(CHUNK), noise(CHUNK + 1), [text(3 << 20), noise(9 << 20)].concat()] {
                let packed = through(wire, &bytes, Duration::ZERO);
                assert!(unpacked(wire, &packed) == bytes, "{wire:?} {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_slow_line_gets_it_packed_and_packed_layers_as_they_are() {
        let slow = Duration::from_millis(40);
        let packed = through(LineCompression::Zstd, &text(12 << 20), slow);
        assert!(packed.len() < 6 << 20, "{}", packed.len());
        let stored = through(LineCompression::Zstd, &noise(3 << 20), slow);
        assert!(stored.len() < (3 << 20) + (1 << 12));
    }

    #[test]
    fn the_faster_way_is_kept_and_looked_at_anew() {
        let mut pace = Pace::default();
        let mut window = |ms: u64| {
            (0..WINDOW).for_each(|_| pace.count(CHUNK, Duration::from_millis(ms)));
            pace.way
        };
        assert_eq!(window(5), Way::Stored);
        assert_eq!(window(9), Way::Packed);
        assert_eq!((2..KEPT).map(|_| window(5)).filter(|way| *way == Way::Packed).count(), KEPT as usize - 2);
        assert_eq!(window(5), Way::Stored);
        assert_eq!(window(1), Way::Stored);
    }
}
