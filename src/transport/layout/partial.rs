//! A large blob on its way, under a name made of its digest: what was written is kept when the copy is cut or killed,
//! and a later one goes on behind the last byte that is right.

use super::directory::Place;
use super::temp_file;
use super::temp_file::PREFIX;
use crate::cancel::Cancel;
use crate::disk::checkpoints::Checkpoints;
use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use crate::error::{Error, Result};
use crate::image::{Digest, Hasher};
use crate::progress::Watch;
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

const PART: &str = ".part";
const SUMS: &str = ".sums";

/// Holds the lock of the partial of one blob.
pub(super) struct Partial<'s> {
    place: &'s Place,
    watch: &'s dyn Watch,
    cancel: &'s Cancel,
    digest: Digest,
    size: u64,
    file: File,
    sums: Checkpoints,
    /// Bytes there that are right; none before it is known.
    at: Option<u64>,
    /// What is there stays when this is dropped.
    keep: bool,
    sync: bool,
}

impl<'s> Partial<'s> {
    /// Takes up the partial of a blob of `size` bytes, or begins one. `None` where another process is writing it, or
    /// it cannot be locked: then the blob is to be written elsewhere.
    pub fn take_up(
        place: &'s Place,
        (digest, size): (Digest, u64),
        watch: &'s dyn Watch,
        cancel: &'s Cancel,
    ) -> Option<Partial<'s>> {
        let name = stem(&digest) + PART;
        let file = open(&place.folder, &name)?;
        if try_lock(&place.folder, &name, &file) != Lock::Acquired {
            return None;
        }
        let sums = Checkpoints::new(open(&place.folder, &(stem(&digest) + SUMS))?);
        Some(Partial { place, watch, cancel, digest, size, file, sums, at: None, keep: true, sync: false })
    }

    /// The same, with the data made durable before it becomes a blob.
    pub fn synced(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// What is written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// When all of it is there already: makes it the blob it is, or throws it away where it is another.
    pub fn settle(mut self) -> Result<Option<Self>> {
        let there = self.file.metadata().map_err(|e| self.unwritten(e))?.len();
        if there < self.size {
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
        self.begin_anew()?;
        self.at = None;
        Ok(Some(self))
    }

    fn begin_anew(&mut self) -> Result<()> {
        self.sums.truncate(0, 0).map_err(|e| self.unwritten(e))?;
        self.cut(0)
    }

    /// Goes on at `at`: what is behind it goes, and room is made for all that is to come.
    fn cut(&mut self, at: u64) -> Result<()> {
        self.at = Some(at);
        let sought = self.file.set_len(at).and_then(|()| self.file.seek(SeekFrom::Start(at)));
        sought.map_err(|e| self.unwritten(e))?;
        // A full disk is told now, not after the download; and writing was measured to be a third faster.
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.size) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(self.unwritten(error.into())),
            _ => Ok(()),
        }
    }

    fn become_blob(&mut self, digest: &Digest) -> Result<()> {
        if self.sync {
            self.file.sync_all().map_err(|e| self.unwritten(e))?;
        }
        let (folder, blobs) = (&self.place.folder, self.place.make_blobs(digest.algorithm())?);
        let renamed = renameat(folder.fd(), stem(&self.digest) + PART, blobs.fd(), digest.hex());
        renamed.map_err(|e| self.unwritten(e.into()))?;
        let _ = unlinkat(folder.fd(), stem(&self.digest) + SUMS, AtFlags::empty());
        self.at = None;
        Ok(())
    }

    fn unwritten(&self, error: std::io::Error) -> Error {
        Error::writing(format!("blob {} ({} bytes) in {}", self.digest, self.size, self.place.shown()), error)
    }
}

