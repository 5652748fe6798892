//! A layout as a destination.

use super::directory::{INDEX_FILE, LAYOUT_FILE, LayoutDirectory};
use super::index;
use crate::blob_files::{BlobCheck, BlobFiles, Writer, is_held, partial, temp_file};
use crate::cancel::Cancel;
use crate::disk::PARTIAL_LIFETIME;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, LayoutIndex, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::progress::Watch;
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

const LANES: usize = 4;

/// The files that are synced to the disk before an image gets its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durable {
    /// `index.json`. A crash of the host within seconds may truncate blobs; the next copy repairs them.
    #[default]
    Index,
    /// The blobs too; several times slower for large blobs.
    Blobs,
}

/// An OCI layout directory as a destination. The directory is created with the first write.
pub struct LayoutSink {
    dir: PathBuf,
    layout: OnceLock<LayoutDirectory>,
    verify: BlobCheck,
    durable: Durable,
    /// The time that partial files are kept.
    lifetime: Duration,
    /// Published and not yet in `index.json`.
    names: Mutex<Vec<Named>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// A name (`None`: only the digest) and its root.
type Named = (Option<Name>, Descriptor);

impl LayoutSink {
    /// Opens the layout in `dir` for writing; a missing one is created with the first write.
    ///
    /// Fails with `Usage` if `dir` is a file, and with `Invalid` if it has an `index.json` that is not a layout's, or a
    /// layout of an unknown version.
    pub fn open(dir: &Path, verify: BlobCheck, watch: Arc<dyn Watch>) -> Result<LayoutSink> {
        let layout = OnceLock::new();
        if let Some(found) = LayoutDirectory::open(dir)? {
            if !found.is_layout()? && found.directory.size(INDEX_FILE)?.is_some() {
                return Err(Error::invalid(format!(
                    "{} is not an OCI layout: it has an {INDEX_FILE} but no {LAYOUT_FILE}; name another directory",
                    dir.display()
                )));
            }
            found.index()?;
            layout.get_or_init(|| found);
        }
        let (durable, names, cancel) = (Durable::Index, Mutex::default(), Cancel::default());
        Ok(LayoutSink {
            dir: dir.to_owned(),
            layout,
            verify,
            durable,
            lifetime: PARTIAL_LIFETIME,
            names,
            watch,
            cancel,
        })
    }

    /// Sets the files that are synced to the disk; the default is `index.json`.
    pub fn durable(mut self, durable: Durable) -> Self {
        self.durable = durable;
        self
    }

    /// Sets how long partial files of interrupted copies are kept; the default is a week.
    pub fn keep_partials(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Stops hashing and waiting when `cancel` is raised.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Removes `name` from its image; returns whether it existed. The image's blobs stay.
    pub fn remove(&self, name: &Name) -> Result<bool> {
        let Some(layout) = self.layout.get() else { return Ok(false) };
        let mut existed = false;
        index::rewrite(layout, &*self.watch, &self.cancel, |index| existed = index.remove(name))?;
        Ok(existed)
    }

    fn names(&self) -> MutexGuard<'_, Vec<Named>> {
        self.names.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write_names(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.names());
        let Some(layout) = self.layout.get().filter(|_| !names.is_empty()) else { return Ok(()) };
        let index = if layout.is_layout()? { layout.index()? } else { None };
        let names = match index {
            Some(index) => changes(index, names),
            None => names,
        };
        if names.is_empty() {
            return Ok(());
        }
        if self.durable == Durable::Blobs {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                if let Some(blobs) = layout.blobs(algorithm)? {
                    rustix::fs::fsync(blobs.fd()).map_err(|e| Error::writing(blobs.path().display(), e.into()))?;
                }
            }
        }
        index::rewrite(layout, &*self.watch, &self.cancel, |index| index.point_all(&names))
    }

