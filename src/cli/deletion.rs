//! One deletion: what it covers, and how it is carried out. Everything is read before the first deletion.

use super::context::CliRun;
use super::open::inspect_source;
use super::reach::{Reach, Target};
use crate::copy::Platforms;
use crate::image::{Attached, Digest, Manifest, Name, ReferrerType};
use crate::message::counted;
use crate::source::attached::{Found, attached_to};
use crate::source::{Root, Selector};
use crate::transport::address::{Deletable, NameTargets, TagDeletion};
use crate::{Error, Kind, Result};
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;

/// The maximum number of names of an image in a message.
const MAX_SHOWN_NAMES: usize = 20;

/// The options of a deletion.
#[derive(Clone, Copy)]
pub struct DeletionOptions {
    /// Whether the manifest is deleted, and not only a name.
    pub manifest: bool,
    pub with_referrers: bool,
}

/// A name or a manifest that is deleted.
#[derive(Debug, Clone, Serialize)]
pub struct Deleted {
    /// Null for a manifest without a name.
    name: Option<String>,
    digest: Digest,
    /// `tag`, `manifest`, or the type of a referrer.
    #[serde(rename = "type")]
    kind: String,
}

impl fmt::Display for Deleted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or_default();
        match name.contains('@') {
            true => write!(f, "{} {name}", self.kind),
            false => write!(f, "{} {name}@{}", self.kind, self.digest),
        }
    }
}

/// The deletion of one image, or of its name.
pub struct Deletion {
    target: Deletable,
    root: Root,
    /// The names and indexes; empty where the deletion cannot damage other images.
    reach: Reach,
    /// The manifests of the image.
    manifests: HashSet<Digest>,
    /// The manifests that belong to the image.
    attached: Vec<Attached>,
    /// Why `attached` is not complete.
    left_out: Option<String>,
    /// The manifest that the image refers to, if its own manifest is deleted.
    subject: Option<Digest>,
}

