//! A layout as a destination.

use super::directory::{INDEX_FILE, LAYOUT_FILE, Place};
use super::index;
use super::partial;
use super::partial::Partial;
use super::temp_file;
use super::temp_file::TempFile;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::image::{Algorithm, Descriptor, Digest, Hasher, LayoutIndex, Manifest, Name};
use crate::progress::Watch;
use crate::sink::{Begin, Finish, Missing, Order, Shape, Sink, SinkCapabilities, Upcoming};
use crate::source::{Claim, Origin};
use crate::transfer::BlobWriter;
use crate::transfer::Verified;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// A blob from this size on, in bytes, is kept as a partial when its copy is cut.
const KEPT: u64 = 256 << 10;
const LANES: usize = 4;
/// Of what a cut copy left.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const BUFFER: usize = 256 << 10;

/// What makes a blob that is there already be taken for the right one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verify {
    /// Its size.
    #[default]
    Size,
    /// Its digest: it is read and hashed.
    Digest,
}

/// What is on the disk, and not only on its way there, when an image has its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durable {
    /// `index.json`. A crash of the machine within seconds may leave blobs short, which the next copy mends.
    #[default]
    Index,
    /// The blobs too; several times slower for large ones.
    Blobs,
}

/// An OCI layout directory that images are written to. Nothing is made before there is something to write.
pub struct LayoutSink {
    dir: PathBuf,
    place: OnceLock<Place>,
    verify: Verify,
    durable: Durable,
    /// Of partials.
    life: Duration,
    /// Given and not written down yet.
    names: Mutex<Vec<Named>>,
    watch: Arc<dyn Watch>,
    cancel: Cancel,
}

/// A name (none: only the digest) and what it is to point at.
type Named = (Option<Name>, Descriptor);

impl LayoutSink {
    /// A sink that adds to the layout in `dir`, which is made when the first blob comes if there is none.
    ///
    /// Fails with `Usage` where `dir` is a file, and with `Invalid` where it holds an `index.json` that is no
    /// layout's or a layout of an unknown version.
    pub fn open(dir: &Path, verify: Verify, watch: Arc<dyn Watch>) -> Result<LayoutSink> {
        let place = OnceLock::new();
        if let Some(found) = Place::open(dir)? {
            if !found.is_layout()? && found.folder.size(INDEX_FILE)?.is_some() {
                return Err(Error::invalid(format!(
                    "{} has an {INDEX_FILE} but no {LAYOUT_FILE}, so it is no OCI layout and is left alone; name \
                     another directory",
                    dir.display()
                )));
            }
            found.index()?;
            place.get_or_init(|| found);
        }
        let (durable, names, cancel) = (Durable::Index, Mutex::default(), Cancel::default());
        Ok(LayoutSink { dir: dir.to_owned(), place, verify, durable, life: LIFE, names, watch, cancel })
    }

    pub fn durable(mut self, durable: Durable) -> Self {
        self.durable = durable;
        self
    }

