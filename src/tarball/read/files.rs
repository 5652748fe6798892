//! The files of a seekable archive. Compressed layers whose names are not digests are hashed.

use super::contents::{Contents, Layer, MAX_DOCUMENT_BYTES, missing};
use super::diff_id;
use super::diff_id::DiffIdHasher;
use super::table::{EntryTable, Extent};
use crate::error::{Error, Result};
use crate::image::{Coding, Digest, Hasher};
use crate::parallel;
use crate::progress::{Event, Watch};
use crate::tarball::manifest_json::blob_digest;
use crate::tarball::tar::path::shown;
use crate::tarball::tar::read_at::{ReadAt, SpanReader};
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// The buffer for hashing a layer.
const BUFFER_BYTES: usize = 256 << 10;
/// The maximum number of threads that hash layers, since each may need memory for a decompression window.
const MAX_THREADS: usize = 4;

pub(crate) struct ArchiveFiles<B> {
    bytes: B,
    table: EntryTable,
    /// The compressed layers that were hashed, with their diff IDs.
    hashed: Mutex<HashMap<Extent, (Layer, Digest)>>,
    watch: Arc<dyn Watch>,
}

impl<B: ReadAt> ArchiveFiles<B> {
    pub fn new(bytes: B, table: EntryTable, watch: Arc<dyn Watch>) -> ArchiveFiles<B> {
        ArchiveFiles { bytes, table, hashed: Mutex::default(), watch }
    }

    pub fn bytes(&self) -> &B {
        &self.bytes
    }

    /// Returns the extent of the file `name`.
    pub fn find(&self, name: &str) -> Result<Option<Extent>> {
        self.table.find(name)
    }

    /// Returns the extent of the file `name`, which must exist.
    pub fn extent(&self, name: &str) -> Result<Extent> {
        let found = self.table.find(name)?;
        found.ok_or_else(|| missing(self, name))
    }

    /// Opens a file.
    pub fn open(&self, extent: Extent) -> SpanReader<'_, B> {
        SpanReader { bytes: &self.bytes, at: extent.at, end: extent.at + extent.size }
    }

    /// Reads a small file.
    pub fn read(&self, extent: Extent) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(extent.size as usize);
        self.open(extent).read_to_end(&mut bytes).map_err(|e| Error::reading("the archive", e))?;
        Ok(bytes)
    }

    /// Hashes the compressed ones of `layers` on several threads, before `layer` needs them.
    pub fn hash_compressed(&self, layers: &[String]) -> Result<()> {
        let mut work: Vec<(Extent, &str, Coding)> = Vec::new();
        for name in layers {
            let extent = self.extent(name)?;
            let coding = self.coding(name, extent)?;
            let known = self.hashed().contains_key(&extent) || work.iter().any(|(other, ..)| *other == extent);
            if coding != Coding::Raw && !known {
                work.push((extent, name, coding));
            }
        }
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        parallel::try_map(&work, threads, |(extent, name, coding)| {
            let hashed = self.hash(name, *extent, *coding)?;
            self.hashed().insert(*extent, hashed);
            Ok(())
        })?;
        Ok(())
    }

    fn coding(&self, name: &str, extent: Extent) -> Result<Coding> {
        let head = self.read(Extent { size: extent.size.min(8), ..extent })?;
        diff_id::coding(&head).map_err(|e| e.at(shown(name)))
    }

    fn hashed(&self) -> MutexGuard<'_, HashMap<Extent, (Layer, Digest)>> {
        self.hashed.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Computes the digest and the diff ID of a compressed layer.
    fn hash(&self, name: &str, extent: Extent, coding: Coding) -> Result<(Layer, Digest)> {
        self.watch.event(Event::Detail(&format!("hashing {}, whose name is not its digest", shown(name))));
        let (mut hasher, mut diff_id) = (Hasher::default(), DiffIdHasher::new(coding)?);
        let (mut file, mut buffer) = (self.open(extent), vec![0; BUFFER_BYTES]);
        loop {
            match file.read(&mut buffer).map_err(|e| Error::reading("the archive", e))? {
                0 => break,
                n => {
                    hasher.update(&buffer[..n]);
                    diff_id.update(&buffer[..n]).map_err(|e| e.at(shown(name)))?;
                }
            }
        }
        let diff_id = diff_id.finish().map_err(|e| e.at(shown(name)))?;
        Ok((Layer { digest: hasher.finish(), size: extent.size, coding }, diff_id))
    }
}

impl<B: ReadAt> Contents for ArchiveFiles<B> {
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(extent) = self.table.find(name)? else { return Ok(None) };
        if extent.size > MAX_DOCUMENT_BYTES {
            return Err(Error::invalid(format!(
                "{} has {} bytes, more than the {MAX_DOCUMENT_BYTES} allowed",
                shown(name),
                extent.size
            )));
        }
        self.read(extent).map(Some)
    }

    fn has_backslashes(&self) -> bool {
        self.table.has_backslashes()
    }

    fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.table.find(name)?.map(|extent| extent.size))
    }

    fn layer(&self, name: &str, diff_id: &Digest) -> Result<Layer> {
        let extent = self.extent(name)?;
        let coding = self.coding(name, extent)?;
        if coding == Coding::Raw {
            return Ok(Layer { digest: *diff_id, size: extent.size, coding });
        }
        let known = self.hashed().get(&extent).copied();
        let (layer, found) = match known {
            Some(known) => known,
            None => self.hash(name, extent, coding)?,
        };
        diff_id::check(name, &found, diff_id)?;
        // If the name is a digest, that must match too.
        match blob_digest(name) {
            Some(named) if named != layer.digest => Err(Error::invalid(format!(
                "{} does not match the digest in its name: got {}",
                shown(name),
                layer.digest
            ))),
            _ => Ok(layer),
        }
    }
}
