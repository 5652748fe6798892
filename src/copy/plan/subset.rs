//! Some entries of an index are not copied. Either the index stays unchanged, or a smaller index lists only the copied
//! entries.

use super::platforms::{Leaves, listed};
use super::select::{Chooser, FoundManifest, MAX_DEPTH};
use super::{ATTESTS, Platforms};
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Manifest, Platform, media_type};
use crate::message::counted;
use crate::sink::Shape;
use std::collections::HashSet;

/// The treatment of an index of which parts are missing at the source or not wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sparse {
    /// The sink decides. A layout and a registry keep the index, so that its digest and its signatures stay valid, and
    /// so does an engine that knows indexes, as after its own pull. A registry that refuses it, and an archive, get a
    /// smaller index; the archive has the index's bytes too, for a later copy to a registry or a layout.
    #[default]
    Auto,
    /// The index stays as it is.
    Keep,
    /// A smaller index is made of the copied images; a single image is copied without an index.
    Narrow,
    /// It is an error.
    Fail,
}

impl Chooser<'_> {
    /// The images `chosen` of `top`, because the user selected them or the sink stores no others.
    pub(super) fn asked(&mut self, top: Manifest, chosen: Vec<Descriptor>) -> Result<Vec<Manifest>> {
        self.all_wanted(&top, &chosen)?;
        if chosen.len() > 1
            && let Some(all) = self.complete_with(&top, &chosen)?
        {
            return self.keep(top, &all);
        }
        match self.options.sparse {
            Sparse::Keep => {
                let rest = self.attestations(&top, &chosen)?;
                self.keep(top, &[chosen, rest].concat())
            }
            Sparse::Auto if self.capabilities.shape == Shape::AsFound && !self.is_synthesised(&top) => {
                let rest = self.attestations(&top, &chosen)?;
                // A single platform is narrowed to its own manifest.
                let smaller = if chosen.len() > 1 { [&chosen[..], &rest].concat() } else { chosen.clone() };
                self.narrowed = Some(self.narrowed_tree(&top, &smaller)?);
                self.keep(top, &[chosen, rest].concat())
            }
            Sparse::Auto | Sparse::Narrow | Sparse::Fail => {
                let rest = if chosen.len() > 1 { self.attestations(&top, &chosen)? } else { Vec::new() };
                self.narrow(top, chosen, rest, None)
            }
        }
    }

    /// The images `chosen` of `top`: those that an engine for `platform` stores of an index.
    pub(super) fn native(
        &mut self,
        top: Manifest,
        chosen: Vec<Descriptor>,
        platform: &Platform,
    ) -> Result<Vec<Manifest>> {
        self.all_wanted(&top, &chosen)?;
        let (label, entries) = (self.label, counted(top.children().len(), "entry"));
        match self.options.sparse {
            Sparse::Narrow => {
                let rest = self.attestations(&top, &chosen)?;
                self.narrow(top, chosen, rest, Some(format!("of {entries}, {platform} is copied")))
            }
            Sparse::Auto | Sparse::Keep | Sparse::Fail => {
                self.watch.say(&format!("{label}: of {entries}, {platform} is copied; the index stays as it is"));
                self.keep(top, &chosen)
            }
        }
    }

    /// The index `top`, of which the source has only the manifests in `found`.
    pub(super) fn incomplete(&mut self, top: Manifest, mut found: FoundManifest) -> Result<Vec<Manifest>> {
        let here: HashSet<Digest> = found.tree.iter().map(Manifest::digest).collect();
        let is_image = |leaf: &Descriptor| here.contains(&leaf.digest) && leaf.annotation(ATTESTS).is_none();
        let images = self.leaves(&top)?.into_iter().filter(is_image);
        let images: Vec<Descriptor> = images.collect();
        if images.is_empty() {
            return Err(self.nothing(&top, &found.absent)?);
        }
        let (label, have) = (self.label, listed(&images));
        let keeps = self.capabilities.shape == Shape::AsFound;
        match (self.options.sparse, &self.options.platforms) {
            (Sparse::Fail, _) | (Sparse::Auto, Platforms::All) => Err(Error::not_found(format!(
                "{label}: the source has only {have} of its index (missing: {}); --sparse keep copies these under the \
                 index as it is, --sparse narrow under a smaller one",
                listed(&found.absent)
            ))),
            (Sparse::Auto, _) if keeps => {
                self.watch.say(&format!("{label}: the source has only {have} of its index, which stays as it is"));
                let rest = self.attestations(&top, &images)?;
                self.narrowed = Some(self.narrowed_tree(&top, &[images, rest].concat())?);
                found.tree.push(top);
                Ok(found.tree)
            }
            (Sparse::Keep, _) => {
                self.watch.say(&format!("{label}: the source has only {have} of its index, which stays as it is"));
                found.tree.push(top);
                Ok(found.tree)
            }
            (Sparse::Auto | Sparse::Narrow, _) => {
                let rest = self.attestations(&top, &images)?;
                self.narrow(top, images, rest, Some(format!("the source has only {have} of its index")))
            }
        }
    }

    fn nothing(&mut self, top: &Manifest, absent: &[Descriptor]) -> Result<Error> {
        Ok(match self.reason(absent)? {
            Some(reason) => reason.at(self.label),
            None => Error::not_found(format!(
                "{}: none of {} is complete at the source (missing: {})",
                self.label,
                counted(top.children().len(), "entry"),
                listed(absent)
            )),
        })
    }

    /// With `--sparse fail`, checks that `chosen` are all images of `top`.
    fn all_wanted(&mut self, top: &Manifest, chosen: &[Descriptor]) -> Result<()> {
        if self.options.sparse != Sparse::Fail {
            return Ok(());
        }
        let wanted: HashSet<Digest> = chosen.iter().map(|entry| entry.digest).collect();
        let Leaves { leaves, absent } = self.below(top)?;
        let rest = leaves.into_iter().chain(absent).filter(|leaf| !wanted.contains(&leaf.digest));
        let rest: Vec<Descriptor> = rest.collect();
        match rest.is_empty() {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "{}: the index also lists {}, which would not be copied; --sparse fail does not allow that",
                self.label,
                listed(&rest)
            ))),
        }
    }

    /// The manifests `images` and `rest` of `top` below a smaller index, or the manifest itself where it is the only one.
    /// `why` is reported where the user did not ask for that.
    fn narrow(
        &mut self,
        top: Manifest,
        images: Vec<Descriptor>,
        rest: Vec<Descriptor>,
        why: Option<String>,
    ) -> Result<Vec<Manifest>> {
        let (label, was) = (self.label, top.digest());
        let entries = [images.clone(), rest].concat();
        if let (Shape::One(_), 2..) = (&self.capabilities.shape, entries.len()) {
            return Err(Error::usage(format!(
                "{label}: the destination stores one platform of an image, not {}",
                listed(&images)
            )));
        }
        let tree = self.narrowed_tree(&top, &entries)?;
        if self.options.sparse == Sparse::Auto && self.capabilities.shape == Shape::Whole && !self.is_synthesised(&top)
        {
            self.keep_original(top, &tree)?;
        }
        let now = tree.last().map(Manifest::digest).unwrap_or(was);
        match why {
            Some(why) if now != was => {
                let hint = if self.options.sparse == Sparse::Auto { "; --sparse keep keeps it as it is" } else { "" };
                self.watch.say(&format!("{label}: {why}; index {was} becomes {now} at the destination{hint}"));
            }
            None if entries.len() > 1 => {
                let listed = listed(&images);
                self.watch.say(&format!(
                    "{label}: index {was} becomes {now} at the destination, a smaller index of {listed}"
                ));
            }
            _ => {}
        }
        Ok(tree)
    }

    /// All leaves below `top`, if they are `chosen` and their attestations.
    fn complete_with(&mut self, top: &Manifest, chosen: &[Descriptor]) -> Result<Option<Vec<Descriptor>>> {
        let all = [chosen, &self.attestations(top, chosen)?].concat();
        let listed: HashSet<Digest> = all.iter().map(|entry| entry.digest).collect();
        let Leaves { leaves, absent } = self.below(top)?;
        let is_all = absent.is_empty() && leaves.iter().all(|leaf| listed.contains(&leaf.digest));
        Ok((is_all && !matches!(self.capabilities.shape, Shape::One(_))).then_some(all))
    }

    /// Keeps the index `original`, of which `tree` is a part, with the attestations and indexes that `tree` does not have.
    pub(super) fn keep_original(&mut self, original: Manifest, tree: &[Manifest]) -> Result<()> {
        let here: HashSet<Digest> = tree.iter().map(Manifest::digest).collect();
        let is_here = |entry: &Descriptor| here.contains(&entry.digest);
        let images: Vec<Descriptor> = self.leaves(&original)?.into_iter().filter(is_here).collect();
        let attestations = self.attestations(&original, &images)?;
        for entry in attestations.iter().filter(|entry| !is_here(entry)) {
            let attestation = self.fetch(entry)?;
            self.parts.push(attestation);
        }
        let wanted = images.iter().chain(&attestations).map(|entry| entry.digest).collect();
        let between = self.between(&original, wanted)?.into_iter();
        self.parts.extend(between.filter(|index| !here.contains(&index.digest())));
        self.original = Some(original);
        Ok(())
    }

    /// The manifests `entries` of `top` below a smaller index, or the only one of them.
    fn narrowed_tree(&mut self, top: &Manifest, entries: &[Descriptor]) -> Result<Vec<Manifest>> {
        let mut tree = entries.iter().map(|entry| self.fetch(entry)).collect::<Result<Vec<_>>>()?;
        if entries.len() != 1 {
            tree.push(crate::copy::convert::narrowed(top, entries)?);
        }
        Ok(tree)
    }

    /// The index as it is, with only `chosen` below it.
    fn keep(&mut self, top: Manifest, chosen: &[Descriptor]) -> Result<Vec<Manifest>> {
        if let Shape::One(_) = self.capabilities.shape {
            return Err(Error::usage(format!(
                "{}: the destination stores single images and no index; use --sparse narrow",
                self.label
            )));
        }
        let wanted: HashSet<Digest> = chosen.iter().map(|entry| entry.digest).collect();
        let mut tree: Vec<Manifest> = chosen.iter().map(|entry| self.fetch(entry)).collect::<Result<_>>()?;
        tree.extend(self.between(&top, wanted)?);
        tree.push(top);
        Ok(tree)
    }

    /// The indexes between `top` and the manifests `wanted`, children first.
    fn between(&mut self, top: &Manifest, wanted: HashSet<Digest>) -> Result<Vec<Manifest>> {
        let mut between = Between { wanted, opened: HashSet::new(), found: Vec::new() };
        self.find_between(top, &mut between, 0)?;
        Ok(between.found)
    }

    fn find_between(&mut self, top: &Manifest, between: &mut Between, depth: usize) -> Result<()> {
        for child in top.children().iter().filter(|child| media_type::is_index(&child.media_type)) {
            if depth >= MAX_DEPTH {
                return Err(self.too_deep());
            }
            if !between.opened.insert(child.digest) {
                continue;
            }
            let Some(index) = self.find(child)? else { continue };
            self.find_between(&index, between, depth + 1)?;
            if index.children().iter().any(|child| between.wanted.contains(&child.digest)) {
                between.wanted.insert(index.digest());
                between.found.push(index);
            }
        }
        Ok(())
    }
}

/// The search for the indexes between an index and manifests below it.
struct Between {
    /// The manifests, and the indexes that were found.
    wanted: HashSet<Digest>,
    /// Each index is read once.
    opened: HashSet<Digest>,
    found: Vec<Manifest>,
}
