//! What every member wants to know before it plans: the images, their manifests and configs, asked for once.

use crate::error::{Error, Kind, Result};
use crate::image::{Descriptor, Digest, Hasher};
use crate::source::{Root, Selector, Store};
use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, Mutex, MutexGuard},
};

/// Bytes of manifests kept, at most.
const KEPT: usize = 8 << 20;
/// The same of blobs.
const KEPT_BLOBS: u64 = 4 << 20;
/// What is asked for before any plan is a config; a larger one is not kept.
pub(super) const CONFIG: u64 = 1 << 20;
/// A blob so small is kept always.
pub(super) const TINY: u64 = 32 << 10;

#[derive(Default)]
pub(super) struct Documents {
    roots: Mutex<HashMap<String, Result<Vec<Root>>>>,
    manifests: Mutex<HashMap<Digest, Result<Arc<[u8]>>>>,
    blobs: Mutex<Blobs>,
}

#[derive(Default)]
struct Blobs {
    slots: HashMap<Digest, Slot>,
    /// In bytes.
    held: u64,
}

type Slot = Arc<Mutex<Option<Arc<[u8]>>>>;

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(|e| e.into_inner())
}

/// Whether the same question will have the same answer: a line that broke may be whole again for the next who asks.
fn lasts<T>(answer: &Result<T>) -> bool {
    answer.as_ref().err().is_none_or(|error| error.kind() == Kind::NotFound)
}

impl Documents {
    pub fn roots(&self, store: &dyn Store, picks: &[Selector]) -> Result<Vec<Root>> {
        let asked: Vec<String> = picks.iter().map(Selector::to_string).collect();
        // Held while asking, so that the others wait for this answer.
        let mut roots = lock(&self.roots);
        if let Some(known) = roots.get(&asked.join("\n")) {
            return known.clone();
        }
        let found = store.roots(picks);
        if lasts(&found) {
            roots.insert(asked.join("\n"), found.clone());
        }
        found
    }

    pub fn manifest(&self, store: &dyn Store, at: &Descriptor) -> Result<Vec<u8>> {
        // Held while asking, so that the others wait for this answer.
        let mut manifests = lock(&self.manifests);
        if let Some(known) = manifests.get(&at.digest) {
            return known.clone().map(|bytes| bytes.to_vec());
        }
        let bytes = store.manifest(at);
        let held: usize = manifests.values().flatten().map(|bytes| bytes.len()).sum();
        match &bytes {
            Ok(bytes) if held + bytes.len() <= KEPT => drop(manifests.insert(at.digest, Ok(bytes.as_slice().into()))),
            Ok(_) => {}
            Err(error) if lasts(&bytes) => drop(manifests.insert(at.digest, Err(error.clone()))),
            Err(_) => {}
        }
        bytes
    }

    /// A blob of at most `largest` bytes, asked for once and kept where it is what it should be; `None`: it is to be
    /// opened as any other.
    pub fn small(&self, store: &dyn Store, blob: &Descriptor, largest: u64) -> Result<Option<Arc<[u8]>>> {
        if blob.size > largest {
            return Ok(None);
        }
        let slot = {
            let mut blobs = lock(&self.blobs);
            if !blobs.slots.contains_key(&blob.digest) && blobs.held + blob.size > KEPT_BLOBS {
                return Ok(None);
            }
            blobs.slots.entry(blob.digest).or_default().clone()
        };
        // Held while asking, so that the others wait for this answer.
        let mut known = lock(&slot);
        if let Some(known) = &*known {
            return Ok(Some(known.clone()));
        }
        let mut bytes = Vec::new();
        store.open(blob, 0)?.take(blob.size + 1).read_to_end(&mut bytes).map_err(Error::from)?;
        let right = Hasher::new(blob.digest.algorithm()).with(&bytes).finish() == blob.digest;
        let bytes: Arc<[u8]> = bytes.into();
        if right {
            lock(&self.blobs).held += blob.size;
            *known = Some(bytes.clone());
        }
        Ok(Some(bytes))
    }
}
