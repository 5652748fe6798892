//! A blob that comes in several requests, under an id of its own until its digest is told. Like a partial it is a file
//! with sums beside it, so that what was acknowledged is still there when the process was killed, and nothing that a
//! crash damaged is gone on with.

use super::directory::Place;
use super::temp_file;
use super::temp_file::PREFIX;
use crate::cancel::Cancel;
use crate::disk::checkpoints::Checkpoints;
use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use crate::error::{Error, Result};
use crate::image::{Algorithm, Digest, Hasher};
use crate::source::Claim;
use crate::transfer::IncomingBlob;
use crate::transfer::Verified;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{BuildHasher, Hasher as _, RandomState};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

const PART: &str = ".part";
const SUMS: &str = ".sums";
/// What an upload's files begin with; no digest's algorithm is called so.
const UPLOAD: &str = "upload-";
const BUFFER: usize = 256 << 10;
/// In bytes; less is not worth a reservation.
const RESERVED: u64 = 1 << 20;

/// An upload under way, held by its lock. Dropped, it stays on the disk and can be taken up again.
pub struct Upload {
    place: Arc<Place>,
    id: String,
    file: File,
    sums: Checkpoints,
    arriving: IncomingBlob,
    /// Room behind the last byte is taken.
    reserved: bool,
    cancel: Cancel,
}

impl Upload {
    /// A new one, hashed in `algorithm`: a digest of another one costs another reading in the end.
    pub(super) fn begin(place: &Arc<Place>, algorithm: Algorithm, cancel: &Cancel) -> Result<Upload> {
        let random = || RandomState::new().build_hasher().finish();
        let id = format!("{:016x}{:016x}", random(), random());
        let flags = OFlags::CREATE | OFlags::EXCL;
        let found = Upload::open(place, &id, flags)?;
        let (file, sums) = found.ok_or_else(|| Error::unwritable(format!("{} is locked", place.shown())))?;
        let (place, arriving) = (place.clone(), IncomingBlob::new(algorithm));
        Ok(Upload { place, id, file, sums, arriving, reserved: false, cancel: cancel.clone() })
    }

    /// The one that goes by `id`; `None` where there is none, or another process holds it. What is there is read.
    pub(super) fn take_up(place: &Arc<Place>, id: &str, cancel: &Cancel) -> Result<Option<Upload>> {
        if place.folder.size(&(stem(id) + PART))?.is_none() {
            return Ok(None);
        }
        let Some((file, mut sums)) = Upload::open(place, id, OFlags::empty())? else { return Ok(None) };
        let found = sums.verify((&file, 0), u64::MAX, Hasher::default(), cancel)?;
        let arriving = IncomingBlob::resumed(Algorithm::Sha256, found.hasher, found.bytes);
        let (place, id) = (place.clone(), id.to_owned());
        let mut upload = Upload { place, id, file, sums, arriving, reserved: false, cancel: cancel.clone() };
        upload.cut(found.bytes)?;
        Ok(Some(upload))
    }

    fn open(place: &Place, id: &str, flags: OFlags) -> Result<Option<(File, Checkpoints)>> {
        let folder = &place.folder;
        let open = |name: &str, flags| {
            let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = openat(folder.fd(), name, flags, Mode::from_raw_mode(0o666));
            opened.map(File::from).map_err(|e| Error::writing(folder.display(name), e.into()))
        };
        let name = stem(id) + PART;
        let file = open(&name, flags)?;
        match try_lock(folder, &name, &file) {
            Lock::Acquired | Lock::Unsupported => {
                let sums = Checkpoints::new(open(&(stem(id) + SUMS), flags | OFlags::CREATE)?);
                Ok(Some((file, sums)))
            }
            Lock::Held => Ok(None),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes that are kept.
    pub fn size(&self) -> u64 {
        self.arriving.size()
    }

    /// Adds `bytes`. After a failure what was there before is kept.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.cut(self.size())?;
            return Err(self.unwritten(error));
        }
        self.sums.add(bytes);
        self.arriving.add(bytes);
        Ok(())
    }

