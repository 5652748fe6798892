//! The manifests that still belong to an image of which only a part is copied, or whose digests a conversion changes.

use crate::image::{Attached, Digest, Manifest, tagged_subject};
use std::collections::HashSet;
use std::iter;

/// The digests of `index`, and of what it and the indexes of `attached` below it list.
pub(super) fn parts_of(index: &Manifest, attached: &[Attached]) -> HashSet<Digest> {
    let mut parts = HashSet::from([index.digest()]);
    // Each is attached before the index that lists it.
    for manifest in iter::once(index).chain(attached.iter().rev().map(|one| &one.manifest)) {
        if parts.contains(&manifest.digest()) {
            parts.extend(manifest.children().iter().map(|child| child.digest));
        }
    }
    parts
}

/// Those of `attached` that belong to a manifest of `tree`, or to one another.
pub(super) fn still_attached<'a>(attached: impl Iterator<Item = &'a Attached>, tree: &[Manifest]) -> Vec<Attached> {
    let mut subjects: HashSet<Digest> = tree.iter().map(Manifest::digest).collect();
    let belongs = |one: &&Attached| match (&one.tag, &one.manifest.subject) {
        (Some(tag), _) if tagged_subject(tag).is_some_and(|subject| subjects.contains(&subject)) => {
            subjects.insert(one.manifest.digest());
            true
        }
        (Some(_), _) => false,
        (None, Some(subject)) => subjects.contains(&subject.digest) && subjects.insert(one.manifest.digest()),
        // The index that the image is a part of, or a child of an index that comes after it.
        (None, None) => subjects.insert(one.manifest.digest()),
    };
    attached.filter(belongs).cloned().collect()
}
