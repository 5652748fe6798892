//! A layout as a cache: a blob can be read while it is still being written, and the least recently used blobs are
//! evicted. For other tools it is a layout in which blobs may be missing.
//!
//! A blob's last use is its file's modification time. Readers have a shared lock on the file, and only unlocked files
//! are evicted, also between processes.

use super::directory::LayoutDirectory;
use super::index;
use super::sink::LayoutSink;
use crate::blob_files::{BlobCheck, partial, temp_file};
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

/// The last use of a blob is recorded with this precision.
const USE_PRECISION: Duration = Duration::from_secs(60);

/// A layout that is filled on demand and from which old blobs are evicted.
pub struct LayoutCache {
    layout: LayoutDirectory,
    sink: LayoutSink,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// A blob that is being written to a cache.
pub struct Filling<'c> {
    pub writer: Box<dyn BlobWriter + 'c>,
    /// The file with the bytes written so far.
    pub bytes: File,
}

/// The result of an eviction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    pub blobs: usize,
    pub bytes: u64,
}

/// A blob in a cache.
struct CachedBlob {
    digest: Digest,
    size: u64,
    /// The time of the last use, in seconds and nanoseconds.
    used: (i64, i64),
}

impl LayoutCache {
    /// Opens the layout in `dir`; creates it if it is missing.
    ///
    /// Fails like [`LayoutSink::open`], and with `Unwritable` if the directory cannot be written.
    pub fn open(dir: &Path, watch: Arc<dyn Watch>, cancel: &Cancel) -> Result<LayoutCache> {
        LayoutSink::open(dir, BlobCheck::Size, watch.clone())?;
        let layout = LayoutDirectory::create(dir)?;
        index::rewrite(&layout, &*watch, cancel, |_| {})?;
        temp_file::sweep(&layout.directory);
        let sink = LayoutSink::open(dir, BlobCheck::Size, watch.clone())?.cancel(cancel);
        Ok(LayoutCache { layout, sink, watch, cancel: cancel.clone() })
    }

    pub fn dir(&self) -> &Path {
        self.layout.directory.path()
    }

