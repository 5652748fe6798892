//! A layout as a cache: what lies there was asked for once, is read while more of it comes, and goes when it has not
//! been asked for the longest. To every other tool it is a layout in which blobs may be missing.
//!
//! When a blob was last used is its file's time of modification. Whoever reads one holds a shared lock of it, and only
//! what nobody holds is removed: also between processes.

use super::directory::Place;
use super::index;
use super::partial;
use super::sink::{LayoutSink, Verify};
use super::temp_file;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::sink::Sink;
use crate::source::Claim;
use crate::transfer::BlobWriter;
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, futimens, statat, unlinkat};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A use so soon after the last one is not written down.
const AGAIN: Duration = Duration::from_secs(60);

/// A layout that is filled as things are asked for, and emptied as room is needed.
pub struct LayoutCache {
    place: Place,
    sink: LayoutSink,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// A blob on its way into a cache.
pub struct Filling<'c> {
    pub writer: Box<dyn BlobWriter + 'c>,
    /// What has been written so far can be read here, at any offset.
    pub bytes: File,
}

/// What making room has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    pub blobs: usize,
    /// Bytes that went.
    pub bytes: u64,
}

/// A blob that could go.
struct Resident {
    digest: Digest,
    size: u64,
    /// Seconds and nanoseconds.
    used: (i64, i64),
}

