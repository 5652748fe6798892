//! Temporary files: written under a name that is not a blob's, and renamed when complete. The writing
//! process locks the file, so the files of killed processes can be recognised.

use super::BlobPlace;
use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use crate::error::Result;
use crate::image::Digest;
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

/// The prefix of all temporary and partial files.
pub(crate) const PREFIX: &str = ".imgmv-";
const SUFFIX: &str = ".tmp";
/// The number of attempts at a free name. A name has 64 random bits, so only a concurrent sweep causes a second
/// attempt.
const MAX_ATTEMPTS: usize = 16;

/// A file that is removed on drop, unless it was renamed with [`TempFile::persist`].
pub(crate) struct TempFile<'f> {
    directory: &'f Directory,
    name: String,
    pub file: File,
    persisted: bool,
}

impl<'f> TempFile<'f> {
    pub fn new(directory: &'f Directory) -> io::Result<TempFile<'f>> {
        for _ in 0..MAX_ATTEMPTS {
            let name = fresh_name();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match openat(directory.fd(), &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(fd) => File::from(fd),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            if try_lock(directory, &name, &file) != Lock::Held {
                return Ok(TempFile { directory, name, file, persisted: false });
            }
        }
        Err(io::Error::other("no free name for a temporary file"))
    }

    /// Renames the file to `name` in `to`; replaces an existing file.
    pub fn persist(&mut self, to: &Directory, name: &str) -> io::Result<()> {
        renameat(self.directory.fd(), &self.name, to.fd(), name)?;
        self.persisted = true;
        Ok(())
    }

    /// Renames the file to the blob `digest` of `place`.
    pub fn store(&mut self, place: &dyn BlobPlace, digest: &Digest) -> Result<()> {
        place.store(&self.name, digest)?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.persisted {
            // If it cannot be removed now, a later run sweeps it.
            let _ = unlinkat(self.directory.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// A new random name for a temporary file.
pub(crate) fn fresh_name() -> String {
    format!("{PREFIX}{:016x}{SUFFIX}", RandomState::new().build_hasher().finish())
}

/// Removes temporary files that no process has locked.
pub(crate) fn sweep(directory: &Directory) {
    for name in unfinished_files(directory) {
        if name.ends_with(SUFFIX) {
            remove_if_unlocked(directory, &name);
        }
    }
}

/// Removes `name` unless a process has locked it; returns whether it did.
pub(crate) fn remove_if_unlocked(directory: &Directory, name: &str) -> bool {
    let Ok(Some(file)) = directory.file(name) else { return false };
    try_lock(directory, name, &file) == Lock::Acquired && unlinkat(directory.fd(), name, AtFlags::empty()).is_ok()
}

/// The names of all files in `directory` that start with [`PREFIX`].
pub(crate) fn unfinished_files(directory: &Directory) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(directory.fd()) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_lives_stays() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let living = TempFile::new(&directory).unwrap();
        std::fs::write(temp.path().join(".imgmv-0000000000000000.tmp"), b"left").unwrap();
        std::fs::write(temp.path().join("mine.tmp"), b"not ours").unwrap();
        sweep(&directory);
        assert_eq!(unfinished_files(&directory), std::slice::from_ref(&living.name));
        assert!(temp.path().join("mine.tmp").exists());
        drop(living);
        assert!(unfinished_files(&directory).is_empty());
    }

    #[test]
    fn a_lock_on_what_became_a_blob_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let directory = Directory::open(temp.path()).unwrap();
        let mut file = TempFile::new(&directory).unwrap();
        file.file.write_all(b"whole").unwrap();
        let name = file.name.clone();
        let late = File::open(temp.path().join(&name)).unwrap();
        assert_eq!(try_lock(&directory, &name, &late), Lock::Held);
        file.persist(&directory, "blob").unwrap();
        assert_eq!(try_lock(&directory, &name, &late), Lock::Held);
        assert_eq!(std::fs::read(temp.path().join("blob")).unwrap(), b"whole");
    }
}
