//! A partial archive, in the directory of the final file and named after it, so that a later run can resume an
//! interrupted one.

use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Follows the final file's name; marks files that are not archives yet.
const MARK: &str = ".imgmv-";
const PART: &str = "part";
const SUMS: &str = "sums";
/// A longer name of the final file is cut, so that the partial file's name is not too long for the file system.
const MAX_NAME_BYTES: usize = 200;

/// The files of a partial archive: the archive and its checkpoints. The archive's file is locked until it is closed.
pub(super) struct PartialArchive {
    directory: Directory,
    /// The common part of both names.
    stem: String,
}

impl PartialArchive {
    /// Opens or creates the partial archive of `path`; returns it with the files of the archive and of the checkpoints.
    /// `None` if another process writes it, another user owns it, or it cannot be locked; the caller then uses another
    /// name.
    ///
    /// Fails if the directory of `path` cannot be written.
    pub fn open_or_create(path: &Path) -> io::Result<Option<(PartialArchive, File, File)>> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let partial = PartialArchive { directory: directory_of(path)?, stem: stem(&name.to_string_lossy()) };
        let Some(file) = partial.open(PART)? else { return Ok(None) };
        if try_lock(&partial.directory, &partial.name(PART), &file) != Lock::Acquired {
            return Ok(None);
        }
        Ok(partial.open(SUMS)?.map(|sums| (partial, file, sums)))
    }

    fn name(&self, ending: &str) -> String {
        format!("{}{ending}", self.stem)
    }

    fn open(&self, ending: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(self.directory.fd(), self.name(ending), flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => {
                let file = File::from(fd);
                Ok(is_private(&file.metadata()?).then_some(file))
            }
            // A symbolic link, perhaps planted by another user.
            Err(rustix::io::Errno::LOOP) => Ok(None),
            Err(rustix::io::Errno::ACCESS)
                if self.directory.size(&self.name(ending)).is_ok_and(|size| size.is_some()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Renames the archive to `path`.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        std::fs::rename(self.directory.path().join(self.name(PART)), path)?;
        self.remove(SUMS);
        Ok(())
    }

    /// Removes the files.
    pub fn discard(self) {
        // The checkpoints first: an archive without checkpoints loses at most one blob, checkpoints alone are garbage.
        self.remove(SUMS);
        self.remove(PART);
    }

    fn remove(&self, ending: &str) {
        let _ = unlinkat(self.directory.fd(), self.name(ending), AtFlags::empty());
    }
}

/// Removes partial archives from `dir` that had no write for `lifetime`; returns their number.
pub(super) fn remove_expired(dir: &Directory, lifetime: Duration) -> usize {
    let Ok(entries) = rustix::fs::Dir::read_from(dir.fd()) else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
    let mut removed = 0;
    for name in names.filter(|name| name.starts_with('.')) {
        let Some((stem, ending)) = name.rsplit_once(MARK) else { continue };
        if ending == SUMS {
            let part = format!("{stem}{MARK}{PART}");
            if matches!(dir.size(&part), Ok(None)) {
                let _ = unlinkat(dir.fd(), &name, AtFlags::empty());
            }
            continue;
        }
        let Ok(Some(file)) = dir.file(&name) else { continue };
        let old = |found: Metadata| found.modified().ok().and_then(|then| then.elapsed().ok()) >= Some(lifetime);
        let expired = file.metadata().is_ok_and(|found| is_private(&found) && old(found));
        if expired
            && try_lock(dir, &name, &file) == Lock::Acquired
            && unlinkat(dir.fd(), &name, AtFlags::empty()).is_ok()
        {
            removed += 1;
            let _ = unlinkat(dir.fd(), format!("{stem}{MARK}{SUMS}"), AtFlags::empty());
        }
    }
    removed
}

/// The directory of `path`.
pub(super) fn directory_of(path: &Path) -> io::Result<Directory> {
    Directory::open(path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// The start of the names of partial and temporary files for the final file `name`.
pub(super) fn stem(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!(".{}{MARK}", &name[..end])
}

/// Whether this is a regular file of this user with a single link, so that no other user can change verified bytes.
fn is_private(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}
