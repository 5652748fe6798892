//! The state of one source's copy: the layers that were recompressed, and the counts of the report.

use super::convert::RecompressedLayer;
use super::unreadable::OptionalBlobs;
use super::upload_order::UploadOrder;
use super::{Compress, Copied, Count, Options, Report, unchanged};
use crate::cancel::Cancel;
use crate::compress::layer_cache::LayerCache;
use crate::error::Result;
use crate::fanout::Subscriber;
use crate::image::{Coding, Descriptor, Digest, Image};
use crate::progress::{Event, Outcome, Watch};
use crate::sink::{Sink, SinkCapabilities};
use crate::source::Profile;
use crate::transfer::{Recompress, TransferContext, TransferSlot, TransferSlots, Verified};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// One blob to transfer.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub blob: Descriptor,
    pub recompress: Option<Recompress>,
    /// The result of the recompression, where it is known.
    pub expected: Option<RecompressedLayer>,
}

impl Work {
    /// The blob as it will be stored, where that is known.
    pub fn target(&self) -> Option<Descriptor> {
        match (self.recompress, self.expected) {
            (None, _) => Some(self.blob.clone()),
            (Some(_), Some(layer)) => Some(Descriptor { digest: layer.digest, size: layer.size, ..self.blob.clone() }),
            (Some(_), None) => None,
        }
    }
}

/// The parts that all copies to one sink share.
#[derive(Clone, Copy)]
pub(crate) struct CopyContext<'a> {
    pub sink: &'a dyn Sink,
    pub layer_cache: Option<&'a LayerCache>,
    pub watch: &'a dyn Watch,
    pub cancel: &'a Cancel,
}

/// The state of one source's copy.
pub(crate) struct CopyRun<'a> {
    pub sink: &'a dyn Sink,
    pub capabilities: SinkCapabilities,
    /// The source's.
    pub profile: Profile,
    /// Where several copies read the source.
    pub subscriber: Option<&'a Subscriber>,
    pub options: &'a Options,
    pub layer_cache: Option<&'a LayerCache>,
    pub watch: &'a dyn Watch,
    pub cancel: &'a Cancel,
    /// Blobs that keep their bytes; set when the images are known.
    pub(super) unchanged: OnceLock<HashSet<Digest>>,
    pub(super) optional: OptionalBlobs,
    pub uploads: Arc<UploadOrder>,
    pub(super) tally: Mutex<CopyTally>,
    ids: AtomicU64,
}

#[derive(Default)]
pub(super) struct CopyTally {
    pub(super) recompressed: HashMap<Digest, RecompressedLayer>,
    pub(super) transferred: Count,
    pub(super) resumed_bytes: u64,
    pub(super) existing: Count,
    pub(super) images: Vec<Copied>,
}