impl Deletion {
    /// Reads the image that `target` selects, and what belongs to it.
    ///
    /// # Errors
    /// - `NotFound`: the image does not exist.
    /// - `Usage`: it is selected by a digest only and `--manifest` is not given, it was made by imgmv, or another image
    ///   needs what would be deleted.
    /// - `Invalid`: the tag points to another digest than the reference.
    pub fn plan(target: Deletable, options: DeletionOptions, run: &CliRun) -> Result<Deletion> {
        let mut roots = target.store.roots(std::slice::from_ref(&target.selector))?;
        roots.dedup_by_key(|root| root.descriptor.digest);
        let root = inspect_source::one(roots)?;
        let digest = root.descriptor.digest;
        if target.digest.is_some_and(|expected| expected != digest) {
            return Err(Error::invalid(format!("the tag points to {digest}, not to the digest of the reference")));
        }
        let by_digest = matches!(target.selector, Selector::Digest(_));
        if by_digest && !options.manifest {
            return Err(Error::usage(
                "a digest is not a tag; add --manifest to delete the manifest and every tag that points to it",
            ));
        }
        if options.manifest && root.synthesised {
            return Err(Error::usage(
                "this index does not exist there: imgmv made it of several images with one name; select an image by \
                 its digest",
            ));
        }
        let reach = match options.manifest || options.with_referrers {
            true => Reach::read(&target, &run.cancel)?,
            false => Reach::default(),
        };
        let (attached, manifests) = (Vec::new(), HashSet::from([digest]));
        let manifest = if options.manifest { root.read(&*target.store).ok() } else { None };
        let subject = manifest.and_then(|manifest| manifest.subject).map(|subject| subject.digest);
        let mut deletion = Deletion { target, root, reach, manifests, attached, left_out: None, subject };
        if options.manifest {
            deletion.may_take_manifest()?;
        }
        match deletion.find_attached(run) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Interrupted || options.with_referrers => return Err(error),
            // The deletion does not need them.
            Err(error) => deletion.left_out = Some(error.to_string()),
        }
        if options.with_referrers {
            deletion.may_take_referrers(options)?;
        }
        Ok(deletion)
    }

    /// Finds the manifests of the image, and those that belong to it.
    fn find_attached(&mut self, run: &CliRun) -> Result<()> {
        let store = &*self.target.store;
        let images = inspect_source::images_of(store, vec![self.root.clone()], &Platforms::Default, run)?;
        let image = inspect_source::one(images)?;
        self.manifests.extend(image.tree.iter().chain(&image.original).map(Manifest::digest));
        let Found { attached, left_out, .. } = attached_to(&image, store, &[], &run.cancel)?;
        (self.attached, self.left_out) = (attached, left_out);
        Ok(())
    }

    /// Fails with `Usage` where the index of another name lists the manifest.
    fn may_take_manifest(&self) -> Result<()> {
        let lists = |target: &&Target| target.digest != self.digest() && !target.is_referrers_list();
        let indexes = self.reach.leading_to(HashSet::from([self.digest()])).into_iter().filter(lists);
        let indexes: Vec<String> = indexes.map(Target::label).collect();
        if indexes.is_empty() {
            return Ok(());
        }
        let (label, names) = (self.label(), shown(&indexes));
        let of = if indexes.len() == 1 { "the index of" } else { "the indexes of" };
        let verb = if indexes.len() == 1 { "lists" } else { "list" };
        Err(Error::usage(format!(
            "{label}: {of} {names} {verb} this manifest, so nothing is deleted; delete {names} first"
        )))
    }

    /// Fails with `Usage` where other names need the referrers, or not all of them are known.
    fn may_take_referrers(&self, options: DeletionOptions) -> Result<()> {
        let label = self.label();
        if let Some(why) = &self.left_out {
            return Err(Error::usage(format!(
                "{label}: not all that belongs to the image is listed ({why}), so --with-referrers deletes nothing; \
                 delete the tag without it"
            )));
        }
        if self.attached.is_empty() {
            return Ok(());
        }
        let others = self.others_with_referrers(options);
        if !others.is_empty() {
            let others = shown(&others);
            return Err(Error::usage(format!(
                "{label}: its referrers also belong to {others}, so nothing is deleted; delete {others} first, or omit \
                 --with-referrers"
            )));
        }
        match self.reach.unknown() {
            0 => Ok(()),
            unknown => Err(Error::usage(format!(
                "{label}: its referrers may also belong to {} that imgmv did not compare, so nothing is deleted; omit \
                 --with-referrers",
                counted(unknown, "other tag")
            ))),
        }
    }

    /// The other names that lead to a manifest of the image, or to a referrer that would be deleted.
    fn others_with_referrers(&self, options: DeletionOptions) -> Vec<String> {
        let is_deleted = |one: &&Attached| one.tag.is_none() || options.manifest;
        let referrers: HashSet<Digest> =
            self.attached.iter().filter(is_deleted).map(|one| one.manifest.digest()).collect();
        let tags: HashSet<&str> = self.attached.iter().filter_map(|one| one.tag.as_deref()).collect();
        let is_other = |target: &&Target| match &target.name {
            _ if options.manifest && target.digest == self.digest() => false,
            // A layout lists referrers without a name.
            None => !referrers.contains(&target.digest),
            name if *name == self.root.name || target.is_referrers_list() => false,
            Some(name) => !name.tag().is_some_and(|tag| tags.contains(tag.as_str())),
        };
        let leading = self.reach.leading_to(self.manifests.union(&referrers).copied().collect());
        leading.into_iter().filter(is_other).map(Target::label).collect()
    }

    fn digest(&self) -> Digest {
        self.root.descriptor.digest
    }

    /// The name or digest of the image.
    fn label(&self) -> String {
        self.root.name.as_ref().map_or_else(|| format!("@{}", self.digest()), Name::to_string)
    }

    /// The names and manifests that are deleted.
    pub fn planned(&self, options: DeletionOptions) -> Vec<Deleted> {
        let mut planned = self.own(options);
        if options.with_referrers {
            planned.extend(self.referrers());
        }
        planned
    }

    /// The name; with `--manifest` the manifest and its names.
    fn own(&self, options: DeletionOptions) -> Vec<Deleted> {
        let tag = |name: &Name| Deleted { name: Some(name.to_string()), digest: self.digest(), kind: "tag".into() };
        match options.manifest {
            false => self.root.name.iter().map(tag).collect(),
            true => [self.manifest(&self.digest(), "manifest".to_owned())]
                .into_iter()
                .chain(self.reach.names_of(&self.digest()).map(tag))
                .collect(),
        }
    }

    fn manifest(&self, digest: &Digest, kind: String) -> Deleted {
        let origin = self.target.store.profile().origin;
        let name = origin.map(|origin| format!("{}/{}@{digest}", origin.host, origin.repository));
        Deleted { name, digest: *digest, kind }
    }

    /// The manifests that belong to the image.
    pub fn referrers(&self) -> Vec<Deleted> {
        let entry = |attached: &Attached| {
            let kind = ReferrerType::of(&attached.manifest.referrer_entry(), attached.tag.as_deref()).to_string();
            let manifest = self.manifest(&attached.manifest.digest(), kind);
            match &attached.tag {
                Some(tag) => Deleted { name: Some(self.sibling(tag)), ..manifest },
                None => manifest,
            }
        };
        self.attached.iter().map(entry).collect()
    }

    /// The name `tag` in the repository of the image.
    fn sibling(&self, tag: &str) -> String {
        match self.target.store.profile().origin {
            Some(origin) => format!("{}/{}:{tag}", origin.host, origin.repository),
            None => tag.to_owned(),
        }
    }

    /// The notes for the user before the deletion.
    pub fn notes(&self, options: DeletionOptions) -> Vec<String> {
        let label = self.label();
        let mut notes = Vec::new();
        if !self.attached.is_empty() && !options.with_referrers {
            let listed: Vec<String> =
                self.referrers().iter().map(|one| format!("{} {}", one.kind, one.digest)).collect();
            let listed = shown(&listed);
            notes.push(match self.attached.len() {
                1 => {
                    format!("{label}: a signature or other referrer stays ({listed}); --with-referrers deletes it too")
                }
                count => format!(
                    "{label}: {count} signatures or other referrers stay ({listed}); --with-referrers deletes them too"
                ),
            });
        }
        if let Some(why) = &self.left_out {
            notes.push(format!("{label}: not all that belongs to the image is listed: {why}"));
        }
        let unknown = self.reach.unknown();
        if options.manifest && unknown > 0 {
            let unknown = counted(unknown, "more tag");
            notes.push(format!(
                "{label}: imgmv did not compare {unknown} of the repository; tags of this image are deleted too, and \
                 an index that lists it loses it"
            ));
        }
        notes
    }

    /// Deletes; each deletion is added to `deleted`. The image comes first, so that it never loses its signatures
    /// before its name.
    pub fn carry_out(&self, options: DeletionOptions, deleted: &mut Vec<Deleted>) -> Result<()> {
        match (options.manifest, &self.root.name) {
            (false, Some(name)) => self.delete_name(name)?,
            (false, None) => return Err(Error::usage(format!("{}: the image has no name", self.label()))),
            (true, _) => {
                if !self.target.deleter.delete_manifest(&self.digest())? {
                    return Err(Error::not_found(format!("{}: the manifest was deleted before", self.label())));
                }
                if let Some(subject) = &self.subject {
                    self.target.deleter.forget_referrer(subject, &self.digest())?;
                }
            }
        }
        deleted.extend(self.own(options));
        if options.with_referrers { self.delete_attached(options, deleted) } else { Ok(()) }
    }

    fn delete_name(&self, name: &Name) -> Result<()> {
        let TagDeletion::Unsupported(answer) = self.target.deleter.delete_name(name)? else { return Ok(()) };
        let NameTargets { targets, unchecked } = self.target.deleter.targets()?;
        let same = targets.into_iter().filter(|(_, target)| target.digest == self.digest());
        let others = same.filter_map(|(other, _)| other).filter(|other| other != name);
        let others: Vec<String> = others.filter_map(|other| other.tag()).collect();
        let mut with = match others.is_empty() {
            true => String::new(),
            false => format!(" and the tags {}", shown(&others)),
        };
        if unchecked > 0 {
            with += &format!(" (and those of {} that imgmv did not compare)", counted(unchecked, "tag"));
        }
        Err(Error::failed(format!(
            "{name}: the registry cannot delete a tag ({answer}); nothing was deleted. --manifest deletes the manifest \
             {}, with it this tag{with}",
            self.digest()
        )))
    }

    fn delete_attached(&self, options: DeletionOptions, deleted: &mut Vec<Deleted>) -> Result<()> {
        let deleter = &self.target.deleter;
        let mut subjects = HashSet::new();
        // Each manifest after those that refer to it.
        for (attached, entry) in self.attached.iter().zip(self.referrers()).rev() {
            let digest = attached.manifest.digest();
            match &attached.tag {
                Some(tag) if !options.manifest => {
                    let name = Name::new(self.sibling(tag))?;
                    if let TagDeletion::Unsupported(answer) = deleter.delete_name(&name)? {
                        return Err(Error::failed(format!(
                            "{name}: the registry cannot delete a tag ({answer}); --manifest deletes the manifests"
                        )));
                    }
                }
                // A registry may delete the referrers together with their subject.
                _ => drop(deleter.delete_manifest(&digest)?),
            }
            subjects.extend(attached.manifest.subject.as_ref().map(|subject| subject.digest));
            deleted.push(entry);
        }
        subjects.iter().try_for_each(|subject| deleter.forget_referrers(subject))
    }
}

/// At most [`MAX_SHOWN_NAMES`] of `names`, and the number of the others.
fn shown(names: &[String]) -> String {
    let listed: Vec<&str> = names.iter().take(MAX_SHOWN_NAMES).map(String::as_str).collect();
    match names.len() - listed.len() {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}
