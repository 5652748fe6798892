//! What a mirror keeps: a layout that blobs are filled into when they are asked for, and what upstream's tags pointed at
//! when it was asked last.

use super::download::{Around, Ended, Fill, PartialBlob};
use super::evict::Budget;
use super::pool::Pool;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Name};
use crate::serve::backend::catalog::as_manifest;
use crate::serve::backend::reload::Live;
use crate::source::Store;
use crate::transport::layout::{LayoutCache, LayoutStore};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// In bytes: smaller blobs do not wait behind larger ones.
const SMALL: u64 = 4 << 20;
/// Fills of one kind at once. A large one holds some 2 MiB.
const AT_ONCE: usize = 12;

/// Fills under way, small ones apart.
#[derive(Clone)]
pub struct Pools {
    small: Arc<Pool>,
    large: Arc<Pool>,
}

impl Default for Pools {
    fn default() -> Pools {
        Pools { small: Pool::new(AT_ONCE), large: Pool::new(AT_ONCE) }
    }
}

impl Pools {
    fn of(&self, size: u64) -> &Arc<Pool> {
        if size < SMALL { &self.small } else { &self.large }
    }

    /// Waits until no fill is under way, but no longer than `patience`.
    pub fn rest(&self, patience: Duration) {
        self.small.rest(patience);
        self.large.rest(patience);
    }
}

/// A layout, and what is on its way into it.
pub struct Cache {
    layout: Arc<LayoutCache>,
    names: Live<HashMap<Name, Descriptor>>,
    filling: Mutex<HashMap<Digest, Arc<PartialBlob>>>,
    pools: Pools,
    budget: Arc<Budget>,
    /// Ends fills.
    cancel: Cancel,
}

impl Cache {
    pub fn new(layout: Arc<LayoutCache>, budget: Arc<Budget>, pools: Pools, cancel: &Cancel) -> Cache {
        let named = layout.clone();
        let names = Live::following(layout.dir().join("index.json"), Duration::ZERO, move || named.names());
        Cache { layout, names, filling: Mutex::default(), pools, budget, cancel: cancel.clone() }
    }

    /// The manifest under `digest`, checked.
    pub fn manifest(&self, digest: &Digest) -> Result<Option<Manifest>> {
        let Some(bytes) = self.layout.manifest(digest)? else { return Ok(None) };
        let claim = Descriptor::new("", *digest, bytes.len() as u64);
        Ok(as_manifest(bytes, &claim))
    }

    pub fn has(&self, digest: &Digest) -> bool {
        matches!(self.layout.size(digest), Ok(Some(_)))
    }

    pub fn keep(&self, manifest: &Manifest) -> Result<()> {
        self.layout.put_manifest(manifest)
    }

    /// Remembers that `name` is `manifest`.
    pub fn name(&self, name: &Name, manifest: &Manifest) -> Result<()> {
        match self.last(name)? {
            Some(known) if known.digest == manifest.digest() => Ok(()),
            _ => self.layout.name(name, manifest),
        }
    }

    /// Remembers that there is no `name` any more.
    pub fn forget(&self, name: &Name) -> Result<()> {
        match self.last(name)? {
            Some(_) => self.layout.remove_name(name),
            None => Ok(()),
        }
    }

    /// What `name` was when it was asked for last.
    pub fn last(&self, name: &Name) -> Result<Option<Descriptor>> {
        Ok(self.names.now()?.get(name).cloned())
    }

    /// Every name that is remembered.
    pub fn names(&self) -> Result<Vec<Name>> {
        Ok(self.names.now()?.keys().cloned().collect())
    }

    /// What refers to `subject`, of what is here.
    pub fn referrers(&self, subject: &Digest) -> Result<Vec<Descriptor>> {
        LayoutStore::open(self.layout.dir())?.referrers(subject)
    }

    /// Size in bytes of a blob that is here.
    pub fn blob(&self, digest: &Digest) -> Result<Option<u64>> {
        self.layout.size(digest)
    }

    /// Size in bytes of a blob that is on its way here.
    pub fn coming(&self, digest: &Digest) -> Option<u64> {
        self.filling().get(digest).map(|growing| growing.size)
    }

    /// A blob that is here.
    pub fn open(&self, digest: &Digest, size: u64, from: u64) -> Result<Option<Box<dyn Read + Send>>> {
        let Some(file) = self.layout.read(digest)? else { return Ok(None) };
        let found = file.metadata().map_err(|e| Error::reading(digest, e))?.len();
        Ok((found == size).then(|| Box::new(Kept { file, at: from }) as Box<dyn Read + Send>))
    }

    /// A blob that is here or is fetched from `source`, together with everybody else who wants it.
    pub fn fetch(
        self: &Arc<Cache>,
        (digest, size): (Digest, u64),
        from: u64,
        source: impl FnOnce() -> Result<(Arc<dyn Store>, Ended)>,
        around: Around,
    ) -> Result<Box<dyn Read + Send>> {
        if let Some(bytes) = self.open(&digest, size, from)? {
            return Ok(bytes);
        }
        let growing = {
            let mut filling = self.filling();
            match filling.get(&digest) {
                Some(growing) => growing.clone(),
                None => {
                    // It may have come to its end meanwhile.
                    if let Some(bytes) = self.open(&digest, size, from)? {
                        return Ok(bytes);
                    }
                    let (source, ended) = source()?;
                    let growing = Arc::new(PartialBlob::new(digest, size));
                    filling.insert(digest, growing.clone());
                    drop(filling);
                    self.begin(growing.clone(), source, ended);
                    growing
                }
            }
        };
        growing.read(from, around)
    }

    fn begin(self: &Arc<Cache>, growing: Arc<PartialBlob>, source: Arc<dyn Store>, ended: Ended) {
        let ending = Ending { cache: self.clone(), growing: growing.clone() };
        let (layout, budget, cancel) = (self.layout.clone(), self.budget.clone(), self.cancel.clone());
        let fill = Fill { growing, layout, budget, source, cancel, ended };
        self.pools.of(ending.growing.size).run(move || ending.end(fill.run()));
    }

    fn filling(&self) -> MutexGuard<'_, HashMap<Digest, Arc<PartialBlob>>> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells a fill's clients that it has ended, however it has.
struct Ending {
    cache: Arc<Cache>,
    growing: Arc<PartialBlob>,
}

impl Ending {
    fn end(self, ended: Result<()>) {
        // First: who comes now finds the blob, or begins anew.
        self.cache.filling().remove(&self.growing.digest);
        self.growing.end(ended);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut filling = self.cache.filling();
        if filling.get(&self.growing.digest).is_some_and(|growing| Arc::ptr_eq(growing, &self.growing)) {
            filling.remove(&self.growing.digest);
        }
        drop(filling);
        self.growing.end(Err(Error::failed("a fill was lost")));
    }
}

/// A blob that stays while it is read.
struct Kept {
    file: File,
    at: u64,
}

impl Read for Kept {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
