//! The search for the manifests that belong to an image in a store: its referrers and the manifests under cosign's tags,
//! those of its children, and in the same way what belongs to each manifest that was found.
//!
//! A store that lists too many, or lists manifests that it does not have, does not stop the search: the rest is found,
//! with the first reason why something is left out.

use super::{ReferrerList, Root, Selector, Store};
use crate::cancel::Cancel;
use crate::error::{Kind, Result};
use crate::image::{
    Attached, Descriptor, Digest, Image, MAX_COPIED_REFERRERS, Manifest, Name, ReferrerType, media_type, tagged_subject,
};
use crate::message::counted;
use crate::parallel;
use std::collections::HashSet;
use std::iter;

/// The maximum number of steps from an image to a referrer.
pub(crate) const MAX_DEPTH: usize = 8;
/// The maximum size of the manifests that are read for one image, together.
const MAX_ATTACHED_BYTES: u64 = 256 << 20;
/// The size that a smaller manifest counts, so that the number of requests is bounded too.
const MIN_COUNTED_BYTES: u64 = 1 << 10;
const MAX_PARALLEL_REQUESTS: usize = 8;
/// The maximum number of reasons that are recorded.
const MAX_UNREADABLE: usize = 100;

/// The manifests that belong to one image.
pub(crate) struct Found {
    /// Each after what it lists itself.
    pub attached: Vec<Attached>,
    /// The first reason why something is left out.
    pub left_out: Option<String>,
    /// The lists and manifests that cannot be read completely, and why; at most [`MAX_UNREADABLE`].
    pub unreadable: Vec<String>,
}

/// Finds what belongs to `image` in `store`; only `types`, unless they are empty.
///
/// # Errors
/// `Network`, `RemoteHost` and `Interrupted`. Other errors are a reason to leave something out.
pub(crate) fn attached_to(image: &Image, store: &dyn Store, types: &[ReferrerType], cancel: &Cancel) -> Result<Found> {
    attached_to_all(image, &[], store, types, cancel)
}

/// As [`attached_to`] for each of `images`, in their order, with what belongs to an index of which the image is only a
/// part; several at the same time where each request takes long.
///
/// # Errors
/// Those of [`attached_to`].
pub(crate) fn attached_to_each(
    images: &[Image],
    store: &dyn Store,
    types: &[ReferrerType],
    cancel: &Cancel,
) -> Result<Vec<Found>> {
    // The store learns from the first image how the registry lists referrers.
    let (first, rest) = images.split_at(images.len().min(1));
    let find = |image: &Image| {
        let source = Some(image.source_digest).filter(|_| !image.synthesised);
        attached_to_all(image, source.as_slice(), store, types, cancel)
    };
    let mut found = first.iter().map(find).collect::<Result<Vec<_>>>()?;
    found.extend(parallel::try_map(rest, parallel_requests(store), find)?);
    Ok(found)
}

/// The number of requests to `store` at the same time; 1 if a request costs no time.
fn parallel_requests(store: &dyn Store) -> usize {
    let profile = store.profile();
    if profile.is_remote { profile.parallel_reads.clamp(1, MAX_PARALLEL_REQUESTS) } else { 1 }
}

/// As [`attached_to`], with what belongs to the manifests `also`.
pub(crate) fn attached_to_all(
    image: &Image,
    also: &[Digest],
    store: &dyn Store,
    types: &[ReferrerType],
    cancel: &Cancel,
) -> Result<Found> {
    let found = Found { attached: Vec::new(), left_out: None, unreadable: Vec::new() };
    let (is_sparse, seen, asked) = (store.profile().is_sparse, HashSet::new(), HashSet::new());
    let search = Search { store, is_sparse, types, cancel, seen, asked, refused: HashSet::new(), bytes: 0, found };
    search.attached_to(image, also)
}

/// The roots of `store` that `selectors` select; without any, all that are images and do not belong to another one.
///
/// # Errors
/// Those of [`Store::roots`].
pub(crate) fn image_roots(store: &dyn Store, selectors: &[Selector]) -> Result<Vec<Root>> {
    let roots = store.roots(selectors)?;
    if selectors.is_empty() { Ok(split(store, roots)?.0) } else { Ok(roots) }
}

/// The message for a `store` without any image.
pub(crate) fn no_image_message(store: &dyn Store) -> String {
    let empty = store.profile().empty_message;
    match store.roots(&[]) {
        Ok(roots) if !roots.is_empty() => format!(
            "the source has {}, all of which are signatures or other referrers of images without a name; select an \
             image by its digest",
            counted(roots.len(), "manifest")
        ),
        _ => empty,
    }
}

/// The images among `roots`, which are all of `store`, and those that belong to another one.
pub(crate) fn split(store: &dyn Store, roots: Vec<Root>) -> Result<(Vec<Root>, Vec<Root>)> {
    let here: HashSet<Digest> = roots.iter().map(|root| root.descriptor.digest).collect();
    let (mut images, mut belonging) = (Vec::new(), Vec::new());
    for root in roots {
        match belongs_to_another(&root, store, &here)? {
            true => belonging.push(root),
            false => images.push(root),
        }
    }
    Ok((images, belonging))
}

