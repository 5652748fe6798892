//! A blob that a client pushes in several requests, stored under an id until its digest is known. Like a partial blob
//! it is a file with checkpoints: acknowledged bytes survive a kill, and bytes that a crash damaged are dropped.

use super::directory::LayoutDirectory;
use crate::blob_files::temp_file;
use crate::blob_files::temp_file::PREFIX;
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
/// The prefix of an upload's files. Partial blobs have the name of a digest algorithm there.
const UPLOAD: &str = "upload-";
const BUFFER_BYTES: usize = 256 << 10;
/// For fewer bytes no disk space is reserved.
const MIN_RESERVED_BYTES: u64 = 1 << 20;

/// An open upload; its file is locked. After a drop it stays on the disk and can resume.
pub struct Upload {
    layout: Arc<LayoutDirectory>,
    id: String,
    file: File,
    sums: Checkpoints,
    incoming: IncomingBlob,
    /// Disk space beyond the last byte is reserved.
    reserved: bool,
    cancel: Cancel,
}

impl Upload {
    /// Creates an upload, hashed with `algorithm`. If the final digest has another algorithm, the bytes are read again.
    pub(super) fn create(layout: &Arc<LayoutDirectory>, algorithm: Algorithm, cancel: &Cancel) -> Result<Upload> {
        let random = || RandomState::new().build_hasher().finish();
        let id = format!("{:016x}{:016x}", random(), random());
        let flags = OFlags::CREATE | OFlags::EXCL;
        let found = Upload::open(layout, &id, flags)?;
        let (file, sums) = found.ok_or_else(|| Error::unwritable(format!("{} is locked", layout.describe())))?;
        let (layout, incoming) = (layout.clone(), IncomingBlob::new(algorithm));
        Ok(Upload { layout, id, file, sums, incoming, reserved: false, cancel: cancel.clone() })
    }

    /// Opens the upload `id` and hashes its bytes; `None` if it is missing or another process has locked it.
    pub(super) fn resume(layout: &Arc<LayoutDirectory>, id: &str, cancel: &Cancel) -> Result<Option<Upload>> {
        if layout.directory.size(&(stem(id) + PART))?.is_none() {
            return Ok(None);
        }
        let Some((file, mut sums)) = Upload::open(layout, id, OFlags::empty())? else { return Ok(None) };
        let found = sums.verify((&file, 0), u64::MAX, Hasher::default(), cancel)?;
        let incoming = IncomingBlob::resumed(Algorithm::Sha256, found.hasher, found.bytes);
        let (layout, id) = (layout.clone(), id.to_owned());
        let mut upload = Upload { layout, id, file, sums, incoming, reserved: false, cancel: cancel.clone() };
        upload.cut(found.bytes)?;
        Ok(Some(upload))
    }

    fn open(layout: &LayoutDirectory, id: &str, flags: OFlags) -> Result<Option<(File, Checkpoints)>> {
        let directory = &layout.directory;
        let open = |name: &str, flags| {
            let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let opened = openat(directory.fd(), name, flags, Mode::from_raw_mode(0o666));
            opened.map(File::from).map_err(|e| Error::writing(directory.display(name), e.into()))
        };
        let name = stem(id) + PART;
        let file = open(&name, flags)?;
        match try_lock(directory, &name, &file) {
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

    /// The number of bytes stored.
    pub fn size(&self) -> u64 {
        self.incoming.size()
    }

    /// Appends `bytes`. After a failure the bytes before them are still stored.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            self.cut(self.size())?;
            return Err(self.unwritten(error));
        }
        self.sums.add(bytes);
        self.incoming.add(bytes);
        Ok(())
    }

