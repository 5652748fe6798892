//! Rewriting `index.json`: it is read, changed and replaced under a lock, so that several processes can write one
//! layout.

use super::directory::{INDEX_FILE, LAYOUT_FILE, LayoutDirectory, MAX_INDEX_BYTES};
use crate::blob_files::temp_file::{PREFIX, TempFile};
use crate::cancel::Cancel;
use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use crate::error::{Error, Result};
use crate::image::LayoutIndex;
use crate::progress::Watch;
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

/// The pause between two attempts at a lock that another process has.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// About 30 s; a rewrite takes milliseconds.
const MAX_ATTEMPTS: u32 = 6000;
/// The wait is reported after this many attempts, about a second.
const REPORTED_ATTEMPT: u32 = 200;

/// Applies `change` to `index.json`, and creates the file `oci-layout` if it is missing.
///
/// Fails with `Unwritable` if the directory cannot be written or another process does not release the lock.
pub(super) fn rewrite(
    layout: &LayoutDirectory,
    watch: &dyn Watch,
    cancel: &Cancel,
    change: impl FnOnce(&mut LayoutIndex),
) -> Result<()> {
    let _lock = IndexLock::take(layout, watch, cancel)?;
    if !layout.is_layout()? {
        replace(&layout.directory, LAYOUT_FILE, LayoutIndex::layout_file())?;
    }
    let mut index = layout.index()?.unwrap_or_default();
    change(&mut index);
    let bytes = index.bytes();
    if bytes.len() as u64 > MAX_INDEX_BYTES {
        return Err(Error::unwritable(format!(
            "{} would have {} bytes, but imgmv reads at most {MAX_INDEX_BYTES}; write to another layout",
            layout.directory.display(INDEX_FILE),
            bytes.len()
        )));
    }
    replace(&layout.directory, INDEX_FILE, &bytes)
}

fn replace(directory: &Directory, name: &str, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut temp = TempFile::new(directory)?;
        temp.file.write_all(bytes)?;
        temp.file.sync_all()?;
        temp.persist(directory, name)
    };
    write().map_err(|e| Error::writing(directory.display(name), e))
}

/// The lock for a rewrite of `index.json`; its file is removed on drop.
struct IndexLock<'p> {
    directory: &'p Directory,
    name: String,
    file: File,
}

impl<'p> IndexLock<'p> {
    fn take(layout: &'p LayoutDirectory, watch: &dyn Watch, cancel: &Cancel) -> Result<IndexLock<'p>> {
        let directory = &layout.directory;
        let name = format!("{PREFIX}lock");
        for attempt in 0..MAX_ATTEMPTS {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match openat(directory.fd(), &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(fd) => File::from(fd),
                Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                    return Err(Error::invalid(format!("{} is not a file; remove it", directory.display(&name))));
                }
                Err(error) => return Err(Error::writing(directory.display(INDEX_FILE), error.into())),
            };
            match try_lock(directory, &name, &file) {
                Lock::Acquired => return Ok(IndexLock { directory, name, file }),
                Lock::Unsupported => {
                    watch.say(&format!(
                        "{}: the file system has no file locks; make sure that no other process writes to it",
                        layout.describe()
                    ));
                    return Ok(IndexLock { directory, name, file });
                }
                Lock::Held => {}
            }
            if attempt == REPORTED_ATTEMPT {
                watch.say(&format!("waiting for another process that is writing {}", directory.display(INDEX_FILE)));
            }
            cancel.check()?;
            sleep(POLL_INTERVAL);
        }
        Err(Error::unwritable(format!(
            "{} is locked by another process; end that process or retry",
            directory.display(INDEX_FILE)
        )))
    }
}

impl Drop for IndexLock<'_> {
    fn drop(&mut self) {
        // Removed before the unlock: a waiting process then finds the name gone and creates a new file.
        let _ = unlinkat(self.directory.fd(), &self.name, AtFlags::empty());
        let _ = self.file.unlock();
    }
}
