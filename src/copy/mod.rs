//! The copy: plan, find what is missing, transfer, publish. It never names a transport.
//!
//! `plan` chooses manifests, platforms and names; `convert` rewrites manifests for another format; `parallel` transfers
//! the blobs of a store, several at once, in the order of `upload_order` where the sink keeps only finished blobs;
//! `prefetch` reads ahead for a sink that takes one blob at a time; `stream` transfers the blobs of an archive that is
//! read once, and its manifests after them, and `rewrite` one whose layers' digests come too late for the sink;
//! `attach` finds what belongs to an image (referrers, cosign's tags), which is stored after the image and before its
//! names, `belonging` leaves out what belongs to other digests than the sink gets, and `unreadable` what the source cannot
//! give; `tagged` decides which of cosign's tags the sink keeps; `current` finds the images that the sink has already;
//! `compress_slots` limits the layers that are recompressed at once.
//!
//! **Names.** A name may hold a digest. `plan` splits `NAME:TAG@DIGEST` into the two names that containerd keeps, puts
//! tags first, and drops a name whose digest is not the digest of its image; `convert` does the same where a conversion
//! changes the root. So a sink may trust a name by digest. Two roots with one name are listed, and `plan` refuses them.
//!
//! **Indexes.** A layout and a registry get the index as it is, with as much below it as the source has or the user
//! selects, so that its digest and its signatures stay valid; a registry that refuses missing children gets a smaller
//! index. An archive gets a smaller index, and the bytes of the index itself for a later copy. An engine gets the index
//! as it is with its own platform below it, as after its own pull (the index's digest is what a pod asks for), or the
//! image of that platform where the engine does not know indexes. `plan/subset.rs` has these rules and `--sparse`, which
//! changes them.
//!
//! **Only container images are converted** (`unchanged.rs`): a manifest with an image's config type, without a subject
//! and without another `artifactType`, whose layers have an image's types. All other content keeps its bytes. A stream
//! is compressed before its manifests arrive; `ahead` decides which of its blobs are layers.
//!
//! **Nondistributable layers** are copied where the source has them, and only they may be missing; their `urls` decide
//! nothing. `--foreign fetch` downloads them from the hosts that the image's author named.
//!
//! **Blob data is not fsynced** by default, as in every peer; `index.json` and auth files are. After a power cut the
//! next copy replaces a blob of the wrong size, and `imgmv verify` reads everything.

mod ahead;
mod attach;
mod belonging;
pub(crate) mod compress_slots;
pub mod convert;
mod current;
mod notices;
mod options;
pub(crate) mod parallel;
pub mod plan;
pub(crate) mod prefetch;
mod publish;
mod pull;
mod report;
mod rewrite;
mod run;
mod source;
pub(crate) mod stream;
mod tagged;
pub(crate) mod unchanged;
mod unreadable;
pub(crate) mod upload_order;

use crate::cancel::Cancel;
use crate::compress::layer_cache::LayerCache;
use crate::error::{Error, Result};
use crate::fanout::Subscriber;
use crate::progress::Watch;
use crate::sink::{Finish, Sink};
use crate::source::{Profile, Store};
use crate::tarball::ArchiveStream;
use std::sync::Arc;

pub use options::{Compress, Options, Referrers};
pub use plan::{Foreign, Naming, Platforms, Sparse};
pub use report::{Copied, Count, Report};
pub(crate) use run::{CopyContext, CopyRun, Work};
pub use source::Source;

/// Copies what `options` select of `source` to `sink`.
///
/// Fails with the [`crate::Kind`] of the first error; then no name was published.
///
/// ```
/// use imgmv::{Cancel, Options, Silent, copy, open_sink, open_source};
/// use std::sync::Arc;
///
/// let directory = tempfile::tempdir().unwrap();
/// let (watch, cancel) = (Arc::new(Silent), Cancel::default());
/// let (source, options) = open_source("fixtures/hello-docker20.tar", watch.clone(), &cancel)?;
/// let (sink, naming) = open_sink(&format!("oci:{}:hello", directory.path().display()), watch, &cancel)?;
/// let report = copy(source, &*sink, &Options { naming, ..options }, None, &Silent, &cancel)?;
/// assert_eq!(report.images.len(), 1);
/// assert!(directory.path().join("index.json").is_file());
/// # Ok::<(), imgmv::Error>(())
/// ```
pub fn copy(
    source: Source,
    sink: &dyn Sink,
    options: &Options,
    layer_cache: Option<&LayerCache>,
    watch: &dyn Watch,
    cancel: &Cancel,
) -> Result<Report> {
    copy_all(vec![(source, options.clone())], sink, layer_cache, watch, cancel)
}

/// Copies from several sources to one sink, which is finished once.
///
/// A sink that could not verify a delta is sent everything once more; that needs sources that can be read again.
pub fn copy_all(
    jobs: Vec<(Source, Options)>,
    sink: &dyn Sink,
    layer_cache: Option<&LayerCache>,
    watch: &dyn Watch,
    cancel: &Cancel,
) -> Result<Report> {
    all(jobs, CopyContext { sink, layer_cache, watch, cancel }).inspect_err(|why| sink.aborted(why))
}

fn all(jobs: Vec<(Source, Options)>, context: CopyContext<'_>) -> Result<Report> {
    let mut report = Report::default();
    let (mut stores, mut streamed) = (Vec::new(), false);
    for (source, options) in jobs {
        report.dry_run |= options.dry_run;
        let job = match source {
            Source::Store(store) => StoreJob { store, subscriber: None, options },
            Source::Shared(shared) => StoreJob { store: shared.clone(), subscriber: Some(shared), options },
            Source::Stream(stream) => {
                streamed = true;
                let run = CopyRun::new(context, &options, Profile::default(), None);
                copy_stream(&run, *stream)?;
                run.into_report(&mut report);
                continue;
            }
        };
        job.copy(context, &mut report)?;
        stores.push(job);
    }
    if report.dry_run {
        return Ok(report);
    }
    let Finish::SendAll(why) = context.sink.finish()? else { return Ok(report) };
    if streamed {
        return Err(Error::remote_host(format!(
            "{why}; the source is a stream and cannot be read again; run the copy again"
        )));
    }
    context.watch.say(&format!("{why}; sending everything"));
    let mut report = Report::default();
    stores.iter().try_for_each(|job| job.copy(context, &mut report))?;
    match context.sink.finish()? {
        Finish::Done => Ok(report),
        Finish::SendAll(why) => Err(Error::remote_host(format!("{why}, although everything was sent"))),
    }
}

/// A source that can be read again, and how it is copied.
struct StoreJob {
    store: Arc<dyn Store>,
    subscriber: Option<Arc<Subscriber>>,
    options: Options,
}

impl StoreJob {
    fn copy(&self, context: CopyContext<'_>, report: &mut Report) -> Result<()> {
        let run = CopyRun::new(context, &self.options, self.store.profile(), self.subscriber.as_deref());
        run.copy_store(&*self.store)?;
        run.into_report(report);
        Ok(())
    }
}

/// Copies the images of an archive that is read once, or rewrites the archive in its own form where its digests come
/// too late for the sink.
fn copy_stream(run: &CopyRun<'_>, mut stream: ArchiveStream) -> Result<()> {
    if run.options.dry_run {
        return Err(Error::usage(
            "--dry-run needs to know the images before their bytes, and SRC is a stream; save it to a plain .tar first",
        ));
    }
    match stream.digests_known()? || run.capabilities.unnamed_blobs {
        true => stream::copy(run, stream),
        false => rewrite::rewrite(run, stream),
    }
}