impl LayoutCache {
    /// The layout in `dir`, which is made where there is none.
    ///
    /// Fails as [`LayoutSink::open`] does, and with `Unwritable` where nothing can be written there.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<LayoutCache> {
        LayoutSink::open(dir, Verify::Size, watch.clone())?;
        let place = Place::create(dir)?;
        index::rewrite(&place, &*watch, cancel, |_| {})?;
        temp_file::sweep(&place.folder);
        let sink = LayoutSink::open(dir, Verify::Size, watch.clone())?.cancel(cancel);
        Ok(LayoutCache { place, sink, watch, cancel: cancel.clone() })
    }

    pub fn dir(&self) -> &Path {
        self.place.folder.path()
    }

    /// Size in bytes of the blob under `digest`, if it is here.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.place.size(digest)
    }

    /// The blob under `digest`, if it is here. It counts as used now, and stays while the file is open.
    pub fn read(&self, digest: &Digest) -> Result<Option<File>> {
        let Some(file) = self.place.blob(digest)? else { return Ok(None) };
        // Where there are no locks, an open file is still read to its end.
        let _ = file.try_lock_shared();
        let age = file.metadata().ok().and_then(|found| found.modified().ok()?.elapsed().ok());
        if age.is_none_or(|age| age > AGAIN) {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            // Somebody else's file cannot be marked, and goes as if it were old.
            let _ = futimens(&file, &Timestamps { last_access: kept, last_modification: now });
        }
        Ok(Some(file))
    }

    /// The bytes of the manifest under `digest`, if it is here and no larger than one may be.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let Some(file) = self.read(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::reading(digest, e))?;
        Ok((bytes.len() as u64 <= MAX_MANIFEST_BYTES).then_some(bytes))
    }

    /// Begins to write the blob `digest` of `size` bytes, or goes on with it; `None` where it is here.
    pub fn fill(&self, digest: Digest, size: u64) -> Result<Option<Filling<'_>>> {
        let claim = Claim { digest: Some(digest), size: Some(size) };
        let Some(writer) = self.sink.writer(&claim)? else { return Ok(None) };
        let bytes = writer.file().try_clone().map_err(|e| Error::writing(self.place.shown(), e))?;
        Ok(Some(Filling { writer: writer.boxed(), bytes }))
    }

    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.sink.put_manifest(manifest)
    }

    /// Makes `name` point at `manifest`, which is here.
    pub fn name(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        self.sink.publish(Some(name), manifest)?;
        self.sink.finish().map(|_| ())
    }

    /// Takes `name` away.
    pub fn forget(&self, name: &Name) -> Result<()> {
        self.sink.remove(name).map(|_| ())
    }

    /// Every name and what it points at.
    pub fn names(&self) -> Result<HashMap<Name, Descriptor>> {
        let named = self.place.index()?.unwrap_or_default().named()?;
        Ok(named.into_iter().filter_map(|(name, entry)| Some((name?, entry))).collect())
    }

    /// Bytes that lie here: blobs, and what cut fills have left. (What is on its way is whose who fills it.)
    pub fn used(&self) -> Result<u64> {
        let blobs: u64 = self.residents()?.iter().map(|resident| resident.size).sum();
        let leavings = temp_file::leavings(&self.place.folder);
        let left = leavings.iter().filter_map(|name| {
            let file = self.place.folder.file(name).ok()??.metadata().ok()?;
            let age = file.modified().ok()?.elapsed().ok()?;
            (age > AGAIN).then_some(file.len())
        });
        Ok(blobs + left.sum::<u64>())
    }

    /// Removes from `caches` what was not used the longest, until `wanted` bytes are gone or nothing is left that may go.
    /// Names of what is gone go too.
    pub fn evict(caches: &[Arc<LayoutCache>], wanted: u64) -> Result<Evicted> {
        let mut residents = Vec::new();
        for cache in caches {
            residents.extend(cache.residents()?.into_iter().map(|resident| (resident, cache)));
        }
        residents.sort_unstable_by_key(|(resident, _)| resident.used);
        let mut gone = Evicted::default();
        for (resident, cache) in residents {
            if gone.bytes >= wanted {
                break;
            }
            cache.cancel.check()?;
            if cache.remove(&resident.digest) {
                gone.blobs += 1;
                gone.bytes += resident.size;
            }
        }
        if gone.blobs > 0 {
            caches.iter().try_for_each(|cache| cache.forget_the_gone())?;
        }
        Ok(gone)
    }

    /// Removes what cut fills have left and nobody has gone on with for `life`; how many there were.
    pub fn sweep(&self, life: Duration) -> usize {
        partial::sweep(&self.place, life)
    }

    fn remove(&self, digest: &Digest) -> bool {
        let Ok(Some(file)) = self.place.blob(digest) else { return false };
        // Held: it is being read, or has just become a blob.
        if matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return false;
        }
        let Ok(Some(blobs)) = self.place.blobs(digest.algorithm()) else { return false };
        unlinkat(blobs.fd(), digest.hex(), AtFlags::empty()).is_ok()
    }

    fn forget_the_gone(&self) -> Result<()> {
        let is_gone = |entry: &Descriptor| matches!(self.place.size(&entry.digest), Ok(None));
        if !self.names()?.values().any(is_gone) {
            return Ok(());
        }
        index::rewrite(&self.place, &*self.watch, &self.cancel, |index| {
            for (name, entry) in index.named().unwrap_or_default() {
                if let Some(name) = name.filter(|_| is_gone(&entry)) {
                    index.remove(&name);
                }
            }
        })
    }

    fn residents(&self) -> Result<Vec<Resident>> {
        let mut residents = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(blobs) = self.place.blobs(algorithm)? else { continue };
            let entries = rustix::fs::Dir::read_from(blobs.fd());
            let entries = entries.map_err(|e| Error::reading(blobs.path().display(), e.into()))?;
            for entry in entries.flatten() {
                let hex = entry.file_name().to_str().unwrap_or_default();
                let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse() else { continue };
                let Ok(stat) = statat(blobs.fd(), hex, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let used = (stat.st_mtime, stat.st_mtime_nsec as i64);
                residents.push(Resident { digest, size: stat.st_size as u64, used });
            }
        }
        Ok(residents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::fs;
    use std::time::SystemTime;

    fn cache() -> (tempfile::TempDir, Arc<LayoutCache>) {
        let dir = tempfile::tempdir().unwrap();
        let cache = LayoutCache::open(dir.path(), Arc::new(Silent), &Cancel::default()).unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        (dir, Arc::new(cache))
    }

    /// A blob that was last used `age` seconds ago.
    fn put(cache: &LayoutCache, bytes: &[u8], age: u64) -> Digest {
        let digest = Digest::of(bytes);
        let path = cache.dir().join(digest.blob_path());
        fs::write(&path, bytes).unwrap();
        let then = SystemTime::now() - Duration::from_secs(age);
        File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
        digest
    }

    #[test]
    fn what_was_not_used_the_longest_goes_first_and_what_is_read_stays() {
        let (_dir, cache) = cache();
        let there = |digest: &Digest| cache.size(digest).unwrap().is_some();
        let blobs: Vec<Digest> = (0..5).map(|i| put(&cache, &[i; 1000], 5000 - 1000 * u64::from(i))).collect();
        // The oldest is being read, and the next one has been.
        let reading = cache.read(&blobs[0]).unwrap().unwrap();
        drop(cache.read(&blobs[1]).unwrap());
        assert_eq!(LayoutCache::evict(std::slice::from_ref(&cache), 1500).unwrap(), Evicted { blobs: 2, bytes: 2000 });
        assert_eq!(blobs.iter().map(there).collect::<Vec<_>>(), [true, true, false, false, true]);
        // The time of its use is not what keeps it.
        put(&cache, &[0; 1000], 9000);
        assert_eq!(LayoutCache::evict(std::slice::from_ref(&cache), 5000).unwrap(), Evicted { blobs: 2, bytes: 2000 });
        assert!(there(&blobs[0]));
        drop(reading);
        assert_eq!(LayoutCache::evict(std::slice::from_ref(&cache), 1).unwrap().blobs, 1);
        assert_eq!(cache.used().unwrap(), 0);
    }

    #[test]
    fn the_name_of_what_is_gone_goes_too() {
        let (_dir, cache) = cache();
        let of = |text: &str| Manifest::synthesise(&Descriptor::of("application/x", text.as_bytes()), &[]);
        let (one, two) = (of("one"), of("two"));
        for (name, manifest) in [("docker.io/library/one:1", &one), ("docker.io/library/two:2", &two)] {
            cache.put_manifest(manifest).unwrap();
            cache.name(&Name::new(name).unwrap(), manifest).unwrap();
        }
        put(&cache, &one.bytes, 1000);
        LayoutCache::evict(std::slice::from_ref(&cache), 1).unwrap();
        let names: Vec<String> = cache.names().unwrap().keys().map(Name::to_string).collect();
        assert_eq!(names, ["docker.io/library/two:2"]);
    }
}
