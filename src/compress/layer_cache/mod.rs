//! The cache of compressed layers: which compressed blob this user's imgmv made from which layer, so that no layer is
//! compressed twice. It is a small file of lines in the user's cache directory. A lost cache only costs time, so no
//! failure here is an error. A file that another user could have written is ignored.

#[cfg(test)]
mod tests;

use super::{RECIPE_VERSION, default_level};
use crate::image::{Coding, Digest};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The maximum number of entries; the newest are preserved. At about 200 bytes each, the file has 2 MB.
const MAX_ENTRIES: usize = 10_000;
/// Rewriting the file is expensive, so the file may grow by a quarter first.
const PRUNE_LINES: usize = MAX_ENTRIES + MAX_ENTRIES / 4;
/// The part of the file that is read: its end, with the newest entries.
const MAX_READ_BYTES: u64 = 8 << 20;
const FILE: &CStr = c"pairs";
const TEMP_FILE: &CStr = c"pairs.new";

/// The layers that were compressed here. All threads of a process share it, and all processes of a user share its file.
pub struct LayerCache {
    directory: PathBuf,
    /// Read on first use, since most runs do not need it.
    entries: Mutex<Option<Entries>>,
}

#[derive(Default)]
struct Entries {
    compressed: HashMap<CacheKey, (Digest, u64)>,
    diff_ids: HashMap<Digest, Digest>,
    /// The number of lines in the file, including damaged ones.
    lines: usize,
}

/// The inputs that determine the bytes of a compressed layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct CacheKey {
    recipe: u32,
    diff_id: Digest,
    to: Coding,
    level: i32,
}

impl CacheKey {
    fn new(diff_id: &Digest, to: Coding, level: Option<i32>) -> CacheKey {
        CacheKey { recipe: RECIPE_VERSION, diff_id: *diff_id, to, level: level.unwrap_or(default_level(to)) }
    }
}

impl LayerCache {
    /// Opens the cache in `directory` (`$XDG_CACHE_HOME/imgmv`), which is created with the first entry. The directory
    /// and the file are used only if they belong to this user and no other user can write them.
    pub fn open(directory: &Path) -> LayerCache {
        LayerCache { directory: directory.to_owned(), entries: Mutex::new(None) }
    }

    /// Returns digest and size in bytes of the layer `diff_id` compressed as `to` at `level` by this version of
    /// [`crate::compress`].
    pub fn find(&self, diff_id: &Digest, to: Coding, level: Option<i32>) -> Option<(Digest, u64)> {
        self.with_entries(|entries| entries.compressed.get(&CacheKey::new(diff_id, to, level)).copied())
    }

    /// Returns the diff ID of the compressed layer `blob`, which any version of imgmv compressed.
    pub fn diff_id_of(&self, blob: &Digest) -> Option<Digest> {
        self.with_entries(|entries| entries.diff_ids.get(blob).copied())
    }

    /// Adds an entry: the layer `diff_id` compressed here as `to` at `level` is `blob`, of `size` bytes.
    pub fn insert(&self, diff_id: &Digest, to: Coding, level: Option<i32>, blob: &Digest, size: u64) {
        let key = CacheKey::new(diff_id, to, level);
        self.with_entries(|entries| {
            if entries.compressed.get(&key) == Some(&(*blob, size)) {
                return;
            }
            entries.insert(key, *blob, size);
            // Without a writable directory, the entry lives as long as the process.
            let Some(directory) = own_directory(&self.directory, IfMissing::Create) else { return };
            let length = append(&directory, &line(&key, blob, size)).unwrap_or(0);
            entries.lines += 1;
            if (entries.lines > PRUNE_LINES || length > MAX_READ_BYTES) && prune(&directory).is_some() {
                entries.lines = MAX_ENTRIES;
            }
        })
    }

    fn with_entries<T>(&self, action: impl FnOnce(&mut Entries) -> T) -> T {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        action(entries.get_or_insert_with(|| {
            let directory = own_directory(&self.directory, IfMissing::Skip);
            let text = directory.and_then(|directory| read(&directory));
            text.map_or_else(Entries::default, |text| Entries::from_lines(&text))
        }))
    }
}

