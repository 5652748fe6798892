//! The files of a seekable archive, read in place; packed layers hashed where the archive does not name them by
//! digest.

use super::contents::{Contents, Layer, MAX_DOCUMENT, missing};
use super::diff_id;
use super::diff_id::Unpacked;
use super::table::{Place, Table};
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::progress::{Event, Watch};
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::path::shown;
use crate::tarball::tar::read_at::{ReadAt, Span};
use std::{
    collections::HashMap,
    io::Read,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Bytes read at once where a layer is hashed.
const BUFFER: usize = 256 << 10;
/// Layers hashed at once, at most: each may need a window of its packing's size.
const MAX_LANES: usize = 4;

pub(crate) struct Files<B> {
    bytes: B,
    table: Table,
    /// What packed layers are, as they lie there and unpacked.
    hashed: Mutex<HashMap<Place, (Layer, Digest)>>,
    watch: Arc<dyn Watch>,
}

impl<B: ReadAt> Files<B> {
    pub fn new(bytes: B, table: Table, watch: Arc<dyn Watch>) -> Files<B> {
        Files { bytes, table, hashed: Mutex::default(), watch }
    }

    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// Where the file `name` lies.
    pub fn find(&self, name: &str) -> Result<Option<Place>> {
        self.table.find(name)
    }

    /// Where the file `name` lies, which `manifest.json` says is there.
    pub fn place(&self, name: &str) -> Result<Place> {
        let found = self.table.find(name)?;
        found.ok_or_else(|| missing(self, name))
    }

    pub fn span(&self, place: Place) -> Span<'_, B> {
        Span { bytes: &self.bytes, at: place.at, end: place.at + place.size }
    }

    /// A small file's bytes.
    pub fn whole(&self, place: Place) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(place.size as usize);
        self.span(place).read_to_end(&mut bytes).map_err(|e| Error::reading("the archive", e))?;
        Ok(bytes)
    }

    /// Hashes those of `layers` that are packed, on several threads, so that `layer` knows them.
    pub fn hash_packed(&self, layers: &[String]) -> Result<()> {
        let mut work: Vec<(Place, &str, Coding)> = Vec::new();
        for name in layers {
            let place = self.place(name)?;
            let coding = self.coding(name, place)?;
            let known = self.hashed().contains_key(&place) || work.iter().any(|(other, ..)| *other == place);
            if coding != Coding::Raw && !known {
                work.push((place, name, coding));
            }
        }
        let next = AtomicUsize::new(0);
        let lane = || -> Result<()> {
            while let Some((place, name, coding)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                let hashed = self.hash(name, *place, *coding)?;
                self.hashed().insert(*place, hashed);
            }
            Ok(())
        };
        let lanes = thread::available_parallelism().map_or(1, usize::from).min(MAX_LANES).min(work.len());
        thread::scope(|scope| {
            let others: Vec<_> = (1..lanes).map(|_| scope.spawn(lane)).collect();
            let mut done = lane();
            for other in others {
                done = done.and(other.join().map_err(|_| Error::failed("a hashing thread panicked"))?);
            }
            done
        })
    }

    fn coding(&self, name: &str, place: Place) -> Result<Coding> {
        let head = self.whole(Place { size: place.size.min(8), ..place })?;
        diff_id::coding(&head).map_err(|e| e.at(shown(name)))
    }

    fn hashed(&self) -> MutexGuard<'_, HashMap<Place, (Layer, Digest)>> {
        self.hashed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Hashes a packed layer, as it lies there and unpacked.
    fn hash(&self, name: &str, place: Place, coding: Coding) -> Result<(Layer, Digest)> {
        self.watch.event(Event::Detail(&format!("hashing {}, which the archive does not name by digest", shown(name))));
        let (mut packed, mut unpacked) = (Hasher::default(), Unpacked::new(coding)?);
        let (mut span, mut buffer) = (self.span(place), vec![0; BUFFER]);
        loop {
            match span.read(&mut buffer).map_err(|e| Error::reading("the archive", e))? {
                0 => break,
                n => {
                    packed.update(&buffer[..n]);
                    unpacked.update(&buffer[..n]).map_err(|e| e.at(shown(name)))?;
                }
            }
        }
        let raw = unpacked.finish().map_err(|e| e.at(shown(name)))?;
        Ok((Layer { digest: packed.finish(), size: place.size, coding }, raw))
    }
}

impl<B: ReadAt> Contents for Files<B> {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(place) = self.table.find(name)? else { return Ok(None) };
        if place.size > MAX_DOCUMENT {
            return Err(Error::invalid(format!(
                "{} has {} bytes, more than the {MAX_DOCUMENT} allowed",
                shown(name),
                place.size
            )));
        }
        self.whole(place).map(Some)
    }

    fn has_backslashes(&self) -> bool {
        self.table.has_backslashes()
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.table.find(name)?.map(|place| place.size))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer> {
        let place = self.place(name)?;
        let coding = self.coding(name, place)?;
        if coding == Coding::Raw {
            return Ok(Layer { digest: *diff_id, size: place.size, coding });
        }
        let known = self.hashed().get(&place).copied();
        let (layer, raw) = match known {
            Some(known) => known,
            None => self.hash(name, place, coding)?,
        };
        diff_id::agree(name, &raw, diff_id)?;
        // A layer under the name of a digest has to be what that says, too.
        match blob_digest(name) {
            Some(named) if named != layer.digest => {
                Err(Error::invalid(format!("{} is not the blob that its name says: got {}", shown(name), layer.digest)))
            }
            _ => Ok(layer),
        }
    }
}