    /// The size of the blob `digest`, in bytes; `None` if it is missing.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        self.layout.size(digest)
    }

    /// Opens the blob `digest` and records its use; `None` if it is missing. The blob is not evicted while the file is
    /// open.
    pub fn read(&self, digest: &Digest) -> Result<Option<File>> {
        let Some(file) = self.layout.blob(digest)? else { return Ok(None) };
        // A file system without locks still lets an open file be read to its end.
        let _ = file.try_lock_shared();
        let age = file.metadata().ok().and_then(|found| found.modified().ok()?.elapsed().ok());
        if age.is_none_or(|age| age > USE_PRECISION) {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let kept = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            // The time of another user's file cannot be set, so it is evicted earlier.
            let _ = futimens(&file, &Timestamps { last_access: kept, last_modification: now });
        }
        Ok(Some(file))
    }

    /// Reads the manifest `digest`; `None` if it is missing or larger than a manifest may be.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        use std::io::Read;
        let Some(file) = self.read(digest)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::reading(digest, e))?;
        Ok((bytes.len() as u64 <= MAX_MANIFEST_BYTES).then_some(bytes))
    }

    /// Starts or resumes writing the blob `digest` of `size` bytes; `None` if it exists.
    pub fn fill(&self, digest: Digest, size: u64) -> Result<Option<Filling<'_>>> {
        let claim = Claim { digest: Some(digest), size: Some(size) };
        let Some(writer) = self.sink.writer(&claim)? else { return Ok(None) };
        let bytes = writer.file().try_clone().map_err(|e| Error::writing(self.layout.describe(), e))?;
        Ok(Some(Filling { writer: writer.boxed(), bytes }))
    }

    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.sink.put_manifest(manifest)
    }

    /// Makes `name` point to `manifest`, which must exist.
    pub fn name(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        self.sink.publish(Some(name), manifest)?;
        self.sink.finish().map(|_| ())
    }

    /// Removes `name`.
    pub fn remove_name(&self, name: &Name) -> Result<()> {
        self.sink.remove(name).map(|_| ())
    }

    /// All names, with their root descriptors.
    pub fn names(&self) -> Result<HashMap<Name, Descriptor>> {
        let named = self.layout.index()?.unwrap_or_default().named()?;
        Ok(named.into_iter().filter_map(|(name, entry)| Some((name?, entry))).collect())
    }

    /// The bytes on the disk: blobs, and files of interrupted writes. Files of running writes are counted by the
    /// writer.
    pub fn used(&self) -> Result<u64> {
        let blobs: u64 = self.blobs()?.iter().map(|blob| blob.size).sum();
        let unfinished = temp_file::unfinished_files(&self.layout.directory);
        let interrupted = unfinished.iter().filter_map(|name| {
            let file = self.layout.directory.file(name).ok()??.metadata().ok()?;
            let age = file.modified().ok()?.elapsed().ok()?;
            (age > USE_PRECISION).then_some(file.len())
        });
        Ok(blobs + interrupted.sum::<u64>())
    }

    /// Removes the least recently used blobs of `caches`, until `wanted` bytes are removed or no unlocked blob is left.
    /// Names of removed manifests are removed too.
    pub fn evict(caches: &[Arc<LayoutCache>], wanted: u64) -> Result<Evicted> {
        let mut blobs = Vec::new();
        for cache in caches {
            blobs.extend(cache.blobs()?.into_iter().map(|blob| (blob, cache)));
        }
        blobs.sort_unstable_by_key(|(blob, _)| blob.used);
        let mut evicted = Evicted::default();
        for (blob, cache) in blobs {
            if evicted.bytes >= wanted {
                break;
            }
            cache.cancel.check()?;
            if cache.remove(&blob.digest) {
                evicted.blobs += 1;
                evicted.bytes += blob.size;
            }
        }
        if evicted.blobs > 0 {
            caches.iter().try_for_each(|cache| cache.remove_dangling_names())?;
        }
        Ok(evicted)
    }

    /// Removes files of interrupted writes without a write for `lifetime`; returns their number.
    pub fn remove_expired_partials(&self, lifetime: Duration) -> usize {
        partial::remove_expired(&self.layout, lifetime)
    }

    fn remove(&self, digest: &Digest) -> bool {
        let Ok(Some(file)) = self.layout.blob(digest) else { return false };
        // A locked blob is being read or was just renamed.
        if matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
            return false;
        }
        let Ok(Some(blobs)) = self.layout.blobs(digest.algorithm()) else { return false };
        unlinkat(blobs.fd(), digest.hex(), AtFlags::empty()).is_ok()
    }

    fn remove_dangling_names(&self) -> Result<()> {
        let is_missing = |entry: &Descriptor| matches!(self.layout.size(&entry.digest), Ok(None));
        if !self.names()?.values().any(is_missing) {
            return Ok(());
        }
        index::rewrite(&self.layout, &*self.watch, &self.cancel, |index| {
            for (name, entry) in index.named().unwrap_or_default() {
                if let Some(name) = name.filter(|_| is_missing(&entry)) {
                    index.remove(&name);
                }
            }
        })
    }

    fn blobs(&self) -> Result<Vec<CachedBlob>> {
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let Some(directory) = self.layout.blobs(algorithm)? else { continue };
            let entries = rustix::fs::Dir::read_from(directory.fd());
            let entries = entries.map_err(|e| Error::reading(directory.path().display(), e.into()))?;
            for entry in entries.flatten() {
                let hex = entry.file_name().to_str().unwrap_or_default();
                let Ok(digest) = format!("{}:{hex}", algorithm.name()).parse() else { continue };
                let Ok(stat) = statat(directory.fd(), hex, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let used = (stat.st_mtime, stat.st_mtime_nsec as i64);
                blobs.push(CachedBlob { digest, size: stat.st_size as u64, used });
            }
        }
        Ok(blobs)
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

    /// Writes a blob that was last used `age` seconds ago.
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
        // The oldest blob is being read, and the second oldest was just read.
        let reading = cache.read(&blobs[0]).unwrap().unwrap();
        drop(cache.read(&blobs[1]).unwrap());
        assert_eq!(LayoutCache::evict(std::slice::from_ref(&cache), 1500).unwrap(), Evicted { blobs: 2, bytes: 2000 });
        assert_eq!(blobs.iter().map(there).collect::<Vec<_>>(), [true, true, false, false, true]);
        // The lock protects the blob, not the time of its use.
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
