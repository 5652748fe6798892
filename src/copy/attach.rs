//! The manifests that belong to an image are found at the source ([`crate::source::attached`]) and copied with it.
//!
//! If something is left out, the rest is copied, and a note says why. `--require-referrers` makes that an error.

use super::run::Run;
use crate::error::{Error, Result};
use crate::image::{Attached, Digest, Image, Name, ReferrerType};
use crate::source::attached::{Found, attached_to, belongs_to_another};
use crate::source::{Root, Store};
use std::collections::HashSet;

impl Run<'_> {
    /// Adds to each of `images` what belongs to it in `store`.
    ///
    /// Fails with `NotFound` where a required type is missing.
    pub(super) fn attach(&self, store: &dyn Store, images: &mut [Image]) -> Result<()> {
        let options = &self.options.referrers;
        let stores = self.capabilities.referrers;
        // An engine cannot store them, so a remote source is not asked.
        if !options.wanted || (!stores && self.profile.is_remote && options.required.is_empty()) {
            return Ok(());
        }
        for image in images {
            let label = image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string);
            let found = attached_to(image, store, &options.types, self.cancel)?;
            self.check_required(&label, &found)?;
            if let Some(why) = &found.left_out {
                self.watch.say(&format!("{label}: not all that belongs to the image is copied: {why}"));
            }
            if stores {
                image.attached = found.attached;
            } else if !found.attached.is_empty() {
                let count = found.attached.len();
                self.watch.say(&format!(
                    "{label}: {count} signatures or other referrers are not copied: an engine cannot store them"
                ));
            }
        }
        Ok(())
    }

    /// `roots`, which are all of `store`, without those that belong to another one: [`Run::attach`] finds them again.
    pub(super) fn without_attached(&self, store: &dyn Store, roots: Vec<Root>) -> Result<Vec<Root>> {
        let here: HashSet<Digest> = roots.iter().map(|root| root.descriptor.digest).collect();
        let mut images = Vec::new();
        for root in roots {
            if !belongs_to_another(&root, store, &here)? {
                images.push(root);
            }
        }
        Ok(images)
    }

    fn check_required(&self, label: &str, found: &Found) -> Result<()> {
        let required = &self.options.referrers.required;
        let is_missing = |wanted: &&ReferrerType| !found.attached.iter().any(|attached| wanted.matches(attached));
        if let Some(missing) = required.iter().find(is_missing) {
            return Err(Error::not_found(format!(
                "{label}: the source has no referrer of the type {missing}, which --require-referrers asks for; nothing \
                 was copied"
            )));
        }
        match &found.left_out {
            Some(why) if !required.is_empty() => Err(Error::not_found(format!(
                "{label}: not all referrers can be copied, and --require-referrers is given: {why}"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether the sink has all that belongs to `image`.
    pub(super) fn has_all_attached(&self, image: &Image) -> Result<bool> {
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

    /// Stores what belongs to `image`, whose own manifests are stored.
    pub(super) fn publish_attached(&self, image: &Image) -> Result<()> {
        for Attached { manifest, tag } in &image.attached {
            self.cancel.check()?;
            self.sink.put_manifest(manifest)?;
            match tag {
                Some(tag) => self.sink.publish(Some(&image.sibling(tag)?), manifest)?,
                None if manifest.subject.is_some() => self.sink.publish(None, manifest)?,
                None => {}
            }
        }
        Ok(())
    }
}
