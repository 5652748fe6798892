//! Files on their way to a name: a draft is written beside the data under a name that nothing takes for a blob, and
//! renamed when it is whole. Who writes such a file holds its lock, so that what a killed process left is known.

use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;

/// How every file that is not yet data begins.
pub(super) const PREFIX: &str = ".imgmv-";
const DRAFT: &str = ".tmp";
/// Attempts at a free name. Each has 64 random bits: a second one is needed only against a sweeper.
const TRIES: usize = 16;

/// A file that goes when it is dropped, unless it was kept under a name.
pub(super) struct TempFile<'f> {
    folder: &'f Directory,
    name: String,
    pub file: File,
    kept: bool,
}

impl<'f> TempFile<'f> {
    pub fn new(folder: &'f Directory) -> io::Result<TempFile<'f>> {
        for _ in 0..TRIES {
            let name = fresh_name();
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = match openat(folder.fd(), &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(fd) => File::from(fd),
                Err(Errno::EXIST) => continue,
                Err(error) => return Err(error.into()),
            };
            if try_lock(folder, &name, &file) != Lock::Held {
                return Ok(TempFile { folder, name, file, kept: false });
            }
        }
        Err(io::Error::other("no free name for a temporary file"))
    }

    /// Becomes `name` in `to`, in place of what is there.
    pub fn keep(&mut self, to: &Directory, name: &str) -> io::Result<()> {
        renameat(self.folder.fd(), &self.name, to.fd(), name)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for TempFile<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is swept by a later run.
            let _ = unlinkat(self.folder.fd(), &self.name, AtFlags::empty());
        }
    }
}

/// A name for a draft that nobody has.
pub(super) fn fresh_name() -> String {
    format!("{PREFIX}{:016x}{DRAFT}", RandomState::new().build_hasher().finish())
}

/// Removes drafts that no living process holds.
pub(super) fn sweep(folder: &Directory) {
    for name in leavings(folder) {
        if name.ends_with(DRAFT) {
            remove_if_left(folder, &name);
        }
    }
}

/// Removes `name` unless someone holds it.
pub(super) fn remove_if_left(folder: &Directory, name: &str) -> bool {
    let Ok(Some(file)) = folder.file(name) else { return false };
    try_lock(folder, name, &file) == Lock::Acquired && unlinkat(folder.fd(), name, AtFlags::empty()).is_ok()
}

/// Every file here that begins with [`PREFIX`].
pub(super) fn leavings(folder: &Directory) -> Vec<String> {
    let Ok(entries) = rustix::fs::Dir::read_from(folder.fd()) else { return Vec::new() };
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
        let folder = Directory::open(temp.path()).unwrap();
        let living = TempFile::new(&folder).unwrap();
        std::fs::write(temp.path().join(".imgmv-0000000000000000.tmp"), b"left").unwrap();
        std::fs::write(temp.path().join("mine.tmp"), b"not ours").unwrap();
        sweep(&folder);
        assert_eq!(leavings(&folder), std::slice::from_ref(&living.name));
        assert!(temp.path().join("mine.tmp").exists());
        drop(living);
        assert!(leavings(&folder).is_empty());
    }

    #[test]
    fn a_lock_on_what_became_a_blob_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Directory::open(temp.path()).unwrap();
        let mut draft = TempFile::new(&folder).unwrap();
        draft.file.write_all(b"whole").unwrap();
        let name = draft.name.clone();
        let late = File::open(temp.path().join(&name)).unwrap();
        assert_eq!(try_lock(&folder, &name, &late), Lock::Held);
        draft.keep(&folder, "blob").unwrap();
        assert_eq!(try_lock(&folder, &name, &late), Lock::Held);
        assert_eq!(std::fs::read(temp.path().join("blob")).unwrap(), b"whole");
    }
}
