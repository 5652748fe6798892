//! The images of an archive as a layout would have them: each name leads to the index that the image is a part of, and
//! cosign's tags are names. An archive hides both from engines, which would take them for images.

use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, Name, Reference, digest_tags, media_type};
use crate::source::{Root, Store};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The maximum nesting of indexes, and the maximum number of steps from an image to what belongs to it.
const MAX_DEPTH: usize = 8;
/// The maximum number of tags that are added to the names of a store.
const MAX_ADDED_TAGS: usize = 200_000;

/// Manifests with their tags.
type Tagged = Vec<(String, Descriptor)>;

/// `roots` of `store`, of which each leads to the index that it is a part of, and a root for each tag of cosign that the
/// names of the store do not list.
///
/// # Errors
/// - `Invalid`: there are more than [`MAX_ADDED_TAGS`] tags.
pub(super) fn as_in_a_layout(store: &dyn Store, roots: Vec<Root>) -> Result<Vec<Root>> {
    let tagged: HashMap<String, Descriptor> = store.unlisted_digest_tags().into_iter().collect();
    let (mut served, mut tags): (Vec<Root>, Vec<Root>) = (Vec::new(), Vec::new());
    let mut known: HashMap<(Digest, Option<Digest>), Tagged> = HashMap::new();
    for root in roots {
        let original = root.original.as_ref();
        if !tagged.is_empty() {
            let key = (root.descriptor.digest, original.map(|index| index.digest));
            let belonging = known.entry(key).or_insert_with(|| belonging(store, &root, &tagged));
            if tags.len() + belonging.len() > MAX_ADDED_TAGS {
                return Err(Error::invalid(format!(
                    "the images have more than {MAX_ADDED_TAGS} of cosign's tags; serve fewer images from one place"
                )));
            }
            for (tag, entry) in belonging {
                tags.push(Root::new(Some(sibling(root.name.as_ref(), tag)?), entry.clone()));
            }
        }
        served.push(match &root.original {
            Some(index) => Root { descriptor: index.clone(), ..root },
            None => root,
        });
    }
    served.append(&mut tags);
    Ok(served)
}

/// Those of `tagged` that belong to `root`, to the index that it is a part of, to a child of one of them, or to what
/// belongs to these.
fn belonging(store: &dyn Store, root: &Root, tagged: &HashMap<String, Descriptor>) -> Tagged {
    let (mut subjects, mut found) = (HashSet::new(), BTreeMap::new());
    let mut level: Vec<Descriptor> = root.original.iter().chain([&root.descriptor]).cloned().collect();
    for _ in 0..=MAX_DEPTH {
        let before = subjects.clone();
        level.iter().for_each(|at| add_tree(store, at, 0, &mut subjects));
        level.clear();
        for subject in subjects.difference(&before) {
            // A client that asks for a list that cannot be read gets the error.
            level.extend(store.referrers(subject).map(|list| list.entries).unwrap_or_default());
            for tag in digest_tags(subject) {
                let Some(entry) = tagged.get(&tag) else { continue };
                level.push(entry.clone());
                found.insert(tag, entry.clone());
            }
        }
    }
    found.into_iter().collect()
}

/// Adds `at` and, of an index, its children to `subjects`. What cannot be read has no children here: a client that asks for
/// it gets the error.
fn add_tree(store: &dyn Store, at: &Descriptor, depth: usize, subjects: &mut HashSet<Digest>) {
    if depth > MAX_DEPTH || !subjects.insert(at.digest) || !media_type::is_index(&at.media_type) {
        return;
    }
    if let Ok(index) = Root::new(None, at.clone()).read(store) {
        index.children().iter().for_each(|child| add_tree(store, child, depth + 1, subjects));
    }
}

/// The name `tag` in the repository of `name`; only the tag where `name` has no repository.
///
/// # Errors
/// `Usage` for an invalid name.
fn sibling(name: Option<&Name>, tag: &str) -> Result<Name> {
    match name.and_then(Name::reference) {
        Some(named) => Ok(Name::from(&Reference { tag: Some(tag.to_owned()), digest: None, ..named })),
        None => Name::new(tag),
    }
}
