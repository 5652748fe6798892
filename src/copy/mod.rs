//! The engine: plan, find what is missing, transfer, publish. It never names a transport.
//!
//! `plan` chooses manifests, platforms and names; `convert` rewrites manifests for another format; `parallel` transfers
//! the blobs of a store, several at once, in the order of `upload_order` where the sink keeps only finished blobs;
//! `prefetch` reads ahead for a sink that takes one blob at a time; `stream` transfers the blobs of an archive that is
//! read once, and its manifests after them; `compress_slots` bounds the layers that are recompressed at once.
//!
//! **Names.** A name may hold a digest. `plan` splits `NAME:TAG@DIGEST` into the two names that containerd keeps, puts
//! tags first, and drops a name whose digest is not the digest of its image; `convert` does the same where a conversion
//! changes the root. So a sink may trust a name by digest. Two roots with one name are listed, and `plan` refuses them.
//!
//! **Indexes.** A registry or an archive gets the whole index, or the subset that the source has. A layout gets the
//! index as it is, with as much below it as the source has. An engine gets the index as it is with its own platform
//! below it, as after its own pull (the index's digest is what a pod asks for), or the image of that platform where the
//! engine does not know indexes. `plan/subset.rs` has these rules and `--sparse`, which changes them.
//!
//! **Only container images are converted** (`unchanged.rs`): a manifest with an image's config type, without a subject
//! and without another `artifactType`, whose layers have an image's types. All other content keeps its bytes. A stream
//! is compressed before its manifests arrive; if a blob then belongs to an artifact, nothing is published.
//!
//! **Nondistributable layers** are copied where the source has them, and only they may be missing; their `urls` decide
//! nothing. `--foreign fetch` downloads them from the hosts that the image's author named.
//!
//! **Blob data is not fsynced** by default, as in every peer; `index.json` and auth files are. After a power cut the
//! next copy replaces a blob of the wrong size, and `imgmv verify` reads everything.

pub(crate) mod compress_slots;
pub mod convert;
mod notices;
mod options;
pub(crate) mod parallel;
pub mod plan;
pub(crate) mod prefetch;
pub(crate) mod stream;
pub(crate) mod unchanged;
pub(crate) mod upload_order;

use crate::cancel::Cancel;
use crate::compress::layer_cache::LayerCache;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::image::{Body, Coding, Descriptor, Digest, Name, Platform};
use crate::progress::{Event, Outcome, Watch};
use crate::sink::{Finish, Sink, SinkCapabilities};
use crate::source::{Source, Store};
use crate::transfer;
use crate::transfer::replay::kept_in_company;
use crate::transfer::{Recompress, TransferContext, Verified};
use convert::{Format, Packed};
use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use upload_order::UploadOrder;

pub use options::{Compress, Options};
pub use plan::{Foreign, Naming, Platforms, Sparse};

/// What a copy did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub images: Vec<Copied>,
    /// Blobs that were read and written, in the source's bytes.
    pub moved: Count,
    /// Bytes of those that an earlier run had left there; they are not among `moved`'s.
    pub resumed: u64,
    /// Blobs that were there already.
    pub held: Count,
    pub dry_run: bool,
}

impl Report {
    /// Adds what another copy moved and found.
    pub fn count(&mut self, other: &Report) {
        for (sum, count) in [(&mut self.moved, other.moved), (&mut self.held, other.held)] {
            sum.blobs += count.blobs;
            sum.bytes += count.bytes;
        }
        self.resumed += other.resumed;
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub blobs: usize,
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.blobs += 1;
        self.bytes += bytes;
    }
}

/// One image that is there now.
#[derive(Debug, Clone)]
pub struct Copied {
    pub names: Vec<Name>,
    /// Of the manifest or index at the destination.
    pub digest: Digest,
    pub media_type: String,
    /// Of the manifest or index at the source; another than `digest` where something was converted.
    pub source_digest: Digest,
    /// Of an index: the platforms that came along.
    pub platforms: Vec<Platform>,
}

