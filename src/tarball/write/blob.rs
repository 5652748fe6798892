//! One blob on its way into an archive.

use super::archive::{ArchiveWriter, Phase, State, closed};
use super::resume::Begun;
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::tarball::tar::header::BLOCK;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;

/// One blob's entry.
pub(crate) struct Entry<'p> {
    pub pack: &'p ArchiveWriter,
    /// Digest and size, where they were known beforehand.
    pub named: Option<(Digest, u64)>,
    /// Where its header is.
    pub start: u64,
    /// Bytes of data; none while it is not known how many of an earlier run's are right.
    pub written: Option<u64>,
    pub ended: bool,
}

impl Entry<'_> {
    fn data(&self) -> u64 {
        self.start + BLOCK as u64
    }
}

impl BlobWriter for Entry<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let (None, Some((_, size))) = (self.written, self.named) else { return Ok((0, fresh)) };
        let mut state = self.pack.state();
        let State { tar: Some(tar), resume: Some(resume), .. } = &mut *state else { return Ok((0, fresh)) };
        tar.flush()?;
        let Some(file) = tar.file() else { return Ok((0, fresh)) };
        let found = resume.sums.verify((file, self.data()), size, fresh, &resume.cancel)?;
        tar.cut(self.data() + found.bytes)?;
        self.written = Some(found.bytes);
        Ok((found.bytes, found.hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut state = self.pack.state();
        let written = match self.written {
            Some(written) => written,
            None => {
                if let Some(resume) = &mut state.resume {
                    resume.sums.truncate(0, 0)?;
                }
                state.tar()?.cut(self.data())?;
                0
            }
        };
        let end = written + bytes.len() as u64;
        if self.named.is_some_and(|(_, size)| end > size) {
            return Err(Error::invalid("a blob has more bytes than were announced"));
        }
        let State { tar: Some(tar), resume, .. } = &mut *state else { return Err(closed()) };
        self.written = Some(written);
        tar.write(bytes)?;
        if let Some(resume) = resume {
            // What the sums vouch for is in the file.
            if resume.sums.completes_segment(bytes.len()) {
                tar.flush()?;
            }
            resume.sums.add(bytes);
        }
        self.written = Some(end);
        Ok(())
    }

    fn commit(mut self: Box<Self>, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        if self.written != Some(size) || self.named.is_some_and(|named| named != (digest, size)) {
            return Err(Error::failed(format!("blob {digest} is not the one that was begun")));
        }
        let mut state = self.pack.state();
        if self.named.is_none() && state.held.contains(&digest) {
            let start = self.start;
            state.tar()?.cut(start)?;
        } else {
            let tar = state.tar()?;
            tar.end(size)?;
            if self.named.is_none() {
                tar.settle(self.start, &digest.blob_path(), size)?;
            }
            state.held.insert(digest);
        }
        state.phase = Phase::Between;
        self.ended = true;
        Ok(())
    }
}

impl Drop for Entry<'_> {
    /// What was not committed is kept for going on where that can be, and taken back otherwise; a pipe's archive never
    /// ends then.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let mut state = self.pack.state();
        if let (Some((digest, size)), State { tar: Some(tar), resume: Some(resume), phase, .. }) =
            (self.named, &mut *state)
            // All there and not committed: it was not what it should have been.
            && self.written.is_none_or(|written| 0 < written && written < size)
            && tar.flush().is_ok()
        {
            resume.sums.flush();
            resume.begun = Some(Begun { digest, size, from: self.start });
            *phase = Phase::Between;
            return;
        }
        let start = self.start;
        let taken_back = state.tar().and_then(|tar| tar.cut(start));
        state.phase = if taken_back.is_ok() { Phase::Between } else { Phase::Broken };
    }
}
