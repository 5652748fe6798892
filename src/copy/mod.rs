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
mod publish;
mod pull;
mod report;
mod run;
pub(crate) mod stream;
pub(crate) mod unchanged;
pub(crate) mod upload_order;

use crate::cancel::Cancel;
use crate::compress::layer_cache::LayerCache;
use crate::error::{Error, Result};
use crate::progress::Watch;
use crate::sink::{Finish, Sink};
use crate::source::{Source, Store};
use std::sync::Arc;

pub use options::{Compress, Options};
pub use plan::{Foreign, Naming, Platforms, Sparse};
pub use report::{Copied, Count, Report};
pub(crate) use run::{Run, Work};

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
        return Err(Error::remote_host(format!(
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
        Finish::SendAll(why) => Err(Error::remote_host(format!("{why}, although everything was sent"))),
    }
}