/// Copies what `options` select of `source` to `sink`.
///
/// `pairs` is the cache of recompressed layers, `watch` receives the events. Fails with the [`crate::Kind`] of the first
/// error; then no name was published.
///
/// ```
/// use imgmv::cancel::Cancel;
/// use imgmv::copy::{Options, copy};
/// use imgmv::progress::Silent;
/// use imgmv::source::Source;
/// use imgmv::tarball::{ArchiveStore, Section};
/// use imgmv::transport::layout::{LayoutSink, Verify};
/// use std::{fs::File, sync::Arc};
///
/// let file = File::open("fixtures/hello-docker20.tar").unwrap();
/// let archive = ArchiveStore::open(Section::new(file, 0).unwrap(), "hello.tar", Arc::new(Silent))?;
/// let folder = tempfile::tempdir().unwrap();
/// let layout = LayoutSink::open(folder.path(), Verify::default(), Arc::new(Silent))?;
/// let source = Source::Store(Arc::new(archive));
/// let report = copy(source, &layout, &Options::default(), None, &Silent, &Cancel::default())?;
/// assert_eq!(report.images.len(), 1);
/// assert!(folder.path().join("index.json").is_file());
/// # Ok::<(), imgmv::Error>(())
/// ```
pub fn copy(
    source: Source,
    sink: &dyn Sink,
    options: &Options,
    pairs: Option<&LayerCache>,
    watch: &dyn Watch,
    cancel: &Cancel,
) -> Result<Report> {
    copy_all(vec![(source, options.clone())], sink, pairs, watch, cancel)
}

/// Copies from several sources to one sink, which is finished once.
///
/// A sink that could not verify a delta is sent everything once more; that needs sources that can be read again.
pub fn copy_all(
    jobs: Vec<(Source, Options)>,
    sink: &dyn Sink,
    pairs: Option<&LayerCache>,
    watch: &dyn Watch,
    cancel: &Cancel,
) -> Result<Report> {
    all(jobs, sink, pairs, watch, cancel).inspect_err(|why| sink.aborted(why))
}

fn all(
    jobs: Vec<(Source, Options)>,
    sink: &dyn Sink,
    pairs: Option<&LayerCache>,
    watch: &dyn Watch,
    cancel: &Cancel,
) -> Result<Report> {
    let mut stores: Vec<(Arc<dyn Store>, Options)> = Vec::new();
    let mut report = Report::default();
    let mut streamed = false;
    for (source, options) in jobs {
        let mut run = Run::new(sink, &options, pairs, watch, cancel);
        report.dry_run |= options.dry_run;
        match source {
            Source::Store(store) => {
                run.suit(&*store);
                run.copy_store(&store)?;
                stores.push((store, options.clone()));
            }
            Source::Stream(stream) => {
                streamed = true;
                stream::copy_stream(&run, stream)?;
            }
        }
        run.into_report(&mut report);
    }
    if report.dry_run {
        return Ok(report);
    }
    let Finish::SendAll(why) = sink.finish()? else { return Ok(report) };
    if streamed {
        return Err(Error::far_side(format!(
            "{why}; the source has passed and cannot be sent again, run it once more"
        )));
    }
    watch.say(&format!("{why}; sending everything"));
    let mut report = Report::default();
    for (store, options) in &stores {
        let mut run = Run::new(sink, options, pairs, watch, cancel);
        run.suit(&**store);
        run.copy_store(store)?;
        run.into_report(&mut report);
    }
    match sink.finish()? {
        Finish::Done => Ok(report),
        Finish::SendAll(why) => Err(Error::far_side(format!("{why}, although everything was sent"))),
    }
}

/// One blob that is to be moved.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub blob: Descriptor,
    pub recode: Option<Recompress>,
    /// What packing it anew gives, where that is known.
    pub expected: Option<Packed>,
}

/// The state of one source's copy.
pub(crate) struct Run<'a> {
    pub sink: &'a dyn Sink,
    pub takes: SinkCapabilities,
    pub options: &'a Options,
    pub pairs: Option<&'a LayerCache>,
    pub watch: &'a dyn Watch,
    pub cancel: &'a Cancel,
    /// Blobs that keep their bytes; set when the images are known.
    fixed: OnceLock<HashSet<Digest>>,
    pub passage: Arc<UploadOrder>,
    tally: Mutex<Tally>,
    ids: AtomicU64,
}

