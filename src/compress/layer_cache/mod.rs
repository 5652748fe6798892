//! Which packed layer belongs to which raw one, as far as this user's imgmv packed it: one small file of lines in the
//! user's cache, so that no layer is packed twice. Losing it costs time and nothing else, so no failure here is an
//! error; what another user could have written is not believed.

#[cfg(test)]
mod tests;

use super::{RECIPE, default_level};
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

/// How many pairs are kept: the newest. At some 200 bytes each, 2 MB.
const KEPT: usize = 10_000;
/// Rewriting the file is dear, so it may grow by a quarter before.
const PRUNED_AT: usize = KEPT + KEPT / 4;
/// More of the file is not looked at, in bytes; what lies before that is the oldest.
const READ: u64 = 8 << 20;
const FILE: &CStr = c"pairs";
const FRESH: &CStr = c"pairs.new";

/// Pairs of raw and packed layers that were made here. Shared by all threads of a process, and through the file by all
/// processes of a user.
pub struct LayerCache {
    directory: PathBuf,
    /// Read when first asked for: most runs never ask.
    known: Mutex<Option<Known>>,
}

#[derive(Default)]
struct Known {
    packed: HashMap<Key, (Digest, u64)>,
    raw: HashMap<Digest, Digest>,
    /// In the file, for all that is known, broken ones included.
    lines: usize,
}

/// What a layer's packed bytes follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    recipe: u32,
    raw: Digest,
    to: Coding,
    level: i32,
}

impl Key {
    fn new(raw: &Digest, to: Coding, level: Option<i32>) -> Key {
        Key { recipe: RECIPE, raw: *raw, to, level: level.unwrap_or(default_level(to)) }
    }
}

impl LayerCache {
    /// The pairs in `directory` (`$XDG_CACHE_HOME/imgmv`), which is made when there is something to keep. It and the
    /// file in it count only if they belong to this user and nobody else may write them.
    pub fn open(directory: &Path) -> LayerCache {
        LayerCache { directory: directory.to_owned(), known: Mutex::new(None) }
    }

    /// Digest and size, in bytes, of what the layer with the `diff_id` `raw` is when packed as `to` at `level` by this
    /// version of [`crate::compress`].
    pub fn find(&self, raw: &Digest, to: Coding, level: Option<i32>) -> Option<(Digest, u64)> {
        self.known(|known| known.packed.get(&Key::new(raw, to, level)).copied())
    }

    /// The `diff_id` of the packed layer `stored`, by whichever version of imgmv it was packed.
    pub fn raw_of(&self, stored: &Digest) -> Option<Digest> {
        self.known(|known| known.raw.get(stored).copied())
    }

    /// Keeps what has just been made here: `raw` packed as `to` at `level` is `stored`, of `size` bytes.
    pub fn remember(&self, raw: &Digest, to: Coding, level: Option<i32>, stored: &Digest, size: u64) {
        let key = Key::new(raw, to, level);
        self.known(|known| {
            if known.packed.get(&key) == Some(&(*stored, size)) {
                return;
            }
            known.learn(key, *stored, size);
            // Without a place to write, it is known for as long as the process lasts.
            let Some(place) = own_directory(&self.directory, Missing::Make) else { return };
            let length = append(&place, &line(&key, stored, size)).unwrap_or(0);
            known.lines += 1;
            if (known.lines > PRUNED_AT || length > READ) && prune(&place).is_some() {
                known.lines = KEPT;
            }
        })
    }

    fn known<T>(&self, ask: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        ask(known.get_or_insert_with(|| {
            let place = own_directory(&self.directory, Missing::Leave);
            place.and_then(|place| read(&place)).map_or_else(Known::default, |text| Known::from_lines(&text))
        }))
    }
}

impl Known {
    fn from_lines(text: &str) -> Known {
        let mut known = Known::default();
        for text in text.lines() {
            known.lines += 1;
            if let Some((key, stored, size)) = parse(text) {
                known.learn(key, stored, size);
            }
        }
        known
    }

