//! The packing around a whole archive (gzip, zstd, xz, bzip2), told by its first bytes and undone with a bound on
//! memory.

use crate::error::{Error, Result};
use std::{
    io::{self, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A zstd frame may ask for a window of two to this power bytes (128 MiB, `--long`'s default); most ask for 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 27;
/// What an xz stream may ask for, in bytes: its highest preset needs 65 MiB.
const XZ_MEMORY: u64 = 72 << 20;
/// Bytes read from the packed archive at once.
const INPUT: usize = 128 << 10;

/// How far a packed archive may swell.
#[derive(Clone, Copy)]
struct Bound {
    /// In bytes, however small it is packed: an honest layer of more than 8 GiB may be all zeros.
    free: u64,
    /// More, for each packed byte.
    ratio: u64,
}

const BOUND: Bound = Bound { free: 16 << 30, ratio: 256 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    /// What the first bytes say; `None` where they are no archive of any known kind. Eight bytes tell a packing, a
    /// tar needs its first block.
    pub fn sniff(head: &[u8]) -> Option<Packing> {
        Some(match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
            head if super::header::is_header(head) => Packing::Plain,
            head if head.len() >= super::header::BLOCK && head.iter().all(|byte| *byte == 0) => Packing::Plain,
            _ => return None,
        })
    }

    /// `packed` as the tar in it.
    /// Reading fails with `Invalid` where it swells as no honest archive does.
    pub fn undo(self, packed: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        self.undo_within(BOUND, packed)
    }

    fn undo_within(self, bound: Bound, packed: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
        if self == Packing::Plain {
            return Ok(packed);
        }
        let read = Arc::new(AtomicU64::new(0));
        let packed = BufReader::with_capacity(INPUT, Counted { bytes: packed, read: read.clone() });
        let start = |e: io::Error| Error::reading("the archive's packing", e);
        let bytes: Box<dyn Read + Send> = match self {
            Packing::Plain | Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Packing::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(packed)),
            Packing::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(start)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(start)?;
                Box::new(decoder)
            }
            Packing::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .map_err(|e| start(e.into()))?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(packed, stream))
            }
        };
        Ok(Box::new(Bounded { bytes, bound, read, given: 0 }))
    }
}

/// The packed archive: counts what is read of it.
struct Counted {
    bytes: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.read.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// The unpacked archive: ends with an error where it is too much for what was read.
struct Bounded {
    bytes: Box<dyn Read + Send>,
    bound: Bound,
    read: Arc<AtomicU64>,
    given: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.given += n as u64;
        let read = self.read.load(Ordering::Relaxed);
        let most = read.saturating_mul(self.bound.ratio).saturating_add(self.bound.free);
        match self.given > most {
            true => Err(Error::invalid(format!(
                "{read} packed bytes unpack to more than {most}, which no honest archive does; if it is one, unpack it \
                 to a file first"
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
    fn every_packing_is_told_and_undone_in_all_its_parts() {
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
        type Pack<'p> = (Packing, &'p dyn Fn(&[u8]) -> Vec<u8>);
        let all: [Pack<'_>; 4] =
            [(Packing::Gzip, &gzip), (Packing::Xz, &xz), (Packing::Bzip2, &bzip2), (Packing::Zstd, &zstd)];
        for (packing, pack) in all {
            let packed = [pack(&half), pack(&half)].concat();
            assert_eq!(Packing::sniff(&packed), Some(packing));
            let mut back = Vec::new();
            packing.undo(Box::new(Cursor::new(packed.clone()))).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == [&half[..], &half[..]].concat(), "{packing:?}");
            let cut = packed[..packed.len() - 9].to_vec();
            assert!(packing.undo(Box::new(Cursor::new(cut))).unwrap().read_to_end(&mut back).is_err(), "{packing:?}");
        }
    }

    #[test]
    fn a_window_larger_than_the_bound_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(28).unwrap();
        let chunk: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for _ in 0..300 {
            encoder.write_all(&chunk).unwrap();
        }
        let packed = encoder.finish().unwrap();
        let mut unpacked = Packing::Zstd.undo(Box::new(Cursor::new(packed))).unwrap();
        assert!(std::io::copy(&mut unpacked, &mut std::io::sink()).is_err());
    }

    #[test]
    fn what_swells_without_end_is_cut_off() {
        const SIZE: usize = 24 << 20;
        let bound = Bound { free: 16 << 20, ratio: 2 };
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
        for (packing, packed) in [
            (Packing::Gzip, gzip()),
            (Packing::Zstd, zstd::encode_all(&zeros[..], 1).unwrap()),
            (Packing::Xz, xz()),
            (Packing::Bzip2, bzip2()),
        ] {
            let mut bytes = packing.undo_within(bound, Box::new(io::Cursor::new(packed.clone()))).unwrap();
            let error = Error::from(io::copy(&mut bytes, &mut io::sink()).unwrap_err());
            assert!(error.to_string().contains("no honest archive"), "{packing:?}: {error}");
            let mut bytes = packing.undo(Box::new(io::Cursor::new(packed))).unwrap();
            assert_eq!(io::copy(&mut bytes, &mut io::sink()).unwrap(), SIZE as u64);
        }
    }
}