#[derive(Default)]
struct Tally {
    packed: HashMap<Digest, Packed>,
    moved: Count,
    resumed: u64,
    held: Count,
    images: Vec<Copied>,
}

impl<'a> Run<'a> {
    fn new(
        sink: &'a dyn Sink,
        options: &'a Options,
        pairs: Option<&'a LayerCache>,
        watch: &'a dyn Watch,
        cancel: &'a Cancel,
    ) -> Run<'a> {
        let (fixed, tally, ids) = (OnceLock::new(), Mutex::default(), AtomicU64::new(0));
        let passage = Arc::default();
        Run { sink, takes: sink.takes(), options, pairs, watch, cancel, fixed, passage, tally, ids }
    }

    /// What lies raw in a registry was put there like that: it keeps its digest on the way to another.
    fn suit(&mut self, store: &dyn Store) {
        if store.origin().is_some() {
            self.takes.compress = None;
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn into_report(self, report: &mut Report) {
        let tally = self.tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        report.images.extend(tally.images);
        report.count(&Report { moved: tally.moved, resumed: tally.resumed, held: tally.held, ..Report::default() });
    }

    fn copy_store(&self, store: &Arc<dyn Store>) -> Result<()> {
        let roots = store.roots(&self.options.picks)?;
        let images = plan::images(&**store, roots, &self.options.wish(), &self.takes, self.watch)?;
        self.some(&**store, &images)?;
        self.know(&images);
        self.recall(&images);
        let (current, images) = self.current(images)?;
        self.settle_current(current);
        let work = self.missing(&images, &**store)?;
        let mut seen = HashSet::new();
        let all = images.iter().flat_map(Image::blobs).map(|blob| blob.digest);
        let all: Vec<Digest> = all.filter(|digest| seen.insert(*digest)).collect();
        store.expect(&all, &mut work.iter().map(|work| work.blob.digest));
        if self.options.dry_run {
            work.iter().for_each(|work| self.tally().moved.add(work.blob.size));
            images.iter().for_each(|image| self.settled(image, image.source_digest));
            return Ok(());
        }
        parallel::transfer_all(self, &**store, work)?;
        self.settle(&images)
    }

    /// Fails with `NotFound` where there is nothing to copy: no image, or an index that lists none.
    pub fn some(&self, store: &dyn Store, images: &[Image]) -> Result<()> {
        let hollow = |image: &&Image| matches!(&image.root().body, Body::Index { manifests, blobs } if manifests.is_empty() && blobs.is_empty());
        let why = match images.iter().find(hollow) {
            _ if self.options.allow_empty => return Ok(()),
            None if !images.is_empty() => return Ok(()),
            None => store.nothing(),
            Some(image) => {
                let digest = image.root().digest().to_string();
                let name = image.names.first().map_or(&*digest, Name::as_str);
                format!("{name} is an index that lists no image")
            }
        };
        Err(Error::not_found(format!("{why}; nothing was copied (--allow-empty makes that no error)")))
    }

    /// Hears what is copied, before any layer of it is looked at.
    pub fn know(&self, images: &[Image]) {
        self.tell_foreign(images);
        self.tell_artifacts(images);
        let _ = self.fixed.set(unchanged::blobs(images));
    }

    /// How `layer` is to be packed anew here, if it is.
    pub fn recode(&self, layer: &Descriptor) -> Option<Recompress> {
        if self.fixed.get().is_some_and(|fixed| fixed.contains(&layer.digest)) {
            return None;
        }
        self.recode_from(layer.coding()?)
    }

    /// How a layer that is compressed as `was` is to be packed anew here, if it is.
    pub fn recode_from(&self, was: Coding) -> Option<Recompress> {
        let wanted = match self.options.compress {
            Compress::To(coding) => coding,
            Compress::Default if was == Coding::Raw => self.takes.compress.unwrap_or(was),
            Compress::Default | Compress::Keep => was,
        };
        let to = if self.takes.refuses.contains(&wanted) { Coding::Raw } else { wanted };
        (to != was).then_some(Recompress { was, to, level: self.options.level })
    }

    /// Looks up what is known of raw layers that will be packed.
    fn recall(&self, images: &[Image]) {
        let Some(pairs) = self.pairs else { return };
        for blob in images.iter().flat_map(Image::blobs) {
            let Some(recode) = self.recode(blob).filter(|recode| recode.was == Coding::Raw) else {
                continue;
            };
            if let Some((digest, size)) = pairs.find(&blob.digest, recode.to, recode.level) {
                self.tally().packed.insert(blob.digest, Packed { digest, size, coding: recode.to });
            }
        }
    }

    /// Splits off the images of which every name points at the right thing there already.
    fn current(&self, images: Vec<Image>) -> Result<(Vec<Image>, Vec<Image>)> {
        let (mut current, mut others) = (Vec::new(), Vec::new());
        for image in images {
            let known = image.blobs().all(|blob| self.recode(blob).is_none() || self.packed(&blob.digest).is_some());
            let mut same = known && !image.names.is_empty();
            if same {
                let made = self.converted(&image)?;
                same = !made.names.is_empty();
                for name in &made.names {
                    same = same && self.sink.published(name)? == Some(made.root().digest());
                }
            }
            if same { current.push(image) } else { others.push(image) }
        }
        Ok((current, others))
    }

    fn settle_current(&self, images: Vec<Image>) {
        let mut seen = HashSet::new();
        for image in images {
            image.blobs().filter(|blob| seen.insert(blob.digest)).for_each(|blob| self.tally().held.add(blob.size));
            if let Ok(made) = self.converted(&image) {
                self.watch.event(Event::Detail(&format!("{} is there already", made.root().digest())));
                self.settled(&made, image.source_digest);
            }
        }
    }

    /// What the sink lacks, as work; the rest is counted as held.
    fn missing(&self, images: &[Image], store: &dyn Store) -> Result<Vec<Work>> {
        let mut seen = HashSet::new();
        let blobs: Vec<&Descriptor> =
            images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)).collect();
        let all: Vec<Work> = blobs.into_iter().map(|blob| self.work(blob)).collect();
        self.tell_packing(&all);
        let ask: Vec<Descriptor> = all.iter().filter_map(|work| self.target(work)).collect();
        let lacking = self.sink.missing(&self.expected_diff_ids(images), ask, store)?;
        let lacking: HashSet<Digest> = lacking.into_iter().map(|blob| blob.digest).collect();
        let mut work = Vec::new();
        for one in all {
            let known = self.target(&one).map(|target| target.digest);
            let mut held = known.is_some_and(|digest| !lacking.contains(&digest));
            if self.options.dry_run && !held {
                held = known.is_some_and(|digest| self.sink.holds(&digest).unwrap_or(false));
            }
            if held { self.tally().held.add(one.blob.size) } else { work.push(one) }
        }
        let held = self.tally().held;
        let bytes = work.iter().map(|work| work.blob.size).sum();
        self.watch.event(Event::Plan { blobs: work.len(), bytes, held_blobs: held.blobs, held_bytes: held.bytes });
        Ok(work)
    }

    /// `images` as they will be at the sink, as far as that is known before their layers are packed.
    fn expected_diff_ids<'i>(&self, images: &'i [Image]) -> Cow<'i, [Image]> {
        if self.options.format == Format::Keep && self.tally().packed.is_empty() {
            return Cow::Borrowed(images);
        }
        images.iter().map(|image| self.converted(image).unwrap_or_else(|_| image.clone())).collect()
    }

    /// The way of the blob `id`.
    pub fn flow<'f>(&'f self, stop: &'f AtomicBool, id: u64, threads: usize) -> TransferContext<'f> {
        let company = self.options.company;
        let (buffer, recent) = (transfer::buffer_in_company(company), kept_in_company(company));
        let threads = (threads / company.max(1)).max(1);
        TransferContext { watch: self.watch, cancel: self.cancel, stop, id, threads, buffer, recent }
    }

    pub fn work(&self, blob: &Descriptor) -> Work {
        let recode = self.recode(blob);
        Work { blob: blob.clone(), recode, expected: recode.and_then(|_| self.packed(&blob.digest)) }
    }

    /// `work`'s blob as it will be stored, if that is known. A layer that the sink cannot read is not stored as it is;
    /// but the sink may have it from elsewhere, unpacked.
    fn target(&self, work: &Work) -> Option<Descriptor> {
        let refused = work.recode.is_some_and(|how| self.takes.refuses.contains(&how.was));
        work.target().or_else(|| refused.then(|| work.blob.clone()))
    }

    fn packed(&self, digest: &Digest) -> Option<Packed> {
        self.tally().packed.get(digest).copied()
    }

    /// A number for a blob's events.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes down that a blob was there.
    pub fn held(&self, id: u64, work: &Work) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Held });
        let mut tally = self.tally();
        tally.held.add(work.blob.size);
        if let Some(expected) = work.expected {
            tally.packed.insert(work.blob.digest, expected);
        }
    }

    /// Writes down that a blob was moved.
    pub fn moved(&self, id: u64, verified: &Verified, recode: Option<Recompress>) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Moved });
        let (digest, size) = verified.stored();
        if let (Some(recode), Some(pairs), Some(raw)) = (recode, self.pairs, verified.raw()) {
            pairs.remember(&raw, recode.to, recode.level, &digest, size);
        }
        let mut tally = self.tally();
        tally.moved.add(verified.source().1 - verified.resumed());
        tally.resumed += verified.resumed();
        if let Some(recode) = recode {
            tally.packed.insert(verified.source().0, Packed { digest, size, coding: recode.to });
        }
    }

    /// Writes down that a whole archive was passed on.
    pub fn relayed(&self, id: u64, bytes: u64) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Moved });
        self.tally().moved.add(bytes);
    }

    /// A blob that was packed anew unseen (from a stream) has to be a layer of a container image wherever it is listed.
    pub fn check_packed(&self) -> Result<()> {
        let fixed = self.fixed.get().into_iter().flatten();
        match fixed.into_iter().find(|digest| self.packed(digest).is_some()) {
            Some(digest) => Err(Error::usage(format!(
                "blob {digest} passed as if it were an image's layer and was compressed, but an artifact names it as it \
                 is; nothing was published; use --compress keep, or save the archive to a file first"
            ))),
            None => Ok(()),
        }
    }

    /// `image` as it is to be at the sink.
    fn converted(&self, image: &Image) -> Result<Image> {
        convert::image(image, &self.tally().packed, self.options.format)
    }

    /// Manifests, children first, then names: every blob is there.
    pub fn settle(&self, images: &[Image]) -> Result<()> {
        for image in images {
            self.cancel.check()?;
            let made = self.converted(image)?;
            if made.root().digest() != image.root().digest() {
                let (was, now) = (image.root().digest(), made.root().digest());
                self.watch.say(&format!("{was} became {now} there, since its layers or types were converted"));
            }
            for manifest in &made.tree {
                self.sink.put_manifest(manifest)?;
            }
            if made.names.is_empty() {
                self.sink.publish(None, made.root())?;
            }
            for name in &made.names {
                self.sink.publish(Some(name), made.root())?;
            }
            self.settled(&made, image.source_digest);
        }
        Ok(())
    }

    pub fn settled(&self, image: &Image, source_digest: Digest) {
        let root = image.root();
        self.tally().images.push(Copied {
            names: image.names.clone(),
            digest: root.digest(),
            media_type: root.descriptor.media_type.clone(),
            source_digest,
            platforms: image.platforms(),
        });
    }
}

impl Work {
    /// The blob as it will be stored, if that is known.
    pub fn target(&self) -> Option<Descriptor> {
        match (self.recode, self.expected) {
            (None, _) => Some(self.blob.clone()),
            (Some(_), Some(packed)) => {
                Some(Descriptor { digest: packed.digest, size: packed.size, ..self.blob.clone() })
            }
            (Some(_), None) => None,
        }
    }
}