/// Whether `root` belongs to another manifest that `store` has. `here` are the digests of all roots of the store.
fn belongs_to_another(root: &Root, store: &dyn Store, here: &HashSet<Digest>) -> Result<bool> {
    match subject_of(root, store) {
        Some(subject) => Ok(here.contains(&subject) || store.find(&subject)?.is_some()),
        None => Ok(false),
    }
}

/// The manifest to which `root` belongs, by its tag or its subject.
pub(crate) fn subject_of(root: &Root, store: &dyn Store) -> Option<Digest> {
    match root.name.as_ref().map(Name::tag) {
        Some(tag) => tag.as_deref().and_then(tagged_subject),
        None => root.read(store).ok()?.subject.map(|subject| subject.digest),
    }
}

/// The digest tags of a subject, each with its manifest.
type Tagged = Vec<(String, Descriptor)>;

/// The answer of a store about one subject.
enum Answer {
    Referrers(Result<ReferrerList>),
    Tagged(Result<Tagged>),
}

type Question = fn(&dyn Store, &Digest) -> Answer;

/// The questions about each subject.
const QUESTIONS: [Question; 2] = [
    |store, subject| Answer::Referrers(store.referrers(subject)),
    |store, subject| Answer::Tagged(store.digest_tagged(subject)),
];

struct Search<'r> {
    store: &'r dyn Store,
    is_sparse: bool,
    types: &'r [ReferrerType],
    cancel: &'r Cancel,
    /// The manifests of the image, and those that belong to it.
    seen: HashSet<Digest>,
    /// The subjects that the store was asked about.
    asked: HashSet<Digest>,
    /// The manifests that cannot be read; none is asked for twice.
    refused: HashSet<Digest>,
    /// The size of the manifests that were asked for, whether or not they could be read.
    bytes: u64,
    found: Found,
}