    fn learn(&mut self, key: Key, stored: Digest, size: u64) {
        self.packed.insert(key, (stored, size));
        self.raw.insert(stored, key.raw);
    }
}

/// `RECIPE RAW CODING LEVEL STORED SIZE CHECK`; the check is the beginning of the rest's own digest, so that a line
/// that was torn or damaged is known for one.
fn line(key: &Key, stored: &Digest, size: u64) -> String {
    let Key { recipe, raw, to, level } = key;
    let text = format!("{recipe} {raw} {} {level} {stored} {size}", to.name());
    format!("{text} {}\n", check(&text))
}

fn check(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..16].to_owned()
}

fn parse(line: &str) -> Option<(Key, Digest, u64)> {
    let (text, sum) = line.rsplit_once(' ')?;
    let fields: Vec<&str> = text.split(' ').collect();
    let [recipe, raw, to, level, stored, size] = fields[..] else { return None };
    if check(text) != sum {
        return None;
    }
    let to = [Coding::Raw, Coding::Gzip, Coding::Zstd].into_iter().find(|coding| coding.name() == to)?;
    let key = Key { recipe: recipe.parse().ok()?, raw: raw.parse().ok()?, to, level: level.parse().ok()? };
    Some((key, stored.parse().ok()?, size.parse().ok()?))
}

/// What to do about a directory that is not there.
#[derive(PartialEq)]
enum Missing {
    Make,
    Leave,
}

/// The directory, if it is this user's own.
fn own_directory(path: &Path, missing: Missing) -> Option<OwnedFd> {
    let open = || fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let directory = open().or_else(|error| {
        if missing == Missing::Make {
            use std::os::unix::fs::DirBuilderExt;
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            return open();
        }
        Err(error)
    });
    directory.ok().filter(is_ours)
}

/// Whether what is open belongs to this user, and nobody else can write it.
fn is_ours(file: &impl AsFd) -> bool {
    fs::fstat(file).is_ok_and(|stat| stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0)
}

/// Opens a file of this user's own in `place`; never through a link, never a pipe that would not end.
fn own_file(place: &OwnedFd, name: &CStr, how: OFlags) -> Option<File> {
    let flags = how | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(fs::openat(place, name, flags, Mode::RUSR | Mode::WUSR).ok()?);
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    (regular && is_ours(&file)).then_some(file)
}

/// The newest lines. A damaged file is text with holes.
fn read(place: &OwnedFd) -> Option<String> {
    let mut file = own_file(place, FILE, OFlags::RDONLY)?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(READ))).ok()?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds a line in one write at the file's end, so that processes do not write into one another's lines; how long the
/// file is then, in bytes.
fn append(place: &OwnedFd, line: &str) -> Option<u64> {
    let mut file = own_file(place, FILE, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)?;
    // What a full disk leaves of a line is no line.
    let _ = file.write(line.as_bytes());
    Some(file.metadata().ok()?.len())
}

/// Leaves the newest [`KEPT`] good lines, each pair once. Nothing if another process is at it. A line that is added
/// meanwhile may be lost.
fn prune(place: &OwnedFd) -> Option<()> {
    // Where nothing can be locked, the worst is lines lost.
    if fs::flock(place, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
        return None;
    }
    let text = read(place)?;
    let mut seen = HashMap::new();
    let newest = text.lines().rev().filter(|line| parse(line).is_some_and(|(key, ..)| seen.insert(key, ()).is_none()));
    let mut kept: Vec<&str> = newest.take(KEPT).collect();
    kept.reverse();
    kept.push("");
    // What a process that was killed here has left behind.
    let _ = fs::unlinkat(place, FRESH, AtFlags::empty());
    let mut fresh = own_file(place, FRESH, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    fresh.write_all(kept.join("\n").as_bytes()).ok()?;
    fresh.sync_all().ok()?;
    fs::renameat(place, FRESH, place, FILE).ok()
}
