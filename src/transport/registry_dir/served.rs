//! The links that a registry follows to serve an image. imgmv reads the blobs of the tree without them.

use super::repository::Repository;
use super::tree::Tree;
use crate::error::Result;
use crate::image::{Digest, Manifest};
use crate::source::BrokenLinks;
use std::collections::HashSet;

/// The search for the broken links of one image.
pub(super) struct ServedImage<'t> {
    tree: &'t Tree,
    pub broken: BrokenLinks,
    seen: HashSet<(String, Digest)>,
}

impl<'t> ServedImage<'t> {
    pub fn new(tree: &'t Tree) -> ServedImage<'t> {
        ServedImage { tree, broken: BrokenLinks::default(), seen: HashSet::new() }
    }

    /// Adds the links of `manifest` and its blobs in `repository` that are missing, broken, or lead to other data.
    pub fn check(&mut self, repository: &Repository, manifest: &Manifest) {
        let digest = manifest.digest();
        if self.is_new(repository, &digest) {
            self.check_link(&digest, repository.revision(&digest), &repository.revision_path(&digest));
        }
        for blob in manifest.blobs() {
            if self.is_new(repository, &blob.digest) {
                let found = repository.layer(&blob.digest);
                self.check_link(&blob.digest, found, &repository.layer_path(&blob.digest));
            }
        }
    }

    fn is_new(&mut self, repository: &Repository, digest: &Digest) -> bool {
        self.seen.insert((repository.name().to_owned(), *digest))
    }

    fn check_link(&mut self, digest: &Digest, target: Result<Option<Digest>>, path: &str) {
        let target = match target {
            Err(error) => return self.broken.add(error),
            Ok(None) => return self.broken.add(format!("the link {path} is missing")),
            Ok(Some(target)) => target,
        };
        // A registry stores a push by sha512 as sha256 data.
        let may_differ = target.algorithm() != digest.algorithm();
        match target == *digest || may_differ && self.tree.size(&target).is_ok_and(|size| size.is_some()) {
            true => {}
            false if may_differ => self.broken.add(format!("the link {path} leads to {target}, which is missing")),
            false => self.broken.add(format!("the link {path} leads to {target}, expected {digest}")),
        }
    }
}
