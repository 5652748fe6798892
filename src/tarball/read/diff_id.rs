//! Computes the diff ID of a compressed layer while it is read.

use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::tarball::tar::path::shown;
use std::io::{self, Write};

/// The maximum zstd window is 2^27 bytes (128 MiB), as for complete archives.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// Decompresses the bytes of a layer and hashes the result.
pub(crate) enum DiffIdHasher {
    Gzip(Box<flate2::write::MultiGzDecoder<HashWriter>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, HashWriter>>),
}

#[derive(Default)]
pub(crate) struct HashWriter(Hasher);

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiffIdHasher {
    /// Creates a hasher for a layer with the compression `coding`.
    pub fn new(coding: Coding) -> Result<DiffIdHasher> {
        match coding {
            Coding::Raw => Err(Error::failed("an uncompressed layer cannot be decompressed")),
            Coding::Gzip => Ok(DiffIdHasher::Gzip(Box::new(flate2::write::MultiGzDecoder::new(HashWriter::default())))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::write::Decoder::new(HashWriter::default())?;
                decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
                Ok(DiffIdHasher::Zstd(Box::new(decoder)))
            }
        }
    }

    pub fn update(&mut self, bytes: &[u8]) -> Result<()> {
        let done = match self {
            DiffIdHasher::Gzip(decoder) => decoder.write_all(bytes),
            DiffIdHasher::Zstd(decoder) => decoder.write_all(bytes),
        };
        done.map_err(damaged)
    }

    pub fn finish(self) -> Result<Digest> {
        let hashed = match self {
            DiffIdHasher::Gzip(decoder) => decoder.finish(),
            DiffIdHasher::Zstd(mut decoder) => decoder.flush().map(|()| decoder.into_inner()),
        };
        Ok(hashed.map_err(damaged)?.0.finish())
    }
}

fn damaged(error: io::Error) -> Error {
    Error::invalid(format!("the layer cannot be decompressed: {error}"))
}

/// Detects the compression of a layer file by its first bytes.
pub(crate) fn coding(head: &[u8]) -> Result<Coding> {
    match crate::tarball::tar::decompress::ArchiveCompression::sniff(head) {
        Some(
            crate::tarball::tar::decompress::ArchiveCompression::Xz
            | crate::tarball::tar::decompress::ArchiveCompression::Bzip2,
        ) => Err(Error::invalid(
            "the layer is compressed with xz or bzip2, for which no media type exists; save it with gzip, zstd or uncompressed",
        )),
        _ => Ok(Coding::sniff(head)),
    }
}

/// Fails with `Invalid` if the diff ID of a layer file differs from the one in its image config.
pub(crate) fn check(name: &str, found: &Digest, diff_id: &Digest) -> Result<()> {
    match found == diff_id {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "layer {} does not match its image config: got diff ID {found}, expected {diff_id}",
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
        for compressed in [gzip.finish().unwrap(), zstd::encode_all(&content[..], 1).unwrap()] {
            let mut hasher = DiffIdHasher::new(Coding::sniff(&compressed)).unwrap();
            for piece in compressed.chunks(7) {
                hasher.update(piece).unwrap();
            }
            assert_eq!(hasher.finish().unwrap(), Digest::of(&content));
        }
    }

    #[test]
    fn a_cut_layer_is_no_layer() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&content).unwrap();
        for compressed in [gzip.finish().unwrap(), zstd::encode_all(&content[..], 1).unwrap()] {
            let mut hasher = DiffIdHasher::new(Coding::sniff(&compressed)).unwrap();
            let fed = hasher.update(&compressed[..compressed.len() / 2]);
            let digest = fed.and_then(|()| hasher.finish());
            assert!(!digest.is_ok_and(|digest| digest == Digest::of(&content)));
        }
    }
}
