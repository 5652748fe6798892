//! The files of an image: which manifests it has, and whether all of them still exist.

use super::repository::Repository;
use super::tree::Tree;
use crate::error::{Error, Result};
use crate::image::{Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, Name};
use crate::message::counted;
use std::collections::HashSet;

/// The maximum number of manifests of one image.
const MAX_MANIFESTS: usize = 20_000;
/// The files that an error names.
const MAX_NAMED: usize = 8;

/// An image that was named in this copy.
pub(super) struct NamedImage {
    pub name: Name,
    pub repository: String,
    pub tag: Option<String>,
    pub root: Descriptor,
    /// It is a list of referrers, which may list others than this copy stored.
    pub is_list: bool,
}

impl NamedImage {
    pub fn new(name: &Name, repository: &str, tag: Option<&str>, root: &Descriptor) -> NamedImage {
        let (repository, tag) = (repository.to_owned(), tag.map(str::to_owned));
        NamedImage { name: name.clone(), repository, tag, root: root.clone(), is_list: false }
    }
}

/// The manifests of the image `root`, each behind those below it: those in `written`, which this copy stored, and those
/// whose blobs the tree has too. An index may be stored without some of its images, of which the tree may have a part (a
/// cache).
///
/// Fails with `Invalid` for a damaged manifest, and if there are more than `MAX_MANIFESTS`.
pub(super) fn manifests(tree: &Tree, root: &Descriptor, written: &HashSet<Digest>) -> Result<Vec<Descriptor>> {
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    let mut ahead = vec![Step::Enter(root.clone())];
    while let Some(step) = ahead.pop() {
        let at = match step {
            Step::Leave(at) => {
                found.push(at);
                continue;
            }
            Step::Enter(at) => at,
        };
        let is_needed = at.digest == root.digest || written.contains(&at.digest);
        if !at.names_manifest() || !seen.insert(at.digest) || !is_needed && !is_complete(tree, &at)? {
            continue;
        }
        if seen.len() + ahead.len() > MAX_MANIFESTS {
            return Err(Error::invalid(format!("image {} has more than {MAX_MANIFESTS} manifests", root.digest)));
        }
        let children = manifest(tree, &at)?;
        ahead.push(Step::Leave(at));
        ahead.extend(children.children().iter().take(MAX_MANIFESTS + 1).cloned().map(Step::Enter));
    }
    Ok(found)
}

/// A step of the walk through an image's manifests.
enum Step {
    Enter(Descriptor),
    /// After everything below it.
    Leave(Descriptor),
}

/// Whether the tree has the manifest `at` and its blobs.
fn is_complete(tree: &Tree, at: &Descriptor) -> Result<bool> {
    if tree.size(&at.digest)?.is_none() {
        return Ok(false);
    }
    for blob in manifest(tree, at)?.blobs() {
        if tree.size(&blob.digest)? != Some(blob.size) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads the manifest `at`.
///
/// Fails with `Failed` if it was removed, and with `Invalid` if it is damaged.
pub(super) fn manifest(tree: &Tree, at: &Descriptor) -> Result<Manifest> {
    let bytes = tree.read(&at.digest, MAX_MANIFEST_BYTES)?;
    let bytes =
        bytes.ok_or_else(|| Error::failed(format!("{} was removed during the copy", tree.blob_path(&at.digest))))?;
    Manifest::parse(bytes, at)
}

/// Checks that each link and each blob of `image` still exists, with its content or its size.
///
/// Fails with `Failed` and the files that do not.
pub(super) fn check(tree: &Tree, image: &NamedImage, written: &HashSet<Digest>) -> Result<()> {
    let mut gone = Gone::default();
    if let Err(error) = check_files(tree, image, written, &mut gone) {
        gone.add(error.to_string());
    }
    let NamedImage { name, root, .. } = image;
    match gone.count {
        0 => Ok(()),
        count => {
            let (files, shown) = (counted(count, "file"), gone.shown.join(", "));
            let (were, them) = if count == 1 { ("was", "it") } else { ("were", "them") };
            Err(Error::failed(format!(
                "{name}: {files} of image {} {were} removed or changed after imgmv wrote {them} ({shown}); stop the \
                 registry's garbage collection, or what else removes them, and run the same command again",
                root.digest
            )))
        }
    }
}

fn check_files(tree: &Tree, image: &NamedImage, written: &HashSet<Digest>, gone: &mut Gone) -> Result<()> {
    let Some(repository) = tree.repository(&image.repository)? else {
        gone.add(format!("repository {}", image.repository));
        return Ok(());
    };
    // Another process may have moved the tag.
    if let Some(tag) = &image.tag {
        if repository.current(tag)?.is_none() {
            gone.add(format!("the link of tag {tag}"));
        }
        if repository.tag_index(tag, &image.root.digest)? != Some(image.root.digest) {
            gone.add(format!("the index link of tag {tag} to {}", image.root.digest));
        }
    }
    if image.is_list {
        // Another process may have replaced the list too, and removed this one.
        return Ok(());
    }
    for at in manifests(tree, &image.root, written)? {
        if repository.revision(&at.digest)? != Some(at.digest) {
            gone.add(format!("the revision link of {}", at.digest));
        }
        for blob in manifest(tree, &at)?.blobs() {
            check_blob(tree, &repository, blob, gone)?;
        }
    }
    Ok(())
}

fn check_blob(tree: &Tree, repository: &Repository, blob: &Descriptor, gone: &mut Gone) -> Result<()> {
    if repository.linked(&blob.digest)? != Some(blob.digest) {
        gone.add(format!("the layer link of {}", blob.digest));
    }
    if tree.size(&blob.digest)? != Some(blob.size) {
        gone.add(tree.blob_path(&blob.digest));
    }
    Ok(())
}

#[derive(Default)]
struct Gone {
    count: usize,
    shown: Vec<String>,
}

impl Gone {
    fn add(&mut self, what: String) {
        self.count += 1;
        if self.shown.len() < MAX_NAMED {
            self.shown.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::directory::Directory;
    use crate::image::media_type;
    use serde_json::json;
    use std::fs;
    use std::path::Path;

    /// Stores `bytes` as a blob of the tree at `base`.
    fn put(base: &Path, media_type: &str, bytes: &[u8]) -> Descriptor {
        let blob = Descriptor::of(media_type, bytes);
        let hex = blob.digest.hex();
        let directory = base.join("blobs/sha256").join(&hex[..2]).join(&hex);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("data"), bytes).unwrap();
        blob
    }

    fn index(base: &Path, children: &[&Descriptor]) -> Descriptor {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children });
        put(base, media_type::OCI_INDEX, index.to_string().as_bytes())
    }

    #[test]
    fn a_manifest_comes_behind_everything_below_it() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        let config = put(base, media_type::OCI_CONFIG, b"{}");
        let image =
            json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [] });
        let image = put(base, media_type::OCI_MANIFEST, image.to_string().as_bytes());
        let inner = index(base, &[&image]);
        let tree = Tree::at(Directory::open(base).unwrap());
        // The image is below both indexes, in either order.
        for children in [[&inner, &image], [&image, &inner]] {
            let root = index(base, &children);
            let found = manifests(&tree, &root, &HashSet::new()).unwrap();
            let digests: Vec<Digest> = found.iter().map(|one| one.digest).collect();
            assert_eq!(digests, [image.digest, inner.digest, root.digest]);
        }
    }
}
