//! A directory with untrusted content, such as a layout or containerd's content store. Each path component is opened
//! by itself, no link is followed, and only regular files are opened.

use crate::error::{Error, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An open directory. Its own path comes from the user and may contain links.
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

    /// Opens the subdirectory `name`; `None` if it does not exist.
    pub fn subdirectory(&self, name: &str) -> Result<Option<Directory>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Directory { path: self.path.join(name), fd })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(self.wrong_type(name, "a directory")),
            Err(error) => Err(Error::reading(self.display(name), error.into())),
        }
    }

    /// Opens the subdirectory at the path `names`; `None` if it does not exist.
    pub fn descend(&self, names: &[&str]) -> Result<Option<Directory>> {
        let mut at: Option<Directory> = None;
        for name in names {
            match at.as_ref().unwrap_or(self).subdirectory(name)? {
                Some(found) => at = Some(found),
                None => return Ok(None),
            }
        }
        Ok(at)
    }

    /// Calls `each` with the name of each entry that is a directory, or a link. Names that are not UTF-8 are skipped.
    ///
    /// Fails with `Invalid` if there are more than `limit` entries, and with the error of `each`.
    pub fn each_folder(&self, limit: usize, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let reading = |error: Errno| Error::reading(self.path.display(), error.into());
        let mut count = 0;
        for entry in Dir::read_from(&self.fd).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let Some(name) = entry.file_name().to_str().ok().filter(|name| !matches!(*name, "." | "..")) else {
                continue;
            };
            count += 1;
            if count > limit {
                return Err(Error::invalid(format!("it has more than the {limit} entries allowed")));
            }
            // Some file systems do not have the type in the list.
            let kind = match entry.file_type() {
                FileType::Unknown => statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            if matches!(kind, FileType::Directory | FileType::Symlink) {
                each(name)?;
            }
        }
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of `name` in this directory, for messages.
    pub fn display(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns the size in bytes of the regular file `name`; `None` if it does not exist. Other file types are
    /// `Invalid`.
    pub fn size(&self, name: &str) -> Result<Option<u64>> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(Some(stat.st_size as u64)),
            Ok(_) => Err(self.wrong_type(name, "a file")),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(Error::reading(self.display(name), error.into())),
        }
    }

    /// Opens the regular file `name` for reading; `None` if it does not exist. Other file types (a link, a FIFO, a
    /// device) are `Invalid`, and the attempt neither blocks nor has a side effect.
    pub fn file(&self, name: &str) -> Result<Option<File>> {
        // The type is checked before the file is opened: on some devices, opening has a side effect.
        if self.size(name)?.is_none() {
            return Ok(None);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.wrong_type(name, "a file")),
            Err(error) => return Err(Error::reading(self.display(name), error.into())),
        };
        let reading = |error| Error::reading(self.display(name), error);
        match file.metadata().map_err(reading)?.is_file() {
            true => Ok(Some(file)),
            false => Err(self.wrong_type(name, "a file")),
        }
    }

    /// Reads the regular file `name`; `None` if it does not exist. More than `limit` bytes are `Invalid`.
    pub fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else { return Ok(None) };
        let reading = |error| Error::reading(self.display(name), error);
        let size = file.metadata().map_err(reading)?.len();
        let mut bytes = Vec::with_capacity(size.min(limit) as usize);
        file.take(limit + 1).read_to_end(&mut bytes).map_err(reading)?;
        match bytes.len() as u64 > limit {
            true => Err(Error::invalid(format!("{}: more than the {limit} bytes allowed", self.display(name)))),
            false => Ok(Some(bytes)),
        }
    }

    fn wrong_type(&self, name: &str, expected: &str) -> Error {
        let found = match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    return Error::invalid(format!(
                        "{}: symbolic links are not followed, since they may point anywhere; make a copy without \
                         links (cp -rL) and use that",
                        self.display(name)
                    ));
                }
                FileType::RegularFile => "a file",
                FileType::Directory => "a directory",
                FileType::Fifo => "a FIFO",
                FileType::Socket => "a socket",
                _ => "a device",
            },
            Err(_) => "an unknown file type",
        };
        Error::invalid(format!("{}: expected {expected}, found {found}", self.display(name)))
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
        symlink(at("in"), at("link-to-in")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("in/fifo"), Mode::RWXU).unwrap();
        let folder = Directory::open(&at("link-to-in")).unwrap();
        assert_eq!(folder.size("plain").unwrap(), Some(5));
        assert_eq!(folder.read("plain", 5).unwrap().unwrap(), b"12345");
        assert!(folder.read("plain", 4).unwrap_err().to_string().contains("more than the 4 bytes"));
        assert!(folder.file("absent").unwrap().is_none() && folder.subdirectory("absent").unwrap().is_none());
        for name in ["link", "zero", "dir", "fifo"] {
            assert_eq!(folder.file(name).unwrap_err().kind(), Kind::Invalid, "{name}");
            assert_eq!(folder.size(name).unwrap_err().kind(), Kind::Invalid, "{name}");
        }
        let outer = Directory::open(temp.path()).unwrap();
        assert!(outer.subdirectory("in").unwrap().is_some());
        assert!(outer.subdirectory("link-to-in").unwrap_err().to_string().contains("symbolic links are not followed"));
        let list = |limit| {
            let mut names = Vec::new();
            folder.each_folder(limit, |name| {
                names.push(name.to_owned());
                Ok(())
            })?;
            names.sort();
            Ok::<_, Error>(names)
        };
        assert_eq!(list(5).unwrap(), ["dir", "link", "zero"]);
        assert!(list(4).unwrap_err().to_string().contains("more than the 4 entries"));
        assert!(folder.subdirectory("plain").unwrap_err().to_string().contains("expected a directory, found a file"));
    }
}
