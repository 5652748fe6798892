//! A partial large blob, stored under a name made of its digest. If the copy is interrupted or killed, the file stays
//! and a later copy resumes after the last correct byte.

#[cfg(test)]
mod tests;

use super::BlobPlace;
use super::stored::has;
use super::temp_file;
use super::temp_file::PREFIX;
use crate::cancel::Cancel;
use crate::disk::checkpoints::Checkpoints;
use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::progress::Watch;
use crate::source::Claim;
use crate::transfer::{BlobWriter, Verified, longer_than_announced, not_announced};
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

const PART: &str = ".part";
const SUMS: &str = ".sums";

/// The partial file of one blob, locked.
pub(crate) struct Partial<'s> {
    place: &'s dyn BlobPlace,
    /// That of `place`'s unfinished files.
    directory: &'s Directory,
    watch: &'s dyn Watch,
    cancel: &'s Cancel,
    digest: Digest,
    size: u64,
    file: File,
    sums: Checkpoints,
    /// The number of correct bytes; `None` before they are verified.
    at: Option<u64>,
    /// The file stays after a drop.
    keep: bool,
    /// The file is complete and its digest is right.
    verified: bool,
    sync: bool,
}

impl<'s> Partial<'s> {
    /// Opens or creates the partial file of a blob of `size` bytes. `None` if another process writes it or it cannot be
    /// created or locked; the caller then writes to a temporary file.
    pub fn open_or_create(
        place: &'s dyn BlobPlace,
        (digest, size): (Digest, u64),
        watch: &'s dyn Watch,
        cancel: &'s Cancel,
    ) -> Option<Partial<'s>> {
        let name = stem(&digest) + PART;
        let directory = place.unfinished().ok()?;
        let file = open(directory, &name)?;
        if try_lock(directory, &name, &file) != Lock::Acquired {
            return None;
        }
        let sums = open(directory, &(stem(&digest) + SUMS))?;
        if place.prepare(&file).and_then(|()| place.prepare(&sums)).is_err() {
            remove(directory, &digest);
            return None;
        }
        let sums = Checkpoints::new(sums);
        Some(Partial {
            place,
            directory,
            watch,
            cancel,
            digest,
            size,
            file,
            sums,
            at: None,
            keep: true,
            verified: false,
            sync: false,
        })
    }

    /// With `sync`, the data is synced to the disk before the rename.
    pub fn with_sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Finishes a file that has all bytes already: renames it to the blob and returns `None`, or empties it if its
    /// digest is wrong.
    pub fn finish_if_complete(mut self) -> Result<Option<Self>> {
        let length = self.file.metadata().map_err(|e| self.unwritten(e))?.len();
        if length < self.size {
            return Ok(Some(self));
        }
        let (right, hasher) = self.start(Hasher::new(self.digest.algorithm()))?;
        if right < self.size {
            self.at = None;
            return Ok(Some(self));
        }
        if hasher.finish() == self.digest {
            self.become_blob(&self.digest.clone())?;
            return Ok(None);
        }
        self.clear()?;
        self.at = None;
        Ok(Some(self))
    }

    fn clear(&mut self) -> Result<()> {
        self.sums.truncate(0, 0).map_err(|e| self.unwritten(e))?;
        self.cut(0)
    }

    /// Truncates the file to `at` bytes and reserves disk space for the rest.
    fn cut(&mut self, at: u64) -> Result<()> {
        self.at = Some(at);
        let sought = self.file.set_len(at).and_then(|()| self.file.seek(SeekFrom::Start(at)));
        sought.map_err(|e| self.unwritten(e))?;
        // A full disk is reported now, not after the download. Writing is also a third faster, as measured.
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.size) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(self.unwritten(error.into())),
            _ => Ok(()),
        }
    }

    /// Renames the file, whose digest is right, to the blob. If that fails, a later run tries it again.
    fn become_blob(&mut self, digest: &Digest) -> Result<()> {
        self.verified = true;
        if self.sync {
            self.file.sync_all().map_err(|e| self.unwritten(e))?;
        }
        self.place.store(&(stem(&self.digest) + PART), digest)?;
        let _ = unlinkat(self.directory.fd(), stem(&self.digest) + SUMS, AtFlags::empty());
        self.at = None;
        Ok(())
    }

    fn unwritten(&self, error: std::io::Error) -> Error {
        Error::writing(format!("blob {} ({} bytes) in {}", self.digest, self.size, self.place.describe()), error)
    }
}

