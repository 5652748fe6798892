//! A directory of which strangers may have filled the inside: what is in it is reached step by step, no link is
//! followed, and only regular files are opened. Layouts and containerd's content store lie in such directories.

use crate::error::{Error, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An open directory. The path that led to it may have had links: that one the user gave.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Directory { path: path.to_owned(), fd })
    }

    /// The directory `name` in this one; `None` where there is none.
    pub fn inner(&self, name: &str) -> Result<Option<Directory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Directory { path: self.path.join(name), fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(self.no_regular(name, "a directory")),
            Err(error) => Err(Error::reading(self.show(name), error.into())),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` here, for messages.
    pub fn show(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The size in bytes of the regular file `name`; `None` where there is nothing. What is no regular file is
    /// `Invalid`.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some(stat.st_size as u64)),
            Ok(_) => Err(self.no_regular(name, "a file")),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::reading(self.show(name), error.into())),
        }
    }

    /// The regular file `name`, open for reading; `None` where there is nothing. What is no regular file (a link, a
    /// FIFO, a device) is `Invalid`, and opening it neither waits nor acts.
    pub fn file(&self, name: &str) -> Result<Option<File>> {
        // Asked before it is opened: opening is an action on some devices.
        if self.size(name)?.is_none() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.no_regular(name, "a file")),
            Err(error) => return Err(Error::reading(self.show(name), error.into())),
        };
        let reading = |error| Error::reading(self.show(name), error);
        match file.metadata().map_err(reading)?.is_file() {
            true => Ok(Some(file)),
            false => Err(self.no_regular(name, "a file")),
        }
    }

    /// All of the regular file `name`, which must not have more than `limit` bytes; `None` where there is nothing.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let reading = |error| Error::reading(self.show(name), error);
        let size = file.metadata().map_err(reading)?.len();
        let mut bytes = Vec::with_capacity(size.min(limit) as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(reading)?;
        match bytes.len() as u64 > limit {
            true => Err(Error::invalid(format!("{} has more than the {limit} bytes allowed", self.show(name)))),
            false => Ok(Some(bytes)),
        }
    }

    fn no_regular(&self, name: &str, expected: &str) -> Error {
        let found = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    return Error::invalid(format!(
                        "{} is a symbolic link, which could lead anywhere and is not followed; make a copy without \
                         links (cp -rL) and use that",
                        self.show(name)
                    ));
                }
                FileType::RegularFile => "a file",
                FileType::Directory => "a directory",
                FileType::Fifo => "a FIFO",
                FileType::Socket => "a socket",
                _ => "a device",
            },
            Err(_) => "something else",
        };
        Error::invalid(format!("{} is {found}, expected was {expected}", self.show(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn only_regular_files_inside_are_opened() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir(at("in")).unwrap();
        fs::write(at("in/plain"), b"12345").unwrap();
        fs::create_dir(at("in/dir")).unwrap();
        symlink("plain", at("in/link")).unwrap();
        symlink("/dev/zero", at("in/zero")).unwrap();
        symlink(at("in"), at("way")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("in/fifo"), Mode::RWXU).unwrap();
        let folder = Directory::open(&at("way")).unwrap();
        assert_eq!(folder.size("plain").unwrap(), Some(5));
        assert_eq!(folder.read("plain", 5).unwrap().unwrap(), b"12345");
        assert!(folder.read("plain", 4).unwrap_err().to_string().contains("more than the 4 bytes"));
        assert!(folder.file("absent").unwrap().is_none() && folder.inner("absent").unwrap().is_none());
        for name in ["link", "zero", "dir", "fifo"] {
            assert_eq!(folder.file(name).unwrap_err().kind(), Kind::Invalid, "{name}");
            assert_eq!(folder.size(name).unwrap_err().kind(), Kind::Invalid, "{name}");
        }
        let outer = Directory::open(temp.path()).unwrap();
        assert!(outer.inner("in").unwrap().is_some());
        assert!(outer.inner("way").unwrap_err().to_string().contains("symbolic link"));
        assert!(folder.inner("plain").unwrap_err().to_string().contains("is a file, expected was a directory"));
    }
}
