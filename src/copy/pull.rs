//! A copy from a store: plan, find what the sink is missing, transfer that, publish.

use super::convert::{Format, Packed};
use super::run::{Run, Work};
use super::{parallel, plan};
use crate::error::{Error, Result};
use crate::image::{Body, Coding, Descriptor, Digest, Image, Name};
use crate::progress::Event;
use crate::sink::{Missing, Upcoming};
use crate::source::Store;
use std::borrow::Cow;
use std::collections::HashSet;

impl Run<'_> {
    pub(super) fn copy_store(&self, store: &dyn Store) -> Result<()> {
        let roots = store.roots(&self.options.picks)?;
        let images = plan::images(store, roots, &self.options.wish(), &self.capabilities, self.watch)?;
        self.some(&images, &self.profile.empty_message)?;
        self.know(&images);
        self.recall(&images);
        let (current, images) = self.current(images)?;
        self.settle_current(current);
        let (work, resume_first) = self.missing(&images, store)?;
        let mut seen = HashSet::new();
        let all = images.iter().flat_map(Image::blobs).map(|blob| blob.digest);
        let all: Vec<Digest> = all.filter(|digest| seen.insert(*digest)).collect();
        if let Some(subscriber) = self.subscriber {
            subscriber.announce(&all, work.iter().map(|work| work.blob.digest));
        }
        if self.options.dry_run {
            work.iter().for_each(|work| self.tally().moved.add(work.blob.size));
            images.iter().for_each(|image| self.settled(image, image.source_digest));
            return Ok(());
        }
        parallel::transfer_all(self, store, work, resume_first)?;
        self.settle(&images)
    }

    /// Fails with `NotFound` where there is nothing to copy: no image, or an index that lists none.
    pub fn some(&self, images: &[Image], empty_message: &str) -> Result<()> {
        let hollow = |image: &&Image| matches!(&image.root().body, Body::Index { manifests, blobs } if manifests.is_empty() && blobs.is_empty());
        let why = match images.iter().find(hollow) {
            _ if self.options.allow_empty => return Ok(()),
            None if !images.is_empty() => return Ok(()),
            None => empty_message.to_owned(),
            Some(image) => {
                let digest = image.root().digest().to_string();
                let name = image.names.first().map_or(&*digest, Name::as_str);
                format!("{name} is an index that lists no image")
            }
        };
        Err(Error::not_found(format!("{why}; nothing was copied (--allow-empty makes that no error)")))
    }

    /// Looks up what is known of raw layers that will be packed.
    pub(super) fn recall(&self, images: &[Image]) {
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
    pub(super) fn current(&self, images: Vec<Image>) -> Result<(Vec<Image>, Vec<Image>)> {
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

    pub(super) fn settle_current(&self, images: Vec<Image>) {
        let mut seen = HashSet::new();
        for image in images {
            image.blobs().filter(|blob| seen.insert(blob.digest)).for_each(|blob| self.tally().held.add(blob.size));
            if let Ok(made) = self.converted(&image) {
                self.watch.event(Event::Detail(&format!("{} is there already", made.root().digest())));
                self.settled(&made, image.source_digest);
            }
        }
    }

    /// The blobs that the sink does not have, and the one that has to be sent first; the others are counted as held.
    pub(super) fn missing(&self, images: &[Image], store: &dyn Store) -> Result<(Vec<Work>, Option<Digest>)> {
        let mut seen = HashSet::new();
        let blobs: Vec<&Descriptor> =
            images.iter().flat_map(Image::blobs).filter(|blob| seen.insert(blob.digest)).collect();
        let all: Vec<Work> = blobs.into_iter().map(|blob| self.work(blob)).collect();
        self.tell_packing(&all);
        let blobs = all.iter().filter_map(|work| self.target(work)).collect();
        let (images, dry_run) = (&*self.expected_diff_ids(images), self.options.dry_run);
        let Missing { blobs, resume_first } =
            self.sink.missing(Upcoming::Blobs { images, blobs, source: store, dry_run })?;
        let missing: HashSet<Digest> = blobs.into_iter().map(|blob| blob.digest).collect();
        let (work, held): (Vec<Work>, Vec<Work>) =
            all.into_iter().partition(|work| self.target(work).is_none_or(|target| missing.contains(&target.digest)));
        held.iter().for_each(|work| self.tally().held.add(work.blob.size));
        let held = self.tally().held;
        let bytes = work.iter().map(|work| work.blob.size).sum();
        self.watch.event(Event::Plan { blobs: work.len(), bytes, held_blobs: held.blobs, held_bytes: held.bytes });
        Ok((work, resume_first))
    }

    /// `images` as they will be at the sink, as far as that is known before their layers are packed.
    pub(super) fn expected_diff_ids<'i>(&self, images: &'i [Image]) -> Cow<'i, [Image]> {
        if self.options.format == Format::Keep && self.tally().packed.is_empty() {
            return Cow::Borrowed(images);
        }
        images.iter().map(|image| self.converted(image).unwrap_or_else(|_| image.clone())).collect()
    }
}