impl BlobWriter for Partial<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let found = self.sums.verify((&self.file, 0), self.size, fresh, self.cancel)?;
        if found.damaged {
            self.watch.say(&found.damage_message(&self.digest, self.size));
        } else if found.bytes > 0 {
            self.watch.say(&format!("resuming blob {} at {} of {} bytes", self.digest.short(), found.bytes, self.size));
        }
        self.cut(found.bytes)?;
        Ok((found.bytes, found.hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = match self.at {
            Some(at) => at,
            None => {
                self.clear()?;
                0
            }
        };
        if at + bytes.len() as u64 > self.size {
            return Err(longer_than_announced(&Claim { digest: Some(self.digest), size: Some(self.size) }));
        }
        self.file.write_all(bytes).map_err(|e| {
            // The number of bytes written is unknown.
            self.keep = self.file.set_len(at).is_ok();
            self.unwritten(e)
        })?;
        self.sums.add(bytes);
        self.at = Some(at + bytes.len() as u64);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let stored = blob.stored();
        if stored != (self.digest, self.size) || self.at != Some(self.size) {
            return Err(not_announced(&stored.0));
        }
        self.become_blob(&stored.0)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.keep_or_remove();
        // Closing does not unlock while a child process that is being started has the file open too.
        let _ = self.file.unlock();
    }
}

impl Partial<'_> {
    /// Keeps the files if a later run can resume them; removes them otherwise.
    fn keep_or_remove(&mut self) {
        let empty = || self.file.metadata().is_ok_and(|file| file.len() == 0);
        let Some(at) = self.at.or_else(|| empty().then_some(0)) else { return };
        // A complete file that was not committed has a wrong digest, unless only its rename failed.
        if self.keep && at > 0 && (at < self.size || self.verified) {
            self.sums.flush();
            return;
        }
        remove(self.directory, &self.digest);
    }
}

/// Removes partial files whose blob exists by now or that had no write for `lifetime`, and checkpoints without a partial
/// file. Returns the number of partial files removed.
pub(crate) fn remove_expired(place: &dyn BlobPlace, lifetime: Duration) -> usize {
    let Ok(directory) = place.unfinished() else { return 0 };
    let mut removed = 0;
    for name in temp_file::unfinished_files(directory) {
        let exists = |digest: &Digest| has(place, digest, None);
        if let Some(digest) = digest_in(&name, PART) {
            if (exists(&digest) || age(directory, &name) >= lifetime) && temp_file::remove_if_unlocked(directory, &name)
            {
                removed += 1;
                let _ = unlinkat(directory.fd(), stem(&digest) + SUMS, AtFlags::empty());
            }
        } else if let Some(digest) = digest_in(&name, SUMS)
            && matches!(directory.size(&(stem(&digest) + PART)), Ok(None))
        {
            let _ = unlinkat(directory.fd(), &name, AtFlags::empty());
        }
    }
    removed
}

/// The time since the last write to `name`.
fn age(directory: &Directory, name: &str) -> Duration {
    let file = directory.file(name).ok().flatten();
    let modified = file.and_then(|file| file.metadata().ok()?.modified().ok());
    modified.and_then(|then| then.elapsed().ok()).unwrap_or_default()
}

fn stem(digest: &Digest) -> String {
    format!("{PREFIX}{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest in the name of a partial file or its checkpoints.
fn digest_in(name: &str, ending: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix(PREFIX)?.strip_suffix(ending)?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn open(directory: &Directory, name: &str) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(directory.fd(), name, flags, Mode::from_raw_mode(0o666)).ok()?);
    file.metadata().is_ok_and(|found| found.is_file()).then_some(file)
}

fn remove(directory: &Directory, digest: &Digest) {
    // The checkpoints first: a partial file without checkpoints starts again at 0, checkpoints alone are garbage.
    let _ = unlinkat(directory.fd(), stem(digest) + SUMS, AtFlags::empty());
    let _ = unlinkat(directory.fd(), stem(digest) + PART, AtFlags::empty());
}
