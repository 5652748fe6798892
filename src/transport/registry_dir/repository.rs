//! One repository of a tree: its tags and links.

use super::image_name::image_name;
use super::link;
use crate::disk::directory::Directory;
use crate::error::{Error, Result};
use crate::image::{Digest, Name, is_tag};

pub(super) const LAYERS: &str = "_layers";
pub(super) const MANIFESTS: &str = "_manifests";
pub(super) const REVISIONS: &str = "revisions";
pub(super) const TAGS: &str = "tags";
pub(super) const CURRENT: &str = "current";
/// The links to all manifests that a tag pointed at.
pub(super) const INDEX: &str = "index";
/// The maximum number of tags of one repository.
const MAX_TAGS: usize = 100_000;

/// An open repository.
#[derive(Debug)]
pub(super) struct Repository {
    name: String,
    directory: Directory,
    manifests: Directory,
}

impl Repository {
    /// The maximum length of a name, in bytes (distribution-spec: with the host, 255 characters).
    pub const MAX_NAME_BYTES: usize = 255;

    /// The repository in `directory`; `None` if it has no `_manifests`.
    pub fn new(name: &str, directory: Directory) -> Result<Option<Repository>> {
        let manifests = directory.subdirectory(MANIFESTS)?;
        Ok(manifests.map(|manifests| Repository { name: name.to_owned(), directory, manifests }))
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every folder in `tags` that is a tag, in any order.
    ///
    /// Fails with `Invalid` if there are more than `MAX_TAGS`.
    pub fn tags(&self) -> Result<Vec<String>> {
        let Some(tags) = self.manifests.subdirectory(TAGS)? else { return Ok(Vec::new()) };
        let (mut names, shown) = (Vec::new(), tags.path().display().to_string());
        tags.each_folder(MAX_TAGS, |name| {
            if is_tag(name) {
                names.push(name.to_owned());
            }
            Ok(())
        })
        .map_err(|e| e.at(&shown))?;
        Ok(names)
    }

    /// The names of the tags that point at a manifest. Links are not read.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut names = Vec::new();
        for tag in self.tags()? {
            let current = self.manifests.descend(&[TAGS, &tag, CURRENT])?;
            // The folder of a tag that a registry is just writing has no link yet.
            if current.map(|current| current.size(link::LINK)).transpose()?.flatten().is_some() {
                names.push(image_name(&self.name, &tag)?);
            }
        }
        Ok(names)
    }

    /// The manifest that `tag` points at; `None` if the repository does not have the tag.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn current(&self, tag: &str) -> Result<Option<Digest>> {
        if !is_tag(tag) {
            return Ok(None);
        }
        match self.manifests.descend(&[TAGS, tag, CURRENT])? {
            Some(current) => link::read(&current),
            None => Ok(None),
        }
    }

    /// The target of `tag`'s index link to `digest`, which a registry follows to delete the manifest; `None` if it is
    /// missing.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn tag_index(&self, tag: &str, digest: &Digest) -> Result<Option<Digest>> {
        match self.manifests.descend(&[TAGS, tag, INDEX])? {
            Some(index) => link::target(&index, digest),
            None => Ok(None),
        }
    }

    /// The data of the manifest `digest`; `None` if the repository does not have it.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn revision(&self, digest: &Digest) -> Result<Option<Digest>> {
        match self.manifests.subdirectory(REVISIONS)? {
            Some(revisions) => link::target(&revisions, digest),
            None => Ok(None),
        }
    }

    /// The data of the blob or manifest `digest`; `None` if the repository has no link to it.
    ///
    /// Fails with `Invalid` if the link is broken.
    pub fn linked(&self, digest: &Digest) -> Result<Option<Digest>> {
        let layer = match self.directory.subdirectory(LAYERS)? {
            Some(layers) => link::target(&layers, digest)?,
            None => None,
        };
        if layer.is_some() { Ok(layer) } else { self.revision(digest) }
    }

    /// The data of the manifest that `tag` points at, and its digest.
    ///
    /// Fails with `NotFound` if the tag is missing or dangles, and with `Invalid` if a link is broken.
    pub fn tagged(&self, tag: &str) -> Result<(Digest, Digest)> {
        let name = &self.name;
        let missing = || Error::not_found(format!("repository {name} has no tag {tag}"));
        let digest = self.current(tag)?.ok_or_else(missing)?;
        Ok((digest, self.manifest(&digest).map_err(|e| e.at(format!("{name}:{tag}")))?))
    }

    /// The data of the manifest `digest`.
    ///
    /// Fails with `NotFound` if the repository has no revision link for it.
    pub fn manifest(&self, digest: &Digest) -> Result<Digest> {
        self.revision(digest)?.ok_or_else(|| {
            let path = format!("{REVISIONS}/{}/{}/{}", digest.algorithm().name(), digest.hex(), link::LINK);
            Error::not_found(format!(
                "manifest {digest} was deleted, or the tree is damaged: {} is missing; if the data still exists, \
                 :@{digest} reads it",
                self.manifests.display(&path)
            ))
        })
    }
}
