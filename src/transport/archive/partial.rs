//! An archive on its way, beside the file that it is to become: under a name made of that file's, so that a later run
//! finds what a cut one left and goes on behind it.

use crate::disk::directory::Directory;
use crate::disk::lock::{Lock, try_lock};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Behind the file's own name: what nobody takes for an archive.
const MARK: &str = ".imgmv-";
const PART: &str = "part";
const SUMS: &str = "sums";
/// In bytes, of the file's name: with what is added it fits where that one does.
const LONGEST_NAME: usize = 200;

/// Both files of a partial archive. The lock is the file's: held until that is closed.
pub(super) struct Partial {
    folder: Directory,
    /// Without its last word.
    stem: String,
}

impl Partial {
    /// Takes up what is there for `path`, or begins it: the archive and its sums. `None` where another process writes
    /// it, where it is somebody else's, or where files cannot be locked; then another name is to be taken.
    ///
    /// Fails where nothing can be written beside `path`.
    pub fn take_up(path: &Path) -> io::Result<Option<(Partial, File, File)>> {
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let partial = Partial { folder: folder(path)?, stem: stem(&name.to_string_lossy()) };
        let Some(file) = partial.open(PART)? else { return Ok(None) };
        if try_lock(&partial.folder, &partial.name(PART), &file) != Lock::Acquired {
            return Ok(None);
        }
        Ok(partial.open(SUMS)?.map(|sums| (partial, file, sums)))
    }

    fn name(&self, ending: &str) -> String {
        format!("{}{ending}", self.stem)
    }

    fn open(&self, ending: &str) -> io::Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match openat(self.folder.fd(), self.name(ending), flags, Mode::from_raw_mode(0o666)) {
            Ok(fd) => {
                let file = File::from(fd);
                Ok(ours(&file.metadata()?).then_some(file))
            }
            // A link that somebody has put there.
            Err(rustix::io::Errno::LOOP) => Ok(None),
            Err(rustix::io::Errno::ACCESS) if self.folder.size(&self.name(ending)).is_ok_and(|size| size.is_some()) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the archive the name of `path`.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        std::fs::rename(self.folder.path().join(self.name(PART)), path)?;
        self.remove(SUMS);
        Ok(())
    }

    /// For good.
    pub fn discard(self) {
        // The sums first: an archive without sums loses one blob at most, sums without an archive are litter.
        self.remove(SUMS);
        self.remove(PART);
    }

    fn remove(&self, ending: &str) {
        let _ = unlinkat(self.folder.fd(), self.name(ending), AtFlags::empty());
    }
}

/// Removes from the folder of archives `dir` what cut runs left there and nobody has written to for `life`; how many
/// archives.
pub(super) fn sweep(dir: &Directory, life: Duration) -> usize {
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
        let old = |found: Metadata| found.modified().ok().and_then(|then| then.elapsed().ok()) >= Some(life);
        let left = file.metadata().is_ok_and(|found| ours(&found) && old(found));
        if left && try_lock(dir, &name, &file) == Lock::Acquired && unlinkat(dir.fd(), &name, AtFlags::empty()).is_ok()
        {
            removed += 1;
            let _ = unlinkat(dir.fd(), format!("{stem}{MARK}{SUMS}"), AtFlags::empty());
        }
    }
    removed
}

/// The folder that `path` is in.
pub(super) fn folder(path: &Path) -> io::Result<Directory> {
    Directory::open(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// How the names of all that is on its way to the file `name` begin.
pub(super) fn stem(name: &str) -> String {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!(".{}{MARK}", &name[..end])
}

/// A regular file of this user's that has no other name: nobody else can change what was found right in it.
fn ours(found: &Metadata) -> bool {
    found.is_file() && found.nlink() == 1 && found.uid() == rustix::process::geteuid().as_raw()
}
