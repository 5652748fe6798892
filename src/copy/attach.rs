//! The manifests that belong to an image are found at the source and copied with it: its referrers, those of its
//! children and of the referrers themselves, and what cosign's tags name.
//!
//! A source that lists too many, or lists what it does not have, does not stop the copy: the rest is copied, and a note
//! says what is left out. `--require-referrers` makes that an error.

use super::plan;
use super::plan::{Naming, PlanOptions};
use super::run::CopyRun;
use crate::error::{Error, Kind, Result};
use crate::image::{
    Attached, Descriptor, Digest, Image, MAX_COPIED_REFERRERS, Manifest, Name, ReferrerType, media_type, tagged_subject,
};
use crate::source::{Root, Store};
use std::collections::HashSet;

/// The maximum number of steps from an image to a referrer.
const MAX_DEPTH: usize = 8;
/// The maximum size of the manifests that belong to one image, together.
const MAX_ATTACHED_BYTES: u64 = 256 << 20;

impl CopyRun<'_> {
    /// Adds to each of `images` what belongs to it in `store`.
    ///
    /// Fails with `NotFound` where a required type is missing.
    pub(super) fn attach(&self, store: &dyn Store, images: &mut [Image]) -> Result<()> {
        let options = &self.options.referrers;
        let stores = self.capabilities.referrers;
        // An engine cannot store them, so a remote source is not asked.
        if stores {
            images.iter_mut().for_each(keep_original);
        }
        if !options.wanted || (!stores && self.profile.is_remote && options.required.is_empty()) {
            return Ok(());
        }
        for image in images {
            let label = image.names.first().map_or_else(|| image.source_digest.to_string(), Name::to_string);
            let found = Search::new(self, store).attached_to(image)?;
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
        if !self.options.selectors.is_empty() {
            return Ok((roots, Vec::new()));
        }
        let here: HashSet<Digest> = roots.iter().map(|root| root.descriptor.digest).collect();
        let (mut images, mut belonging) = (Vec::new(), Vec::new());
        for root in roots {
            let subject = match root.name.as_ref().map(Name::tag) {
                Some(tag) => tag.as_deref().and_then(tagged_subject),
                None => root.read(store).ok().and_then(|manifest| manifest.subject).map(|subject| subject.digest),
            };
            let belongs = match &subject {
                Some(subject) => here.contains(subject) || store.find(subject)?.is_some(),
                None => false,
            };
            if belongs { belonging.push(root) } else { images.push(root) }
        }
        Ok((images, belonging))
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
        let rest: Vec<Root> =
            belonging.into_iter().filter(|root| !attached.contains(&root.descriptor.digest)).collect();
        let types = &self.options.referrers.types;
        if rest.is_empty() || !self.options.referrers.wanted || !types.is_empty() || !self.capabilities.referrers {
            return Ok(());
        }
        let options = PlanOptions { naming: Naming::Keep, ..self.options.plan_options() };
        images.extend(plan::images(store, rest, &options, &self.capabilities, self.watch)?);
        Ok(())
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

/// Attaches the index that `image` is a part of.
fn keep_original(image: &mut Image) {
    let original = image.original.iter().map(|original| Attached { manifest: original.clone(), tag: None });
    image.attached.extend(original);
}

/// What belongs to one image.
struct Found {
    attached: Vec<Attached>,
    /// The first reason why something is left out.
    left_out: Option<String>,
}

struct Search<'r> {
    run: &'r CopyRun<'r>,
    store: &'r dyn Store,
    seen: HashSet<Digest>,
    bytes: u64,
    found: Found,
}

impl<'r> Search<'r> {
    fn new(run: &'r CopyRun<'r>, store: &'r dyn Store) -> Search<'r> {
        let found = Found { attached: Vec::new(), left_out: None };
        Search { run, store, seen: HashSet::new(), bytes: 0, found }
    }

    fn attached_to(mut self, image: &Image) -> Result<Found> {
        self.seen.extend(image.tree.iter().map(Manifest::digest));
        // The source does not know a manifest that was made here.
        let made_here = |manifest: &Manifest| {
            let (digest, is_index) = (manifest.digest(), media_type::is_index(&manifest.descriptor.media_type));
            digest == image.root().digest() && (image.synthesised || is_index && digest != image.source_digest)
        };
        for manifest in image.tree.iter().chain(&image.original).filter(|manifest| !made_here(manifest)) {
            self.referrers(&manifest.digest(), 1)?;
            self.digest_tagged(&manifest.digest())?;
        }
        Ok(self.found)
    }

    fn referrers(&mut self, subject: &Digest, depth: usize) -> Result<()> {
        let answer = self.store.referrers(subject);
        let Some(mut entries) = self.unless_unreadable(answer, &format!("the referrers of {subject}"))? else {
            return Ok(());
        };
        if entries.len() > MAX_COPIED_REFERRERS {
            self.leave_out(format!("{subject} has more than {MAX_COPIED_REFERRERS} referrers"));
            entries.truncate(MAX_COPIED_REFERRERS);
        }
        for entry in entries {
            self.run.cancel.check()?;
            if self.seen.contains(&entry.digest) {
                continue;
            }
            if depth > MAX_DEPTH {
                self.leave_out(format!("referrers of referrers are more than {MAX_DEPTH} steps away from the image"));
                return Ok(());
            }
            let Some(manifest) = self.manifest(&entry)? else { continue };
            if manifest.subject.as_ref().is_none_or(|own| own.digest != *subject) {
                self.leave_out(format!(
                    "{} is listed as a referrer of {subject}, but has another subject",
                    entry.digest
                ));
                continue;
            }
            let digest = manifest.digest();
            if self.add(Attached { manifest, tag: None })? {
                self.referrers(&digest, depth + 1)?;
            }
        }
        Ok(())
    }

    fn digest_tagged(&mut self, subject: &Digest) -> Result<()> {
        let answer = self.store.digest_tagged(subject);
        for (tag, entry) in self.unless_unreadable(answer, &format!("cosign's tags for {subject}"))?.unwrap_or_default()
        {
            let Some(manifest) = self.manifest(&entry)? else { continue };
            self.add(Attached { manifest, tag: Some(tag) })?;
        }
        Ok(())
    }

    /// Adds `attached`, after what it lists itself; returns whether the user wants its type.
    fn add(&mut self, attached: Attached) -> Result<bool> {
        let types = &self.run.options.referrers.types;
        if !types.is_empty() && !types.iter().any(|wanted| wanted.matches(&attached)) {
            return Ok(false);
        }
        self.children(&attached.manifest, 1)?;
        self.seen.insert(attached.manifest.digest());
        self.found.attached.push(attached);
        Ok(true)
    }

    /// Adds the children of `index` that the source has.
    fn children(&mut self, index: &Manifest, depth: usize) -> Result<()> {
        for child in index.children() {
            if depth > MAX_DEPTH || !self.seen.insert(child.digest) {
                continue;
            }
            let Some(manifest) = self.manifest(child)? else { continue };
            self.children(&manifest, depth + 1)?;
            self.found.attached.push(Attached { manifest, tag: None });
        }
        Ok(())
    }

    /// Reads the manifest `entry`; `None` where it is left out.
    fn manifest(&mut self, entry: &Descriptor) -> Result<Option<Manifest>> {
        if self.bytes.saturating_add(entry.size) > MAX_ATTACHED_BYTES {
            self.leave_out(format!("the manifests have more than {MAX_ATTACHED_BYTES} bytes together"));
            return Ok(None);
        }
        let answer = Root::new(None, entry.clone()).read(self.store);
        let manifest = self.unless_unreadable(answer, &format!("referrer {}", entry.digest))?;
        self.bytes += manifest.as_ref().map_or(0, |manifest| manifest.descriptor.size);
        Ok(manifest)
    }

    /// `answer`, or `None` where the source cannot give `what` and the copy can do without it.
    fn unless_unreadable<T>(&mut self, answer: Result<T>, what: &str) -> Result<Option<T>> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Denied | Kind::Failed) => {
                self.leave_out(format!("{what} cannot be read ({error})"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn leave_out(&mut self, why: String) {
        self.found.left_out.get_or_insert(why);
    }
}
