//! The state of one source's copy: what was compressed, transferred and skipped so far.

use super::convert::Packed;
use super::upload_order::UploadOrder;
use super::{Compress, Copied, Count, Options, Report, unchanged};
use crate::cancel::Cancel;
use crate::compress::layer_cache::LayerCache;
use crate::image::{Coding, Descriptor, Digest, Image};
use crate::progress::{Event, Outcome, Watch};
use crate::sink::{Sink, SinkCapabilities};
use crate::source::Store;
use crate::transfer::replay::kept_in_company;
use crate::transfer::{self, Recompress, TransferContext, Verified};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// One blob that is to be moved.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub blob: Descriptor,
    pub recode: Option<Recompress>,
    /// What packing it anew gives, where that is known.
    pub expected: Option<Packed>,
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

/// The state of one source's copy.
pub(crate) struct Run<'a> {
    pub sink: &'a dyn Sink,
    pub takes: SinkCapabilities,
    pub options: &'a Options,
    pub pairs: Option<&'a LayerCache>,
    pub watch: &'a dyn Watch,
    pub cancel: &'a Cancel,
    /// Blobs that keep their bytes; set when the images are known.
    pub(super) fixed: OnceLock<HashSet<Digest>>,
    pub passage: Arc<UploadOrder>,
    pub(super) tally: Mutex<Tally>,
    pub(super) ids: AtomicU64,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) packed: HashMap<Digest, Packed>,
    pub(super) moved: Count,
    pub(super) resumed: u64,
    pub(super) held: Count,
    pub(super) images: Vec<Copied>,
}

impl<'a> Run<'a> {
    pub(super) fn new(
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
    pub(super) fn suit(&mut self, store: &dyn Store) {
        if store.origin().is_some() {
            self.takes.compress = None;
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub(super) fn into_report(self, report: &mut Report) {
        let tally = self.tally.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        report.images.extend(tally.images);
        report.count(&Report { moved: tally.moved, resumed: tally.resumed, held: tally.held, ..Report::default() });
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
    pub(super) fn target(&self, work: &Work) -> Option<Descriptor> {
        let refused = work.recode.is_some_and(|how| self.takes.refuses.contains(&how.was));
        work.target().or_else(|| refused.then(|| work.blob.clone()))
    }

    pub(super) fn packed(&self, digest: &Digest) -> Option<Packed> {
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
            pairs.insert(&raw, recode.to, recode.level, &digest, size);
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
}
