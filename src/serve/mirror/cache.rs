//! The cache of a mirror: a layout with the downloaded blobs, and the last known digest of each upstream tag.

use super::download::{Download, DownloadedBlob, OnEnd, OpenDirect};
use super::evict::CacheBudget;
use super::pool::Pool;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Name};
use crate::serve::backend::catalog::parse_if_manifest;
use crate::serve::backend::reload::Reloading;
use crate::source::Store;
use crate::transport::layout::LayoutCache;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Blobs below this size have a separate pool, so that they do not wait for larger ones.
const MAX_SMALL_BLOB_BYTES: u64 = 4 << 20;
/// The maximum number of simultaneous downloads in each pool. A large one takes about 2 MiB of memory.
const MAX_DOWNLOADS: usize = 12;

/// The thread pools for small and large downloads.
#[derive(Clone)]
pub struct Pools {
    small: Arc<Pool>,
    large: Arc<Pool>,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools { small: Pool::new(MAX_DOWNLOADS), large: Pool::new(MAX_DOWNLOADS) }
    }
}

impl Pools {
    fn for_size(&self, size: u64) -> &Arc<Pool> {
        if size < MAX_SMALL_BLOB_BYTES { &self.small } else { &self.large }
    }

    /// Waits until no download is running, for at most `timeout`.
    pub fn wait_idle(&self, timeout: Duration) {
        self.small.wait_idle(timeout);
        self.large.wait_idle(timeout);
    }
}

/// A layout and the downloads into it.
pub struct MirrorCache {
    layout: Arc<LayoutCache>,
    names: Reloading<HashMap<Name, Descriptor>>,
    downloads: Mutex<HashMap<Digest, Arc<DownloadedBlob>>>,
    pools: Pools,
    budget: Arc<CacheBudget>,
    /// Cancels downloads.
    cancel: Cancel,
}

impl MirrorCache {
    pub fn new(layout: Arc<LayoutCache>, budget: Arc<CacheBudget>, pools: Pools, cancel: &Cancel) -> MirrorCache {
        let named = layout.clone();
        let names = Reloading::new(vec![layout.dir().join("index.json")], Duration::ZERO, move || named.names());
        MirrorCache { layout, names, downloads: Mutex::default(), pools, budget, cancel: cancel.clone() }
    }

    /// Returns the manifest `digest`, verified.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>> {
        let Some(bytes) = self.layout.manifest(digest)? else { return Ok(None) };
        let descriptor = Descriptor::new("", *digest, bytes.len() as u64);
        Ok(parse_if_manifest(bytes, &descriptor))
    }

    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.layout.size(digest), Ok(Some(_)))
    }

    pub fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.layout.put_manifest(manifest)
    }

    /// Stores `manifest` as the last known target of `name`.
    pub fn set_name(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        match self.last_known(name)? {
            Some(known) if known.digest == manifest.digest() => Ok(()),
            _ => self.layout.name(name, manifest),
        }
    }

    /// Removes `name`, which upstream does not have any more.
    pub fn forget(&self, name: &Name) -> Result<()> {
        match self.last_known(name)? {
            Some(_) => self.layout.remove_name(name),
            None => Ok(()),
        }
    }

    /// The last known target of `name`.
    pub fn last_known(&self, name: &Name) -> Result<Option<Descriptor>> {
        Ok(self.names.current()?.get(name).cloned())
    }

    /// All stored names.
    pub fn names(&self) -> Result<Vec<Name>> {
        Ok(self.names.current()?.keys().cloned().collect())
    }

    /// The size of a stored blob in bytes.
    pub fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        self.layout.size(digest)
    }

    /// The size in bytes of a blob that is being downloaded.
    pub fn downloading_size(&self, digest: &Digest) -> Option<u64> {
        self.downloads().get(digest).map(|partial| partial.size)
    }

    /// Opens a stored blob.
    pub fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let Some(file) = self.layout.read(digest)? else { return Ok(None) };
        let found = file.metadata().map_err(|e| Error::reading(digest, e))?.len();
        Ok((found == size).then(|| Box::new(StoredBlobReader { file, at: from }) as Box<dyn Read + Send>))
    }

    /// Opens a stored blob, or joins or starts its download from `source`.
    pub fn fetch(
        self: &Arc<MirrorCache>,
        (digest, size): (Digest, u64),
        from: u64,
        source: impl FnOnce() -> Result<(Arc<dyn Store>, OnEnd)>,
        open_direct: OpenDirect,
    ) -> Result<Box<dyn Read + Send>> {
        if let Some(bytes) = self.open(&digest, size, from)? {
            return Ok(bytes);
        }
        let partial = {
            let mut downloads = self.downloads();
            match downloads.get(&digest) {
                Some(partial) => partial.clone(),
                None => {
                    // The download may have ended in the meantime.
                    if let Some(bytes) = self.open(&digest, size, from)? {
                        return Ok(bytes);
                    }
                    let (source, on_end) = source()?;
                    let partial = Arc::new(DownloadedBlob::new(digest, size));
                    downloads.insert(digest, partial.clone());
                    drop(downloads);
                    self.start_download(partial.clone(), source, on_end);
                    partial
                }
            }
        };
        partial.read(from, open_direct)
    }

    fn start_download(self: &Arc<MirrorCache>, partial: Arc<DownloadedBlob>, source: Arc<dyn Store>, on_end: OnEnd) {
        let guard = DownloadGuard { cache: self.clone(), partial: partial.clone() };
        let (layout, budget, cancel) = (self.layout.clone(), self.budget.clone(), self.cancel.clone());
        let download = Download { partial, layout, budget, source, cancel, on_end };
        self.pools.for_size(guard.partial.size).run(move || guard.end_download(download.run()));
    }

    fn downloads(&self) -> MutexGuard<'_, HashMap<Digest, Arc<DownloadedBlob>>> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes the result of a download to its clients, also after a panic.
struct DownloadGuard {
    cache: Arc<MirrorCache>,
    partial: Arc<DownloadedBlob>,
}

impl DownloadGuard {
    fn end_download(self, result: Result<()>) {
        // Removed first, so that the next client opens the stored blob or starts a new download.
        self.cache.downloads().remove(&self.partial.digest);
        self.partial.set_result(result);
    }
}

impl Drop for DownloadGuard {
    fn drop(&mut self) {
        let mut downloads = self.cache.downloads();
        if downloads.get(&self.partial.digest).is_some_and(|partial| Arc::ptr_eq(partial, &self.partial)) {
            downloads.remove(&self.partial.digest);
        }
        drop(downloads);
        self.partial.set_result(Err(Error::failed("internal error: a download ended without a result")));
    }
}

/// A reader of a stored blob; its shared lock prevents eviction.
struct StoredBlobReader {
    file: File,
    at: u64,
}

impl Read for StoredBlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