impl Entries {
    fn from_lines(text: &str) -> Entries {
        let mut entries = Entries::default();
        for text in text.lines() {
            entries.lines += 1;
            if let Some((key, blob, size)) = parse(text) {
                entries.insert(key, blob, size);
            }
        }
        entries
    }

    fn insert(&mut self, key: CacheKey, blob: Digest, size: u64) {
        self.compressed.insert(key, (blob, size));
        self.diff_ids.insert(blob, key.diff_id);
    }
}

/// Returns the line `RECIPE DIFF_ID CODING LEVEL BLOB SIZE CHECK`. The check is the start of the digest of the other
/// fields; it detects a truncated or damaged line.
fn line(key: &CacheKey, blob: &Digest, size: u64) -> String {
    let CacheKey { recipe, diff_id, to, level } = key;
    let text = format!("{recipe} {diff_id} {} {level} {blob} {size}", to.name());
    format!("{text} {}\n", check(&text))
}

fn check(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

fn parse(line: &str) -> Option<(CacheKey, Digest, u64)> {
    let (text, sum) = line.rsplit_once(' ')?;
    let fields: Vec<&str> = text.split(' ').collect();
    let [recipe, diff_id, to, level, blob, size] = fields[..] else { return None };
    if check(text) != sum {
        return None;
    }
    let to = [Coding::Raw, Coding::Gzip, Coding::Zstd].into_iter().find(|coding| coding.name() == to)?;
    let key = CacheKey { recipe: recipe.parse().ok()?, diff_id: diff_id.parse().ok()?, to, level: level.parse().ok()? };
    Some((key, blob.parse().ok()?, size.parse().ok()?))
}

/// The action for a missing directory.
#[derive(PartialEq)]
enum IfMissing {
    Create,
    Skip,
}

/// Opens the directory if it belongs to this user.
fn own_directory(path: &Path, if_missing: IfMissing) -> Option<OwnedFd> {
    let open = || fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let directory = open().or_else(|error| {
        if if_missing == IfMissing::Create {
            use std::os::unix::fs::DirBuilderExt;
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            return open();
        }
        Err(error)
    });
    directory.ok().filter(is_ours)
}

/// Whether the open file or directory belongs to this user and no other user can write it.
fn is_ours(file: &impl AsFd) -> bool {
    fs::fstat(file).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

/// Opens a regular file of this user in `directory`; does not follow links, and a FIFO does not block it.
fn own_file(directory: &OwnedFd, name: &CStr, how: OFlags) -> Option<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR).ok()?);
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    (regular && is_ours(&file)).then_some(file)
}

/// Reads the newest lines. Damaged bytes become replacement characters.
fn read(directory: &OwnedFd) -> Option<String> {
    let mut file = own_file(directory, FILE, OFlags::RDONLY)?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(MAX_READ_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(MAX_READ_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Appends a line in one write, so that the lines of several processes do not mix. Returns the new length of the file in
/// bytes.
fn append(directory: &OwnedFd, line: &str) -> Option<u64> {
    let mut file = own_file(directory, FILE, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
    // A full disk may truncate the line; its check is wrong then.
    let _ = file.write(line.as_bytes());
    Some(file.metadata().ok()?.len())
}

/// Rewrites the file with the newest [`MAX_ENTRIES`] valid lines, each key once. Does nothing if another process is
/// pruning. A line that is appended at the same time may be lost.
fn prune(directory: &OwnedFd) -> Option<()> {
    // Without locks, two processes may prune at once, and lines may be lost.
    if fs::flock(directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return None;
    }
    let text = read(directory)?;
    let mut seen = HashMap::new();
    let newest = text.lines().rev().filter(|line| parse(line).is_some_and(|(key, ..)| seen.insert(key, ()).is_none()));
    let mut lines: Vec<&str> = newest.take(MAX_ENTRIES).collect();
    lines.reverse();
    lines.push("");
    // A process that was killed here may have left this file.
    let _ = fs::unlinkat(directory, TEMP_FILE, AtFlags::empty());
    let mut temp = own_file(directory, TEMP_FILE, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    temp.write_all(lines.join("\n").as_bytes()).ok()?;
    temp.sync_all().ok()?;
    fs::renameat(directory, TEMP_FILE, directory, FILE).ok()
}