impl BlobWriter for Partial<'_> {
    fn start(&mut self, fresh: Hasher) -> Result<(u64, Hasher)> {
        let found = self.sums.verify((&self.file, 0), self.size, fresh, self.cancel)?;
        if found.damaged {
            self.watch.say(&format!(
                "what an earlier run left of {} was damaged; {} of {} bytes are right and stay",
                self.digest, found.bytes, self.size
            ));
        } else if found.bytes > 0 {
            self.watch.say(&format!(
                "going on with {}: {} of {} bytes are here",
                self.digest.short(),
                found.bytes,
                self.size
            ));
        }
        self.cut(found.bytes)?;
        Ok((found.bytes, found.hasher))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = match self.at {
            Some(at) => at,
            None => {
                self.begin_anew()?;
                0
            }
        };
        self.file.write_all(bytes).map_err(|e| {
            // How much of it was written is not known.
            self.keep = self.file.set_len(at).is_ok();
            self.unwritten(e)
        })?;
        self.sums.add(bytes);
        self.at = Some(at + bytes.len() as u64);
        Ok(())
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        if self.at.is_none() {
            self.begin_anew()?;
        }
        self.become_blob(&blob.stored().0)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.leave();
        // Closing is not enough while a child process that is just being started has the file too.
        let _ = self.file.unlock();
    }
}

impl Partial<'_> {
    /// Keeps what a later run can go on with, and removes what it cannot.
    fn leave(&mut self) {
        let empty = || self.file.metadata().is_ok_and(|file| file.len() == 0);
        let Some(at) = self.at.or_else(|| empty().then_some(0)) else { return };
        // All there and not committed: it was not what it should have been.
        if self.keep && at > 0 && at < self.size {
            self.sums.flush();
            return;
        }
        remove(&self.place.folder, &self.digest);
    }
}

/// Removes partials of blobs that are there by now, those that nobody has written to for `life`, and sums without a
/// partial; how many partials there were.
pub(super) fn sweep(place: &Place, life: Duration) -> usize {
    let mut removed = 0;
    for name in temp_file::leavings(&place.folder) {
        let there = |digest: &Digest| matches!(place.size(digest), Ok(Some(_)));
        if let Some(digest) = named(&name, PART) {
            if (there(&digest) || age(place, &name) >= life) && temp_file::remove_if_left(&place.folder, &name) {
                removed += 1;
                let _ = unlinkat(place.folder.fd(), stem(&digest) + SUMS, AtFlags::empty());
            }
        } else if let Some(digest) = named(&name, SUMS)
            && matches!(place.folder.size(&(stem(&digest) + PART)), Ok(None))
        {
            let _ = unlinkat(place.folder.fd(), &name, AtFlags::empty());
        }
    }
    removed
}

/// How long ago `name` was written to.
fn age(place: &Place, name: &str) -> Duration {
    let file = place.folder.file(name).ok().flatten();
    let modified = file.and_then(|file| file.metadata().ok()?.modified().ok());
    modified.and_then(|then| then.elapsed().ok()).unwrap_or_default()
}

fn stem(digest: &Digest) -> String {
    format!("{PREFIX}{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest in the name of a partial, or of its sums.
fn named(name: &str, ending: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix(PREFIX)?.strip_suffix(ending)?.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn open(folder: &Directory, name: &str) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(folder.fd(), name, flags, Mode::from_raw_mode(0o666)).ok()?);
    file.metadata().is_ok_and(|found| found.is_file()).then_some(file)
}

fn remove(folder: &Directory, digest: &Digest) {
    // The sums first: a partial without sums is begun anew, sums without a partial are litter.
    let _ = unlinkat(folder.fd(), stem(digest) + SUMS, AtFlags::empty());
    let _ = unlinkat(folder.fd(), stem(digest) + PART, AtFlags::empty());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_child_process_that_is_just_being_started_does_not_hold_a_partial() {
        let dir = tempfile::tempdir().unwrap();
        let (place, cancel) = (Place::create(dir.path()).unwrap(), Cancel::default());
        let blob = (Digest::of(b"it"), 1_000_000);
        let take_up = || Partial::take_up(&place, blob, &Silent, &cancel);
        let mut partial = take_up().unwrap();
        partial.start(Hasher::default()).unwrap();
        partial.write(&[1; 300_000]).unwrap();
        assert!(take_up().is_none());
        // What a fork does to open files.
        let _twin = partial.file.try_clone().unwrap();
        drop(partial);
        assert_eq!(take_up().unwrap().start(Hasher::default()).unwrap().0, 300_000);
    }
}
