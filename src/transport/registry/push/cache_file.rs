//! Small files of the user's cache: of one user alone, bounded, and believed only when whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// In bytes, of one file.
const MAX_FILE: u64 = 128 << 10;
const NOFOLLOW_NONBLOCK: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;

/// The files of `folder`; none where it cannot be read.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// The lines of `file` and its age, if it is this user's alone and was written to its end.
pub fn read(file: &Path) -> Option<(String, Duration)> {
    let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW_NONBLOCK).open(file).ok()?;
    let found = file.metadata().ok()?;
    let own = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    if !found.is_file() || !own {
        return None;
    }
    let age = SystemTime::now().duration_since(found.modified().ok()?).unwrap_or_default();
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).ok()?;
    text.ends_with('\n').then_some((text, age))
}

/// Writes `file` in place, so that a killed process leaves no other file: [`read`] rejects what was cut short.
pub fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600).custom_flags(NOFOLLOW_NONBLOCK);
    options.open(file)?.write_all(text.as_bytes())
}
