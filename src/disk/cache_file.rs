//! Small files of the user's cache: private to the user, bounded in size, ignored unless complete.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const MAX_FILE_BYTES: u64 = 128 << 10;
const NOFOLLOW_NONBLOCK: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;

/// The files of `directory`; empty if it cannot be read.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The text of `file` and its age; `None` unless it is private to this user and complete (it ends with a newline).
pub fn read(file: &Path) -> Option<(String, Duration)> {
    let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW_NONBLOCK).open(file).ok()?;
    let found = file.metadata().ok()?;
    let own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_file() || !own {
        return None;
    }
    let age = SystemTime::now().duration_since(found.modified().ok()?).unwrap_or_default();
    let mut text = String::new();
    file.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    text.ends_with('\n').then_some((text, age))
}

/// Writes `file` in place, so that a killed process leaves no temporary file; [`read`] rejects a truncated one.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600).custom_flags(NOFOLLOW_NONBLOCK);
    options.open(file)?.write_all(text.as_bytes())
}
