//! The images, their manifests and configs, which every subscriber needs for its plan: read once.

use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Hasher};
use crate::source::{Root, Selector, Store};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, MutexGuard},
};

/// Manifests are stored up to this size together.
const MAX_MANIFESTS_BYTES: usize = 8 << 20;
/// The same for small blobs.
const MAX_BLOBS_BYTES: u64 = 4 << 20;
/// Blobs that are opened before the plan are configs; larger ones are not stored.
pub(super) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Blobs up to this size are always stored.
pub(super) const MAX_TINY_BLOB_BYTES: u64 = 32 << 10;

#[derive(Default)]
pub(super) struct Documents {
    roots: Mutex<HashMap<String, Result<Vec<Root>>>>,
    manifests: Mutex<HashMap<Digest, Result<Arc<[u8]>>>>,
    blobs: Mutex<Blobs>,
}

#[derive(Default)]
struct Blobs {
    slots: HashMap<Digest, Slot>,
    /// The size of all stored blobs.
    bytes: u64,
}

type Slot = Arc<Mutex<Option<Arc<[u8]>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Whether a second request would have the same result. A broken connection may work for the next subscriber.
fn is_final<T>(result: &Result<T>) -> bool {
    result.as_ref().err().is_none_or(|error| error.kind() == Kind::NotFound)
}

impl Documents {
    pub fn roots(&self, store: &dyn Store, selectors: &[Selector]) -> Result<Vec<Root>> {
        let asked: Vec<String> = selectors.iter().map(Selector::to_string).collect();
        // The lock is held during the request, so that the other subscribers wait for its result.
        let mut roots = lock(&self.roots);
        if let Some(known) = roots.get(&asked.join("\n")) {
            return known.clone();
        }
        let found = store.roots(selectors);
        if is_final(&found) {
            roots.insert(asked.join("\n"), found.clone());
        }
        found
    }

    pub fn manifest(&self, store: &dyn Store, at: &Descriptor) -> Result<Vec<u8>> {
        // The lock is held during the request, so that the other subscribers wait for its result.
        let mut manifests = lock(&self.manifests);
        if let Some(known) = manifests.get(&at.digest) {
            return known.clone().map(|bytes| bytes.to_vec());
        }
        let bytes = store.manifest(at);
        let stored: usize = manifests.values().flatten().map(|bytes| bytes.len()).sum();
        match &bytes {
            Ok(bytes) if stored + bytes.len() <= MAX_MANIFESTS_BYTES => {
                drop(manifests.insert(at.digest, Ok(bytes.as_slice().into())))
            }
            Ok(_) => {}
            Err(error) if is_final(&bytes) => drop(manifests.insert(at.digest, Err(error.clone()))),
            Err(_) => {}
        }
        bytes
    }

    /// A blob of at most `limit` bytes, read once and stored where its digest is right; `None` for a blob that is to be
    /// opened like any other.
    pub fn small(&self, store: &dyn Store, blob: &Descriptor, limit: u64) -> Result<Option<Arc<[u8]>>> {
        if blob.size > limit {
            return Ok(None);
        }
        let slot = {
            let mut blobs = lock(&self.blobs);
            if !blobs.slots.contains_key(&blob.digest) && blobs.bytes + blob.size > MAX_BLOBS_BYTES {
                return Ok(None);
            }
            blobs.slots.entry(blob.digest).or_default().clone()
        };
        // The lock is held during the request, so that the other subscribers wait for its result.
        let mut known = lock(&slot);
        if let Some(known) = &*known {
            return Ok(Some(known.clone()));
        }
        let mut bytes = Vec::new();
        store.open(blob, 0)?.take(blob.size + 1).read_to_end(&mut bytes).map_err(Error::from)?;
        let right = Hasher::new(blob.digest.algorithm()).with(&bytes).finish() == blob.digest;
        let bytes: Arc<[u8]> = bytes.into();
        if right {
            lock(&self.blobs).bytes += blob.size;
            *known = Some(bytes.clone());
        }
        Ok(Some(bytes))
    }
}
