//! A directory with untrusted content whose files have untrusted paths: a layer's files, a store of another program.
//!
//! [`Directory`](super::directory::Directory) refuses every link. A layer needs links: a file of a layer may be named
//! through a symbolic link of the same layer. So links are followed here, but *inside* the root: for them, the root is
//! `/`, as for a process after chroot. A path never leaves the root, whatever the path and the links say.
//!
//! The kernel resolves paths (openat2, Linux 5.6). Where the call is missing or forbidden (gVisor, docker's older seccomp
//! profile), [`by_hand`] resolves them component by component, with the same results.

mod by_hand;
mod cached;
#[cfg(test)]
mod tests;

use crate::error::{Error, Result};
use crate::message::shortened;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub(crate) use cached::{CachedFile, FileStamp};

/// The maximum number of attempts while another process renames directories in the path.
const ATTEMPTS: usize = 100;

/// The way that paths are resolved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolution {
    /// By the kernel; by hand where the kernel cannot.
    #[default]
    Kernel,
    /// By hand always, for tests.
    ByHand,
}

/// An open directory, out of which no path leads. Its own path comes from the user and may contain links.
#[derive(Debug)]
pub struct Rooted {
    path: PathBuf,
    fd: OwnedFd,
    resolution: Resolution,
}

impl Rooted {
    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// Those of the system: `path` does not exist, is not a directory, or may not be read.
    pub fn open(path: &Path, resolution: Resolution) -> io::Result<Rooted> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Rooted { path: path.to_owned(), fd, resolution })
    }

    /// The path by which the directory was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of `name` in this directory, for messages: of a long name its start.
    pub fn display(&self, name: impl AsRef<[u8]>) -> String {
        let name = cleaned(name.as_ref());
        self.path.join(shortened(&String::from_utf8_lossy(&name))).display().to_string()
    }

    /// Opens the directory `name` as a root for itself; `None` if it does not exist.
    ///
    /// # Errors
    /// - `Invalid`: it is not a directory, or its path has too many links.
    /// - `Denied` and `Failed`: the system's.
    pub fn directory(&self, name: impl AsRef<[u8]>) -> Result<Option<Rooted>> {
        let name = name.as_ref();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match self.resolve(&cleaned(name), flags) {
            Ok(fd) => {
                let path = self.path.join(OsStr::from_bytes(&cleaned(name)));
                Ok(Some(Rooted { path, fd, resolution: self.resolution }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::NOTDIR) => Err(Error::invalid(format!("{}: expected a directory", self.display(name)))),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Opens the regular file `name` for reading; `None` if it does not exist.
    ///
    /// `name` is a path of any bytes. `.`, `//` and `..` are removed by its text before a link is followed, as docker
    /// and containers-storage do (Go's `filepath.Join`). The attempt never blocks.
    ///
    /// # Errors
    /// - `Invalid`: it is not a regular file, or its path is not valid or has too many links.
    /// - `Denied` and `Failed`: the system's.
    pub fn file(&self, name: impl AsRef<[u8]>) -> Result<Option<File>> {
        let name = name.as_ref();
        match self.regular_file(&cleaned(name)) {
            Ok(Some(fd)) => Ok(Some(File::from(fd))),
            Ok(None) => Err(self.not_a_file(name)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(self.failed(name, error)),
        }
    }

    /// Opens the file at `path`; `None` if it is not a regular file. Opening a device may have effects (a watchdog starts,
    /// a tape rewinds), so the kind of the file is known before it is opened.
    fn regular_file(&self, path: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let handle = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC)?;
        let found = fstat(&handle)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        match rustix::fs::open(format!("/proc/self/fd/{}", handle.as_raw_fd()), flags, Mode::empty()) {
            // Without /proc the path is resolved again.
            Err(Errno::NOENT) => {
                let file = self.resolve(path, flags)?;
                let again = fstat(&file)?;
                let is_same = (again.st_dev, again.st_ino) == (found.st_dev, found.st_ino);
                if is_same { Ok(Some(file)) } else { Err(Errno::AGAIN) }
            }
            file => file.map(Some),
        }
    }

    /// Reads the regular file `name`; `None` if it does not exist. A file of more than `limit` bytes is `Invalid` by its
    /// size, before a byte is read.
    ///
    /// # Errors
    /// As [`Rooted::file`], and `Invalid` for a larger file.
    pub fn read(&self, name: impl AsRef<[u8]>, limit: u64) -> Result<Option<Vec<u8>>> {
        let name = name.as_ref();
        let file = self.file(name)?;
        file.map(|file| self.content(file, name, limit)).transpose()
    }

    /// Reads `file`, which was opened as `name`.
    fn content(&self, file: File, name: &[u8], limit: u64) -> Result<Vec<u8>> {
        let reading = |error| Error::reading(self.display(name), error);
        let size = file.metadata().map_err(reading)?.len();
        let mut bytes = Vec::new();
        if size <= limit {
            file.take(limit + 1).read_to_end(&mut bytes).map_err(reading)?;
        }
        match size.max(bytes.len() as u64) {
            size if size <= limit => Ok(bytes),
            size => {
                Err(Error::invalid(format!("{}: it has {size} bytes; at most {limit} are allowed", self.display(name))))
            }
        }
    }

    /// The names of the entries of this directory without `.` and `..`, sorted.
    ///
    /// # Errors
    /// - `Invalid`: there are more than `limit` entries.
    /// - `Denied` and `Failed`: the system's.
    pub fn names(&self, limit: usize) -> Result<Vec<Vec<u8>>> {
        let reading = |error: Errno| Error::reading(self.path.display(), error.into());
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() == limit {
                let path = self.path.display();
                return Err(Error::invalid(format!("{path}: more than the {limit} entries allowed")));
            }
            names.push(name.to_vec());
        }
        names.sort();
        Ok(names)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.resolution == Resolution::Kernel {
            let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            for _ in 0..ATTEMPTS {
                match openat2(&self.fd, path, flags, Mode::empty(), inside) {
                    // A directory of the path was renamed meanwhile.
                    Err(Errno::AGAIN) => {}
                    Err(Errno::NOSYS | Errno::PERM) => break,
                    result => return result,
                }
            }
        }
        by_hand::open(&self.fd, path, flags)
    }

    fn not_a_file(&self, name: &[u8]) -> Error {
        Error::invalid(format!("{}: expected a regular file, found another kind of file", self.display(name)))
    }

    fn failed(&self, name: &[u8], error: Errno) -> Error {
        match error {
            Errno::LOOP => Error::invalid(format!(
                "{}: its path has more than {} symbolic links, or they form a loop",
                self.display(name),
                by_hand::MAX_LINKS
            )),
            Errno::NAMETOOLONG | Errno::INVAL => {
                let start = String::from_utf8_lossy(&name[..name.len().min(100)]).into_owned();
                Error::invalid(format!("{}: {start:?}… cannot be the path of a file", self.path.display()))
            }
            // A socket, or a device without a driver.
            Errno::NXIO | Errno::NODEV => self.not_a_file(name),
            error => Error::reading(self.display(name), error.into()),
        }
    }
}

/// Returns `path` without empty components, `.` and `..`; `..` removes the component before it, and nothing at the root.
/// The root itself is `.`.
fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    if components.is_empty() { b".".to_vec() } else { components.join(&b'/') }
}
