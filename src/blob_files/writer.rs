//! Writing blobs: what is stored already is skipped, what is damaged is replaced.

use super::partial::Partial;
use super::stored::{has, hash};
use super::temp_file::TempFile;
use super::{BlobCheck, BlobPlace};
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::Digest;
use crate::progress::Watch;
use crate::source::Claim;
use crate::transfer::{BlobWriter, Verified, longer_than_announced, not_announced};
use std::fs::File;
use std::io::{Read, Write};

/// Blobs of at least this size are written to a partial file, which an interrupted copy keeps.
const MIN_PARTIAL_BYTES: u64 = 256 << 10;

/// The blobs of a place, as one copy writes them.
#[derive(Clone, Copy)]
pub(crate) struct BlobFiles<'p> {
    pub place: &'p dyn BlobPlace,
    pub verify: BlobCheck,
    /// Each blob is synced to the disk before it is stored.
    pub sync: bool,
    pub watch: &'p dyn Watch,
    pub cancel: &'p Cancel,
}

impl<'p> BlobFiles<'p> {
    /// Opens a writer for a blob; `None` if it exists.
    ///
    /// Fails with `Unwritable` if the place cannot be written.
    pub fn writer(&self, claim: &Claim) -> Result<Option<Writer<'p>>> {
        if let Some(digest) = &claim.digest {
            if has(self.place, digest, claim.size) && self.trusts(digest)? {
                return Ok(None);
            }
            if let Some(size) = claim.size.filter(|size| *size >= MIN_PARTIAL_BYTES)
                && let Some(partial) = Partial::open_or_create(self.place, (*digest, size), self.watch, self.cancel)
            {
                return Ok(partial.with_sync(self.sync).finish_if_complete()?.map(Writer::Partial));
            }
        }
        Ok(Some(Writer::TempFile(TempFileWriter::new(self.place, self.sync)?.announced(claim))))
    }

    /// Stores the manifest `bytes`, unless they are stored already.
    ///
    /// Fails with `Unwritable` if the place cannot be written.
    pub fn put(&self, bytes: &[u8], digest: &Digest) -> Result<()> {
        let size = bytes.len() as u64;
        if has(self.place, digest, Some(size)) && self.bytes(digest, size)?.as_deref() == Some(bytes) {
            return Ok(());
        }
        let mut writer = TempFileWriter::new(self.place, self.sync)?;
        writer.write(bytes)?;
        writer.commit_as(digest)
    }

    /// The first `size` bytes of the blob `digest`; `None` if it is missing.
    fn bytes(&self, digest: &Digest, size: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.place.blob(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        // An unreadable blob (a bad sector) is written again.
        Ok(file.take(size).read_to_end(&mut bytes).ok().map(|_| bytes))
    }

    /// Whether the existing blob `digest` passes the check of [`BlobCheck`].
    fn trusts(&self, digest: &Digest) -> Result<bool> {
        if self.verify == BlobCheck::Size {
            return Ok(true);
        }
        let right = hash(self.place, digest, self.cancel)? == Some(*digest);
        if !right {
            self.watch.say(&format!("blob {digest} in {} is damaged; replacing it", self.place.describe()));
        }
        Ok(right)
    }
}

/// The writer of a blob.
pub(crate) enum Writer<'p> {
    Partial(Partial<'p>),
    TempFile(TempFileWriter<'p>),
}

impl<'p> Writer<'p> {
    /// The file that gets the bytes.
    pub fn file(&self) -> &File {
        match self {
            Writer::Partial(partial) => partial.file(),
            Writer::TempFile(writer) => &writer.temp.file,
        }
    }

    pub fn boxed(self) -> Box<dyn BlobWriter + 'p> {
        match self {
            Writer::Partial(partial) => Box::new(partial),
            Writer::TempFile(writer) => Box::new(writer),
        }
    }
}

/// Writes a blob to a temporary file, which does not survive an interruption: a small blob, a blob without a known
/// digest, or a blob whose partial file another process has locked.
pub(crate) struct TempFileWriter<'p> {
    place: &'p dyn BlobPlace,
    temp: TempFile<'p>,
    sync: bool,
    claim: Claim,
    /// In bytes.
    written: u64,
}

impl<'p> TempFileWriter<'p> {
    /// Creates the temporary file. With `sync`, its data is synced to the disk before the rename.
    pub fn new(place: &'p dyn BlobPlace, sync: bool) -> Result<TempFileWriter<'p>> {
        let temp = TempFile::new(place.unfinished()?).map_err(|e| Error::writing(place.describe(), e))?;
        place.prepare(&temp.file)?;
        Ok(TempFileWriter { place, temp, sync, claim: Claim::default(), written: 0 })
    }

    /// Refuses bytes that are not those of `claim`.
    fn announced(self, claim: &Claim) -> TempFileWriter<'p> {
        TempFileWriter { claim: claim.clone(), ..self }
    }

    /// Renames the file to the blob `digest`.
    pub fn commit_as(&mut self, digest: &Digest) -> Result<()> {
        if self.sync {
            let synced = self.temp.file.sync_all();
            synced.map_err(|e| Error::writing(format!("blob {digest} in {}", self.place.describe()), e))?;
        }
        self.temp.store(self.place, digest)
    }
}

impl BlobWriter for TempFileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.claim.size.is_some_and(|size| self.written > size) {
            return Err(longer_than_announced(&self.claim));
        }
        self.temp.file.write_all(bytes).map_err(|e| Error::writing(self.place.describe(), e))
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        let Claim { digest: announced, size: announced_size } = self.claim;
        if announced.is_some_and(|announced| announced != digest)
            || announced_size.is_some_and(|announced| announced != size)
            || self.written != size
        {
            return Err(not_announced(&digest));
        }
        self.commit_as(&digest)
    }
}
