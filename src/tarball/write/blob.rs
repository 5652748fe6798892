//! Writes one blob of an archive.

use super::archive::{ArchiveState, ArchiveWriter, Phase, closed};
use super::resume::PartialBlob;
use crate::error::Result;
use crate::image::{Digest, Hasher};
use crate::source::Claim;
use crate::tarball::tar::header::BLOCK_BYTES;
use crate::transfer::{BlobWriter, Verified, longer_than_announced, not_announced};

/// The entry of a blob that is being written.
pub(crate) struct BlobEntry<'p> {
    pub archive: &'p ArchiveWriter,
    /// Digest and size, if known in advance.
    pub named: Option<(Digest, u64)>,
    /// The offset of its header.
    pub start: u64,
    /// Bytes of data; `None` until the data of an earlier run was verified.
    pub written: Option<u64>,
    pub committed: bool,
}

impl BlobEntry<'_> {
    /// Returns the offset of the data.
    fn data_at(&self) -> u64 {
        self.start + BLOCK_BYTES as u64
    }
}

impl BlobWriter for BlobEntry<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let (None, Some((digest, size))) = (self.written, self.named) else { return Ok((0, fresh)) };
        let mut state = self.archive.state();
        let ArchiveState { tar: Some(tar), resume: Some(resume), .. } = &mut *state else { return Ok((0, fresh)) };
        tar.flush()?;
        let Some(file) = tar.file() else { return Ok((0, fresh)) };
        let found = resume.checkpoints.verify((file, self.data_at()), size, fresh, &resume.cancel)?;
        tar.truncate(self.data_at() + found.bytes)?;
        if found.damaged {
            resume.watch.say(&found.damage_message(&digest, size));
        }
        self.written = Some(found.bytes);
        Ok((found.bytes, found.hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state = self.archive.state();
        let written = match self.written {
            Some(written) => written,
            None => {
                if let Some(resume) = &mut state.resume {
                    resume.checkpoints.truncate(0, 0)?;
                }
                state.tar()?.truncate(self.data_at())?;
                0
            }
        };
        let end = written + bytes.len() as u64;
        if let Some((digest, size)) = self.named.filter(|(_, size)| end > *size) {
            return Err(longer_than_announced(&Claim { digest: Some(digest), size: Some(size) }));
        }
        let ArchiveState { tar: Some(tar), resume, .. } = &mut *state else { return Err(closed()) };
        self.written = Some(written);
        tar.write(bytes)?;
        if let Some(resume) = resume {
            // The bytes must be in the file before their checkpoint is.
            if resume.checkpoints.completes_segment(bytes.len()) {
                tar.flush()?;
            }
            resume.checkpoints.add(bytes);
        }
        self.written = Some(end);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if self.written != Some(size) || self.named.is_some_and(|named| named != (digest, size)) {
            return Err(not_announced(&digest));
        }
        let mut state = self.archive.state();
        if self.named.is_none() && state.blobs.contains(&digest) {
            let start = self.start;
            state.tar()?.truncate(start)?;
        } else {
            let tar = state.tar()?;
            tar.write_padding(size)?;
            if self.named.is_none() {
                tar.replace_header(self.start, &digest.blob_path(), size)?;
            }
            state.blobs.insert(digest);
        }
        state.phase = Phase::BetweenEntries;
        self.committed = true;
        Ok(())
    }
}

impl Drop for BlobEntry<'_> {
    /// Stores an uncommitted blob for a later run if that is possible; otherwise removes it. In a pipe it cannot be
    /// removed, so the archive never gets an end.
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let mut state = self.archive.state();
        if let (Some((digest, size)), ArchiveState { tar: Some(tar), resume: Some(resume), phase, .. }) =
            (self.named, &mut *state)
            // A complete but uncommitted blob had a wrong digest.
            && self.written.is_none_or(|written| 0 < written && written < size)
            && tar.flush().is_ok()
        {
            resume.checkpoints.flush();
            resume.partial = Some(PartialBlob { digest, size, header_at: self.start });
            *phase = Phase::BetweenEntries;
            return;
        }
        let start = self.start;
        let removed = state.tar().and_then(|tar| tar.truncate(start));
        state.phase = if removed.is_ok() { Phase::BetweenEntries } else { Phase::Broken };
    }
}
