//! The digest that a packed layer has when it is unpacked, taken while it passes.

use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::tar::path::shown;
use std::io::{self, Write};

/// As for whole archives: a window of 128 MiB at most.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Takes a layer's bytes, hashes what they unpack to.
pub(crate) enum Unpacked {
    Gzip(Box<flate2::write::MultiGzDecoder<Hashed>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Hashed>>),
}

#[derive(Default)]
pub(crate) struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Unpacked {
    /// For a layer that is packed.
    pub fn new(coding: Coding) -> Result<Unpacked> {
        match coding {
            Coding::Raw => Err(Error::failed("a layer that is not packed cannot be unpacked")),
            Coding::Gzip => Ok(Unpacked::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Hashed::default())))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(Hashed::default())?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Ok(Unpacked::Zstd(Box::new(decoder)))
            }
        }
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match self {
            Unpacked::Gzip(decoder) => decoder.write_all(bytes),
            Unpacked::Zstd(decoder) => decoder.write_all(bytes),
        };
        done.map_err(damaged)
    }

    pub fn finish(self) -> Result<Digest> {
        let hashed = match self {
            Unpacked::Gzip(decoder) => decoder.finish(),
            Unpacked::Zstd(mut decoder) => decoder.flush().map(|()| decoder.into_inner()),
        };
        Ok(hashed.map_err(damaged)?.0.finish())
    }
}

fn damaged(error: io::Error) -> Error {
    Error::invalid(format!("the layer cannot be unpacked: {error}"))
}

/// How a layer file is packed, by its first bytes.
pub(crate) fn coding(head: &[u8]) -> Result<Coding> {
    match crate::tarball::tar::decompress::Packing::sniff(head) {
        Some(crate::tarball::tar::decompress::Packing::Xz | crate::tarball::tar::decompress::Packing::Bzip2) => {
            Err(Error::invalid(
                "the layer is packed with xz or bzip2, for which images have no media type; save it with gzip, zstd or none",
            ))
        }
        _ => Ok(Coding::sniff(head)),
    }
}

/// Fails with `Invalid` where a layer file is not what its image's config says.
pub(crate) fn agree(name: &str, raw: &Digest, diff_id: &Digest) -> Result<()> {
    match raw == diff_id {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "layer {} does not match its image's config: got {raw} unpacked, expected {diff_id}",
            shown(name)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layers_digest_is_that_of_its_content() {
        let content = b"layer".repeat(100_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(&content[..], 1).unwrap()] {
            let mut unpacked = Unpacked::new(Coding::sniff(&packed)).unwrap();
            for piece in packed.chunks(7) {
                unpacked.update(piece).unwrap();
            }
            assert_eq!(unpacked.finish().unwrap(), Digest::of(&content));
        }
    }

    #[test]
    fn a_cut_layer_is_no_layer() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(&content[..], 1).unwrap()] {
            let mut unpacked = Unpacked::new(Coding::sniff(&packed)).unwrap();
            let fed = unpacked.update(&packed[..packed.len() / 2]);
            let digest = fed.and_then(|()| unpacked.finish());
            assert!(!digest.is_ok_and(|digest| digest == Digest::of(&content)));
        }
    }
}
