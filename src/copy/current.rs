//! Images that are current: the sink has them under their names, with all that belongs to them.

use super::pull::distinct_blobs;
use super::run::CopyRun;
use crate::error::Result;
use crate::image::{Descriptor, Image, Manifest};
use crate::progress::Event;

impl CopyRun<'_> {
    /// Splits off the images whose names all point at the same image in the sink. Of the others, what belongs to them and
    /// the sink has is not copied.
    pub(super) fn split_current(&self, images: Vec<Image>) -> Result<(Vec<Image>, Vec<Image>)> {
        let (mut current, mut others) = (Vec::new(), Vec::new());
        for mut image in images {
            image.is_current = self.is_current(&image)?;
            self.mark_held(&mut image)?;
            match image.is_current && image.attached.iter().all(|attached| attached.is_held) {
                true => current.push(image),
                false => others.push(image),
            }
        }
        Ok((current, others))
    }

    /// Whether the sink has `image` under all its names, without what belongs to it.
    fn is_current(&self, image: &Image) -> Result<bool> {
        let is_known =
            |blob: &Descriptor| self.recompression(blob).is_none() || self.recompressed(&blob.digest).is_some();
        if image.names.is_empty() || !image.blobs().all(is_known) {
            return Ok(false);
        }
        let made = self.converted(image)?;
        Ok(!made.names.is_empty() && self.is_published(&made)?)
    }

    /// Whether all names of `made` point at its root, and the sink has the children that are copied: a registry may have
    /// an index without them.
    fn is_published(&self, made: &Image) -> Result<bool> {
        for name in &made.names {
            if self.sink.published(name)? != Some(made.root().digest()) {
                return Ok(false);
            }
        }
        for child in made.tree.iter().rev().skip(1) {
            if !self.has_manifest(made, child)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn report_current(&self, images: Vec<Image>) {
        let counted = |mut image: Image| {
            image.is_current = false;
            image.attached.iter_mut().for_each(|attached| attached.is_held = false);
            image
        };
        let images: Vec<Image> = images.into_iter().map(counted).collect();
        distinct_blobs(&images).for_each(|blob| self.tally().existing.add(blob.size));
        for image in images {
            if let Ok(made) = self.converted(&image) {
                self.watch.event(Event::Detail(&format!("{} exists at the destination", made.root().digest())));
                self.report_image(&made, image.source_digest);
            }
        }
    }

    /// Marks what belongs to `image` and the sink has. The referrers of an image that it does not have are not asked for.
    fn mark_held(&self, image: &mut Image) -> Result<()> {
        self.decide_tags(image)?;
        if !image.is_current {
            return Ok(());
        }
        let mut all = std::mem::take(&mut image.attached);
        for attached in all.iter_mut().filter(|attached| attached.tag.is_none()) {
            attached.is_held = match attached.is_part() {
                true => self.has_manifest(image, &attached.manifest)?,
                false => self.sink.has_referrer(&attached.manifest)?,
            };
        }
        image.attached = all;
        Ok(())
    }

    /// Whether the sink has `manifest` by its digest, in the repository of `image`.
    fn has_manifest(&self, image: &Image, manifest: &Manifest) -> Result<bool> {
        let digest = manifest.digest();
        Ok(self.sink.published(&image.at_digest(&digest)?)? == Some(digest))
    }
}
