//! A copy from a store: plan, find what the sink is missing, transfer that, publish.

use super::convert::{Format, RecompressedLayer};
use super::parallel::BlobSource;
use super::run::{CopyRun, Work};
use super::{Count, attach, parallel, plan};
use crate::error::{Error, Result};
use crate::image::{Body, Coding, Descriptor, Digest, Image, Name};
use crate::progress::Event;
use crate::sink::{Missing, Upcoming};
use crate::source::Store;
use crate::source::attached::no_image_message;
use std::borrow::Cow;
use std::collections::HashSet;

impl CopyRun<'_> {
    pub(super) fn copy_store(&self, store: &dyn Store) -> Result<()> {
        let (roots, belonging) = self.split_attached(store, store.roots(&self.options.selectors)?)?;
        let originals = attach::originals(&roots);
        let mut images = plan::images(store, roots, &self.options.plan_options(), &self.capabilities, self.watch)?;
        self.fail_if_empty(&images, store)?;
        self.attach(store, &originals, &mut images)?;
        self.add_unattached(store, belonging, &mut images)?;
        self.note_images(&images);
        self.tell_broken_links(store, &images)?;
        self.tell_synthesised(&images);
        self.look_up_layers(&images);
        self.drop_unattachable(&mut images)?;
        let (current, images) = self.split_current(images)?;
        self.report_current(current);
        let (work, resume_first) = self.missing(&images, store)?;
        self.announce(&images, &work);
        self.note_optional(&images);
        if self.options.dry_run {
            work.iter().for_each(|work| self.tally().transferred.add(work.blob.size));
            images.iter().for_each(|image| self.report_image(image, image.source_digest));
            return Ok(());
        }
        parallel::transfer_all(self, BlobSource { store, images: &images }, work, resume_first)?;
        self.publish(&images)
    }

    /// Fails with `NotFound` for a source without any image, and for an index that lists none.
    pub fn fail_if_empty(&self, images: &[Image], store: &dyn Store) -> Result<()> {
        let lists_nothing = |image: &&Image| matches!(&image.root().body, Body::Index { manifests, blobs } if manifests.is_empty() && blobs.is_empty());
        let why = match images.iter().find(lists_nothing) {
            _ if self.options.allow_empty => return Ok(()),
            Some(image) => {
                let name = image.names.first().map_or_else(|| image.root().digest().to_string(), Name::to_string);
                format!("{name} is an index that lists no image")
            }
            None if images.is_empty() => no_image_message(store),
            None => return Ok(()),
        };
        Err(Error::not_found(format!("{why}; nothing of it was copied (--allow-empty accepts that)")))
    }

    /// Looks up, in the layer cache, uncompressed layers that will be compressed.
    fn look_up_layers(&self, images: &[Image]) {
        let Some(cache) = self.layer_cache else { return };
        for blob in images.iter().flat_map(Image::blobs) {
            let Some(how) = self.recompression(blob).filter(|how| how.was == Coding::Raw) else { continue };
            if let Some((digest, size)) = cache.find(&blob.digest, how.to, how.level) {
                let layer = RecompressedLayer { digest, size, coding: how.to };
                self.tally().recompressed.insert(blob.digest, layer);
            }
        }
    }

    /// The blobs that the sink does not have, and the one that has to be sent first; the others are counted as held.
    fn missing(&self, images: &[Image], store: &dyn Store) -> Result<(Vec<Work>, Option<Digest>)> {
        let all: Vec<Work> = distinct_blobs(images).map(|blob| self.work(blob)).collect();
        self.tell_recompression(&all);
        let blobs = all.iter().filter_map(|work| self.target(work)).collect();
        let (images, dry_run) = (&*self.as_stored(images), self.options.dry_run);
        let upcoming = Upcoming::Blobs { images, blobs, source: store, dry_run };
        let Missing { blobs, resume_first } = self.sink.missing(upcoming)?;
        let missing: HashSet<Digest> = blobs.into_iter().map(|blob| blob.digest).collect();
        let is_missing = |work: &Work| self.target(work).is_none_or(|target| missing.contains(&target.digest));
        let (work, held): (Vec<Work>, Vec<Work>) = all.into_iter().partition(is_missing);
        held.iter().for_each(|work| self.tally().existing.add(work.blob.size));
        let Count { blobs: existing_blobs, bytes: existing_bytes } = self.tally().existing;
        let (blobs, bytes) = (work.len(), work.iter().map(|work| work.blob.size).sum());
        self.watch.event(Event::Plan { blobs, bytes, existing_blobs, existing_bytes });
        Ok((work, resume_first))
    }

    /// Announces `work`, blobs of `images`, to the other copies that read the source.
    fn announce(&self, images: &[Image], work: &[Work]) {
        let Some(subscriber) = self.subscriber else { return };
        let all: Vec<Digest> = distinct_blobs(images).map(|blob| blob.digest).collect();
        subscriber.announce(&all, work.iter().map(|work| work.blob.digest));
    }

    /// `images` as they will be at the sink, as far as that is known before their layers are recompressed.
    fn as_stored<'i>(&self, images: &'i [Image]) -> Cow<'i, [Image]> {
        if self.options.format == Format::Keep && self.tally().recompressed.is_empty() {
            return Cow::Borrowed(images);
        }
        images.iter().map(|image| self.converted(image).unwrap_or_else(|_| image.clone())).collect()
    }
}

/// The blobs of `images`, each once.
pub(super) fn distinct_blobs(images: &[Image]) -> impl Iterator<Item = &Descriptor> {
    let mut seen = HashSet::new();
    images.iter().flat_map(Image::blobs).filter(move |blob| seen.insert(blob.digest))
}
