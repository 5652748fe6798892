//! The referrers in a repository, and the manifests under cosign's tags. A registry of this kind has no API for referrers, so clients keep a list of
//! them, an index, under the tag `ALG-HEX` of the subject (distribution-spec, "Referrers Tag Schema").

use super::repository::Repository;
use super::store::{manifest, root_at};
use super::tree::Tree;
use crate::error::Result;
use crate::image::{Descriptor, Digest, Manifest, digest_tags, referrers_tag};

/// The referrers of `subject` that `repository` lists.
pub(super) fn list(tree: &Tree, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>> {
    let tag = referrers_tag(subject);
    if repository.current(&tag)?.is_none() {
        return Ok(Vec::new());
    }
    let (digest, data) = repository.tagged(&tag)?;
    let bytes = manifest(tree, Some(data), &digest)?;
    let claim = Descriptor::new("", digest, bytes.len() as u64);
    Ok(Manifest::parse(bytes, &claim)?.children().to_vec())
}

/// The manifests under cosign's tags for `subject` in `repository`.
pub(super) fn digest_tagged(
    tree: &Tree,
    repository: &Repository,
    subject: &Digest,
) -> Result<Vec<(String, Descriptor)>> {
    let mut found = Vec::new();
    for tag in digest_tags(subject) {
        if repository.current(&tag)?.is_some() {
            let (digest, data) = repository.tagged(&tag)?;
            found.push((tag, root_at(tree, None, &digest, &data)?.descriptor));
        }
    }
    Ok(found)
}
