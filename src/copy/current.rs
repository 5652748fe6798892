//! Images that are current: the sink has them under their names, with all that belongs to them.

use super::pull::distinct_blobs;
use super::run::CopyRun;
use crate::error::Result;
use crate::image::{Descriptor, Image, Manifest};
use crate::progress::Event;

impl CopyRun<'_> {
    /// Splits off the images whose names all point at the same image in the sink.
    pub(super) fn split_current(&self, images: Vec<Image>) -> Result<(Vec<Image>, Vec<Image>)> {
        let (mut current, mut others) = (Vec::new(), Vec::new());
        for image in images {
            let is_known =
                |blob: &Descriptor| self.recompression(blob).is_none() || self.recompressed(&blob.digest).is_some();
            let mut same = image.blobs().all(is_known) && !image.names.is_empty();
            if same {
                let made = self.converted(&image)?;
                same = !made.names.is_empty() && self.is_published(&made)?;
            }
            match same && self.has_all_attached(&image)? {
                true => current.push(image),
                false => others.push(Image { is_current: same, ..image }),
            }
        }
        Ok((current, others))
    }

    /// Whether all names of `made` point at its root, and the sink has the children that are copied: a registry may have
    /// an index without them.
    fn is_published(&self, made: &Image) -> Result<bool> {
        for name in &made.names {
            if self.sink.published(name)? != Some(made.root().digest()) {
                return Ok(false);
            }
        }
        for child in made.tree.iter().rev().skip(1).map(Manifest::digest) {
            if self.sink.published(&made.at_digest(&child)?)? != Some(child) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn report_current(&self, images: Vec<Image>) {
        distinct_blobs(&images).for_each(|blob| self.tally().existing.add(blob.size));
        for image in images {
            if let Ok(made) = self.converted(&image) {
                self.watch.event(Event::Detail(&format!("{} exists at the destination", made.root().digest())));
                self.report_image(&made, image.source_digest);
            }
        }
    }

    /// Whether the sink has all that belongs to `image`.
    fn has_all_attached(&self, image: &Image) -> Result<bool> {
        for attached in &image.attached {
            let here = match &attached.tag {
                Some(tag) => self.sink.published(&image.sibling(tag)?)? == Some(attached.manifest.digest()),
                None => self.sink.has_referrer(&attached.manifest)?,
            };
            if !here {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
