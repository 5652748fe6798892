//! A layout as a destination.

use super::directory::{INDEX_FILE, LAYOUT_FILE, LayoutDirectory};
use super::index;
use super::partial;
use super::partial::Partial;
use super::temp_file;
use super::temp_file::TempFile;
use crate::cancel::Cancel;
use crate::disk::PARTIAL_LIFETIME;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, Hasher, LayoutIndex, Manifest, Name};
use crate::progress::Watch;
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::transfer::{BlobWriter, Verified, longer_than_announced, not_announced};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Blobs of at least this size are written to a partial file, which an interrupted copy keeps.
const MIN_PARTIAL_BYTES: u64 = 256 << 10;
const LANES: usize = 4;
const BUFFER_BYTES: usize = 256 << 10;

/// How an existing blob is checked before it is skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlobCheck {
    /// By its size.
    #[default]
    Size,
    /// By its digest: the blob is read and hashed.
    Digest,
}

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

    /// Whether the blob `digest` exists, with `size` bytes if given.
    fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        let found = self.layout.get().and_then(|layout| layout.size(digest).ok().flatten());
        found.is_some_and(|found| size.is_none_or(|size| size == found))
    }

    fn hash(&self, layout: &LayoutDirectory, digest: &Digest) -> Result<Option<Digest>> {
        let Ok(Some(mut file)) = layout.blob(digest) else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            self.cancel.check()?;
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Some(hasher.finish())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // An unreadable blob (a bad sector) is written again.
                Err(_) => return Ok(None),
            }
        }
    }

    /// Opens a writer for a blob; `None` if it exists.
    pub(super) fn writer<'a>(&'a self, claim: &Claim) -> Result<Option<Writer<'a>>> {
        let layout = self.layout()?;
        let sync = self.durable == Durable::Blobs;
        if let Some(digest) = &claim.digest {
            if self.has(digest, claim.size) && self.trusts(layout, digest)? {
                return Ok(None);
            }
            if let Some(size) = claim.size.filter(|size| *size >= MIN_PARTIAL_BYTES)
                && let Some(partial) = Partial::open_or_create(layout, (*digest, size), &*self.watch, &self.cancel)
            {
                return Ok(partial.with_sync(sync).finish_if_complete()?.map(Writer::Partial));
            }
        }
        Ok(Some(Writer::TempFile(TempFileWriter::new(layout, sync)?.announced(claim))))
    }

    /// Whether the blob `digest` is stored and has that digest.
    fn is_right(&self, digest: &Digest) -> bool {
        self.layout.get().is_some_and(|layout| matches!(self.hash(layout, digest), Ok(Some(found)) if found == *digest))
    }

    /// Whether the existing blob `digest` passes the check of [`BlobCheck`].
    fn trusts(&self, layout: &LayoutDirectory, digest: &Digest) -> Result<bool> {
        if self.verify == BlobCheck::Size {
            return Ok(true);
        }
        let right = self.hash(layout, digest)? == Some(*digest);
        if !right {
            self.watch.say(&format!("blob {digest} in {} is damaged; replacing it", layout.describe()));
        }
        Ok(right)
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
        let held = |blob: &Descriptor| match self.verify {
            BlobCheck::Size => self.has(&blob.digest, Some(blob.size)),
            // `begin` checks the blobs, since several lanes hash in parallel.
            BlobCheck::Digest => dry_run && self.is_right(&blob.digest),
        };
        Ok(Missing::new(upcoming.into_blobs().into_iter().filter(|blob| !held(blob)).collect()))
    }

    fn begin<'a>(&'a self, claim: &Claim, _from: Option<&Origin>) -> Result<Begin<'a>> {
        Ok(match self.writer(claim)? {
            Some(writer) => Begin::Write(writer.boxed()),
            None => Begin::Held,
        })
    }

    fn put_manifest(&self, manifest: &Manifest) -> Result<()> {
        let layout = self.layout()?;
        let digest = manifest.digest();
        let stored = match self.has(&digest, Some(manifest.descriptor.size)) {
            true => layout.make_blobs(digest.algorithm())?.read(&digest.hex(), manifest.descriptor.size)?,
            false => None,
        };
        if stored.as_ref() == Some(&manifest.bytes) {
            return Ok(());
        }
        let mut writer = TempFileWriter::new(layout, self.durable == Durable::Blobs)?;
        writer.write(&manifest.bytes)?;
        writer.commit_as(&digest)
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

/// The writer of a blob.
pub(super) enum Writer<'s> {
    Partial(Partial<'s>),
    TempFile(TempFileWriter<'s>),
}

impl<'s> Writer<'s> {
    /// The file that gets the bytes.
    pub fn file(&self) -> &File {
        match self {
            Writer::Partial(partial) => partial.file(),
            Writer::TempFile(writer) => &writer.temp.file,
        }
    }

    pub fn boxed(self) -> Box<dyn BlobWriter + 's> {
        match self {
            Writer::Partial(partial) => Box::new(partial),
            Writer::TempFile(writer) => Box::new(writer),
        }
    }
}

/// Writes a blob to a temporary file, which does not survive an interruption: a small blob, a blob without a known
/// digest, or a blob whose partial file another process has locked.
pub(super) struct TempFileWriter<'s> {
    layout: &'s LayoutDirectory,
    temp: TempFile<'s>,
    sync: bool,
    claim: Claim,
    /// In bytes.
    written: u64,
}

impl<'s> TempFileWriter<'s> {
    pub fn new(layout: &'s LayoutDirectory, sync: bool) -> Result<TempFileWriter<'s>> {
        let temp = TempFile::new(&layout.directory).map_err(|e| Error::writing(layout.describe(), e))?;
        Ok(TempFileWriter { layout, temp, sync, claim: Claim::default(), written: 0 })
    }

    /// Refuses bytes that are not those of `claim`.
    fn announced(self, claim: &Claim) -> TempFileWriter<'s> {
        TempFileWriter { claim: claim.clone(), ..self }
    }

    /// Renames the file to the blob `digest`.
    pub fn commit_as(&mut self, digest: &Digest) -> Result<()> {
        let unwritten = |e| Error::writing(format!("blob {digest} in {}", self.layout.describe()), e);
        if self.sync {
            self.temp.file.sync_all().map_err(unwritten)?;
        }
        let blobs = self.layout.make_blobs(digest.algorithm())?;
        self.temp.persist(blobs, &digest.hex()).map_err(unwritten)
    }
}

impl BlobWriter for TempFileWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.claim.size.is_some_and(|size| self.written > size) {
            return Err(longer_than_announced(&self.claim));
        }
        self.temp.file.write_all(bytes).map_err(|e| Error::writing(self.layout.describe(), e))
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        let (digest, size) = blob.stored();
        let Claim { digest: announced, size: announced_size } = self.claim;
        if announced.is_some_and(|announced| announced != digest)
            || announced_size.is_some_and(|announced| announced != size)
            || self.written != size
        {
            return Err(not_announced(&digest));
        }
        self.commit_as(&digest)
    }
}
