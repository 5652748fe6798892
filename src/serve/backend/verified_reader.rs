//! Verifies streamed bytes that are not cached: if the digest does not match, the last bytes are withheld.

use crate::error::Error;
use crate::image::{Digest, Hasher};
use std::io::{self, Read};

/// The buffer for skipped bytes.
const SKIP_BUFFER_BYTES: usize = 64 << 10;

/// Reads a complete blob, and returns its bytes from an offset on.
pub struct VerifiedReader {
    bytes: Box<dyn Read + Send>,
    hasher: Option<Hasher>,
    digest: Digest,
    size: u64,
    at: u64,
    from: u64,
}

impl VerifiedReader {
    /// Creates a reader of `bytes`, which start with the blob's first byte.
    pub fn new(bytes: Box<dyn Read + Send>, digest: Digest, size: u64, from: u64) -> VerifiedReader {
        VerifiedReader { bytes, hasher: Some(Hasher::new(digest.algorithm())), digest, size, at: 0, from }
    }

    fn read_hashed(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min((self.size - self.at).min(usize::MAX as u64) as usize);
        let n = self.bytes.read(&mut buffer[..most])?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.at += n as u64;
        if self.at == self.size
            && let Some(hasher) = self.hasher.take()
        {
            let found = hasher.finish();
            if found != self.digest {
                return Err(Error::digest_mismatch(format!("blob {} does not match: got {found}", self.digest)).into());
            }
        }
        Ok(n)
    }
}

impl Read for VerifiedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut skipped = vec![0; if self.at < self.from { SKIP_BUFFER_BYTES } else { 0 }];
        while self.at < self.from {
            let most = skipped.len().min((self.from - self.at) as usize);
            if self.read_hashed(&mut skipped[..most])? == 0 {
                return Ok(0);
            }
        }
        match self.at == self.size {
            true => Ok(0),
            false => self.read_hashed(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest: Digest, from: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifiedReader::new(Box::new(io::Cursor::new(bytes.to_vec())), digest, bytes.len() as u64, from)
            .read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn the_end_of_another_blob_is_not_given() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        let digest = Digest::of(&bytes);
        for from in [0, 1, 70_000, 199_999] {
            assert_eq!(read(&bytes, digest, from).unwrap(), bytes[from as usize..]);
            let mut wrong = bytes.clone();
            wrong[5] ^= 1;
            assert!(Error::from(read(&wrong, digest, from).unwrap_err()).is_digest_mismatch());
        }
    }
}