impl Search<'_> {
    fn attached_to(mut self, image: &Image, also: &[Digest]) -> Result<Found> {
        self.seen.extend(image.tree.iter().map(Manifest::digest));
        // The source does not know a manifest that was made here.
        let made_here = |manifest: &Manifest| {
            let (digest, is_index) = (manifest.digest(), media_type::is_index(&manifest.descriptor.media_type));
            digest == image.root().digest() && (image.synthesised || is_index && digest != image.source_digest)
        };
        // The root comes first: it is the one that is most likely signed.
        let own = image.original.iter().chain(image.tree.iter().rev());
        // Parts of the index that the image is a part of are attached already.
        let own = own.chain(image.attached.iter().map(|part| &part.manifest)).filter(|manifest| !made_here(manifest));
        let own: Vec<Digest> = own.map(Manifest::digest).collect();
        let mut level: Vec<Digest> = own.iter().chain(also).copied().filter(|one| self.asked.insert(*one)).collect();
        for depth in 1.. {
            if level.is_empty() {
                break;
            }
            let before = self.found.attached.len();
            self.ask_about(&level, depth)?;
            let (found, asked) = (self.found.attached.iter().skip(before), &mut self.asked);
            level = found.map(|one| one.manifest.digest()).filter(|digest| asked.insert(*digest)).collect();
        }
        Ok(self.found)
    }

    /// Adds what belongs to `subjects`, which are `depth` - 1 steps away from the image.
    fn ask_about(&mut self, subjects: &[Digest], depth: usize) -> Result<()> {
        // The store learns from the first subject how the registry lists referrers.
        let (first, rest) = subjects.split_at(usize::from(depth == 1).min(subjects.len()));
        let threads = parallel_requests(self.store);
        for asked in iter::once(first).chain(rest.chunks(threads.div_ceil(QUESTIONS.len()))) {
            let questions = asked.iter().flat_map(|subject| QUESTIONS.map(|question| (subject, question)));
            let questions: Vec<(&Digest, Question)> = questions.collect();
            let (store, cancel) = (self.store, self.cancel);
            let ask = |(subject, question): &(&Digest, Question)| cancel.check().map(|()| question(store, subject));
            for ((subject, _), answer) in questions.iter().zip(parallel::try_map(&questions, threads, ask)?) {
                match answer {
                    Answer::Referrers(list) => self.add_referrers(subject, list, depth)?,
                    Answer::Tagged(tagged) => self.add_tagged(subject, tagged, depth)?,
                }
            }
        }
        Ok(())
    }

    fn add_referrers(&mut self, subject: &Digest, answer: Result<ReferrerList>, depth: usize) -> Result<()> {
        let Some(list) = self.unless_unreadable(answer, &format!("the referrers of {subject}"))? else {
            return Ok(());
        };
        let ReferrerList { mut entries, incomplete } = list;
        if let Some(why) = incomplete {
            self.leave_out_unreadable(why);
        }
        if entries.len() > MAX_COPIED_REFERRERS {
            self.leave_out(format!("{subject} has more than {MAX_COPIED_REFERRERS} referrers"));
            entries.truncate(MAX_COPIED_REFERRERS);
        }
        // A manifest that this list should not have may still be a referrer of another subject, so this is for each list.
        let mut listed = HashSet::new();
        for entry in entries {
            self.cancel.check()?;
            if self.seen.contains(&entry.digest) || !listed.insert(entry.digest) {
                continue;
            }
            if self.is_too_deep(depth) {
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
            self.add(Attached::new(manifest, None))?;
        }
        Ok(())
    }

    fn add_tagged(&mut self, subject: &Digest, answer: Result<Tagged>, depth: usize) -> Result<()> {
        let tagged = self.unless_unreadable(answer, &format!("cosign's tags for {subject}"))?;
        for (tag, entry) in tagged.unwrap_or_default() {
            if self.is_too_deep(depth) {
                return Ok(());
            }
            let Some(manifest) = self.manifest(&entry)? else { continue };
            self.add(Attached::new(manifest, Some(tag)))?;
        }
        Ok(())
    }

    /// Whether what is `depth` steps away from the image is left out.
    fn is_too_deep(&mut self, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            self.leave_out(format!("referrers of referrers are more than {MAX_DEPTH} steps away from the image"));
        }
        depth > MAX_DEPTH
    }

    /// Adds `attached`, after what it lists itself, if the user wants its type and it can be copied.
    fn add(&mut self, attached: Attached) -> Result<()> {
        if !self.types.is_empty() && !self.types.iter().any(|wanted| wanted.matches(&attached)) {
            return Ok(());
        }
        if !self.has_blobs(&attached.manifest)? {
            return Ok(());
        }
        self.children(&attached.manifest, 1)?;
        self.seen.insert(attached.manifest.digest());
        self.found.attached.push(attached);
        Ok(())
    }

    /// Adds the children of `index` that the source has.
    fn children(&mut self, index: &Manifest, depth: usize) -> Result<()> {
        for child in index.children() {
            if depth > MAX_DEPTH || !self.seen.insert(child.digest) {
                continue;
            }
            let Some(manifest) = self.manifest(child)? else { continue };
            if !self.has_blobs(&manifest)? {
                continue;
            }
            self.children(&manifest, depth + 1)?;
            self.found.attached.push(Attached::new(manifest, None));
        }
        Ok(())
    }

    /// Reads the manifest `entry`; `None` where it is left out.
    fn manifest(&mut self, entry: &Descriptor) -> Result<Option<Manifest>> {
        if self.refused.contains(&entry.digest) {
            return Ok(None);
        }
        let bytes = self.bytes.saturating_add(entry.size.max(MIN_COUNTED_BYTES));
        if bytes > MAX_ATTACHED_BYTES {
            self.leave_out(format!("the manifests have more than {MAX_ATTACHED_BYTES} bytes together"));
            return Ok(None);
        }
        self.bytes = bytes;
        let answer = Root::new(None, entry.clone()).read(self.store);
        let manifest = self.unless_unreadable(answer, &format!("referrer {}", entry.digest))?;
        if manifest.is_none() {
            self.refused.insert(entry.digest);
        }
        Ok(manifest)
    }

    /// Whether the source has the blobs of `manifest`, where that costs no request. Otherwise the manifest is left out.
    fn has_blobs(&mut self, manifest: &Manifest) -> Result<bool> {
        for blob in manifest.blobs().into_iter().filter(|_| self.is_sparse) {
            let why = match self.store.find(&blob.digest)? {
                None if blob.embedded().is_none() => "is missing".to_owned(),
                // A size of 0 is not known.
                Some(found) if ![0, blob.size].contains(&found.size) => {
                    format!("has {} bytes, expected {}", found.size, blob.size)
                }
                _ => continue,
            };
            self.leave_out_unreadable(format!(
                "referrer {} is not complete (its blob {} {why})",
                manifest.digest(),
                blob.digest
            ));
            return Ok(false);
        }
        Ok(true)
    }

    /// `answer`, or `None` where the source cannot give `what` and the copy can do without it.
    fn unless_unreadable<T>(&mut self, answer: Result<T>, what: &str) -> Result<Option<T>> {
        match answer {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid | Kind::Denied | Kind::Failed) => {
                self.leave_out_unreadable(format!("{what} cannot be read ({error})"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn leave_out_unreadable(&mut self, why: String) {
        let unreadable = &mut self.found.unreadable;
        if unreadable.len() < MAX_UNREADABLE && !unreadable.contains(&why) {
            unreadable.push(why.clone());
        }
        self.leave_out(why);
    }

    fn leave_out(&mut self, why: String) {
        self.found.left_out.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests;