    /// Reserves disk space for `more` bytes, until [`Upload::flush`].
    ///
    /// Fails with `Unwritable` if the disk has less space.
    pub fn reserve(&mut self, more: u64) -> Result<()> {
        if more < MIN_RESERVED_BYTES {
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

    /// Writes the checkpoints, so that a later process can resume at the last byte, and releases the reserved space.
    pub fn flush(&mut self) {
        self.sums.flush();
        if std::mem::take(&mut self.reserved) {
            let _ = self.file.set_len(self.size());
        }
    }

    /// Drops all bytes.
    pub fn clear(&mut self) -> Result<()> {
        self.sums.truncate(0, 0).map_err(|e| self.unwritten(e))?;
        self.incoming = IncomingBlob::new(self.incoming.algorithm());
        self.cut(0)
    }

    fn cut(&mut self, at: u64) -> Result<()> {
        let sought = self.file.set_len(at).and_then(|()| self.file.seek(SeekFrom::Start(at)));
        sought.map(drop).map_err(|e| self.unwritten(e))
    }

    /// Verifies the upload and renames it to the blob of `claim`, which must have a digest. On failure the upload is
    /// removed.
    ///
    /// Fails with `Invalid` if the bytes have another digest.
    pub fn finish(self, claim: &Claim) -> Result<Verified> {
        let done = self.become_blob(claim);
        if done.is_err() {
            self.remove();
        }
        done
    }

    fn become_blob(&self, claim: &Claim) -> Result<Verified> {
        let algorithm = claim.digest.map_or_else(Algorithm::default, |digest| digest.algorithm());
        let incoming = match algorithm == self.incoming.algorithm() {
            true => self.incoming.clone(),
            false => self.hash_again(algorithm)?,
        };
        let verified = incoming.verify(claim)?;
        let digest = verified.stored().0;
        let blobs = self.layout.make_blobs(algorithm)?;
        let renamed = renameat(self.layout.directory.fd(), stem(&self.id) + PART, blobs.fd(), digest.hex());
        renamed.map_err(|e| self.unwritten(e.into()))?;
        let _ = unlinkat(self.layout.directory.fd(), stem(&self.id) + SUMS, AtFlags::empty());
        Ok(verified)
    }

    fn hash_again(&self, algorithm: Algorithm) -> Result<IncomingBlob> {
        let mut incoming = IncomingBlob::new(algorithm);
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.cancel.check()?;
            match self.file.read_at(&mut buffer, incoming.size()) {
                Ok(0) => return Ok(incoming),
                Ok(n) => incoming.add(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::reading(format!("the bytes of upload {}", self.id), error)),
            }
        }
    }

    /// Removes the upload's files.
    pub fn remove(&self) {
        let directory = &self.layout.directory;
        let _ = unlinkat(directory.fd(), stem(&self.id) + SUMS, AtFlags::empty());
        let _ = unlinkat(directory.fd(), stem(&self.id) + PART, AtFlags::empty());
    }

    fn unwritten(&self, error: std::io::Error) -> Error {
        Error::writing(format!("an upload in {}", self.layout.describe()), error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.sums.flush();
        let _ = self.file.unlock();
    }
}

/// Removes uploads without a write for `lifetime`, and checkpoints without an upload; returns the number of uploads
/// removed.
pub(super) fn remove_expired(directory: &Directory, lifetime: Duration) -> usize {
    let mut removed = 0;
    for name in temp_file::unfinished_files(directory) {
        let Some(rest) = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(UPLOAD)) else { continue };
        if let Some(id) = rest.strip_suffix(PART) {
            let file = directory.file(&name).ok().flatten();
            let written = file.and_then(|file| file.metadata().ok()?.modified().ok());
            let age = written.and_then(|then| then.elapsed().ok()).unwrap_or_default();
            if age >= lifetime && temp_file::remove_if_unlocked(directory, &name) {
                removed += 1;
                let _ = unlinkat(directory.fd(), stem(id) + SUMS, AtFlags::empty());
            }
        } else if let Some(id) = rest.strip_suffix(SUMS)
            && matches!(directory.size(&(stem(id) + PART)), Ok(None))
        {
            let _ = unlinkat(directory.fd(), &name, AtFlags::empty());
        }
    }
    removed
}

fn stem(id: &str) -> String {
    format!("{PREFIX}{UPLOAD}{id}")
}

/// Whether `id` has the form of an upload's id, so that it is safe in a file name.
pub(super) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The claim of an upload with `digest`.
pub(super) fn claim(digest: &Digest) -> Claim {
    Claim { digest: Some(*digest), size: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_was_let_go_is_taken_up_behind_its_last_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, cancel) = (Arc::new(LayoutDirectory::create(dir.path()).unwrap()), Cancel::default());
        let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at * 31 + at / 251) as u8).collect();
        for digest in [Digest::of(&bytes), Hasher::new(Algorithm::Sha512).with(&bytes).finish()] {
            let mut upload = Upload::create(&layout, Algorithm::Sha256, &cancel).unwrap();
            upload.write(&bytes[..700_001]).unwrap();
            let id = upload.id().to_owned();
            assert!(Upload::resume(&layout, &id, &cancel).unwrap().is_none());
            drop(upload);
            let mut upload = Upload::resume(&layout, &id, &cancel).unwrap().unwrap();
            assert_eq!(upload.size(), 700_001);
            upload.write(&bytes[700_001..]).unwrap();
            upload.finish(&claim(&digest)).unwrap();
            assert_eq!(layout.size(&digest).unwrap(), Some(1_000_000));
            assert!(Upload::resume(&layout, &id, &cancel).unwrap().is_none());
        }
        assert!(temp_file::unfinished_files(&layout.directory).is_empty());
    }

    #[test]
    fn what_is_not_what_was_said_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, cancel) = (Arc::new(LayoutDirectory::create(dir.path()).unwrap()), Cancel::default());
        let mut upload = Upload::create(&layout, Algorithm::Sha256, &cancel).unwrap();
        upload.write(b"these").unwrap();
        assert!(upload.finish(&claim(&Digest::of(b"those"))).is_err());
        assert!(temp_file::unfinished_files(&layout.directory).is_empty());
        assert_eq!(layout.size(&Digest::of(b"these")).unwrap(), None);
    }

    #[test]
    fn only_what_nobody_holds_expires() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, cancel) = (Arc::new(LayoutDirectory::create(dir.path()).unwrap()), Cancel::default());
        let living = Upload::create(&layout, Algorithm::Sha256, &cancel).unwrap();
        drop(Upload::create(&layout, Algorithm::Sha256, &cancel).unwrap());
        assert_eq!(remove_expired(&layout.directory, Duration::from_secs(3600)), 0);
        assert_eq!(remove_expired(&layout.directory, Duration::ZERO), 1);
        assert_eq!(temp_file::unfinished_files(&layout.directory).len(), 2);
        drop(living);
    }
}
