//! `index.json` rewritten: read, changed and replaced under a lock, so that several processes may name images in one
//! layout at once.

use super::directory::{INDEX_FILE, LAYOUT_FILE, MAX_INDEX, Place};
use super::temp_file::{PREFIX, TempFile};
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

/// Pause between two looks at a lock that another process has.
const PAUSE: Duration = Duration::from_millis(5);
/// Looks, about 30 s: a rewrite takes milliseconds.
const LOOKS: u32 = 6000;
/// Looks after which the wait is told, about a second.
const TOLD: u32 = 200;

/// Replaces `index.json` by what `change` makes of it, and the file `oci-layout` where it is missing.
///
/// Fails with `Unwritable` where the directory cannot be written or another process keeps the lock.
pub(super) fn rewrite(
    place: &Place,
    watch: &dyn Watch,
    cancel: &Cancel,
    change: impl FnOnce(&mut LayoutIndex),
) -> Result<()> {
    let _lock = IndexLock::take(place, watch, cancel)?;
    if !place.is_layout()? {
        replace(&place.folder, LAYOUT_FILE, LayoutIndex::layout_file())?;
    }
    let mut index = place.index()?.unwrap_or_default();
    change(&mut index);
    let bytes = index.bytes();
    if bytes.len() as u64 > MAX_INDEX {
        return Err(Error::unwritable(format!(
            "{} would have {} bytes, more than the {MAX_INDEX} that are read back; begin another layout",
            place.folder.display(INDEX_FILE),
            bytes.len()
        )));
    }
    replace(&place.folder, INDEX_FILE, &bytes)
}

fn replace(folder: &Directory, name: &str, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut draft = TempFile::new(folder)?;
        draft.file.write_all(bytes)?;
        draft.file.sync_all()?;
        draft.keep(folder, name)
    };
    write().map_err(|e| Error::writing(folder.display(name), e))
}

/// The right to rewrite `index.json`; the file goes with it.
struct IndexLock<'p> {
    folder: &'p Directory,
    name: String,
    file: File,
}

impl<'p> IndexLock<'p> {
    fn take(place: &'p Place, watch: &dyn Watch, cancel: &Cancel) -> Result<IndexLock<'p>> {
        let folder = &place.folder;
        let name = format!("{PREFIX}lock");
        for look in 0..LOOKS {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = match openat(folder.fd(), &name, flags, Mode::from_raw_mode(0o666)) {
                Ok(fd) => File::from(fd),
                Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                    return Err(Error::invalid(format!("{} is not a file; remove it", folder.display(&name))));
                }
                Err(error) => return Err(Error::writing(folder.display(INDEX_FILE), error.into())),
            };
            match try_lock(folder, &name, &file) {
                Lock::Acquired => return Ok(IndexLock { folder, name, file }),
                Lock::Unsupported => {
                    watch.say(&format!("{} has no file locks: let no other process write there", place.shown()));
                    return Ok(IndexLock { folder, name, file });
                }
                Lock::Held => {}
            }
            if look == TOLD {
                watch.say(&format!("waiting for another process that is writing {}", folder.display(INDEX_FILE)));
            }
            cancel.check()?;
            sleep(PAUSE);
        }
        Err(Error::unwritable(format!(
            "{} is locked by another process and was not let go; end that process or try again",
            folder.display(INDEX_FILE)
        )))
    }
}

impl Drop for IndexLock<'_> {
    fn drop(&mut self) {
        // Before it is unlocked: whoever waits sees that the name is gone and makes a new one.
        let _ = unlinkat(self.folder.fd(), &self.name, AtFlags::empty());
        let _ = self.file.unlock();
    }
}