impl<'a> CopyRun<'a> {
    pub(super) fn new(
        context: CopyContext<'a>,
        options: &'a Options,
        profile: Profile,
        subscriber: Option<&'a Subscriber>,
    ) -> CopyRun<'a> {
        let CopyContext { sink, layer_cache, watch, cancel } = context;
        let mut capabilities = sink.capabilities();
        // An uncompressed layer in a registry was pushed like that: it keeps its digest in another registry.
        capabilities.compress = capabilities.compress.filter(|_| profile.origin.is_none());
        CopyRun {
            sink,
            capabilities,
            profile,
            subscriber,
            options,
            layer_cache,
            watch,
            cancel,
            unchanged: OnceLock::new(),
            optional: OptionalBlobs::default(),
            uploads: Arc::default(),
            tally: Mutex::default(),
            ids: AtomicU64::new(0),
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, CopyTally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn into_report(self, report: &mut Report) {
        let tally = self.tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        report.images.extend(tally.images);
        report.count(&Report {
            transferred: tally.transferred,
            resumed_bytes: tally.resumed_bytes,
            existing: tally.existing,
            ..Report::default()
        });
    }

    /// Takes note of the images to copy, before any of their layers is planned.
    pub fn note_images(&self, images: &[Image]) {
        self.tell_foreign(images);
        self.tell_artifacts(images);
        let mut unchanged = unchanged::blobs(images);
        if self.options.compress == Compress::Default && self.capabilities.referrers {
            for image in images {
                let kept = unchanged::layers_with_referrers(image, self.options.format);
                self.tell_kept(image, &kept);
                unchanged.extend(kept);
            }
        }
        let _ = self.unchanged.set(unchanged);
    }

    /// Whether `digest` is a blob of the images that keeps its bytes.
    pub fn is_unchanged(&self, digest: &Digest) -> bool {
        self.unchanged.get().is_some_and(|unchanged| unchanged.contains(digest))
    }

    /// The recompression of `layer` in this copy, if any.
    pub fn recompression(&self, layer: &Descriptor) -> Option<Recompress> {
        if self.is_unchanged(&layer.digest) { None } else { self.recompression_from(layer.coding()?) }
    }

    /// The recompression of a layer that is compressed as `was`, if any.
    pub fn recompression_from(&self, was: Coding) -> Option<Recompress> {
        let wanted = match self.options.compress {
            Compress::To(coding) => coding,
            Compress::Default if was == Coding::Raw => self.capabilities.compress.unwrap_or(was),
            Compress::Default | Compress::Keep => was,
        };
        let to = if self.capabilities.unsupported.contains(&wanted) { Coding::Raw } else { wanted };
        (to != was).then_some(Recompress { was, to, level: self.options.level })
    }

    /// The slots of the run, if other copies run at the same time.
    fn slots(&self) -> Option<&TransferSlots> {
        self.options.slots.as_ref().filter(|_| self.options.budget.is_shared() && self.subscriber.is_none())
    }

    /// Waits for the slot of a transfer, if the copies of the run share them.
    pub fn wait_for_slot(&self, stop: &AtomicBool) -> Result<Option<TransferSlot>> {
        self.slots().map(|slots| slots.wait(self.cancel, stop)).transpose()
    }

    /// The maximum number of blobs that this copy may ask for at the same time.
    pub fn max_parallel_blobs(&self) -> usize {
        let budget = self.options.budget;
        self.slots().map_or_else(|| budget.parallel_blobs(), |slots| slots.parallel_blobs(budget.copies))
    }

    /// The context of the transfer of blob `id`.
    pub fn transfer_context<'f>(&'f self, stop: &'f AtomicBool, id: u64, cores: usize) -> TransferContext<'f> {
        let budget = self.options.budget;
        TransferContext {
            watch: self.watch,
            cancel: self.cancel,
            stop,
            id,
            threads: budget.threads(cores),
            buffer_bytes: self.slots().map_or_else(|| budget.buffer_bytes(), TransferSlots::buffer_bytes),
            replay_bytes: if self.capabilities.needs_replay { budget.replay_bytes() } else { 0 },
        }
    }

    pub fn work(&self, blob: &Descriptor) -> Work {
        let recompress = self.recompression(blob);
        Work { blob: blob.clone(), recompress, expected: recompress.and_then(|_| self.recompressed(&blob.digest)) }
    }

    /// `work`'s blob as it will be stored, where that is known. For a layer that the sink cannot read it is the layer
    /// itself: the sink may have it decompressed from another source.
    pub(super) fn target(&self, work: &Work) -> Option<Descriptor> {
        let unsupported = work.recompress.is_some_and(|how| self.capabilities.unsupported.contains(&how.was));
        work.target().or_else(|| unsupported.then(|| work.blob.clone()))
    }

    pub(super) fn recompressed(&self, digest: &Digest) -> Option<RecompressedLayer> {
        self.tally().recompressed.get(digest).copied()
    }

    /// A number for a blob's events.
    pub fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts a blob that the sink has already.
    pub fn count_held(&self, id: u64, work: &Work) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Existing });
        let mut tally = self.tally();
        tally.existing.add(work.blob.size);
        if let Some(expected) = work.expected {
            tally.recompressed.insert(work.blob.digest, expected);
        }
    }

    /// Counts a blob that was transferred.
    pub fn count_moved(&self, id: u64, verified: &Verified, recompress: Option<Recompress>) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Transferred });
        let (digest, size) = verified.stored();
        if let (Some(how), Some(cache), Some(diff_id)) = (recompress, self.layer_cache, verified.diff_id()) {
            cache.insert(&diff_id, how.to, how.level, &digest, size);
        }
        let mut tally = self.tally();
        tally.transferred.add(verified.source().1 - verified.resumed());
        tally.resumed_bytes += verified.resumed();
        if let Some(how) = recompress {
            tally.recompressed.insert(verified.source().0, RecompressedLayer { digest, size, coding: how.to });
        }
    }

    /// Counts an archive that was rewritten.
    pub fn count_rewritten(&self, id: u64, bytes: u64) {
        self.watch.event(Event::BlobEnd { id, outcome: Outcome::Transferred });
        self.tally().transferred.add(bytes);
    }
}
