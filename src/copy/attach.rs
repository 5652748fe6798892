//! The manifests that belong to an image are found at the source ([`crate::source::attached`]) and copied with it.
//!
//! If something is left out, the rest is copied, and a note says why. `--require-referrers` makes that an error.

use super::plan;
use super::plan::{Naming, PlanOptions};
use super::run::CopyRun;
use crate::error::{Error, Result};
use crate::image::{Attached, Digest, Image, Name, ReferrerType, is_referrers_tag};
use crate::progress::Event;
use crate::source::attached::{Found, attached_to, split};
use crate::source::{Root, Store};
use std::collections::HashSet;

impl CopyRun<'_> {
    /// Adds to each of `images` what belongs to it in `store`.
    ///
    /// Fails with `NotFound` where a required type is missing.
    pub(super) fn attach(&self, store: &dyn Store, images: &mut [Image]) -> Result<()> {
        let options = &self.options.referrers;
        let stores = self.capabilities.referrers;
        if stores {
            images.iter_mut().for_each(keep_original);
        }
        if !options.wanted {
            return Ok(());
        }
        if !stores {
            self.refuse_if_required()?;
            // A remote source is not asked for what cannot be stored.
            if self.profile.is_remote {
                self.watch.event(Event::Detail(
                    "signatures and other referrers are not copied: the destination cannot store them",
                ));
                return Ok(());
            }
        }
        for image in images {
            let label = image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string);
            let found = attached_to(image, store, &options.types, self.cancel)?;
            self.check_required(&label, &found)?;
            if let Some(why) = &found.left_out {
                self.watch.say(&format!("{label}: not all that belongs to the image is copied: {why}"));
            }
            if stores {
                image.attached.extend(found.attached);
            } else if !found.attached.is_empty() {
                let count = found.attached.len();
                self.watch.say(&format!(
                    "{label}: {count} signatures or other referrers are not copied: the destination cannot store them"
                ));
            }
        }
        Ok(())
    }

    /// The images among `roots`, and those that belong to another one: [`CopyRun::attach`] finds them again. What the
    /// user selected is an image.
    pub(super) fn split_attached(&self, store: &dyn Store, roots: Vec<Root>) -> Result<(Vec<Root>, Vec<Root>)> {
        match self.options.selectors.is_empty() {
            true => split(store, roots),
            false => Ok((roots, Vec::new())),
        }
    }

    /// Adds those of `belonging` that were not attached to an image, since the store lists no referrers.
    pub(super) fn add_unattached(
        &self,
        store: &dyn Store,
        belonging: Vec<Root>,
        images: &mut Vec<Image>,
    ) -> Result<()> {
        let attached = images.iter().flat_map(|image| &image.attached).map(|attached| attached.manifest.digest());
        let attached: HashSet<Digest> = attached.collect();
        let rest: Vec<Root> = belonging
            .into_iter()
            .filter(|root| !attached.contains(&root.descriptor.digest) && !is_list(root))
            .collect();
        let types = &self.options.referrers.types;
        if rest.is_empty() || !self.options.referrers.wanted || !types.is_empty() || !self.capabilities.referrers {
            return Ok(());
        }
        let options = PlanOptions { naming: Naming::Keep, ..self.options.plan_options() };
        images.extend(plan::images(store, rest, &options, &self.capabilities, self.watch)?);
        Ok(())
    }

    /// Fails with `Usage` if referrers are required that the sink cannot store.
    fn refuse_if_required(&self) -> Result<()> {
        match self.options.referrers.required.first() {
            Some(required) => Err(Error::usage(format!(
                "--require-referrers {required}: the destination cannot store referrers; copy to a registry, a layout or \
                 an archive, or check the source with imgmv list --referrers"
            ))),
            None => Ok(()),
        }
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

/// Whether `root` is a list of referrers, which each registry writes for itself.
fn is_list(root: &Root) -> bool {
    root.name.as_ref().and_then(Name::tag).is_some_and(|tag| is_referrers_tag(&tag))
}

/// Attaches the index that `image` is a part of.
fn keep_original(image: &mut Image) {
    let original = image.original.iter().map(|original| Attached { manifest: original.clone(), tag: None });
    image.attached.extend(original);
}
