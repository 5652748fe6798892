//! A blob that is hashed while `imgmv serve` sends it. A registry sends whatever its disk has; here the last bytes of a
//! damaged blob are withheld, so that no client takes it for complete.
//!
//! The server opens the blob again for each buffer, so the state of the hash waits between two reads. The part before a
//! client's range is read and hashed first. Of a range that ends before the blob does, nothing can be said.

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Hasher};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Mutex, PoisonError};

const BUFFER_BYTES: usize = 64 << 10;

/// The state of the hash between two reads of one response.
#[derive(Default)]
pub(super) struct HashedReads(Mutex<Option<Progress>>);

/// A blob of which the first `at` bytes are hashed.
struct Progress {
    digest: Digest,
    at: u64,
    hasher: Hasher,
}

impl HashedReads {
    /// Reads `blob`, which `file` has, from offset `from` on.
    ///
    /// # Errors
    /// - `Invalid`: an empty blob has another digest.
    /// - `Failed`: the file cannot be read.
    pub fn read(&self, mut file: File, blob: &Descriptor, from: u64) -> Result<HashedReader<'_>> {
        let reading = |error| Error::reading(format!("blob {}", blob.digest), error);
        let mut reader = HashedReader { reads: self, progress: None, file: None, size: blob.size };
        if from >= blob.size && from > 0 {
            return Ok(reader);
        }
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let progress = match waiting.filter(|waiting| waiting.digest == blob.digest && waiting.at == from) {
            Some(progress) => progress,
            None => hash_start(&file, &blob.digest, from).map_err(reading)?,
        };
        file.seek(SeekFrom::Start(from)).map_err(reading)?;
        (reader.progress, reader.file) = (Some(progress), Some(file));
        reader.check()?;
        Ok(reader)
    }
}

/// Hashes the first `bytes` of `file`.
fn hash_start(mut file: &File, digest: &Digest, bytes: u64) -> io::Result<Progress> {
    let mut progress = Progress { digest: *digest, at: 0, hasher: Hasher::new(digest.algorithm()) };
    let mut buffer = vec![0; if bytes > 0 { BUFFER_BYTES } else { 0 }];
    while progress.at < bytes {
        let wanted = usize::try_from(bytes - progress.at).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        match file.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => progress.add(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(progress)
}

impl Progress {
    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
    }
}

/// A reader of a blob. Dropped before the end, it leaves the state of its hash for the next one.
pub(super) struct HashedReader<'r> {
    reads: &'r HashedReads,
    /// `None` at the end of the blob.
    progress: Option<Progress>,
    file: Option<File>,
    size: u64,
}

impl HashedReader<'_> {
    /// At the end of the blob, checks its digest.
    fn check(&mut self) -> Result<()> {
        let Some(Progress { digest, hasher, .. }) = self.progress.take_if(|progress| progress.at == self.size) else {
            return Ok(());
        };
        let found = hasher.finish();
        match found == digest {
            true => Ok(()),
            false => Err(Error::digest_mismatch(format!(
                "blob {digest} is damaged: its digest is {found}; its end is not sent"
            ))),
        }
    }
}

impl Read for HashedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (Some(progress), Some(file)) = (&mut self.progress, &mut self.file) else { return Ok(0) };
        let left = usize::try_from(self.size - progress.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = file.read(&mut buffer[..wanted])?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        progress.add(&buffer[..read]);
        self.check()?;
        Ok(read)
    }
}

impl Drop for HashedReader<'_> {
    fn drop(&mut self) {
        if let Some(progress) = self.progress.take() {
            *self.reads.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Reads the blob `digest`, which has `bytes`, with an open for each `piece` bytes.
    fn read(bytes: &[u8], digest: Digest, from: usize, piece: usize) -> Result<Vec<u8>> {
        let mut stored = tempfile::NamedTempFile::new().unwrap();
        stored.write_all(bytes).unwrap();
        let (reads, blob) = (HashedReads::default(), Descriptor::new("", digest, bytes.len() as u64));
        let (mut read, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            let file = File::open(stored.path()).unwrap();
            let at = (from + read.len()) as u64;
            match reads.read(file, &blob, at)?.read(&mut buffer).map_err(Error::from)? {
                0 => return Ok(read),
                n => read.extend_from_slice(&buffer[..n]),
            }
        }
    }

    #[test]
    fn the_end_of_a_damaged_blob_is_withheld() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 + n / 251) as u8).collect();
        let digest = Digest::of(&bytes);
        for (from, piece) in [(0, 60_000), (0, 300_000), (1, 7_000), (70_000, 50_000), (199_999, 10), (200_000, 10)] {
            assert!(read(&bytes, digest, from, piece).unwrap() == bytes[from..], "{from}");
            let mut damaged = bytes.clone();
            damaged[5] ^= 1;
            let error = read(&damaged, digest, from, piece).map(|bytes| bytes.len());
            match from == bytes.len() {
                true => assert_eq!(error.unwrap(), 0),
                false => assert!(error.unwrap_err().is_digest_mismatch(), "{from}"),
            }
        }
        assert!(read(b"", Digest::of(b""), 0, 10).unwrap().is_empty());
        assert!(read(b"", digest, 0, 10).is_err());
    }
}