    /// How long what a cut copy left is kept for the next one; a week unless told otherwise.
    pub fn keep_partials(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// Stops long hashing and waiting when `cancel` is raised.
    pub fn cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    /// Takes `name` off the image that has it; says whether there was one. The image's blobs stay.
    pub fn remove(&self, name: &Name) -> Result<bool> {
        let Some(place) = self.place.get() else { return Ok(false) };
        let mut was_there = false;
        index::rewrite(place, &*self.watch, &self.cancel, |index| was_there = index.remove(name))?;
        Ok(was_there)
    }

    fn names(&self) -> MutexGuard<'_, Vec<Named>> {
        self.names.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write_names(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.names());
        let Some(place) = self.place.get().filter(|_| !names.is_empty()) else { return Ok(()) };
        let index = if place.is_layout()? { place.index()? } else { None };
        let names = match index {
            Some(index) => news(index, names),
            None => names,
        };
        if names.is_empty() {
            return Ok(());
        }
        if self.durable == Durable::Blobs {
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                if let Some(blobs) = place.blobs(algorithm)? {
                    rustix::fs::fsync(blobs.fd()).map_err(|e| Error::writing(blobs.path().display(), e.into()))?;
                }
            }
        }
        index::rewrite(place, &*self.watch, &self.cancel, |index| index.point_all(&names))
    }

    fn place(&self) -> Result<&Place> {
        if self.place.get().is_none() {
            let made = Place::create(&self.dir)?;
            self.place.get_or_init(|| made);
        }
        Ok(self.place.get().expect("set just now"))
    }

    /// Whether a blob of `size` bytes (none: any) lies under `digest`.
    fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        let found = self.place.get().and_then(|place| place.size(digest).ok().flatten());
        found.is_some_and(|found| size.is_none_or(|size| size == found))
    }

    fn hash(&self, place: &Place, digest: &Digest) -> Result<Option<Digest>> {
        let Ok(Some(mut file)) = place.blob(digest) else { return Ok(None) };
        let mut hasher = Hasher::new(digest.algorithm());
        let mut buffer = vec![0; BUFFER];
        loop {
            self.cancel.check()?;
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Some(hasher.finish())),
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // A bad sector, say: what cannot be read is to be written anew.
                Err(_) => return Ok(None),
            }
        }
    }

    /// Where a blob is to be written; `None` where it is there.
    pub(super) fn writer<'a>(&'a self, claim: &Claim) -> Result<Option<Writer<'a>>> {
        let place = self.place()?;
        let sync = self.durable == Durable::Blobs;
        if let Some(digest) = &claim.digest {
            if self.has(digest, claim.size) && self.trusts(place, digest)? {
                return Ok(None);
            }
            if let Some(size) = claim.size.filter(|size| *size >= KEPT)
                && let Some(partial) = Partial::take_up(place, (*digest, size), &*self.watch, &self.cancel)
            {
                return Ok(partial.synced(sync).settle()?.map(Writer::Partial));
            }
        }
        Ok(Some(Writer::Whole(Whole::new(place, sync)?)))
    }

    /// Whether the blob `digest` is stored and has that digest.
    fn is_right(&self, digest: &Digest) -> bool {
        self.place.get().is_some_and(|place| matches!(self.hash(place, digest), Ok(Some(found)) if found == *digest))
    }

    /// Whether the blob that lies under `digest` is to be taken for the right one.
    fn trusts(&self, place: &Place, digest: &Digest) -> Result<bool> {
        if self.verify == Verify::Size {
            return Ok(true);
        }
        let right = self.hash(place, digest)? == Some(*digest);
        if !right {
            self.watch.say(&format!("blob {digest} in {} is damaged and is replaced", place.shown()));
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
        }
    }

    fn missing(&self, upcoming: Upcoming<'_>) -> Result<Missing> {
        let dry_run = matches!(upcoming, Upcoming::Blobs { dry_run: true, .. });
        let held = |blob: &Descriptor| match self.verify {
            Verify::Size => self.has(&blob.digest, Some(blob.size)),
            // `begin` answers, and several threads hash there.
            Verify::Digest => dry_run && self.is_right(&blob.digest),
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
        let place = self.place()?;
        let digest = manifest.digest();
        let there = match self.has(&digest, Some(manifest.descriptor.size)) {
            true => place.make_blobs(digest.algorithm())?.read(&digest.hex(), manifest.descriptor.size)?,
            false => None,
        };
        if there.as_ref() == Some(&manifest.bytes) {
            return Ok(());
        }
        let mut whole = Whole::new(place, self.durable == Durable::Blobs)?;
        whole.write(&manifest.bytes)?;
        whole.keep(&digest)
    }

    /// Written down at `finish`, or when this is dropped: `index.json` is replaced once, however many names come.
    fn publish(&self, name: Option<&Name>, root: &Manifest) -> Result<()> {
        self.place()?;
        self.names().push((name.cloned(), root.descriptor.clone()));
        Ok(())
    }

    fn finish(&self) -> Result<Finish> {
        self.write_names()?;
        if let Some(place) = self.place.get() {
            temp_file::sweep(&place.folder);
            partial::sweep(place, self.life);
        }
        Ok(Finish::Done)
    }
}

impl Drop for LayoutSink {
    fn drop(&mut self) {
        // A copy of several images was cut: those that were whole by then have their names.
        let _ = self.write_names();
    }
}

/// What of `names` an index does not say yet.
fn news(index: LayoutIndex, names: Vec<Named>) -> Vec<Named> {
    let mut said: HashMap<Option<Name>, HashSet<Digest>> = HashMap::new();
    for (name, entry) in index.named().unwrap_or_default() {
        said.entry(None).or_default().insert(entry.digest);
        if name.is_some() {
            said.entry(name).or_default().insert(entry.digest);
        }
    }
    let is_new = |(name, root): &Named| match said.get(name) {
        Some(digests) => !digests.contains(&root.digest) || name.is_some() && digests.len() > 1,
        None => true,
    };
    names.into_iter().filter(is_new).collect()
}

/// How a blob is written.
pub(super) enum Writer<'s> {
    Partial(Partial<'s>),
    Whole(Whole<'s>),
}

impl<'s> Writer<'s> {
    /// The file that its bytes go to, under whatever name.
    pub fn file(&self) -> &File {
        match self {
            Writer::Partial(partial) => partial.file(),
            Writer::Whole(whole) => &whole.draft.file,
        }
    }

    pub fn boxed(self) -> Box<dyn BlobWriter + 's> {
        match self {
            Writer::Partial(partial) => Box::new(partial),
            Writer::Whole(whole) => Box::new(whole),
        }
    }
}

/// A blob that is written in one go: a small one, one whose digest is not known, or one that another process has
/// the partial of.
pub(super) struct Whole<'s> {
    place: &'s Place,
    draft: TempFile<'s>,
    sync: bool,
}

impl<'s> Whole<'s> {
    pub fn new(place: &'s Place, sync: bool) -> Result<Whole<'s>> {
        let draft = TempFile::new(&place.folder).map_err(|e| Error::writing(place.shown(), e))?;
        Ok(Whole { place, draft, sync })
    }

    pub fn keep(&mut self, digest: &Digest) -> Result<()> {
        let unwritten = |e| Error::writing(format!("blob {digest} in {}", self.place.shown()), e);
        if self.sync {
            self.draft.file.sync_all().map_err(unwritten)?;
        }
        let blobs = self.place.make_blobs(digest.algorithm())?;
        self.draft.keep(blobs, &digest.hex()).map_err(unwritten)
    }
}

impl BlobWriter for Whole<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.draft.file.write_all(bytes).map_err(|e| Error::writing(self.place.shown(), e))
    }

    fn commit(&mut self, blob: &Verified) -> Result<()> {
        self.keep(&blob.stored().0)
    }
}