    fn layout(&self) -> Result<&LayoutDirectory> {
        if self.layout.get().is_none() {
            let made = LayoutDirectory::create(&self.dir)?;
            self.layout.get_or_init(|| made);
        }
        Ok(self.layout.get().expect("set just now"))
    }

    /// The blobs of `layout`, as this copy writes them.
    fn files<'a>(&'a self, layout: &'a LayoutDirectory) -> BlobFiles<'a> {
        let sync = self.durable == Durable::Blobs;
        BlobFiles { place: layout, verify: self.verify, sync, watch: &*self.watch, cancel: &self.cancel }
    }

    /// Opens a writer for a blob; `None` if it exists.
    pub(super) fn writer<'a>(&'a self, claim: &Claim) -> Result<Option<Writer<'a>>> {
        self.files(self.layout()?).writer(claim)
    }
}

impl Sink for LayoutSink {
    fn capabilities(&self) -> SinkCapabilities {
        SinkCapabilities {
            shape: Shape::AsFound,
            order: Order::Parallel(LANES),
            large_uploads: None,
            compress: None,
            unsupported: &[],
            unnamed_blobs: true,
            unnamed_images: true,
            needs_replay: false,
            referrers: true,
        }
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let dry_run = matches!(upcoming, Upcoming::Blobs { dry_run: true, .. });
        let blobs = upcoming.into_blobs();
        let Some(layout) = self.layout.get() else { return Ok(Missing::new(blobs)) };
        let held = |blob: &Descriptor| is_held(layout, blob, self.verify, dry_run, &self.cancel);
        Ok(Missing::new(blobs.into_iter().filter(|blob| !held(blob)).collect()))
    }

    fn tagged(&self, name: &Name) -> Result<Option<Manifest>> {
        let Some(layout) = self.layout.get() else { return Ok(None) };
        let Some(digest) = layout.index()?.and_then(|index| index.target(name)) else { return Ok(None) };
        let Some(blobs) = layout.blobs(digest.algorithm())? else { return Ok(None) };
        let Some(bytes) = blobs.read(&digest.hex(), MAX_MANIFEST_BYTES)? else { return Ok(None) };
        let claim = Descriptor::new("", digest, bytes.len() as u64);
        // A damaged one is replaced.
        Ok(Manifest::parse(bytes, &claim).ok())
    }

    fn begin<'a>(&'a self, claim: &Claim, _from: Option<&Origin>) -> Result<Begin<'a>> {
        Ok(match self.writer(claim)? {
            Some(writer) => Begin::Write(writer.boxed()),
            None => Begin::Held,
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.files(self.layout()?).put(&manifest.bytes, &manifest.digest())
    }

    /// The names are written by `finish`, or on drop, so that `index.json` is replaced once per copy.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.layout()?;
        self.names().push((name.cloned(), root.descriptor.clone()));
        Ok(())
    }

    fn finish(&self) -> Result<Finish> {
        self.write_names()?;
        if let Some(layout) = self.layout.get() {
            temp_file::sweep(&layout.directory);
            partial::remove_expired(layout, self.lifetime);
        }
        Ok(Finish::Done)
    }
}

impl Drop for LayoutSink {
    fn drop(&mut self) {
        // After an interrupted copy of several images, the complete ones get their names.
        let _ = self.write_names();
    }
}

/// The `names` that `index` does not have yet.
fn changes(index: LayoutIndex, names: Vec<Named>) -> Vec<Named> {
    let mut known: HashMap<Option<Name>, HashSet<Digest>> = HashMap::new();
    for (name, entry) in index.named().unwrap_or_default() {
        known.entry(None).or_default().insert(entry.digest);
        if name.is_some() {
            known.entry(name).or_default().insert(entry.digest);
        }
    }
    let is_new = |(name, root): &Named| match known.get(name) {
        Some(digests) => !digests.contains(&root.digest) || name.is_some() && digests.len() > 1,
        None => true,
    };
    names.into_iter().filter(is_new).collect()
}
