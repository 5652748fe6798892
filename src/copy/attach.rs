//! The manifests that belong to an image are found at the source ([`crate::source::attached`]) and copied with it.
//!
//! If something is left out, the rest is copied, and a note says why. `--require-referrers` makes that an error.

use super::belonging::still_attached;
use super::convert;
use super::convert::RecompressedLayer;
use super::plan;
use super::plan::{Naming, PlanOptions};
use super::run::CopyRun;
use crate::error::{Error, Result};
use crate::image::{Attached, Digest, Image, Manifest, Name, ReferrerType, is_referrers_tag};
use crate::source::attached::{Found, MAX_DEPTH, attached_to_all, attached_to_each, split, subject_of};
use crate::source::{Root, Store};
use std::collections::{BTreeSet, HashMap, HashSet};

/// By the digest of a part: the indexes that it is a part of.
pub(super) type Originals = HashMap<Digest, BTreeSet<Digest>>;

impl CopyRun<'_> {
    /// Adds to each of `images` what belongs to it in `store`. `originals` has the indexes that roots are a part of.
    ///
    /// Fails with `NotFound` where a required type is missing.
    pub(super) fn attach(&self, store: &dyn Store, originals: &Originals, images: &mut [Image]) -> Result<()> {
        let options = &self.options.referrers;
        if !self.capabilities.referrers {
            return if options.wanted { self.tell_not_stored(store, originals, images) } else { Ok(()) };
        }
        images.iter_mut().for_each(keep_original);
        if !options.wanted {
            return Ok(());
        }
        let found = attached_to_each(images, store, &options.types, self.cancel)?;
        for (image, mut found) in images.iter_mut().zip(found) {
            let label = label(image);
            self.leave_to_index(image, &mut found)?;
            self.check_required(&label, &found)?;
            self.tell_left_out(image, &found);
            image.attached.extend(found.attached);
        }
        Ok(())
    }

    /// Removes from `found`, and reports, what belongs to an index that the destination does not get, since `image` is only
    /// a part of it.
    ///
    /// Fails with `NotFound` where a required type is among that.
    fn leave_to_index(&self, image: &Image, found: &mut Found) -> Result<()> {
        let all = image.attached.iter().chain(&found.attached);
        let belonging = still_attached(all, &image.tree);
        let belonging: HashSet<Digest> = belonging.iter().map(|one| one.manifest.digest()).collect();
        let belongs = |one: &&Attached| belonging.contains(&one.manifest.digest());
        let (kept, left): (Vec<&Attached>, Vec<&Attached>) = found.attached.iter().partition(belongs);
        let Some(what) = not_copied(image, left.iter().filter(|one| !one.is_part()).count()) else { return Ok(()) };
        let is_lost = |wanted: &&ReferrerType| {
            left.iter().any(|one| wanted.matches(one)) && !kept.iter().any(|one| wanted.matches(one))
        };
        if let Some(required) = self.options.referrers.required.iter().find(is_lost) {
            return Err(Error::not_found(format!(
                "{what}, and --require-referrers {required} is given; the image is not copied"
            )));
        }
        self.watch.say(&what);
        let listed: HashSet<Digest> =
            left.iter().flat_map(|one| one.manifest.children()).map(|child| child.digest).collect();
        let is_kept = |one: &&Attached| !one.is_part() || !listed.contains(&one.manifest.digest());
        found.attached = kept.into_iter().filter(is_kept).cloned().collect();
        Ok(())
    }

    fn tell_left_out(&self, image: &Image, found: &Found) {
        if let Some(why) = &found.left_out {
            self.watch.say(&format!("{}: not all that belongs to the image is copied: {why}", label(image)));
        }
    }

    /// Reports what belongs to `images` and a sink without referrers does not store.
    ///
    /// Fails with `Usage` if the user requires referrers.
    fn tell_not_stored(&self, store: &dyn Store, originals: &Originals, images: &[Image]) -> Result<()> {
        self.refuse_if_required()?;
        // The requests to a registry would take longer than a small image, so the message is the same for every image.
        if self.profile.origin.is_some() {
            self.watch.say_once("signatures and other referrers are not copied: engines cannot store them");
        }
        // An engine at another host has none.
        if self.profile.is_remote {
            return Ok(());
        }
        for image in images {
            // A part of an index has another digest than the one that was signed.
            let source = image.source_digest;
            let also: Vec<Digest> = originals.get(&source).into_iter().flatten().copied().chain([source]).collect();
            let found = attached_to_all(image, &also, store, &self.options.referrers.types, self.cancel)?;
            let left = match found.attached.iter().filter(|attached| !attached.is_part()).count() {
                0 => {
                    self.tell_left_out(image, &found);
                    continue;
                }
                1 => "a signature or other referrer is".to_owned(),
                count => format!("{count} signatures or other referrers are"),
            };
            self.watch.say(&format!("{}: {left} not copied: the destination cannot store referrers", label(image)));
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

    /// Adds those of `belonging` that belong to `images` and were not attached, since the store lists no referrers.
    pub(super) fn add_unattached(
        &self,
        store: &dyn Store,
        belonging: Vec<Root>,
        images: &mut Vec<Image>,
    ) -> Result<()> {
        let types = &self.options.referrers.types;
        if belonging.is_empty() || !self.options.referrers.wanted || !types.is_empty() || !self.capabilities.referrers {
            return Ok(());
        }
        let attached = images.iter().flat_map(|image| &image.attached).map(|attached| &attached.manifest);
        let attached: HashSet<Digest> = attached.map(Manifest::digest).collect();
        let others = belonging.into_iter().filter(|root| !attached.contains(&root.descriptor.digest) && !is_list(root));
        let with_subject = others.filter_map(|root| Some((subject_of(&root, store)?, root)));
        let copied = images.iter().flat_map(|image| image.tree.iter().chain(&image.original)).map(Manifest::digest);
        let rest = reached(with_subject.collect(), copied.chain(attached).collect());
        if rest.is_empty() {
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
            let why =
                found.left_out.as_ref().map_or_else(String::new, |why| format!(" (not all can be copied: {why})"));
            let who = match self.options.referrers.types.is_empty() {
                true => "the source has",
                false => "--referrers selects",
            };
            return Err(Error::not_found(format!(
                "{label}: {who} no referrer of the type {missing}, which --require-referrers asks for; the image is not \
                 copied{why}"
            )));
        }
        match &found.left_out {
            Some(why) if !required.is_empty() => Err(Error::not_found(format!(
                "{label}: not all referrers can be copied, and --require-referrers is given: {why}"
            ))),
            _ => Ok(()),
        }
    }

    /// Removes from `images` what belongs to digests that a conversion changes, before its blobs are transferred.
    pub(super) fn drop_unattachable(&self, images: &mut [Image]) -> Result<()> {
        for image in images.iter_mut().filter(|image| !image.attached.is_empty()) {
            let expected = convert::image(image, &self.expected_layers(image), self.options.format)?;
            self.tell_dropped(image, &expected)?;
            (image.attached, image.original) = (expected.attached, expected.original);
        }
        Ok(())
    }

    /// The layers of `image` that will be recompressed. A digest that is not known yet is any other digest.
    fn expected_layers(&self, image: &Image) -> HashMap<Digest, RecompressedLayer> {
        let layers = image.tree.iter().flat_map(Manifest::layers);
        let expected = layers.filter_map(|layer| {
            let to = self.recompression(layer)?.to;
            let other = Digest::of(layer.digest.to_string().as_bytes());
            let unknown = RecompressedLayer { digest: other, size: layer.size, coding: to };
            Some((layer.digest, self.recompressed(&layer.digest).unwrap_or(unknown)))
        });
        expected.collect()
    }

    /// Reports what belongs to `image` and not to `made`, which is stored instead.
    ///
    /// Fails with `NotFound` where referrers are required.
    pub(super) fn tell_dropped(&self, image: &Image, made: &Image) -> Result<()> {
        let count = |image: &Image| image.attached.iter().filter(|attached| !attached.is_part()).count();
        let Some(what) = not_copied(image, count(image).saturating_sub(count(made))) else { return Ok(()) };
        match self.options.referrers.required.first() {
            Some(required) => Err(Error::not_found(format!(
                "{what}, and --require-referrers {required} is given; the image gets no name"
            ))),
            None => {
                self.watch.say(&what);
                Ok(())
            }
        }
    }

    /// Stores what belongs to `image`, whose own manifests are stored, unless the sink has it.
    pub(super) fn publish_attached(&self, image: &Image) -> Result<()> {
        for attached in image.attached.iter().filter(|attached| !attached.is_held) {
            self.cancel.check()?;
            let Attached { manifest, tag, .. } = attached;
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

/// The indexes that each of `roots` is a part of, by the digest of the root.
pub(super) fn originals(roots: &[Root]) -> Originals {
    let mut originals = Originals::new();
    for root in roots {
        if let Some(original) = &root.original {
            originals.entry(root.descriptor.digest).or_default().insert(original.digest);
        }
    }
    originals
}

/// The message about `count` referrers of `image`, or of the index that it is a part of, that are not copied.
fn not_copied(image: &Image, count: usize) -> Option<String> {
    let root = image.root().digest();
    let referrers = match count {
        0 => return None,
        1 => "1 referrer is".to_owned(),
        count => format!("{count} referrers are"),
    };
    Some(format!("{root}: {referrers} not copied: the destination does not get the digest that they refer to"))
}

/// The name of `image` in messages.
pub(super) fn label(image: &Image) -> String {
    image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string)
}

/// Those of `others`, each with its subject, that belong to `copied` or to one another.
fn reached(mut others: Vec<(Digest, Root)>, mut copied: HashSet<Digest>) -> Vec<Root> {
    let mut found = Vec::new();
    for _ in 0..MAX_DEPTH {
        let (next, later): (Vec<_>, Vec<_>) = others.into_iter().partition(|(subject, _)| copied.contains(subject));
        if next.is_empty() {
            break;
        }
        copied.extend(next.iter().map(|(_, root)| root.descriptor.digest));
        found.extend(next.into_iter().map(|(_, root)| root));
        others = later;
    }
    found
}

/// Whether `root` is a list of referrers, which each registry writes for itself.
fn is_list(root: &Root) -> bool {
    root.name.as_ref().and_then(Name::tag).is_some_and(|tag| is_referrers_tag(&tag))
}

/// Attaches the index that `image` is a part of.
fn keep_original(image: &mut Image) {
    let original = image.original.iter().map(|original| Attached::new(original.clone(), None));
    image.attached.extend(original);
}
