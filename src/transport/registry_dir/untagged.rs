//! The manifests of a repository that no tag leads to: a copy of all tags leaves them out.

use super::image_name::in_tree;
use super::repository::Repository;
use super::store::manifest;
use super::tree::Tree;
use super::walk::each_repository;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Manifest, media_type};
use crate::source::Root;
use std::collections::{HashMap, HashSet};

/// The maximum number of manifests that are named.
const MAX_NAMED: usize = 3;

/// Sentences about the manifests of `tree` that no tag leads to. Its tags lead to `roots`.
pub(super) fn sentences(tree: &Tree, roots: &[Root]) -> Vec<String> {
    let mut tagged: HashMap<String, Vec<Descriptor>> = HashMap::new();
    for root in roots {
        if let Some(named) = root.name.as_ref().and_then(in_tree) {
            tagged.entry(named.repository).or_default().push(root.descriptor.clone());
        }
    }
    let (mut untagged, mut sentences) = (Untagged::default(), Vec::new());
    let searched = each_repository(tree, |found| {
        let repository = found?;
        let roots = tagged.remove(repository.name()).unwrap_or_default();
        untagged.search(tree, &repository, roots)
    });
    if let Err(error) = searched {
        sentences.push(format!("manifests without a tag were not searched completely: {error}"));
    }
    sentences.extend(untagged.sentence());
    sentences
}

/// The manifests of several repositories that no tag leads to.
#[derive(Default)]
struct Untagged {
    count: usize,
    /// The first of them, as `REPO@DIGEST`.
    named: Vec<String>,
}

impl Untagged {
    /// Adds those of `repository`, whose tags lead to `roots`.
    ///
    /// Fails with the error of a folder or link that cannot be read.
    fn search(&mut self, tree: &Tree, repository: &Repository, roots: Vec<Descriptor>) -> Result<()> {
        let reached = reached(tree, roots);
        for digest in repository.revisions()?.into_iter().filter(|digest| !reached.contains(digest)) {
            // A registry that deletes a manifest leaves the folder of its link.
            if repository.revision(&digest)?.is_some_and(|data| tree.size(&data).is_ok_and(|size| size.is_some())) {
                self.count += 1;
                if self.named.len() < MAX_NAMED {
                    self.named.push(format!("{}@{digest}", repository.name()));
                }
            }
        }
        Ok(())
    }

    /// The sentence about them; `None` if there are none.
    fn sentence(&self) -> Option<String> {
        let more = self.count.saturating_sub(self.named.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let (are, them) = if self.count == 1 { (" is", "it") } else { ("s are", "one of them") };
        (self.count > 0).then(|| {
            format!(
                "{} manifest{are} without a tag and left out ({}{more}); select {them} as registry-dir:DIR:REPO@sha256:…",
                self.count,
                self.named.join(", ")
            )
        })
    }
}

/// The digests of `roots` and everything below them. What cannot be read has nothing below it.
fn reached(tree: &Tree, roots: Vec<Descriptor>) -> HashSet<Digest> {
    let (mut ahead, mut reached) = (roots, HashSet::new());
    while let Some(at) = ahead.pop() {
        if !reached.insert(at.digest) || !media_type::is_index(&at.media_type) {
            continue;
        }
        let parsed = manifest(tree, Some(at.digest), &at.digest).and_then(|bytes| Manifest::parse(bytes, &at));
        ahead.extend(parsed.iter().flat_map(|index| index.children()).cloned());
    }
    reached
}