    /// Takes room on the disk for `more` bytes, until [`Upload::settle`].
    ///
    /// Fails with `Unwritable` where there is not so much.
    pub fn reserve(&mut self, more: u64) -> Result<()> {
        if more < RESERVED {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.size(), more) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(self.unwritten(error.into())),
            _ => {
                self.reserved = true;
                Ok(())
            }
        }
    }

    /// Makes sure that a later process finds all that is here now, and takes no more room than that.
    pub fn settle(&mut self) {
        self.sums.flush();
        if std::mem::take(&mut self.reserved) {
            let _ = self.file.set_len(self.size());
        }
    }

    /// Forgets all bytes.
    pub fn begin_anew(&mut self) -> Result<()> {
        self.sums.truncate(0, 0).map_err(|e| self.unwritten(e))?;
        self.arriving = IncomingBlob::new(self.arriving.algorithm());
        self.cut(0)
    }

    fn cut(&mut self, at: u64) -> Result<()> {
        let sought = self.file.set_len(at).and_then(|()| self.file.seek(SeekFrom::Start(at)));
        sought.map(drop).map_err(|e| self.unwritten(e))
    }

    /// Makes it the blob that `claim` says, which must name a digest. Either way the upload is over.
    ///
    /// Fails with `Invalid` where it is another blob.
    pub fn finish(self, claim: &Claim) -> Result<Verified> {
        let done = self.become_blob(claim);
        if done.is_err() {
            self.remove();
        }
        done
    }

    fn become_blob(&self, claim: &Claim) -> Result<Verified> {
        let algorithm = claim.digest.map_or_else(Algorithm::default, |digest| digest.algorithm());
        let arrived = match algorithm == self.arriving.algorithm() {
            true => self.arriving.clone(),
            false => self.hashed_again(algorithm)?,
        };
        let verified = arrived.verify(claim)?;
        let digest = verified.stored().0;
        let blobs = self.place.make_blobs(algorithm)?;
        let renamed = renameat(self.place.folder.fd(), stem(&self.id) + PART, blobs.fd(), digest.hex());
        renamed.map_err(|e| self.unwritten(e.into()))?;
        let _ = unlinkat(self.place.folder.fd(), stem(&self.id) + SUMS, AtFlags::empty());
        Ok(verified)
    }

    fn hashed_again(&self, algorithm: Algorithm) -> Result<IncomingBlob> {
        let mut arrived = IncomingBlob::new(algorithm);
        let mut buffer = vec![0; BUFFER];
        loop {
            self.cancel.check()?;
            match self.file.read_at(&mut buffer, arrived.size()) {
                Ok(0) => return Ok(arrived),
                Ok(n) => arrived.add(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::reading(format!("what came of upload {}", self.id), error)),
            }
        }
    }

    /// Ends it; nothing of it stays.
    pub fn remove(&self) {
        let folder = &self.place.folder;
        let _ = unlinkat(folder.fd(), stem(&self.id) + SUMS, AtFlags::empty());
        let _ = unlinkat(folder.fd(), stem(&self.id) + PART, AtFlags::empty());
    }

    fn unwritten(&self, error: std::io::Error) -> Error {
        Error::writing(format!("an upload in {}", self.place.shown()), error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sums.flush();
        let _ = self.file.unlock();
    }
}

/// Removes uploads that nobody has written to for `life`, and sums without an upload; how many uploads there were.
pub(super) fn sweep(folder: &Directory, life: Duration) -> usize {
    let mut removed = 0;
    for name in temp_file::leavings(folder) {
        let Some(rest) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(UPLOAD)) else { continue };
        if let Some(id) = rest.strip_suffix(PART) {
            let file = folder.file(&name).ok().flatten();
            let written = file.and_then(|file| file.metadata().ok()?.modified().ok());
            let age = written.and_then(|then| then.elapsed().ok()).unwrap_or_default();
            if age >= life && temp_file::remove_if_left(folder, &name) {
                removed += 1;
                let _ = unlinkat(folder.fd(), stem(id) + SUMS, AtFlags::empty());
            }
        } else if let Some(id) = rest.strip_suffix(SUMS)
            && matches!(folder.size(&(stem(id) + PART)), Ok(None))
        {
            let _ = unlinkat(folder.fd(), &name, AtFlags::empty());
        }
    }
    removed
}

fn stem(id: &str) -> String {
    format!("{PREFIX}{UPLOAD}{id}")
}

/// Whether `id` could be an upload's: then it is safe in a file's name.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The digest that an upload claims to have.
pub(super) fn claim(digest: &Digest) -> Claim {
    Claim { digest: Some(*digest), size: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_was_let_go_is_taken_up_behind_its_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (place, cancel) = (Arc::new(Place::create(dir.path()).unwrap()), Cancel::default());
        let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at * 31 + at / 251) as u8).collect();
        for digest in [Digest::of(&bytes), Hasher::new(Algorithm::Sha512).with(&bytes).finish()] {
            let mut upload = Upload::begin(&place, Algorithm::Sha256, &cancel).unwrap();
            upload.write(&bytes[..700_001]).unwrap();
            let id = upload.id().to_owned();
            assert!(Upload::take_up(&place, &id, &cancel).unwrap().is_none());
            drop(upload);
            let mut upload = Upload::take_up(&place, &id, &cancel).unwrap().unwrap();
            assert_eq!(upload.size(), 700_001);
            upload.write(&bytes[700_001..]).unwrap();
            upload.finish(&claim(&digest)).unwrap();
            assert_eq!(place.size(&digest).unwrap(), Some(1_000_000));
            assert!(Upload::take_up(&place, &id, &cancel).unwrap().is_none());
        }
        assert!(temp_file::leavings(&place.folder).is_empty());
    }

    #[test]
    fn what_is_not_what_was_said_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (place, cancel) = (Arc::new(Place::create(dir.path()).unwrap()), Cancel::default());
        let mut upload = Upload::begin(&place, Algorithm::Sha256, &cancel).unwrap();
        upload.write(b"these").unwrap();
        assert!(upload.finish(&claim(&Digest::of(b"those"))).is_err());
        assert!(temp_file::leavings(&place.folder).is_empty());
        assert_eq!(place.size(&Digest::of(b"these")).unwrap(), None);
    }

    #[test]
    fn only_what_nobody_holds_expires() {
        let dir = tempfile::tempdir().unwrap();
        let (place, cancel) = (Arc::new(Place::create(dir.path()).unwrap()), Cancel::default());
        let living = Upload::begin(&place, Algorithm::Sha256, &cancel).unwrap();
        drop(Upload::begin(&place, Algorithm::Sha256, &cancel).unwrap());
        assert_eq!(sweep(&place.folder, Duration::from_secs(3600)), 0);
        assert_eq!(sweep(&place.folder, Duration::ZERO), 1);
        assert_eq!(temp_file::leavings(&place.folder).len(), 2);
        drop(living);
    }
}
