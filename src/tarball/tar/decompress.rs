//! The compression of a complete archive (gzip, zstd, xz, bzip2): detected by its first bytes, decompressed with
//! limited memory.

use crate::error::{Error, Result};
use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The maximum zstd window is 2^27 bytes (128 MiB, the default of `zstd --long`); most frames need 8 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;
/// The memory limit of an xz stream; the highest preset needs 65 MiB.
const XZ_MEMORY_BYTES: u64 = 72 << 20;
const INPUT_BUFFER_BYTES: usize = 128 << 10;

/// The limit of the decompressed size: `base + compressed size * ratio`, in bytes.
#[derive(Clone, Copy)]
struct TarSizeLimit {
    /// A valid layer of more than 8 GiB may consist of zeros, so a small archive may expand this far.
    base: u64,
    ratio: u64,
}

const SIZE_LIMIT: TarSizeLimit = TarSizeLimit { base: 16 << 30, ratio: 256 };

/// The compression of a complete archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveCompression {
    /// Not compressed: a tar.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// zstd (RFC 8878).
    Zstd,
    /// xz (LZMA2).
    Xz,
    /// bzip2.
    Bzip2,
}

impl ArchiveCompression {
    /// Detects the compression by the first bytes; `None` if this is not an archive of a known kind. A compression needs
    /// 8 bytes, a tar its first block of 512.
    pub fn sniff(head: &[u8]) -> Option<ArchiveCompression> {
        Some(match head {
            [0x1f, 0x8b, ..] => ArchiveCompression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => ArchiveCompression::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ArchiveCompression::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => ArchiveCompression::Bzip2,
            head if super::header::is_header(head) => ArchiveCompression::Plain,
            head if head.len() >= super::header::BLOCK_BYTES && head.iter().all(|byte| *byte == 0) => {
                ArchiveCompression::Plain
            }
            _ => return None,
        })
    }

    /// Decompresses `input`. Reading fails with `Invalid` if the archive expands beyond the limit.
    pub fn decompress(self, input: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        self.decompress_within(SIZE_LIMIT, input)
    }

    fn decompress_within(self, limit: TarSizeLimit, input: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        if self == ArchiveCompression::Plain {
            return Ok(input);
        }
        let read = Arc::new(AtomicU64::new(0));
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, CountingReader { bytes: input, read: read.clone() });
        let start = |e: io::Error| Error::reading("the compressed archive", e);
        let bytes: Box<dyn Read + Send> = match self {
            ArchiveCompression::Plain | ArchiveCompression::Gzip => {
                Box::new(flate2::bufread::MultiGzDecoder::new(input))
            }
            ArchiveCompression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
            ArchiveCompression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(start)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG).map_err(start)?;
                Box::new(decoder)
            }
            ArchiveCompression::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_BYTES, liblzma::stream::CONCATENATED)
                        .map_err(|e| start(e.into()))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(input, stream))
            }
        };
        Ok(Box::new(LimitedReader { bytes, limit, read, returned: 0 }))
    }
}

/// Reads the compressed archive and counts its bytes.
struct CountingReader {
    bytes: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for CountingReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// Reads the decompressed archive. It fails beyond the limit.
struct LimitedReader {
    bytes: Box<dyn Read + Send>,
    limit: TarSizeLimit,
    /// Compressed bytes read so far.
    read: Arc<AtomicU64>,
    /// Decompressed bytes returned so far.
    returned: u64,
}

impl Read for LimitedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.returned += n as u64;
        let read = self.read.load(Ordering::Relaxed);
        let most = read.saturating_mul(self.limit.ratio).saturating_add(self.limit.base);
        match self.returned > most {
            true => Err(Error::invalid(format!(
                "the archive is refused: its first {read} compressed bytes expand to more than {most} bytes, as in a \
                 decompression bomb; if you trust it, decompress it to a file first"
            ))
            .into()),
            false => Ok(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    #[test]
    fn every_compression_is_detected_and_decompressed_in_all_its_parts() {
        let half: Vec<u8> = (0..100_000u32).flat_map(|n| n.to_le_bytes()).collect();
        let gzip = |bytes: &[u8]| {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let xz = |bytes: &[u8]| {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let bzip2 = |bytes: &[u8]| {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        use ArchiveCompression::{Bzip2, Gzip, Xz, Zstd};
        type Encoder<'p> = (ArchiveCompression, &'p dyn Fn(&[u8]) -> Vec<u8>);
        let all: [Encoder<'_>; 4] = [(Gzip, &gzip), (Xz, &xz), (Bzip2, &bzip2), (Zstd, &zstd)];
        for (kind, compress) in all {
            let compressed = [compress(&half), compress(&half)].concat();
            assert_eq!(ArchiveCompression::sniff(&compressed), Some(kind));
            let mut back = Vec::new();
            kind.decompress(Box::new(Cursor::new(compressed.clone()))).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == [&half[..], &half[..]].concat(), "{kind:?}");
            let cut = compressed[..compressed.len() - 9].to_vec();
            assert!(kind.decompress(Box::new(Cursor::new(cut))).unwrap().read_to_end(&mut back).is_err(), "{kind:?}");
        }
    }

    #[test]
    fn a_window_larger_than_the_limit_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        let chunk: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for _ in 0..300 {
            encoder.write_all(&chunk).unwrap();
        }
        let compressed = encoder.finish().unwrap();
        let mut bytes = ArchiveCompression::Zstd.decompress(Box::new(Cursor::new(compressed))).unwrap();
        assert!(std::io::copy(&mut bytes, &mut std::io::sink()).is_err());
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        const SIZE: usize = 24 << 20;
        let limit = TarSizeLimit { base: 16 << 20, ratio: 2 };
        let zeros = vec![0; SIZE];
        let gzip = || {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            out.write_all(&zeros).unwrap();
            out.finish().unwrap()
        };
        let bzip2 = || {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            out.write_all(&zeros).unwrap();
            out.finish().unwrap()
        };
        let xz = || {
            let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
            out.write_all(&zeros).unwrap();
            out.finish().unwrap()
        };
        for (kind, compressed) in [
            (ArchiveCompression::Gzip, gzip()),
            (ArchiveCompression::Zstd, zstd::encode_all(&zeros[..], 1).unwrap()),
            (ArchiveCompression::Xz, xz()),
            (ArchiveCompression::Bzip2, bzip2()),
        ] {
            let mut bytes = kind.decompress_within(limit, Box::new(io::Cursor::new(compressed.clone()))).unwrap();
            let error = Error::from(io::copy(&mut bytes, &mut io::sink()).unwrap_err());
            assert!(error.to_string().contains("decompression bomb"), "{kind:?}: {error}");
            let mut bytes = kind.decompress(Box::new(io::Cursor::new(compressed))).unwrap();
            assert_eq!(io::copy(&mut bytes, &mut io::sink()).unwrap(), SIZE as u64);
        }
    }
}
